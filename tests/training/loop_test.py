"""The loop: what it leaves behind, when it stops, and how it goes on."""

import json

import numpy as np

from recattn_jax.training import RunFolder, fit
from recattn_jax.training.metrics import read_records
from tests.training.toy import toy


def run_folder(path, **config):
    return RunFolder.open(path, config=config, config_file="toy.py", argv=["train"])


def train(path, **changes):
    lines = []
    outcome = fit(*toy(**changes), run_folder(path), say=lines.append)
    return outcome, lines


def test_a_run_learns_and_leaves_its_files(tmp_path):
    outcome, lines = train(tmp_path / "run", steps=60, save_every=30, evaluate_every=30)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    losses = [r["loss"] for r in records if r["split"] == "train"]
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 61))
    assert losses[0] > 2.5 and np.mean(losses[-5:]) < 1.2, losses
    assert outcome.reason == "finished" and outcome.step == 60
    assert outcome.metrics["loss"] == records[-1]["loss"]
    assert outcome.best == np.float32(records[-1]["loss"]) and outcome.best_step == 60
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.json", "run.json", "model.txt", "tokenizer.json", "metrics.jsonl", "tensorboard",
        "checkpoints",
    }  # fmt: skip
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["ended"] == "done" and record["training_seconds"] > 0
    assert "recurrent_kernel" in (tmp_path / "run" / "model.txt").read_text()
