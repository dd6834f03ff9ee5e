"""Run a short suite with the oldest and the newest dependencies that pyproject.toml allows, under each Python here.

::

    python .ci/versions.py                                  each Python that is found, both ends
    python .ci/versions.py --lowest                         the lowest Python, the oldest dependencies
    python .ci/versions.py --only 3.13-newest tests/task    one of them, and some tests only

uv resolves the dependencies and uses the interpreters that are here: on the PATH, pyenv's, and the one that runs this.
It downloads none. Environments and uv's cache are in build/, and made anew when pyproject.toml has changed.

Tests that fail run once more with nothing beside them, as in `make test`. Continuous integration runs --lowest.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "versions"

TESTED = [(3, 11), (3, 12), (3, 13), (3, 14)]
ENDS = {"lowest": "lowest-direct", "newest": "highest"}

FOR_TESTS = ["hypothesis", "matplotlib", "numpy", "pandas", "pytest", "pytest-timeout", "pytest-xdist"]
"""What the tests need besides; as new as it fits."""

SUITE = [
    "tests/sandbox/test_cells.py",
    "tests/sandbox/test_calls.py",
    "tests/sandbox/test_output.py",
    "tests/sandbox/test_endings.py",
    "tests/worker/test_slots.py",
    "tests/conformance/test_board_services.py",
    "tests/task",
    "--ignore=tests/task/test_hostile_results.py",
    "tests/notebook/test_binding.py",
]

NOT_OF_AGE = ["tests/task/test_safe.py", "tests/task/test_safe_frames.py"]
"""What --lowest leaves out to be quick: the codec uses numpy and pandas only, which are the newest in any case."""


def interpreters() -> dict[tuple[int, int], str]:
    """Return an interpreter of each tested version that runs here."""
    found: dict[tuple[int, int], str] = {}
    for candidate in (sys.executable, *_candidates()):
        asked = [candidate, "-c", "import sys, venv; print(sys._base_executable, *sys.version_info[:2])"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)  # a shim of pyenv may fail
        if answer.returncode == 0 and (words := re.fullmatch(r"(.+) (\d+) (\d+)\n", answer.stdout)):
            version = (int(words[2]), int(words[3]))
            if version in TESTED:
                found.setdefault(version, words[1])
    return dict(sorted(found.items()))


def _candidates() -> Iterator[str]:
    for major, minor in TESTED:
        if (there := shutil.which(f"python{major}.{minor}")) is not None:
            yield there
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for python in sorted(pyenv.glob("versions/3.*/bin/python"), reverse=True):
        yield str(python)


def environment(name: str, python: str, resolution: str) -> str:
    """Make the environment ``name`` unless it is there; return its Python."""
    place = BUILD / name
    inside = str(place / "bin" / "python")
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + " ".join(FOR_TESTS).encode()).hexdigest()
    stamp = place / "made-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return inside
    _uv("venv", "--clear", "--python", python, str(place))
    install = ("pip", "install", "--python", inside)
    _uv(*install, "--resolution", resolution, "--requirement", "pyproject.toml")
    # They must not raise the floors: what is there is kept, or this fails.
    listed = subprocess.run([*_UV, "pip", "freeze", "--python", inside], check=True, capture_output=True, text=True)
    (place / "there.txt").write_text(listed.stdout)
    _uv(*install, "--constraint", str(place / "there.txt"), *FOR_TESTS)
    stamp.write_text(wanted)
    return inside


_UV = [sys.executable, "-m", "uv", "--quiet", "--no-python-downloads", "--cache-dir", str(BUILD / "cache")]


def _uv(*arguments: str) -> None:
    subprocess.run([*_UV, *arguments], check=True, cwd=ROOT)


def run(name: str, python: str, resolution: str, arguments: list[str]) -> bool:
    """Run the suite; return whether it passes."""
    begun = time.monotonic()
    try:
        inside = environment(name, python, resolution)
    except subprocess.CalledProcessError as error:
        print(f"{name}: its environment can't be made: {error}", file=sys.stderr)
        return False
    versions = "import sys, IPython as i, ipykernel as k; print(sys.version.split()[0], i.__version__, k.__version__)"
    shown = subprocess.run([inside, "-c", versions], check=True, capture_output=True, text=True).stdout.split()
    print(f"{name}: Python {shown[0]}, IPython {shown[1]}, ipykernel {shown[2]}", flush=True)
    pytest, tests = [inside, "-m", "pytest", "-q", "-o", f"cache_dir={BUILD / name / 'tests'}"], arguments or SUITE
    path = os.pathsep.join([str(Path(inside).parent), os.environ.get("PATH", os.defpath)])
    with_ours = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "JUPYTER_PREFER_ENV_PATH": "1"}
    status = subprocess.run([*pytest, "-n", "2", *tests], check=False, cwd=ROOT, env=with_ours).returncode
    if status == 1:
        print(f"{name}: what has failed runs once more, alone; what passes then is a defect, too", flush=True)
        again = [*pytest, "--last-failed", "--last-failed-no-failures", "none", "-rfEp", *tests]
        status = subprocess.run(again, check=False, cwd=ROOT, env=with_ours).returncode
    passed = status == 0
    print(f"{name}: {'passed' if passed else 'FAILED'} after {time.monotonic() - begun:.0f} s", flush=True)
    return passed


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lowest", action="store_true", help="the lowest Python with the oldest dependencies only")
    parser.add_argument("--only", metavar="NAME", help="one of them, as 3.13-newest")
    parser.add_argument("pytest", nargs="*", help="for pytest, in place of the short suite; after --, options too")
    options = parser.parse_args()
    found = interpreters()
    words = [f"{major}.{minor}" for major, minor in found]
    missing = [f"{major}.{minor}" for major, minor in TESTED if (major, minor) not in found]
    print(f"Python {', '.join(words)}" + (f"; not here: {', '.join(missing)}" if missing else ""), flush=True)
    runs = [
        (f"{major}.{minor}-{end}", python, resolution)
        for (major, minor), python in found.items()
        for end, resolution in ENDS.items()
    ]
    if options.lowest:
        runs = runs[:1]
        if not options.pytest:
            options.pytest = [*SUITE, *(f"--ignore={each}" for each in NOT_OF_AGE)]
            print(f"left out: {', '.join(NOT_OF_AGE)}; they need numpy and pandas only, the newest in any case")
    elif options.only is not None:
        runs = [each for each in runs if each[0] == options.only]
    if not runs:
        parser.error("there is no such version here")
    failed = [each[0] for each in runs if not run(*each, options.pytest)]
    if failed:
        print(f"test-versions: failed with {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
