# Run the tests of what depends on IPython and the board's servers with the oldest versions that pyproject.toml allows,
# in the virtual environment $1, which is made for it. Tests may be named as further arguments. Takes minutes.
set -eu
venv=$1
shift
if [ ! -x "$venv/bin/pytest" ]; then
    echo "making $venv with the oldest versions that pyproject.toml allows"
    "${PYTHON:-python3}" -m venv --clear "$venv"
    # The floors themselves; numpy and the like come as they are, for the tests.
    "$venv/bin/python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*(each.replace(">=", "==") for each in tomllib.load(file)["project"]["dependencies"]), sep="\n")' \
        > "$venv/floors.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$venv/floors.txt" \
        hypothesis matplotlib numpy pandas pytest pytest-timeout
fi
[ $# -gt 0 ] || set -- tests/sandbox tests/worker/test_slots.py tests/conformance/test_board_services.py
PYTHONPATH=$PWD exec "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
