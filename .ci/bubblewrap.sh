# Some tests run tasks in bubblewrap. Install Debian's where that is possible and it is missing; else say so: those
# tests are skipped then.
command -v bwrap >/dev/null && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing what some tests need: bubblewrap"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends bubblewrap; } >/dev/null 2>&1 && exit 0
fi
echo "not here: bubblewrap. The tests that need it are skipped (install it to run them)"
