"""The report as a page for a browser and as Markdown."""

import json
import os
import re
import statistics

import pytest

from recattn_jax.analysis.arms import sections
from recattn_jax.analysis.figures import POINTS, Panel
from recattn_jax.analysis.report_page import as_page, panel, spread, write_report_page
from recattn_jax.analysis.summaries import find_runs
from tests import browser
from tests.analysis.run_folders import write_run
from tests.inputs.mutations import WORDS

HOSTILE = "<img src=x onerror=alert(1)></script>"


@pytest.fixture
def root(tmp_path):
    """Two arms of two seeds, and runs that went wrong in every way."""
    for lr, seed, values in (
        (0.1, 0, [5.0, 4.0, 3.0]),
        (0.1, 1, [5.5, 4.5, 3.25]),
        (0.2, 0, [4.0, 2.0, 1.0]),
        (0.2, 1, [4.0, 2.0]),
    ):
        config = {"lr": lr, "seed": seed}
        write_run(tmp_path / f"{lr}-{seed}", config, values, speeds=[10.0 * lr, 30 * lr, 20 * lr])
    write_run(tmp_path / "crashed", {"lr": 1}, [9.0], ended=f"crashed: KeyError: {HOSTILE}")
    write_run(tmp_path / "killed", {"lr": 2}, [10.0], ended="killed")
    write_run(tmp_path / "stopped", {"lr": 3}, [], ended="Interrupted: SIGTERM at step 1")
    write_run(tmp_path / "broken", {"lr": 4}, [1e300, float("nan")], ended="NonFiniteError: nan")
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "split": "nonfinite", "seconds": 9.0}\n')
    write_run(tmp_path / "lost", {"lr": 5}, [20.0])
    (tmp_path / "lost" / "config.json").unlink()
    return tmp_path


def page_of(root):
    file = root / "report.html"
    write_report_page(file, f"Runs in {HOSTILE}", sections(find_runs(root)))
    return file


def told_by(file):
    (data,) = re.findall(r'type="application/json">(.*)</script>\n', file.read_text())
    return json.loads(data)


def test_a_page_holds_every_run_and_its_numbers_are_numbers(root):
    (section,) = told_by(page_of(root))["sections"]
    runs = {run["name"]: run for arm in section["arms"] for run in arm["runs"]}
    assert sorted(runs) == sorted(run.name for run in find_runs(root)) and len(runs) == 9
    assert (runs["0.2-0"]["best"], runs["0.2-0"]["at"], runs["0.2-0"]["loss"]) == (2.0, 3, 1.0)
    assert runs["0.2-0"]["speed"] == pytest.approx(statistics.median([2.0, 6.0, 4.0]))
    assert runs["broken"]["best"] is None and runs["broken"]["loss"] is None
    words = {name: [mark["word"] for mark in run["marks"]] for name, run in runs.items()}
    assert words["lost"] == ["damaged", "done"] and words["crashed"] == ["crashed"]
    assert words["broken"] == ["NonFiniteError", "not finite"]
    assert [mark["kind"] for mark in runs["stopped"]["marks"]] == ["open"]
    curve = next(c for c in section["curves"]["loss"] if c["runs"] == 2 and c["split"] == "train")
    assert section["arms"][curve["arm"]]["name"] == "lr=0.2"
    assert curve["mean"] == [4.0, 2.0, 1.0] == curve["low"] and curve["there"] == [2, 2, 1]


def test_a_page_of_many_runs_is_small(tmp_path):
    lines = [
        json.dumps({"step": step, "split": split, "loss": 1 / step, "bits_per_byte": 0.123456789})
        for step in range(1, 1001)
        for split in ("train", "validation")
    ]
    text = "".join(f'{line[:-1]}, "seconds": {n}.0}}\n' for n, line in enumerate(lines))
    for number in range(3):
        write_run(tmp_path / str(number), {"lr": number}, [])
        (tmp_path / str(number) / "metrics.jsonl").write_text(text)
    file = page_of(tmp_path)
    assert file.stat().st_size < 150_000  # so 100 runs have 5 MB
    (section,) = told_by(file)["sections"]
    assert section["thinned"] and len(section["curves"]["loss"]) == 6
    assert all(len(curve["steps"]) <= POINTS for curve in section["curves"]["loss"])


