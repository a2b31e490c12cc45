"""What benchmarks make of their numbers; the numbers themselves are not tested."""

import dataclasses
import functools
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from absl import flags

from experiments.benchmarks import (
    architectures,
    buffers,
    determinism,
    endurance,
    harness,
    layers,
    page,
    pipeline,
    scaling,
    startup,
    streaming,
    train_step,
)
from experiments.benchmarks.harness import Bench, Result
from recattn_jax.data import text_file
from recattn_jax.layers import LSTM
from tests.stand_ins import VERSE


@pytest.fixture(autouse=True, scope="module")
def no_flags():
    """Takes back the flags of the benchmark, which no other test should know."""
    yield
    for name in ("out", "figure", "seeds", "problems"):
        if name in flags.FLAGS:  # a worker may come back to this file
            delattr(flags.FLAGS, name)


class Machine:
    """Programs that take as long as they are told to, on a clock of their own."""

    def __init__(self, **seconds):
        self.seconds = seconds  # of each call in turn, the last one from then on
        self.now = 0.0
        self.ran = []

    def program(self, name):
        def call():
            self.ran.append(name)
            queue = self.seconds[name]
            self.now += queue.pop(0) if len(queue) > 1 else queue[0]

        return call

    def measure(self, rounds, least=0.0):
        programs = {name: self.program(name) for name in self.seconds}
        return harness.measure(programs, rounds, least, clock=lambda: self.now)


def test_programs_take_turns_in_an_order_that_rotates():
    machine = Machine(a=[1.0], b=[1.0], c=[1.0])
    machine.measure(rounds=3)
    first, rest = machine.ran[:3], machine.ran[3:]
    assert first == ["a", "b", "c"]  # each once to compile it
    assert rest == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_before_its_sample_a_program_runs_once_untimed():
    compiling, calibrating, cold = 9.0, 1.0, 5.0
    machine = Machine(a=[compiling, calibrating, cold, 1.0], b=[compiling, 1.0])
    found = machine.measure(rounds=1, least=0.5)
    assert machine.ran == [*"aabb", *"aabb"]
    assert {timing.ms for timing in found.values()} == {1000.0}


def test_times_are_medians_with_quartiles():
    compiling = 50.0
    machine = Machine(a=[compiling, 0.001, 0.005, 0.002, 0.004, 0.003])
    (found,) = machine.measure(rounds=5).values()
    assert (found.ms, found.lower, found.upper) == pytest.approx((3.0, 2.0, 4.0))
    assert harness.timing([7.0], 1) == (7.0, 7.0, 7.0, 1)


def test_a_sample_is_as_many_calls_as_the_clock_can_tell():
    machine = Machine(short=[1.0, 0.003], long=[1.0, 0.5])
    found = machine.measure(rounds=2, least=0.02)
    assert (found["short"].repeats, found["long"].repeats) == (7, 1)
    assert found["short"].ms == pytest.approx(3.0)  # of one call
    assert machine.ran.count("short") == 2 + 2 * (1 + 7)


def test_results_are_read_back_as_they_were_written(tmp_path):
    written = made_up("layers", LAYERS)
    written.write(tmp_path / "results" / "layers.json")
    assert Result.read(tmp_path / "results" / "layers.json") == written
    empty = dataclasses.replace(written, rows=[])
    empty.write(tmp_path / "empty.json")
    assert Result.read(tmp_path / "empty.json") == empty


def test_the_environment_says_where_numbers_are_from():
    found = harness.environment()
    assert re.search(r"core", found["cpu"]) and found["device"] == "cpu"
    assert found["versions"]["jax"] == jax.__version__
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}", found["commit"])


def test_a_missing_peer_is_said_once():
    lines = []
    bench = Bench(rounds=1, say=lines.append)
    assert bench.has("jax")
    assert not bench.has("no_such_peer") and not bench.has("no_such_peer")
    line = "no_such_peer: not installed, left out: pip install -e '.[bench]'"
    assert bench.left_out == lines == [line]
    result = dataclasses.replace(made_up("layers", LAYERS), left_out=bench.left_out)
    assert line in page.page({"layers": result})


def made_up(suite, rows):
    """A result that nobody measured."""
    environment = {
        "cpu": "2 cores of a CPU",
        "device": "cpu",
        "versions": {"python": "3.11", "jax": "0.1"},
        "commit": "0123456789" * 4,
        "dirty": True,
    }
    command = f"python -m experiments.benchmarks.{suite} --record"
    return Result(suite, command, environment, 1.5, [], rows)


def layer_row(program, name, ms):
    labels = {"layer": "LSTM", "shape": "B1 T2 D3 H4", "dtype": "float32", "pass": name}
    return labels | {"program": program, "ms": ms, "lower": ms, "upper": ms, "repeats": 1}


LAYERS = [
    layer_row(program, name, ms)
    for name, times in (
        ("forward", {"recattn_jax": 3.0, "torch": 2.0, "flax": 4.0, "keras": 6.0, "gemm": 1.5}),
        ("forward+backward", {"recattn_jax": 9.0, "flax": 18.0, "keras": 12.0}),
    )
    for program, ms in times.items()
]


