"""Train, evaluate, generate and report, on a model of a thousand parameters."""

import io
import json
import os
import re
import shutil
import types
from pathlib import Path

import pytest

from launch import evaluate, generate, report, train
from recattn_jax.data import ByteTokenizer, CharTokenizer
from recattn_jax.errors import Interrupted, UserError
from tests.launch.commands import TEXT, TINY, python_process

CONFIG = f"--config={TINY}"
FIGURE = "curves_tiny_experiment.png"


def headline(result):
    [line] = [line for line in result.out.splitlines() if line.startswith("validation ")]
    return line


def test_train_then_again_then_evaluate_then_generate(call):
    result = call(train, CONFIG, "--workdir=run")
    assert result.code == 0, result.err
    reached = headline(result)
    assert reached.endswith(" in run") and "(finished, best at step " in reached
    value = float(reached.split()[2])
    assert "\nnext:\n  python -m launch.generate --workdir=run\n" in result.out
    assert re.search("^model +DecayingSum +2,313$", result.out, re.MULTILINE)

    again = call(train, CONFIG, "--workdir=run")
    assert again.code == 0, again.err
    assert "already done" in again.out
    assert headline(again) == reached.replace("(finished", "(already done")

    evaluated = call(evaluate, "--workdir=run")
    assert evaluated.code == 0, evaluated.err
    line = json.loads(evaluated.out)
    assert evaluated.out.count("\n") == 1
    assert (line["split"], line["workdir"]) == ("validation", "run")
    assert line["bits_per_byte"] == pytest.approx(value, abs=1e-4)
    tested = json.loads(call(evaluate, "--workdir=run", "--split=test", "--checkpoint=2").out)
    assert (tested["split"], tested["step"]) == ("test", 2)

    generated = [
        call(generate, "--workdir=run", "--prompt=the mä", "--tokens=30", f"--seed={seed}")
        for seed in (0, 0, 1)
    ]
    assert [result.code for result in generated] == [0, 0, 0], generated[0].err
    assert generated[0].out == generated[1].out != generated[2].out
    assert generated[0].out.startswith("the mä") and generated[0].out.endswith("\n")
    empty = call(generate, "--workdir=run", "--tokens=5", "--temperature=0", "--checkpoint=last")
    assert empty.code == 0 and empty.out


def test_a_step_that_went_wrong_is_repeated(call):
    explodes = [CONFIG, "--workdir=run", "--config.peak_lr=1e38"]
    result = call(train, *explodes)
    assert result.code == 3 and result.err.count("\n") == 1, result.err
    step = re.search(r" at step (\d+), batch .*--replay=(\d+) ", result.err)
    assert step and step[1] == step[2]
    again = call(train, *explodes, f"--replay={step[1]}")
    assert again.code == 3 and again.err.count("\n") == 1, again.err
    assert f"at step {step[1]}, as it was taken" in again.err
    assert ", as in the log" in again.out and "parameters whose gradient is not finite" in again.out
    assert call(train, *explodes, "--replay=1").code == 0
    assert "positive integer" in call(train, *explodes, "--replay=0").err
    assert "traces nothing" in call(train, *explodes, "--replay=1", "--profile_steps=1:2").err


