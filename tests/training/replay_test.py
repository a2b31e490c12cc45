"""A step that went wrong can be repeated, and says what was the first to go wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax import errors
from recattn_jax.layers import LSTM, Dropout, Embed, Repeat, Residual, SelfAttention, Serial
from recattn_jax.layers.base import SequenceLayer
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.tasks import LanguageModel
from recattn_jax.training.metrics import read_records
from recattn_jax.training.replay import replay
from tests.launch.commands import everything_under
from tests.training.toy import Counting, run_folder, toy, train

BAD = 99
SHAPE = (8, 12, 16)


class Fragile(SequenceLayer):
    """The identity, but for one document."""

    streams = True

    def forward(self, x, state, context):
        gain = jnp.where(context.segments == BAD, jnp.inf, 1.0)
        return x * gain[..., None], ()


class WithOne(Counting):
    """Batch 6 has the document that the layer cannot stand."""

    def batch(self, index):
        batch = super().batch(index)
        if index == 6:
            batch["segments"] = np.where(batch["segments"] == 2, BAD, batch["segments"])
        return batch


def fragile(**changes):
    body = Serial((Residual(LSTM(16)), Dropout(0.1), Fragile(), SelfAttention(2, window=4)))
    return {
        "model": SequenceModel(Embed(16, 16), body, PerStep(16)),
        "task": LanguageModel(separator=0, symbol="byte"),
        "train": WithOne(*SHAPE, seed=0),
        **changes,
    }


def replayed(path, step, **changes):
    lines = []
    experiment, data = toy(**changes)
    replay(experiment, data, run_folder(path), step, say=lines.append)
    return lines


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    path = tmp_path_factory.mktemp("broken") / "run"
    with pytest.raises(errors.NonFiniteError, match="at step 7, batch 6.*--replay=7"):
        train(path, **fragile())
    return path


def test_the_step_is_repeated_and_the_layer_named(broken):
    before = everything_under(broken)
    lines = []
    with pytest.raises(errors.NonFiniteError, match=r"to blame is body/layers_2 \(Fragile\)"):
        experiment, data = toy(**fragile())
        replay(experiment, data, run_folder(broken), 7, say=lines.append)
    assert everything_under(broken) == before
    assert lines[0] == "from the checkpoint of step 6"
    assert lines[1].startswith("step 7, batch 6 of the training pipeline")
    assert lines[2] == "loss nan, gradient norm nan, as in the log"
    assert lines[3] == "parameters that were not finite before it: none"
    assert lines[4].endswith("what is not: body/layers_2 (Fragile)"), lines
    assert lines[5].startswith("parameters whose gradient is not finite: ")


def test_a_good_step_is_repeated_to_the_bit(broken):
    lines = replayed(broken, 6, **fragile())
    assert lines[0] == "from the checkpoint of step 4"  # two steps before it is taken
    record = next(r for r in read_records(broken / "metrics.jsonl") if r["step"] == 6)
    loss, norm = record["loss"], record["grad_norm"]
    assert lines[2] == f"loss {loss:.7g}, gradient norm {norm:.7g}, as in the log"
    assert lines[4].endswith(": none") and lines[5].endswith(": none")


@pytest.mark.slow
def test_another_log_is_not_the_same_step(broken):
    lines = replayed(broken, 6, **fragile(seed=1))
    assert "; but the log says loss" in lines[2]


@pytest.mark.slow
def test_layers_that_are_repeated_and_batches_in_parts_are_looked_into(tmp_path):
    layers = Serial((LSTM(16), Fragile()))
    changes = fragile(
        model=SequenceModel(Embed(16, 16), Repeat(Residual(layers), 2), PerStep(16)),
        accumulate=2,
    )
    with pytest.raises(errors.NonFiniteError):
        train(tmp_path / "run", **changes)
    with pytest.raises(errors.NonFiniteError, match=r"to blame is body/.*\(Fragile\)"):
        replayed(tmp_path / "run", 7, **changes)


@pytest.mark.slow
def test_the_operation_is_named_where_jax_looks_for_nan(broken):
    with jax.debug_nans(True), pytest.raises(errors.NonFiniteError) as caught:
        replayed(broken, 7, **fragile())
    assert isinstance(caught.value.__cause__, FloatingPointError)
    assert jax.debug_nans.value is False


@pytest.mark.slow
def test_training_that_looks_for_nan_stops_at_the_step(tmp_path):
    with (
        jax.debug_nans(True),
        pytest.raises(errors.NonFiniteError, match=r"\(nan\) .* at step 7, batch 6"),
    ):
        train(tmp_path / "run", **fragile())


@pytest.mark.parametrize("step", [0, 13])
def test_steps_that_there_are_not(broken, step):
    with pytest.raises(errors.UserError, match="the run has steps 1 to 12"):
        replayed(broken, step, **fragile())


def test_without_a_run_there_is_nothing_to_repeat(tmp_path):
    with pytest.raises(errors.UserError, match="there is no run"):
        replayed(tmp_path / "none", 3, **fragile())
    assert not (tmp_path / "none").exists()