def test_a_person_sorts_filters_and_looks_at_curves(root):
    with browser.opened(page_of(root)) as page:
        names = page.locator("tbody .name")
        before = names.all_inner_texts()
        best = page.locator("th").filter(has_text=re.compile("^best"))
        best.get_by_role("button").click()
        rising = names.all_inner_texts()
        assert best.get_attribute("aria-sort") == "ascending"
        best.get_by_role("button").click()
        falling = names.all_inner_texts()
        assert best.get_attribute("aria-sort") == "descending"
        # As numbers, 8 before 18; and what has none is last either way.
        assert rising[:4] == ["0.2-0", "0.2-1", "0.1-0", "0.1-1"] and rising[4] == "crashed"
        assert falling[:7] == rising[:7][::-1] and rising[7:] == falling[7:] != before[7:0]
        assert set(rising) == set(before) and len(rising) == 9

        crashed = page.locator("tbody tr", has=page.get_by_role("button", name="crashed"))
        mark = crashed.locator(".mark.bad")
        assert mark.inner_text() == "crashed"
        assert HOSTILE in crashed.locator("[title*=KeyError]").get_attribute("title")
        assert page.locator("h1").inner_text() == f"Runs in {HOSTILE}"
        assert page.locator("img").count() == 0

        page.get_by_role("searchbox").fill("lr=0.1")
        assert sorted(names.all_inner_texts()) == ["0.1-0", "0.1-1"]
        page.get_by_role("button", name="0.1-0", exact=True).click()
        assert "0.1-0, step 3: loss 3" in page.locator("tr.more").inner_text()

        lines = page.locator(".plot g[data-arm]")
        by_steps = page.locator(".plot path.line").first.get_attribute("d")
        count = lines.count()
        page.get_by_label("over").select_option("minutes")
        assert "minutes" in page.locator(".plot svg").text_content()
        assert lines.count() == count
        page.get_by_label("quantity").select_option("loss")
        assert lines.count() > count  # training has no headline, and has a loss
        page.get_by_label("over").select_option("steps")
        page.get_by_label("scale").select_option("logarithmic")
        assert page.locator(".plot path.line").first.get_attribute("d") != by_steps
        legend = page.locator(".legend button", has_text="lr=0.2")
        assert legend.get_attribute("aria-pressed") == "true"
        assert page.locator('.plot g[data-arm="0"]').count() == 2
        assert page.locator('.plot g[data-arm="0"] .line.some').count() == 2
        legend.click()
        assert legend.get_attribute("aria-pressed") == "false"
        assert page.locator('.plot g[data-arm="0"]').count() == 0 < lines.count()
        legend.click()
        page.get_by_label("train", exact=True).uncheck()
        assert page.locator('.plot g[data-arm="0"]').count() == 1

        page.locator(".plot svg").hover(position={"x": 80, "y": 200})
        tip = page.locator(".tip").inner_text()
        assert "validation" in tip and "at step 1" in tip and "2 runs" in tip
        bars = page.locator(".bars svg").first
        assert bars.locator("rect").count() == 5 and "none" in bars.text_content()


def test_any_text_and_any_number_can_be_shown(tmp_path):
    for number, word in enumerate([*WORDS, "$x$", "y" * 5000]):
        folder = tmp_path / str(number)
        numbers = [1e29, -1e29, 5e-324, 0.0, 1e-30]
        config = {word: word, "seed": word, "lr": 10**400 if number == 2 else 1e400}
        write_run(folder, config, numbers, ended=word, headline="loss", speeds=[1e300] * 5)
    write_run(tmp_path / "x", {}, [], config_file=WORDS[0] + ".py", headline=WORDS[1])
    found = sections(find_runs(tmp_path))
    file = page_of(tmp_path)
    with browser.opened(file) as page:
        assert page.locator("tbody tr").count() == len(find_runs(tmp_path))
        page.get_by_label("scale").select_option("logarithmic")
        page.get_by_label("over").select_option("minutes")
    for line in as_page(found, [[] for _ in found]).splitlines():
        assert "<" not in line.replace("\\\\", "").replace("\\<", "")


def test_markdown_says_how_every_run_ended_and_what_arms_reached(root):
    os.utime(root / "killed" / "metrics.jsonl", (1e9, 1e9))
    found = sections(find_runs(root))
    page = as_page(found, [["curves_some.png", "bars_some.png"]])
    assert (
        "## some: bits\\_per\\_byte" not in page
        and "## some: bits_per_byte, less is better" in page
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    arms = {row[0]: row[1:] for row in rows if row and row[0].startswith("lr=")}
    mean, sd = statistics.fmean([6.0, 6.5]), statistics.stdev([6.0, 6.5])
    assert arms["lr=0.1"][:3] == ["0, 1", "2 done", f"{mean:#.4g} ± {sd:#.4g} (2 runs)"]
    assert arms["lr=4"][:3] == ["-", "1 NonFiniteError", "-"]
    assert "- killed: running or killed: last wrote numbers at 2001-09-09 01:46 UTC" in page
    assert "- lost: damaged: config.json is missing; done" in page
    assert "- stopped: Interrupted: SIGTERM at step 1" in page
    assert "![curves_some](curves_some.png)\n![bars_some](bars_some.png)" in page


def test_bars_compare_arms_the_best_first(root):
    (section,) = sections(find_runs(root))
    few = panel(section)
    assert isinstance(few, Panel) and few.quantity == "validation bits_per_byte"
    assert list(few.bars.items())[:2] == [("lr=0.2", [2.0, 4.0]), ("lr=0.1", [6.0, 6.5])]
    for number in range(20):
        write_run(root / f"more{number}", {"lr": 10 + number}, [30.0 + number])
    (section,) = sections(find_runs(root))
    many = panel(section)
    assert many.title == "some, best 12 of 25 arms" and len(many.bars) == 12
    assert list(many.bars)[:2] == ["lr=0.2", "lr=0.1"] and "lr=29" not in many.bars
    (alone,) = sections(find_runs(root / "0.1-0"))
    assert panel(alone) is None


def test_a_spread_says_of_how_many_runs_it_is():
    assert spread([None, None]) == "-" and spread([2.0]) == "2.000"
    assert spread([1.0, 2.0, 4.0]) == f"2.333 ± {statistics.stdev([1, 2, 4]):.3f} (3 runs)"
    assert spread([1.0, None]) == "1.000 (1 of 2 runs)"