def test_a_process_prints_the_text_and_nothing_else(trained_folder):
    with python_process(
        "launch.generate", "--workdir=run", "--prompt=-", "--tokens=20", cwd=trained_folder
    ) as process:
        out, errors = process.communicate("the m\u00e4t\n", timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert out.startswith("the m\u00e4t\n") and len(out) > len("the m\u00e4t\n")


def test_a_loss_that_is_no_number_is_three(call):
    result = call(train, CONFIG, "--config.peak_lr=1e30")
    assert result.code == 3
    assert result.err.count("\n") == 1 and "at step 2" in result.err


def test_no_good_checkpoint_is_four(call, trained):
    for state in Path("run/checkpoints").glob("*/state"):
        shutil.rmtree(state)
    result = call(train, CONFIG, "--workdir=run")
    assert result.code == 4
    assert result.err.count("\n") == 1 and "run/checkpoints" in result.err


def test_a_request_to_stop_saves_and_is_forty_two(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    with python_process(
        "launch.train",
        CONFIG,
        "--workdir=run",
        "--config.steps=1000000",
        cwd=tmp_path,
    ) as process:
        assert process.stdout.readline().startswith("recattn_text_file_")  # what the text is
        while not (line := process.stdout.readline()).startswith("step 1/"):
            assert "step" not in line or line.startswith(("steps ", "compiled in ")), line
        process.terminate()
        lines, errors = process.communicate(timeout=60)
    assert process.returncode == 42, errors
    assert errors.count("\n") == 1 and "SIGTERM" in errors and "run" in errors
    step = int(re.search(r"at step (\d+)", errors)[1])
    assert re.search(
        r"^(validation bits_per_byte .* \()?interrupted.* in run$", lines, re.MULTILINE
    )
    assert (tmp_path / "run" / "checkpoints" / str(step)).is_dir()


def test_a_request_to_stop_is_forty_two_whatever_cannot_be_read_then(call, monkeypatch):
    def stop(*_, **__):
        raise Interrupted("saved")

    monkeypatch.setattr(train, "fit", stop)
    result = call(train, CONFIG, "--workdir=without-a-record")
    assert (result.code, result.err) == (42, "saved\n")


def test_a_run_without_a_workdir_is_named_after_its_numbers(call):
    for arguments in ([], ["--config.seed=1"]):
        result = call(train, CONFIG, "--config.steps=2", *arguments)
        assert result.code == 0, result.err
    names = sorted(path.name for path in Path("runs").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch("tiny_experiment-[0-9a-f]{8}", name) for name in names)

    Path("runs", names[0], "metrics.jsonl").write_text("damage\n")
    reported = call(report)
    assert reported.code == 0, reported.err
    assert all(name in reported.out for name in names)
    assert f"damaged: {names[0]}: metrics.jsonl" in reported.out
    page = Path("runs/report.md").read_text()
    assert "| run" in page and "(curves_tiny_experiment.png)" in page
    assert Path("runs", FIGURE).read_bytes().startswith(b"\x89PNG")
    assert all(f'"{name}"' in Path("runs/report.html").read_text() for name in names)
    written = reported.out.splitlines()[-1].removeprefix("written: ").split(", ")
    assert written == [f"runs/{name}" for name in ("report.html", "report.md", FIGURE)]
    assert {path.name for path in Path("runs").iterdir()} == {
        *names,
        *map(os.path.basename, written),
    }


def test_a_run_starts_from_the_weights_of_another(call, trained):
    reached = json.loads(call(evaluate, "--workdir=run").out)["bits_per_byte"]
    result = call(train, CONFIG, "--workdir=next", "--init_from=run", "--config.peak_lr=1e-9")
    assert result.code == 0, result.err
    assert float(headline(result).split()[2]) == pytest.approx(reached, abs=1e-4)
    assert re.search(r"\na new run starts from the weights of step \d+ in run\n", result.out)


def test_steps_are_profiled_into_the_run(call):
    result = call(train, CONFIG, "--workdir=run", "--profile_steps=2:3")
    assert result.code == 0, result.err
    assert any(path.is_file() for path in Path("run/profile").rglob("*"))


def test_the_prompt_may_come_from_stdin(monkeypatch):
    assert generate.read_prompt("plain") == "plain"
    for data, text in ((b"", ""), ("na\u00efve\n".encode(), "na\u00efve\n")):
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))
        assert generate.read_prompt("-") == text
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(b"ab\xff")))
    with pytest.raises(UserError, match="not UTF-8.*byte 2"):
        generate.read_prompt("-")


def test_text_comes_as_soon_as_it_is_complete():
    tokenizer = ByteTokenizer()
    taken = []

    def ids():
        for token in [*tokenizer.encode("a\u00ef"), 256, *tokenizer.encode("b")]:
            taken.append(int(token))
            yield int(token)

    texts = generate.texts(tokenizer, ids(), [])
    assert next(texts) == "a" and len(taken) == 1
    assert next(texts) == "\u00ef" and len(taken) == 3
    assert list(texts) == ["\n\n", "b"]


def test_a_document_that_ends_is_followed_by_an_empty_line():
    tokenizer = CharTokenizer("ab")
    assert "".join(generate.texts(tokenizer, [0, 2, 1, 2], [])) == "a\n\nb\n\n"
