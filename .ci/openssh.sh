# Some tests run OpenSSH's client against the board. Install it where that is possible and it is missing; else
# say so: those tests are skipped then.
for program in ssh ssh-keygen ssh-agent; do
    command -v "$program" >/dev/null && continue
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "installing openssh-client: the tests use $program"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y openssh-client; } >/dev/null && exit 0
    fi
    echo "no $program here: the tests that need it are skipped (install OpenSSH's client to run them)"
    exit 0
done
