"""Malformed inputs to every reader and command, many of them, and a report.

    python -m tests.inputs --count=1000 --seed=1 --out=DIR
    python -m tests.inputs --seed=1 --only=123

Ends with 1 where anything was answered wrongly; a number, with its seed, repeats it.
"""

import argparse
import collections
import dataclasses
import faulthandler
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests import conftest  # noqa: F401  (settings of jax, before its import)
from tests.inputs import fuzz


def main() -> int:
    import jax  # noqa: PLC0415

    from tests.inputs.targets import targets  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the damage")
    parser.add_argument("--only", type=int, help="one number alone")
    parser.add_argument("--target", default="", help="only targets whose name has this in it")
    parser.add_argument("--out", type=Path, help="folder for report.json and report.md")
    given = parser.parse_args()
    outcomes: list[fuzz.Outcome] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        found = targets(Path(place) / "made")
        numbers = range(given.count) if given.only is None else [given.only]
        names = sorted(found)
        for number in numbers:
            if given.target not in names[number % len(names)]:
                continue
            # For what no signal ends: the place is said, and the process ends.
            faulthandler.dump_traceback_later(3 * fuzz.SECONDS, exit=True)
            folder = Path(place) / "case"
            folder.mkdir()
            outcome = fuzz.run(found, given.seed, number, folder)
            outcomes.append(outcome)
            if outcome.done.problems or given.only is not None:
                print(f"{number} {outcome.target}: {outcome.what}: code {outcome.done.code}")
                print(
                    "  " + "\n  ".join([*outcome.done.problems, outcome.done.err[-500:]]),
                    flush=True,
                )
            strays = sorted(p.name for p in Path(place).iterdir() if p.name not in ("made", "case"))
            assert not strays, f"case {number} wrote beside its folder: {strays}"
            shutil.rmtree(folder)
            if number % 50 == 49:
                jax.clear_caches()
                bad = sum(bool(o.done.problems) for o in outcomes)
                print(
                    f"{number + 1} tried, {bad} wrong, {time.monotonic() - start:.0f} s", flush=True
                )
        faulthandler.cancel_dump_traceback_later()
    if given.out is not None:
        report(given.out, given.seed, outcomes, time.monotonic() - start)
    wrong = [outcome for outcome in outcomes if outcome.done.problems]
    print(f"{len(outcomes)} malformed inputs with seed {given.seed}: {len(wrong)} answered wrongly")
    return 1 if wrong else 0


def report(out: Path, seed: int, outcomes: list[fuzz.Outcome], seconds: float) -> None:
    """Writes what was tried, and how it was answered, by target and exit code."""
    out.mkdir(parents=True, exist_ok=True)
    codes = collections.Counter(outcome.done.code for outcome in outcomes)
    by_target: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for outcome in outcomes:
        by_target[outcome.target][outcome.done.code] += 1
    wrong = [dataclasses.asdict(o) for o in outcomes if o.done.problems]
    slowest = max((outcome.seconds for outcome in outcomes), default=0.0)
    said = {
        "seed": seed,
        "count": len(outcomes),
        "seconds": round(seconds, 1),
        "slowest_seconds": slowest,
        "exit_codes": {str(code): n for code, n in sorted(codes.items())},
        "targets": {
            name: {str(code): n for code, n in sorted(found.items())}
            for name, found in sorted(by_target.items())
        },
        "wrong": wrong,
        "messages": sorted({o.done.err.strip()[:200] for o in outcomes if o.done.err})[:400],
    }
    (out / "report.json").write_text(json.dumps(said, indent=2) + "\n")
    kinds = sorted(codes)
    page = [
        f"# {len(outcomes)} malformed inputs, seed {seed}",
        "",
        f"{len(wrong)} answered wrongly; {seconds:.0f} s in all, the slowest {slowest:.1f} s.",
        "",
        "| target | " + " | ".join(f"code {code}" for code in kinds) + " |",
        "|---" * (1 + len(kinds)) + "|",
    ]
    page += [
        f"| {name} | " + " | ".join(str(found[code]) for code in kinds) + " |"
        for name, found in sorted(by_target.items())
    ]
    page += ["", "Repeat one with:", ""]
    page += [
        f"- `python -m tests.inputs --seed={seed} --only={w['number']}`: {w['target']}, {w['what']}"
        for w in wrong
    ]
    (out / "report.md").write_text("\n".join(page) + "\n")


if __name__ == "__main__":
    sys.exit(main())