def test_ratios_are_ours_to_theirs_and_to_the_best_of_them():
    ((_, columns, ((*_, torch, best, gemm),)),) = layers.tables(LAYERS)
    assert columns[-3:] == ["to torch", "to best JAX peer", "to gemm"]
    assert (torch, best, gemm) == ("1.50 / -", "0.750 / 0.750", "2.00 / -")


def test_doublings_compare_with_half_the_size():
    row = {"section": "attention T", "program": "window", "share": 1.0}
    rows = [row | {"size": 8, "ms": 2.0, "gib": 1.0}, row | {"size": 16, "ms": 5.0, "gib": 2.0}]
    ((_, _, (small, large)),) = scaling.tables(rows)
    assert small[-2:] == ["-", "-"] and large[-2:] == ["2.50", "2.00"]


def test_pipeline_against_steps():
    rows = [{"program": "batch", "ms": 0.5}, {"program": "step", "ms": 250.0}]
    rows.append({"section": "loop", "program": "loop", "ms": 1.5})
    ((_, _, cells),) = pipeline.tables(rows)
    assert [value for _, value in cells] == ["2,000", "4.00", "500", "1.50", "1.50%"]


def samples(section, run, count, kib):
    """A run whose memory is what `kib` says at each sample."""
    numbers = {"ms": 5.0, "cpu_ms": 4.0, "yards": 2.0}
    numbers |= {"threads": 9, "files": 8, "disk_files": 7, "disk_kib": 6}
    return [
        {"section": section, "run": run, "step": 50 * i, "kib": kib(i), **numbers}
        for i in range(1, count + 1)
    ]


def test_trends_hold_no_start_and_no_outlier(tmp_path):
    """Memory grows by 3 KiB at each sample, but for what the start takes and two bursts."""

    def grows(i):
        return 1000 * min(i, 8) + 3 * i + 5000 * (i in (30, 40))

    rows = samples("training", 1, 60, grows) + samples("training", 2, 60, lambda i: 2048)
    trends, held = endurance.tables(rows)
    assert trends.title == "Training: trends from step 500 to 3,000"
    (_, _, first, *_), (_, mib, second, percent, *_, ended) = trends.cells
    assert first == "+60.0 [+60.0, +60.0]"  # a thousand steps
    assert (mib, second, percent) == ("2.00", "+0.0 [+0.0, +0.0]", "+0.0000 [+0.0000, +0.0000]")
    assert ended == "1.00 / 1.00 / 1.00"
    assert held.cells[1] == ["2", "9 / 9 / 9", "8 / 8 / 8", "7 / 7 / 7", "6 / 6 / 6"]
    endurance.SUITE.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_process_is_watched_from_outside(tmp_path):
    if not endurance.PROC.exists():
        pytest.skip("only Linux tells of processes in files")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").write_bytes(bytes(3072))
    code = "import sys; kept = bytes(range(256)) * 2**18; print(len(kept), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        watch = endurance.Watch(process, tmp_path)
        process.stdout.readline()
        found = watch.look(10)
        process.stdin.close()
    assert 2**16 < found["kib"] < 2**17 and found["disk_kib"] == 3.0 and found["disk_files"] == 1
    assert (found["threads"], found["files"]) == (1, 3) and 0 < found["cpu_ms"] < 1000


def test_the_page_is_made_of_the_recorded_results():
    """After a change of a suite's words or tables: python -m experiments.benchmarks.page."""
    assert page.PAGE.read_text() == page.page(page.load(page.RESULTS))


def test_a_recorded_suite_stands_on_the_page_with_all_that_repeats_it(tmp_path):
    whole = page.page({"layers": made_up("layers", LAYERS)})
    for words in (
        "## Layers\n\nRecurrent layers and attention against",
        "```\npython -m experiments.benchmarks.layers --record\n```",
        "2 cores of a CPU; python 3.11, jax 0.1; commit 0123456+; 1.5 minutes.",
        "| LSTM  | B1 T2 D3 H4 | float32 | 3.00 / 9.00 |",
        "![Layers](results/layers.png)",
    ):
        assert words in whole
    assert whole.count("Nothing is recorded yet.") == len(page.SUITES) - 1
    nothing = page.page({})
    assert nothing.count("Nothing is recorded yet.") == len(page.SUITES)
    assert "```\npython -m experiments.benchmarks.startup [--rounds=5]" in nothing


