# The attacks run in each sandbox that is installed. Install what Debian has of them where that is possible and it is
# missing; else say so: what is missing is skipped then. Apptainer is in newer releases than Debian 13 only.
sh .ci/bubblewrap.sh
missing=
for pair in podman:podman crun:crun runc:runc newuidmap:uidmap dockerd:docker.io firejail:firejail \
    qemu-system-x86_64:qemu-system-x86 mksquashfs:squashfs-tools busybox:busybox-static; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing what some attacks need:$missing"
    # Debian would start a service of the system's; none is wanted here.
    { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends $missing; } >/dev/null 2>&1 && missing=
fi
if ! command -v apptainer >/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null && [ -n "$(apt-cache madison apptainer 2>/dev/null)" ]; then
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends apptainer >/dev/null 2>&1 ||
            missing="$missing apptainer"
    else
        missing="$missing apptainer"
    fi
fi
[ -z "$missing" ] || echo "not here:$missing. The attacks on these sandboxes are skipped (install them to run those)"
