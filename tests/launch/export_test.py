"""A trained run, exported, and run by a process that knows nothing of this project."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import export, generate
from recattn_jax.layers.base import Context
from recattn_jax.training.loading import load_run
from tests.launch.commands import everything_under
from tests.oracles import assert_close, oracle

# Runs load.py as a person would, and then uses it as a module; all that it may import lies in the
# folders that are given.
ELSEWHERE = """
import importlib.util, pathlib, runpy, sys
folder, prompt, count, *places = sys.argv[1:]
sys.path = [p for p in sys.path if p and not (pathlib.Path(p) / "recattn_jax").is_dir()] + places
load = f"{folder}/load.py"
sys.argv = [load, prompt, "--tokens", count]
runpy.run_path(load, run_name="__main__")
import numpy as np
model = runpy.run_path(load)["Exported"](folder)
given = np.load("given.npz")
pairs = ("one", "three")
np.savez("got.npz", **{name: model.whole(given[name])[0] for name in pairs})
assert importlib.util.find_spec("recattn_jax") is None
assert not {"recattn_jax", "flax", "optax", "launch"} & set(sys.modules)
"""


@pytest.fixture
def packages(any_shape):
    """The folders that flatbuffers and safetensors lie in."""
    found = [oracle(name) for name in ("flatbuffers", "safetensors")]
    return [str(Path(str(package.__file__)).parents[1]) for package in found]


def test_it_says_the_same_elsewhere(call, trained, tmp_path, packages):
    result = call(export, "--workdir=run", "--out=exported/a")
    assert (result.code, result.err) == (0, ""), result.err
    assert result.out.startswith("step 4 of run, 2,313 parameters, in exported/a:\n")
    files = everything_under(Path("exported"))
    names = ("load.py", "model.json", "step.bin", "vocabularies.json", "weights.safetensors")
    assert sorted(files) == ["a", *(f"a/{name}" for name in (*names, "whole.bin"))]
    assert all(f"  {name} " in result.out for name in names)
    assert len({path.stat().st_mode for path in Path("exported/a").iterdir()}) == 1
    # 2,313 numbers of four bytes: none of them is in the programs, of which each is for three kinds
    # of device.
    sizes = {name: len(content or b"") for name, content in files.items()}
    assert 4 * 2313 <= sizes["a/weights.safetensors"] < 4 * 2313 + 1000
    assert sizes["a/whole.bin"] < 30_000 and sizes["a/step.bin"] < 30_000
    assert files["a/vocabularies.json"] == Path("run/vocabularies.json").read_bytes()

    described = json.loads((files["a/model.json"] or b"").decode())
    record = json.loads(Path("run/run.json").read_text())
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    assert (described["format"], described["task"], described["step"]) == (1, "LanguageModel", 4)
    assert described["platforms"] == ["cpu", "cuda", "tpu"]
    assert described["metrics"]["bits_per_byte"] == last["bits_per_byte"]
    assert (described["experiment"], described["commit"]) == ("tiny_experiment", record["commit"])
    assert described["input"] == {
        "vocabulary": "text", "kind": "byte", "separator": 256, "vocabulary_size": 257
    }  # fmt: skip
    assert [tuple(weight["shape"]) for weight in described["weights"]] == [
        (257,),
        (4, 257),
        (257, 4),
    ]
    assert described["functions"]["step"]["state"] == [
        {"shape": ["b"], "dtype": "int32"},
        {"shape": ["b", 4], "dtype": "float32"},
        {"shape": ["b"], "dtype": "int32"},
    ]

    prompt, count = "the m\u00e4t", "30"
    random = np.random.default_rng(0)
    given = {
        n: random.integers(0, 257, shape) for n, shape in (("one", (1, 7)), ("three", (3, 20)))
    }
    np.savez(tmp_path / "given.npz", **given)
    arguments = [str(Path("exported/a").absolute()), prompt, count, *packages]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    ours = call(
        generate, "--workdir=run", f"--prompt={prompt}", "--temperature=0", f"--tokens={count}"
    )
    assert done.stdout == ours.out
    run = load_run("run")
    with np.load(tmp_path / "got.npz") as got:
        for name, inputs in given.items():
            context = Context(segments=np.ones(inputs.shape, np.int32))
            wanted, _ = run.experiment.model.apply({"params": run.params}, inputs, None, context)
            assert_close([got[name]], [wanted])


@pytest.mark.slow
def test_a_translator_is_not_exported(call, scored, packages):
    refused = call(export, f"--workdir={scored('translate')}", "--out=other")
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "SequenceToSequence" in refused.err and "language models, class" in refused.err
    assert not Path("other").exists()


def test_wrong_usage_is_one_line_and_writes_nothing(call, trained, packages):
    Path("there").mkdir()
    before = everything_under(Path())
    for arguments, words in (
        (["--workdir=run"], "--out is missing"),
        (["--out=out"], "--workdir is missing"),
        (["--workdir=nowhere", "--out=out"], "no run in nowhere"),
        (["--workdir=run", "--out=there"], "there exists"),
        (["--workdir=run", "--out=text.txt/out"], "cannot create text.txt/out"),
        (["--workdir=run", "--out=out", "--checkpoint=3"], "3"),
        (["--workdir=run", "--out=out", "--lengths=64,0"], "'0' is no number of steps"),
        (["--workdir=run", "--out=out", "--lengths=64,x"], "'x' is no number of steps"),
        (["--workdir=run", "--out=out", "--length=64"], "did you mean --lengths?"),
    ):
        result = call(export, *arguments)
        assert (result.code, result.out) == (2, ""), result.err
        assert result.err.count("\n") == 1 and words in result.err, result.err
        assert everything_under(Path()) == before


def test_help_says_what_is_written(call):
    result = call(export, "--help")
    assert (result.code, result.err) == (0, "")
    assert all(word in result.out for word in ("whole.bin", "--lengths", "--checkpoint"))
