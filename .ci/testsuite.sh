# Some tests are CPython's own. Where this Python ($1) comes without them, install Debian's where that is possible; else
# say so: those tests are skipped then.
version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$1" -c 'import test.test_concurrent_futures' 2>/dev/null && exit 0
ls "/usr/lib/python$version/test/"test_concurrent_futures* >/dev/null 2>&1 && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "installing what some tests need: libpython$version-testsuite"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "libpython$version-testsuite"; } >/dev/null 2>&1 && exit 0
fi
echo "not here: CPython's own tests. The tests that need them are skipped (install libpython$version-testsuite to run them)"
