"""Breaks runs on purpose, many times, and reports.

  python -m tests.faults --kills=200 --flips=500 --seed=0 --workers=2 --out=DIR
  python -m tests.faults --only=kills --story=17 --seed=0 --out=DIR

Every story follows from the seed and its number alone. One that fails keeps its folder. Ends with 1
if any has failed.
"""

import argparse
import collections
import concurrent.futures
import json
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults import kills
from tests.faults.processes import ROOT, Nursery, environment, trained, words

PER_STORY = 4


def flip_stories(run: Path, seed: int, numbers: range, cache: Path) -> Iterator[dict[str, Any]]:
    """Flips bits in a process of its own; another goes on after a story that ends or hangs it."""
    following = numbers.start
    while following < numbers.stop:
        arguments = [str(run), str(seed), str(following), str(numbers.stop - 1)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.flips", *arguments],
            cwd=ROOT,
            env=environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            told = json.loads(line)
            following = told["story"] + 1
            yield told
        noise = process.stderr.read()
        if process.wait():
            yield {
                "story": following,
                "file": "",
                "what": "",
                "result": f"WRONG: ended with {process.returncode}: {noise[-3000:]}",
            }
            following += 1
        elif "Traceback" in noise:
            yield {
                "story": following - 1,
                "file": "",
                "what": "",
                "result": f"WRONG: {noise[-3000:]}",
            }


def kill_stories(
    out: Path, seed: int, wanted: int, numbers: Iterator[int], workers: int, cache: Path, good: Any
) -> Iterator[dict[str, Any]]:
    """Tells stories until enough kills have happened, or until the numbers end."""
    nurseries: queue.Queue[Nursery] = queue.Queue()
    for _ in range(workers):
        nurseries.put(Nursery(cache))

    def one(number: int) -> dict[str, Any]:
        nursery = nurseries.get()
        folder = out / f"kills-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            planned = kills.kills(seed, number, PER_STORY)
            told = kills.story(folder, planned, nursery, cache, good)
        except Exception as error:
            told = {"kills": [], "wrong": [f"{type(error).__name__}: {error}"]}
            nursery = Nursery(cache)  # whatever state the other is in
        finally:
            nurseries.put(nursery)
        if not told["wrong"]:
            shutil.rmtree(folder)
        return {"story": number, **told}

    happened = 0
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        running: set[concurrent.futures.Future[dict[str, Any]]] = set()
        while True:
            expected = happened + PER_STORY * len(running)
            while len(running) < workers and expected < wanted:
                number = next(numbers, None)
                if number is None:
                    break
                running.add(pool.submit(one, number))
                expected += PER_STORY
            if not running:
                break
            ended, running = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in ended:
                told = future.result()
                happened += sum(kill["happened"] for kill in told["kills"])
                yield told
    while not nurseries.empty():
        nurseries.get().__exit__(None, None, None)


def report(flips: list[dict[str, Any]], told: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The figures."""
    happened = [kill for story in told for kill in story["kills"] if kill["happened"]]
    points = collections.Counter(kill["point"] for kill in happened)
    good = ("harmless", "found")
    return {
        "seed": seed,
        "kills": {
            "happened": len(happened),
            "after_a_save": sum(kill["after_a_save"] for kill in happened),
            "fresh_processes": sum(kill["fresh"] for kill in happened),
            "by_point": dict(sorted(points.items())),
            "runs": len(told),
            "identical": sum(not story["wrong"] for story in told),
            "failures": [story for story in told if story["wrong"]],
        },
        "flips": {
            "stories": len(flips),
            "by_result": dict(
                collections.Counter(f["result"] if f["result"] in good else "wrong" for f in flips)
            ),
            "failures": [flip for flip in flips if flip["result"] not in good],
        },
    }


def as_text(figures: dict[str, Any]) -> str:
    """The report as Markdown."""
    kills, flips = figures["kills"], figures["flips"]
    lines = [
        "# Faults",
        "",
        f"Seed {figures['seed']}.",
        "",
        f"- {kills['happened']} kills in {kills['runs']} runs, {kills['after_a_save']} of them"
        f" after a save, {kills['fresh_processes']} of processes with imports of their own;"
        f" {kills['identical']} of {kills['runs']} runs ended, bit for bit, as the uninterrupted"
        " one.",
        f"- {flips['stories']} damaged checkpoints: "
        + (", ".join(f"{n} {name}" for name, n in sorted(flips["by_result"].items())) or "none")
        + ".",
        "",
        "| killed | times |",
        "| --- | ---: |",
        *(f"| {point} | {count} |" for point, count in kills["by_point"].items()),
        "",
    ]
    for name, failures in (("kills", kills["failures"]), ("flips", flips["failures"])):
        for failure in failures:
            again = f"--only={name} --story={failure['story']} --seed={figures['seed']}"
            lines += [f"## Failed: {again}", "", "```", json.dumps(failure, indent=1), "```", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=("kills", "flips"))
    parser.add_argument("--story", type=int)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    out = chosen.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    cache, start = out / "compilations", time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {text}", flush=True)

    with Nursery(cache) as nursery:
        shutil.rmtree(out / "uninterrupted", ignore_errors=True)
        done = nursery.start(words(out / "uninterrupted"), out / "output").wait()
    assert done.code == 0, done.text
    good = trained(out / "uninterrupted")
    say("the uninterrupted run is there")

    flips, told = [], []
    if chosen.only != "kills" and chosen.flips:
        numbers = range(chosen.flips)
        if chosen.story is not None:
            numbers = range(chosen.story, chosen.story + 1)
        for flip in flip_stories(out / "uninterrupted", chosen.seed, numbers, cache):
            flips.append(flip)
            if "WRONG" in flip["result"] or len(flips) % 50 == 0:
                say(f"flips: {len(flips)}; story {flip['story']}: {flip['result'][:300]}")
    if chosen.only != "flips" and chosen.kills:
        stories = iter(range(10**9) if chosen.story is None else [chosen.story])
        happened = 0
        for story in kill_stories(
            out, chosen.seed, chosen.kills, stories, chosen.workers, cache, good
        ):
            told.append(story)
            happened += sum(kill["happened"] for kill in story["kills"])
            result = "; ".join(story["wrong"])[:500] or "identical"
            say(f"kills: {happened}; story {story['story']}: {result}")
    figures = report(flips, told, chosen.seed)
    (out / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    (out / "report.md").write_text(as_text(figures))
    print(as_text(figures))
    return 1 if figures["kills"]["failures"] or figures["flips"]["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
