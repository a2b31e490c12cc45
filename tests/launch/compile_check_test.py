"""What can be known without the compiler for TPUs; and, in slow tests, what it says."""

import importlib.util
import json
import subprocess
from pathlib import Path

import jax
import pytest
from matplotlib.axes import Axes

from launch import compile_check, compile_records, report, topology_compiler
from recattn_jax.errors import UserError
from tests.launch.commands import TINY

CONFIG = f"--config={TINY}"
NEEDS_COMPILER = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: there is no compiler for a TPU",
)


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for the process that compiles: what it is asked, and what it is to say."""
    found = {"asked": [], "code": 0, "says": "", "stderr": ""}

    def run(argv, **options):
        found["asked"].append(json.loads(options["input"]))
        found["environment"] = options["env"]
        return subprocess.CompletedProcess(argv, found["code"], found["says"], found["stderr"])

    monkeypatch.setattr(compile_check.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(compile_check.subprocess, "run", run)
    return found


def facts(**changes):
    message = {"kind": "all-reduce", "bytes": 4000, "group": 8, "loops": [], "name": "step/while"}
    collectives = [message | {"over_steps": True, "times": 3, "ring_bytes": 20e6}]
    return {
        "fits": True, "why": "", "compile_seconds": 7.0, "peak_bytes": 2**31, "flops": 2e12,
        "flops_with_loops_once": 1e12, "traffic_bytes": 8e9, "kernels": 0,
        "loops_of_unknown_length": ["step/while"], "collectives": collectives, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--topology is missing"]),
        (["--topology=v5litepod-16"], ["v5litepod-16", "v5e:16x16"]),
        (["--topology=v5e:2x4", "--config.mesh=data:3"], ["mesh 3", "8 devices of v5e:2x4"]),
        (["--topology=v5e:2x4", "--config.mesh=dta:8"], ["'dta:8'", "data:2,fsdp:4"]),
        (["--topology=v5e:2x4", "--slices=0"], ["--slices=0"]),
        (["--topology=v5e:4x4"], ["batch of 8 rows", "16"]),
        (["--topology=v5e:2x4", "--config.widht=8"], ["'widht'", "did you mean width?"]),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(call, compiler, arguments, words):
    result = call(compile_check, CONFIG, *arguments)
    assert result.code == 2 and result.out == "" and not compiler["asked"]
    assert result.err.count("\n") == 1 and all(word in result.err for word in words), result.err


def test_without_the_compiler_it_says_what_to_install(call, monkeypatch):
    monkeypatch.setattr(compile_check.importlib.util, "find_spec", lambda name: None)
    result = call(compile_check, CONFIG, "--topology=v5e:2x4")
    assert result.code == 2 and result.out == "" and result.err.count("\n") == 1
    assert "pip install -e '.[tpu]'" in result.err and "'libtpu==" in result.err


def test_a_process_that_dies_is_told_in_one_line(call, compiler):
    compiler.update(
        code=-6, says="half an ans", stderr="W0101 noise\nF0101 fatal\nout of luck\n  at x\n"
    )
    result = call(compile_check, CONFIG, "--topology=v5e:2x4")
    assert result.code == 1 and "not compiled" in result.out
    assert "- v5e:2x4: the compiler ended with code -6: out of luck\n" in result.out


def test_what_a_process_calls_fatal_is_told_before_what_it_said_last():
    stderr = (
        "W1122 noise\nF1122 02:33:57.1    5980 a.cc:7] Check failed: x < y\nstack used: 8 KiB\n"
    )
    assert compile_check.died(-6, stderr).endswith("code -6: a.cc:7] Check failed: x < y")


def test_what_does_not_fit_is_told_in_the_words_of_the_compiler(call, compiler):
    compiler["says"] = json.dumps({"fits": False, "why": "RESOURCE_EXHAUSTED: Ran out of memory"})
    result = call(compile_check, CONFIG, "--topology=v5e:2x4")
    assert result.code == 0 and "| no   |" in result.out
    assert "- v5e:2x4: RESOURCE_EXHAUSTED: Ran out of memory\n" in result.out


def test_what_fits_is_told_in_tables_a_page_numbers_and_a_figure(call, compiler, monkeypatch):
    line = (
        "W0101 00:00:00.1 1 spmd_partitioner.cc:654] [SPMD] Involuntary full rematerialization. The"
        " compiler cannot go from sharding {devices=[2,4]<=[8]} to {devices=[8,1]<=[8]} efficiently"
        ' for HLO operation %dot.3 = f32[6,3]{1,0} dot(%x), metadata={op_name="jit(f)/dot"}. As the'
    )
    compiler.update(says=json.dumps(facts()), stderr=f"{line}\n{line}\n")
    arguments = ["--topology=v5e:2x4,v5e:1x2", "--config.mesh=data:-1", "--out=check"]
    below = []
    monkeypatch.setattr(Axes, "set_xticks", lambda axes, at, texts, **_: below.extend(texts))
    result = call(compile_check, CONFIG, *arguments)
    assert result.code == 0, result.err
    assert [question["mesh"] for question in compiler["asked"]] == [[8, 1, 1, 1], [2, 1, 1, 1]]
    assert compiler["asked"][0]["config"]["width"] == 4
    assert compiler["environment"]["TPU_STDERR_LOG_LEVEL"] == "1"
    # 10.2 ms of products, 9.8 of memory, then 0.1 of messages, for 64 tokens on 8 chips.
    assert "max(10.15, 9.77) + 0.10" in result.out and "| 2.00 | 16 |" in result.out
    assert "| 780 " in result.out and "25%" in result.out and "100%" in result.out
    assert f"| {20e6 / (4 * 2313):.2f} " in result.out  # bytes sent over bytes of parameters
    remark = "gathered whole to go from {devices=[2,4]<=[8]} to {devices=[8,1]<=[8]}"
    assert result.out.count(f"- v5e:2x4: f32[6,3]{{1,0}} jit(f)/dot: {remark}") == 1
    assert "in a loop over steps: all-reduce of 4,000 bytes, 3 times" in result.out
    assert "its length is not known: the loop step/while" in result.out
    page = Path("check/compile_check.md").read_text()
    assert all(row in page for row in result.out.splitlines() if row.startswith("|"))
    numbers = json.loads(Path("check/compile_check.json").read_text())
    assert numbers[0]["mesh"]["data"] == 8 and numbers[0]["facts"]["flops"] == 2e12
    assert Path("check/compile_check.png").stat().st_size > 1000
    assert below[2:] == ["v5e:2x4\ndata:8\nscaling 25%", "v5e:1x2\ndata:2\nscaling 100%"]


def test_a_folder_that_cannot_be_written_is_refused(call, compiler):
    compiler["says"] = json.dumps(facts())
    Path("file").write_text("")
    result = call(compile_check, CONFIG, "--topology=v5e:2x4", "--out=file/check")
    assert result.code == 2 and result.err.startswith("error: --out=file/check: it cannot be made")
    assert result.err.count("\n") == 1 and not compiler["asked"]  # before minutes are spent
    result = call(compile_check, CONFIG, "--topology=v5e:2x4", "--out=/proc/check")
    assert result.code == 2 and result.err.count("\n") == 1


QUESTION = {"config_file": TINY, "topology": "v5e:2x4", "slices": 1, "mesh": [2, 4, 1, 1]}


def test_the_program_that_is_read_is_the_step_that_trains(monkeypatch, tmp_path):
    """On the devices that are here, in place of those of a topology."""
    monkeypatch.setattr(topology_compiler, "devices_of", lambda name, slices: jax.devices())
    found = topology_compiler.answer(QUESTION | {"config": {"width": 64, "length": 12}})
    assert found["fits"] and found["peak_bytes"] > 0 and found["kernels"] == 0
    # 2 x (forward, gradients of kernel and inputs) x a row of 12 steps x 64 x 257, on each device.
    assert found["flops"] == 3 * 2 * 12 * 64 * 257
    assert found["loops_of_unknown_length"] == []
    kinds = {c["kind"]: c["ring_bytes"] for c in found["collectives"]}
    assert kinds["all-gather"] > 0 and kinds["all-reduce"] > 0


def test_the_compilers_own_refusals_are_told(monkeypatch):
    def refuses(words):
        def compiled(experiment, mesh):
            raise jax.errors.JaxRuntimeError(words)

        return compiled

    monkeypatch.setattr(topology_compiler, "devices_of", lambda name, slices: jax.devices())
    question = QUESTION | {"config": {}}
    monkeypatch.setattr(topology_compiler, "compiled", refuses("RESOURCE_EXHAUSTED: 20G\n of 16G"))
    found = topology_compiler.answer(question)
    assert found == {"fits": False, "why": "RESOURCE_EXHAUSTED: 20G of 16G"}
    monkeypatch.setattr(topology_compiler, "compiled", refuses("UNIMPLEMENTED: such a thing"))
    with pytest.raises(UserError, match="v5e:2x4 says: UNIMPLEMENTED"):
        topology_compiler.answer(question)


@pytest.mark.slow
@NEEDS_COMPILER
def test_compiles_for_slices_that_are_not_here(call):
    arguments = ["--topology=v5e:2x4,v4:2x2x2", "--config.width=256", "--out=check"]
    result = call(compile_check, CONFIG, *arguments)
    assert result.code == 0, result.out + result.err
    for check in json.loads(Path("check/compile_check.json").read_text()):
        own = check["facts"]
        assert own["fits"] and own["flops"] > 0 and own["peak_bytes"] > 0
        # All gradients, reduced once.
        sent = sum(c["ring_bytes"] for c in own["collectives"])
        assert 0.4 < sent / (2 * 7 / 8 * check["parameter_bytes"]) < 1.05


@pytest.mark.slow
@NEEDS_COMPILER
def test_compiles_for_several_slices_and_says_what_does_not_fit(call):
    two = call(compile_check, CONFIG, "--topology=v5e:2x2", "--slices=2")
    assert two.code == 0 and "2 of v5e:2x2" in two.out and "yes" in two.out, two.out
    large = ["--config.width=40000000", "--topology=v5e:2x4", "--config.mesh=data:8"]
    result = call(compile_check, CONFIG, *large)
    assert result.code == 0 and "RESOURCE_EXHAUSTED" in result.out, result.out


@pytest.mark.slow
@NEEDS_COMPILER
def test_a_slice_that_the_compiler_does_not_know_is_one_line(call):
    result = call(compile_check, CONFIG, "--topology=v5e:2x4", "--config.batch=8")
    assert result.code == 0
    wrong = call(compile_check, CONFIG, "--topology=v5e:1x7", "--config.batch=7")
    assert wrong.code == 1 and "- v5e:1x7: no topology v5e:1x7" in wrong.out, wrong.out


def test_what_is_recorded_has_its_part_of_the_results(call, compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(compile_records, "commit", lambda: "0123456789" * 4 + "+")
    monkeypatch.setattr(compile_records.importlib.metadata, "version", lambda name: f"{name}-9")
    compiler["says"] = json.dumps(facts())
    line = [CONFIG, "--topology=v5e:2x4", "--config.width=64"]
    assert call(compile_check, *line, "--record", "--out=check").code == 0
    compiler["says"] = json.dumps({"fits": False, "why": "17G of 16G"})
    again = [CONFIG, "--config.width=64", "--topology=v5e:2x2,v5e:2x4"]
    assert call(compile_check, *again, "--record").code == 0
    compiler["says"] = json.dumps(facts(flops=4e12))
    assert call(compile_check, *line, "--record").code == 0
    # The first line was made anew; the others are of another command.
    found = compile_records.read(tmp_path)
    assert [str(one.check.topology) for one in found] == ["v5e:2x2", "v5e:2x4", "v5e:2x4"]
    assert [one.check.fits for one in found] == [False, False, True]
    assert found[2].command == f"python -m launch.compile_check {' '.join(line)}"
    assert found[2].check.sent() == found[2].check.sent("all-reduce") == 20e6
    page = (tmp_path / "RESULTS.md").read_text()
    assert page == report.made_page([], found)
    for words in (
        "17G of 16G",
        "4.000",
        "commit 0123456+",
        "jax jax-9",
        found[0].command,
        "in a loop over steps",
    ):
        assert words in page, words
    with (tmp_path / compile_records.NAME).open("a") as file:
        file.write('{"check": {}}\n')
    compiler["asked"].clear()
    damaged = call(compile_check, *line, "--record")
    assert not compiler["asked"]  # it says so before minutes are spent
    assert damaged.code == 4 and "line 4 is damaged" in damaged.err.splitlines()[-1]
