# Some tests run tasks in bubblewrap, and give them the internet by pasta and nft. Install Debian's where that is possible
# and one is missing; else say so: those tests are skipped then.
missing=
for each in bwrap:bubblewrap pasta:passt nft:nftables; do
    PATH="$PATH:/usr/sbin" command -v "${each%:*}" >/dev/null || missing="$missing ${each#*:}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing what some tests need:$missing"
    # shellcheck disable=SC2086
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends $missing; } >/dev/null 2>&1 && exit 0
fi
echo "not here:$missing. The tests that need it are skipped (install it to run them)"
