"""Run the attacks of ``attacks.py``, and print what became of each as a table of Markdown.

::

    python tests/attacks/run.py                                        all mechanisms, as an ordinary user and as root
    python tests/attacks/run.py --mechanism bubblewrap --as user --attack read-ssh-key
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from arena import MECHANISMS, USERS, Arena, NotOffered
from attacks import CATALOGUE, MAY_DIFFER, Outcome, perform
from docker_engine import docker_engine


def main() -> int:
    """Return 1 if an attack succeeded that a mechanism, other than ``process``, must stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mechanism", action="append", choices=MECHANISMS, help="default: all")
    parser.add_argument("--as", dest="user", action="append", choices=USERS, help="who lends; default: both")
    parser.add_argument("--attack", action="append", choices=CATALOGUE, metavar="NAME", help="default: all")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--verbose", action="store_true", help="say what became of each, and in which time, at once")
    options = parser.parse_args()
    names = options.attack or list(CATALOGUE)
    columns: dict[str, dict[str, Outcome]] = {}
    skipped: list[str] = []
    with docker_engine() if "docker" in (options.mechanism or MECHANISMS) else contextlib.nullcontext():
        for mechanism in options.mechanism or MECHANISMS:
            for user in options.user or USERS:
                column, begun = f"{mechanism}, {'root' if user == 'root' else 'ordinary user'}", time.monotonic()
                try:
                    with Arena(mechanism, user) as arena:
                        columns[column] = {name: _perform(arena, name, aloud=options.verbose) for name in names}
                except NotOffered as why:
                    skipped.append(f"{column}: {why}")
                else:
                    print(f"{column}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    if options.json:
        found = {column: {name: vars(one) for name, one in told.items()} for column, told in columns.items()}
        print(json.dumps({"outcomes": found, "skipped": skipped}, indent=1))
    else:
        _print(names, columns, skipped)
    return int(any(_is_wrong(column, name, one) for column, told in columns.items() for name, one in told.items()))


def _perform(arena: Arena, name: str, *, aloud: bool) -> Outcome:
    begun = time.monotonic()
    one = perform(arena, CATALOGUE[name])
    if aloud:
        print(f"{time.monotonic() - begun:5.1f} s  {name}: {one.verdict} ({one.why:.150})", file=sys.stderr)
    return one


def _is_wrong(column: str, name: str, one: Outcome) -> bool:
    return not column.startswith("process") and name not in MAY_DIFFER and one.verdict == "succeeded"


def _print(names: list[str], columns: dict[str, dict[str, Outcome]], skipped: list[str]) -> None:
    print("| Attack | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        cells = [told[name].verdict for told in columns.values()]
        print(
            f"| {CATALOGUE[name].words} | "
            + " | ".join("**succeeded**" if c == "succeeded" else c for c in cells)
            + " |"
        )
    for column, told in columns.items():
        count = sum(one.verdict == "succeeded" for one in told.values())
        print(f"\n{column}: {count} of {len(told)} succeed")
        for name, one in told.items():
            if one.verdict == "not tried":
                skipped.append(f"{column}: {name}: {one.why}")
            elif one.verdict == "succeeded":
                print(f"- {name}: {one.why}")
    if skipped:
        print("\nSkipped:")
        for each in skipped:
            print(f"- {' '.join(each.split())}")


if __name__ == "__main__":
    sys.exit(main())
