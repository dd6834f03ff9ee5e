# Some tests look at JupyterLab in a browser. Install Chromium where that is possible and it is missing; else say so:
# those tests are skipped then.
for program in chromium chromium-browser google-chrome; do
    command -v "$program" >/dev/null && exit 0
done
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing what some tests need: chromium (a minute)"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 && exit 0
fi
echo "not here: chromium. The tests that need it are skipped (install it to run them)"
