"""Run lessons and drawn examples with and without ``%%p2p``; print the rate of those that are the same.

python -m tests.athome.run                      all: what `make athome` does
python -m tests.athome.run --only numpy --show  some, and what differs
python -m tests.athome.run --rewrite            and make differences.txt anew
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.athome import examples, known
from tests.athome.home import Verdict, compare
from tests.athome.lessons import Lesson, lessons

EXAMPLES = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description="Run cells with and without %%p2p, and compare.")
    parser.add_argument("--only", default="", metavar="TEXT", help="lessons and groups whose name contains it")
    parser.add_argument("--examples", type=int, default=EXAMPLES, metavar="N", help="examples that are drawn")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="lessons at a time")
    parser.add_argument("--show", action="store_true", help="show both sides of each difference")
    parser.add_argument("--rewrite", action="store_true", help="make the list of known differences anew")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found")
    options = parser.parse_args()

    begun = time.monotonic()
    drawn = examples.drawn(options.examples) if options.examples else []
    chosen = [one for one in [*lessons(), *drawn] if options.only in f"{one.group} {one.name}"]
    groups: dict[str, list[Verdict]] = {}
    failed = []
    pool = ThreadPoolExecutor(options.jobs)
    with tempfile.TemporaryDirectory(prefix="p2p-athome-") as folder:
        runs = {pool.submit(compare, one, Path(folder) / one.name): one for one in chosen}
        try:
            for run in as_completed(runs):
                lesson: Lesson = runs[run]
                try:
                    verdicts = run.result()
                except Exception:
                    failed.append(lesson.name)
                    print(f"{lesson.name} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
                    continue
                groups.setdefault(lesson.group, []).extend(verdicts)
                print(known.in_words(lesson.name, verdicts), flush=True)
                if options.show:
                    show(verdicts)
        finally:  # an interrupt waits for the kernels that are there, and starts no more
            pool.shutdown(cancel_futures=True)
    every = [verdict for verdicts in groups.values() for verdict in verdicts]
    if options.json:
        options.json.write_text(json.dumps({k: [vars(one) for one in v] for k, v in groups.items()}), encoding="utf-8")
    listed = known.read()
    new = [one for one in every if one.found and one.id not in listed]
    print(f"\n{time.monotonic() - begun:.0f} s with {examples.versions()}")
    for name, verdicts in sorted(groups.items()):
        print(known.in_words(name, verdicts))
    print(known.in_words("all", every))
    for one in new:
        print(f"not listed: {one.id} | {known.kind_of(one)}")
    for one in every:
        if one.id in listed and one.same and not one.left_out:
            print(f"listed, and the same: {one.id}")
    if options.rewrite:
        known.write(every, examples.versions())
    same, differ, _ = known.rate(every)
    return int(bool(failed) or bool(new and not options.rewrite) or same < known.FLOOR * (same + differ))


def show(verdicts: list[Verdict]) -> None:
    """Print what differs, both sides."""
    for one in verdicts:
        if one.left_out:
            print(f"--- {one.id}: left out, {one.left_out}")
        for aspect, (home, away) in one.found.items():
            print(
                f"--- {one.id}: {aspect}\n{one.source}\n  at home: {home[:1500]}\n  away:    {away[:1500]}", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
