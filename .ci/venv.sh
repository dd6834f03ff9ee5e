# Make the virtual environment $1 with this package and what its tests need. Prints one line on what it does.
#
# Uses $PYTHON, or the first of python3, python3.13, python3.12, python3.11, python that is 3.11 or newer.
# An environment that is there already is kept and brought up to date.
set -eu
venv=$1

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if ! recent "$venv/bin/python"; then
    python=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if recent "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "no ${PYTHON:-python3}")
        echo "p2p_ipython needs Python 3.11 or newer, and here is $found." >&2
        echo "Install one, and say where it is: make PYTHON=/path/to/python3.11 …" >&2
        exit 1
    fi
    # Debian and Ubuntu ship Python without the parts that make environments.
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
            echo "installing python3-venv, which $python lacks"
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv; } >/dev/null
        else
            echo "$python can't make virtual environments: a part of it, venv or ensurepip, is missing." >&2
            echo "Install it, and run make again: sudo apt-get install python3-venv" >&2
            exit 1
        fi
    fi
    echo "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

echo "installing p2p_ipython and what its notebooks and tests need into $venv (a minute or two the first time)"
SKIP_JUPYTER_BUILDER=1 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[test]'