SMALL = {
    layers: ("^LSTM ", 8),
    train_step: ("S3", 1),
    scaling: ("LSTM T|attention T (256|512) (window, causal|full)", 2 + 2 + 4),
    streaming: ("^LSTM$|^torch", 2),
    startup: ("import empty", 1),
    endurance: ("no work", 4),
    determinism: ("^again|^seed", 2),  # the figure is of what differs
}
# What steps are made of is looked at below in any case, and what watching is, above.
SLOW = (train_step, layers, endurance, determinism)
SMALL_ONES = [
    pytest.param(suite, id=suite.SUITE.name, marks=[pytest.mark.slow] * (suite in SLOW))
    for suite in SMALL
]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize("suite", SMALL_ONES)
def test_the_smallest_of_a_suite_runs(suite, tmp_path):
    only, least = SMALL[suite]
    bench = Bench(rounds=1, only=only, quick=True, least=0.0, say=lambda line: None)
    result = harness.run(suite.SUITE, bench, "a command")
    assert len(result.rows) >= least
    assert all(math.isfinite(row["ms"]) for row in result.rows if "ms" in row)
    assert all(table.cells for table in suite.SUITE.tables(result.rows))
    suite.SUITE.draw(result.rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_pipeline_suite_runs(tmp_path, monkeypatch):
    """On a short text: the default one takes seconds to prepare."""
    (tmp_path / "text.txt").write_text(VERSE * 20)
    file = str(tmp_path / "text.txt")
    short = functools.partial(text_file, file, validation=0.2, test=0.0)
    monkeypatch.setattr(pipeline.char_lm, "python_docs", short)
    monkeypatch.setenv("HOME", str(tmp_path))  # where data are prepared
    lines = []
    bench = Bench(rounds=1, quick=True, least=0.0, say=lines.append)
    result = harness.run(pipeline.SUITE, bench, "a command")
    assert [row["program"] for row in result.rows] == ["batch", "step", "loop", "loop"]
    assert result.rows[-1]["later"] == 0 < result.rows[-1]["first"], lines
    pipeline.SUITE.draw(result.rows, tmp_path / "figure.png")


@pytest.mark.slow
@pytest.mark.parametrize("name", train_step.SHAPES)
def test_peers_have_as_many_parameters_and_a_finite_loss(name):
    """torch's LSTM has a second bias for each of its four gates."""
    bench = Bench(rounds=1, say=lambda line: None)
    made = train_step.steps(bench, name, train_step.TINY)
    ours = made.pop("recattn_jax")
    twice = {"S3": 4 * train_step.TINY.width, "Griffin": 0}[name]
    assert {who: step.parameters - ours.parameters for who, step in made.items()} == {
        who: twice if who == "torch" else 0 for who in made
    }
    for who, step in {"ours": ours, **made}.items():
        losses = [float(step.call()) for _ in range(8)]
        assert losses[-1] < losses[0] < 3 * math.log(train_step.TINY.vocabulary), who


def test_buffers_are_listed_one_by_one():
    layer = LSTM(4)
    x = jnp.ones((2, 8, 3))
    variables = layer.init(jax.random.key(0), x)
    lowered = jax.jit(lambda v, x: layer.apply(v, x)[0]).lower(variables, x)
    found = buffers.buffers(lowered)
    assert [b.size for b in found] == sorted((b.size for b in found), reverse=True)
    assert ("input", "f32[2,8,3]", 2 * 8 * 3 * 4) in [(b.kind, b.shape, b.size) for b in found]
    assert ("output", 2 * 8 * 4 * 4) in [(b.kind, b.size) for b in found]


def test_values_that_share_memory_are_listed_once():
    report = """BufferAssignment:
allocation 0: size 48, preallocated-temp:
 value: <1 early @0> (size=16,offset=0): f32[4]{0}
 value: <2 late @0> (size=32,offset=0): f32[8]{0}
 value: <3 beside @0> (size=16,offset=32): f32[4]{0}

Total bytes used: 48 (48B)
"""
    assert [(b.name, b.shape, b.kind) for b in buffers.parse(report)] == [
        ("late", "f32[8]", "temporary"),
        ("beside", "f32[4]", "temporary"),
    ]


def line(problem, mixer, seed, value):
    numbers = architectures.chosen(architectures.settings()[problem], mixer, seed)
    return {"problem": problem, "numbers": numbers, "value": value}


RESULTS = [
    *(line("parity", "rnn", seed, value) for seed, value in enumerate((0.5, 1.0, 0.75))),
    *(line("adding", "rnn", seed, value) for seed, value in enumerate((0.02, 0.16, 0.001))),
    *(line("parity", "lstm", seed, value) for seed, value in enumerate((None, 0.9, None))),
    {**line("parity", "gru", 0, 1.0), "numbers": {"seed": 0, "mixer": "gru", "width": 1}},
]


def test_the_best_is_nearest_to_solved():
    cells = architectures.table(RESULTS)
    assert cells == {
        "rnn": {"parity": (0.75, 1.0, 3), "adding": (0.02, 0.001, 3)},
        "lstm": {"parity": (0.5, 0.9, 3)},  # two of its seeds diverged
    }  # and what ran with other numbers is none of them


def test_values_stand_between_chance_and_solved():
    settings = architectures.settings()
    assert settings["parity"].stands(0.5) == 0 and settings["parity"].stands(1.0) == 1
    assert settings["adding"].stands(0.0) == 1
    assert settings["adding"].stands(1 / 6) == pytest.approx(0)
    assert (settings["parity"].told(0.5), settings["adding"].told(0.02)) == ("50.0", "2.0e-02")


def test_cells_without_a_result_are_drawn_empty(tmp_path):
    architectures.draw(architectures.table(RESULTS), tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 1000
