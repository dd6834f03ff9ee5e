# Two tests have another implementation of Magic Wormhole use the board's mailbox. Install it where that is possible and
# it is missing; else say so: those tests are skipped then.
command -v wormhole-william >/dev/null && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing what some tests need: wormhole-william"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends wormhole-william; } >/dev/null 2>&1 && exit 0
fi
echo "not here: wormhole-william. The tests that need it are skipped (install it to run them)"
