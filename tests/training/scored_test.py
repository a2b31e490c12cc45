"""Batches of several shapes, and predictions that are scored against their records."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recattn_jax.data import ByteTokenizer, Labels, bucketed, text_examples
from recattn_jax.errors import UserError
from recattn_jax.tasks.base import Mean
from recattn_jax.training import MeshShape, evaluate, fit, optimizers, sharding
from recattn_jax.training.checkpoints import Checkpoints
from recattn_jax.training.checks import check
from recattn_jax.training.evaluation import Evaluator
from recattn_jax.training.metrics import read_records
from recattn_jax.training.state import bind, init_params
from recattn_jax.training.step import PerShape
from tests.training.toy import Counting, Recurrence, run_folder, toy

LABELS = Labels(("even", "odd"))
WIDTHS = (4, 9)


@dataclasses.dataclass(frozen=True)
class Parity:
    """Whether the last letter of a text is even; remembers of each text what it has read."""

    headline: str = "loss"
    maximise: bool = False
    script: tuple[float, ...] = ()

    def __call__(self, apply, batch, state):
        logits_BV, state = self._last(apply, batch, state)
        nats_B = optax.softmax_cross_entropy_with_integer_labels(logits_BV, batch["label"])
        weight_B = batch["weight"]
        return {"loss": Mean((nats_B * weight_B).sum(), weight_B.sum())}, state

    def _last(self, apply, batch, state):
        logits_BTV, state = apply(batch["inputs"], state, batch["segments"])
        last_B = jnp.maximum(batch["segments"].sum(1) - 1, 0)
        return jnp.take_along_axis(logits_BTV, last_B[:, None, None], axis=1)[:, 0, :2], state

    def predict(self, model, variables, batch):
        logits_BV, _ = self._last(bind(model, variables["params"], {}), batch, None)
        return {"label": jnp.argmax(logits_BV, -1), "read": (batch["inputs"].sum(1),)}

    def score(self, predictions, records, vocabularies):
        assert vocabularies["label"] is LABELS and len(predictions) == len(records)
        for prediction, record in zip(predictions, records, strict=True):
            assert prediction["read"][0] == sum(record["text"].encode())
        right = [
            LABELS.names[prediction["label"]] == record["label"]
            for prediction, record in zip(predictions, records, strict=True)
        ]
        return {"right": float(np.mean(right)), "records": float(len(records))}

    def explain(self, predictions, records, vocabularies):
        return f"of {len(records)} records, {len(predictions)} were read"

    def read(self, line, vocabularies):
        raise NotImplementedError

    def write(self, prediction, line, vocabularies):
        raise NotImplementedError


@functools.cache
def texts(split, count):
    random = np.random.default_rng(count)
    letters = ["".join(map(chr, random.integers(97, 123, random.integers(1, 10))))
               for _ in range(count)]  # fmt: skip
    records = [{"text": text, "label": LABELS.names[ord(text[-1]) % 2]} for text in letters]
    return text_examples(split, records, {"text": ByteTokenizer(), "label": LABELS}, 9)


def rows(split, count, widths=WIDTHS):
    return bucketed(texts(split, count), 8, widths, seed=0)


def parity(**changes):
    """The toy with texts of two widths, 27 to learn from and 21 to evaluate on."""
    parts = {
        "model": Recurrence(vocabulary=257, width=8, dropout=0.0),
        "task": Parity(),
        "train": rows("train", 27),
        "validation": rows("validation", 21),
    }
    experiment, data = toy(**{**parts, **changes})
    return experiment, dataclasses.replace(
        data, vocabularies={"text": ByteTokenizer(), "label": LABELS}
    )


def run(path, **changes):
    lines = []
    return fit(*parity(**changes), run_folder(path), say=lines.append), lines


def evaluations(path):
    records = read_records(path / "metrics.jsonl")
    return {record["step"]: record for record in records if record["split"] == "validation"}


WHOLE = {"score_every": 8}
EXPLAINED = "of 21 records, 21 were read"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("scored") / "whole"
    return path, *run(path, **WHOLE)


def params_of(path, experiment, step):
    checkpoints = Checkpoints(path / "checkpoints", 1, print, read_only=True)
    shapes = jax.eval_shape(lambda: init_params(experiment, 0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
    try:
        return checkpoints.restore_params(step, shapes)[0]
    finally:
        checkpoints.close()


def test_steps_of_two_shapes_are_those_of_a_plain_loop(whole):
    path, outcome, _ = whole
    experiment, data = parity(**WHOLE)
    with data.train.batches(0) as batches:
        batches = list(itertools.islice(batches, outcome.step))
    assert {batch["inputs"].shape for batch in batches} == {(8, width) for width in WIDTHS}

    @jax.jit
    @jax.value_and_grad
    def mean(params, batch):
        metrics, _ = experiment.task(bind(experiment.model, params, {}), batch, None)
        return metrics["loss"].total / metrics["loss"].weight

    params = init_params(experiment, experiment.seed)
    opt_state = experiment.optimization.optimizer.init(params)
    losses = []
    for batch in batches:
        loss, grads = mean(params, batch)
        updates, opt_state = experiment.optimization.optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    records = read_records(path / "metrics.jsonl")
    found = [record["loss"] for record in records if record["split"] == "train"]
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        params,
        params_of(path, experiment, outcome.step),
    )


def test_evaluations_score_when_it_is_time_and_at_the_last_step(whole):
    path, outcome, lines = whole
    found = evaluations(path)
    assert [step for step, record in found.items() if "right" in record] == [8, 12]
    assert list(found) == [4, 8, 12] and found[12]["records"] == 21
    assert outcome.metrics["right"] == found[12]["right"]
    shown = [line for line in lines if line.startswith("step 12/12 validation")]
    assert len(shown) == 1 and "right" in shown[0] and "records 21" in shown[0]
    assert lines.count(EXPLAINED) == 1 and lines.index(EXPLAINED) == lines.index(shown[0]) - 1


@pytest.mark.parametrize("mesh", [MeshShape(data=1), MeshShape(data=2, fsdp=2)])
def test_evaluating_the_run_repeats_its_last_line(whole, mesh):
    path, outcome, _ = whole
    experiment, data = parity(**WHOLE, mesh=mesh)
    params = params_of(path, experiment, outcome.step)
    said, seen = [], []
    pipeline = data.evaluation["validation"]
    values = evaluate(
        experiment,
        params,
        pipeline,
        data.vocabularies,
        said.append,
        lambda *both: seen.append(both),
    )
    assert said == [EXPLAINED]
    ((predictions, records),) = seen
    assert records is pipeline.records
    assert Parity().score(predictions, records, data.vocabularies)["right"] == values["right"]
    if mesh.data == 1:
        assert values == outcome.metrics
    assert values == pytest.approx(outcome.metrics, rel=1e-5)


def test_a_crash_while_scoring_changes_nothing(whole, tmp_path, monkeypatch):
    class Stops(BaseException):
        pass

    def stop(*_):
        raise Stops

    with monkeypatch.context() as patch, pytest.raises(Stops):
        patch.setattr(Parity, "score", stop)
        run(tmp_path, **WHOLE)
    assert list(evaluations(tmp_path)) == [4]
    run(tmp_path, **WHOLE)
    steps = [
        [(r["step"], r["split"], r["loss"], r.get("right")) for r in read_records(path)]
        for path in (tmp_path / "metrics.jsonl", whole[0] / "metrics.jsonl")
    ]
    assert steps[0] == steps[1]
    experiment, _ = parity(**WHOLE)
    jax.tree.map(
        np.testing.assert_array_equal,
        params_of(tmp_path, experiment, 12),
        params_of(whole[0], experiment, 12),
    )


@dataclasses.dataclass(frozen=True)
class Scripted(Parity):
    """Scores as it is told."""

    def score(self, predictions, records, vocabularies):
        told.append(None)
        return {"right": self.script[len(told) - 1]}


told: list[None] = []


def test_more_of_a_headline_can_be_better(tmp_path):
    told.clear()
    task = Scripted("right", True, script=(0.2, 0.9, 0.9, 0.5))
    narrow = {"train": rows("train", 27, (9,)), "validation": rows("validation", 21, (9,))}
    outcome, _ = run(
        tmp_path, task=task, **narrow, steps=40, evaluate_every=2, score_every=2, patience=2
    )
    assert (outcome.step, outcome.reason) == (8, "stopped early")
    assert outcome.best_step == 4 and outcome.best == np.float32(0.9)
    # The best checkpoint stays, whatever the latest are.
    assert "4" in {path.name for path in (tmp_path / "checkpoints").iterdir()}


def test_a_run_that_stops_early_scores_its_last_evaluation(tmp_path):
    still = optimizers.sgd(optimizers.constant(0.0, 0), None)
    narrow = {"train": rows("train", 27, (9,)), "validation": rows("validation", 21, (9,))}
    outcome, lines = run(tmp_path, **narrow, optimizer=still, evaluate_every=2, patience=2)
    assert (outcome.step, outcome.reason) == (6, "stopped early")
    found = evaluations(tmp_path)
    assert [step for step, record in found.items() if "right" in record] == [6]
    assert lines.count(EXPLAINED) == 1


def test_predictions_that_lack_a_record_are_a_bug():
    experiment, data = parity()
    mesh = check(experiment, data)
    whole = rows("validation", 21, (9,))

    class Lacking(type(whole)):
        def epoch(self):
            return itertools.islice(super().epoch(), 2)

    lacking = Lacking(**{f.name: getattr(whole, f.name) for f in dataclasses.fields(whole)})
    with jax.set_mesh(mesh):
        params = jax.device_put(init_params(experiment, 0), sharding.replicated(mesh))
        evaluator = Evaluator(experiment, params, lacking, mesh)
        with pytest.raises(ValueError, match="16 predictions for 21 records"):
            evaluator.predictions(params, lacking)


def test_rows_of_a_shape_that_no_spec_says_are_a_bug():
    mesh = sharding.make_mesh(MeshShape(data=1))
    step = PerShape(rows("train", 27).specs, mesh, lambda spec: None)
    [batch, *_] = rows("train", 27, (9, 11)).epoch()
    with pytest.raises(ValueError, match="none of the specs"):
        step(rows={name: x[..., :2] if x.ndim > 1 else x for name, x in batch.items()})


def test_misfits_are_named_before_anything_is_written(tmp_path):
    score = {"task": Parity("right", True)}
    odd = rows("train", 27, (5, 10))
    cases = {
        "score_every is 6, must be a multiple of evaluate_every, 4": {"score_every": 6},
        "headline right is a score, .* score_every is None, must be 4": score,
        "headline right is a score, .* score_every is 8, must be 4": {**score, "score_every": 8},
        "Parity scores records, and the pipeline has none": {
            "validation": Counting(8, 9, 16, seed=1)
        },
        "carry_state needs rows that go on": {"carry_state": True},
        r"length 5 \('inputs'\) is not divisible by sequence=2": {
            "train": odd, "mesh": MeshShape(data=1, sequence=2),
        },
    }  # fmt: skip
    for words, changes in cases.items():
        experiment, data = parity(**changes)
        with pytest.raises(UserError, match=words):
            fit(experiment, data, run_folder(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
