# Some tests run OpenSSH's client and agent against the board, and go through its server as a jump host. Install them
# where that is possible and they are missing; else say so: those tests are skipped then.
missing=
for program in ssh ssh-keygen ssh-agent; do
    command -v "$program" >/dev/null || missing="openssh-client"
done
[ -x /usr/sbin/sshd ] || command -v sshd >/dev/null || missing="$missing openssh-server"
# Without the system's service nobody has made the folder that Debian's sshd insists on.
ready() { [ "$(id -u)" -ne 0 ] || [ -d /run/sshd ] || mkdir -m 0755 /run/sshd; }
[ -z "$missing" ] && { ready; exit 0; }
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing what some tests need: $missing"
    # Debian would start a server of the system's; none is wanted here.
    { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends $missing; } >/dev/null 2>&1 && { ready; exit 0; }
fi
echo "not here: $missing. The tests that need it are skipped (install it to run them)"
