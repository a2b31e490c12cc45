"""Private steps against a loop over examples, their noise measured, epsilon against papers."""

import dataclasses
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recattn_jax.errors import UserError
from recattn_jax.layers import Context
from recattn_jax.training import MeshShape, Privacy, fit, optimizers
from recattn_jax.training.privacy import epsilon, statement
from recattn_jax.training.state import bind
from tests.oracles import assert_close, oracle
from tests.training.toy import Counting, NextToken, Recurrence, hybrid, prepared, run_folder, toy


@dataclasses.dataclass(frozen=True)
class Segmented(NextToken):
    """NextToken for models that take a whole context."""

    def __call__(self, apply, batch, state):
        def given(inputs, state, segments):
            return apply(inputs, state, Context(segments=segments))

        return super().__call__(given, batch, state)


ROWS = 8
QUIET = 1e-30  # noise that is there and changes nothing
PLAIN = {
    "optimizer": optimizers.sgd(optimizers.constant(1.0, 0), None),
    "model": Recurrence(vocabulary=16, width=64, dropout=0.0),
}


def some_batch():
    batch = Counting(ROWS, 12, 16, seed=3).batch(0)
    batch["segments"][2] = 0  # a row that only fills the batch
    return batch


def moved(batch, privacy, **changes):
    """Parameters before, the gradient of a step, and the numbers of the step."""
    fresh, step, place = prepared(**{**PLAIN, **changes}, privacy=privacy)
    before = jax.device_get(fresh().params)
    state, (metrics, numbers) = step(fresh(), place(batch))
    after = jax.device_get(state.params)
    return before, jax.tree.map(np.subtract, before, after), jax.device_get((metrics, numbers))


def by_hand(task, model, params, batch, clip):
    """The mean of clipped gradients, an example at a time; how long each was, and the loss."""

    def loss(params, row):
        metrics, _ = task(bind(model, params, {}), row, None)
        return metrics["loss"].total / jnp.maximum(metrics["loss"].weight, 1)

    total, norms = jax.tree.map(np.zeros_like, params), []
    gradient = jax.jit(jax.grad(loss))
    for b in range(ROWS):
        row = {name: jnp.asarray(x[b : b + 1]) for name, x in batch.items()}
        grads = jax.device_get(gradient(params, row))
        norms.append(math.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(grads))))
        scale = min(1.0, clip / norms[-1]) if norms[-1] else 1.0
        total = jax.tree.map(lambda t, g, s=scale: t + s * g, total, grads)
    return jax.tree.map(lambda t: t / ROWS, total), np.array(norms)


@pytest.mark.parametrize(
    ("changes", "clip"),
    [
        pytest.param({}, 1.0, id="a toy", marks=pytest.mark.slow),
        pytest.param(
            {"accumulate": 2, "mesh": MeshShape(data=2, fsdp=2)}, 1.0, id="parts on devices"
        ),
        # Its backward pass is our own, under vmap here.
        pytest.param({"model": hybrid(8, depth=0), "task": Segmented()}, 1.6, id="a hybrid"),
    ],
)
def test_a_step_is_the_loop_over_examples(changes, clip):
    """At a clip that is shorter than some gradients and longer than others."""
    batch = some_batch()
    before, _, (plain, _) = moved(batch, None, **changes)
    task, model = changes.get("task", NextToken()), changes.get("model", PLAIN["model"])
    wanted, norms = by_hand(task, model, before, batch, clip)
    assert norms[2] == 0 and (norms < clip).sum() > 1 and (norms > clip).sum() > 1
    again, gradient, (metrics, _) = moved(batch, Privacy(clip, QUIET, 1e-5), **changes)
    jax.tree.map(np.testing.assert_array_equal, before, again)
    assert_close(gradient, wanted, 2e-5)
    # The metrics are those of the batch, as in plain training.
    np.testing.assert_allclose(metrics["loss"], plain["loss"], rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_noise_is_as_large_as_said(accumulate):
    """Over all parameters; it is drawn anew each step, and the same again from the same seed."""
    batch = some_batch()
    for name in batch:
        batch[name][:] = 0  # no row has a gradient, so what is left is noise
    batch["segments"][0, 0] = 1  # or the loss is no number
    clip, multiplier = 1e-3, 50.0
    privacy = Privacy(clip, multiplier, 1e-5)
    changes = {**PLAIN, "accumulate": accumulate, "privacy": privacy}
    fresh, step, place = prepared(**changes)

    def noise(at):
        state = fresh().replace(step=jnp.asarray(at, jnp.int32))
        new, _ = step(state, place(batch))
        both = jax.device_get((fresh().params, new.params))
        moves = jax.tree.map(np.subtract, *both)
        return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moves)])

    first, again, second = noise(0), noise(0), noise(1)
    np.testing.assert_array_equal(first, again)
    wanted = clip * multiplier / ROWS
    for found in (first, second):
        assert len(found) > 5000
        assert found.std() == pytest.approx(wanted, rel=5 / math.sqrt(2 * len(found)) + 0.02)
        assert abs(found.mean()) < 5 * wanted / math.sqrt(len(found)) + clip
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(len(first))


def test_one_example_moves_a_step_by_no_more_than_the_clip():
    clip = 0.05
    privacy = Privacy(clip, QUIET, 1e-5)
    batch = some_batch()
    _, one, _ = moved(batch, privacy)
    batch["targets"][5] = 1 + batch["targets"][5] % 15
    _, other, _ = moved(batch, privacy)
    difference = optax.tree.norm(jax.tree.map(np.subtract, one, other))
    assert 0 < difference <= 2 * clip / ROWS * 1.001  # one is taken away, another one put there


def gaussian_epsilon(sigma, delta):
    """The exact epsilon of one look through normal noise, by bisection (Balle and Wang, 2018)."""

    def spent(eps):
        phi = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))  # noqa: E731
        return phi(0.5 / sigma - eps * sigma) - math.exp(eps) * phi(-0.5 / sigma - eps * sigma)

    low, high = 0.0, 300.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(
    ("multiplier", "batch", "examples", "steps", "published"),
    [
        # Abadi et al., 2016, section 3.2: q 0.01, sigma 4, 100 epochs: moments accountant 1.26.
        (4.0, 600, 60_000, 10_000, 1.26),
        # Bu et al., Deep learning with Gaussian differential privacy, 2020, figure 4: MNIST, 256 of
        # 60,000, sigma 1.3, 20 epochs: moments accountant 1.34.
        (1.3, 256, 60_000, 4_688, 1.34),
    ],
)
def test_epsilon_of_samples_is_as_published(multiplier, batch, examples, steps, published):
    """Tighter than the moments accountant, and near what Gaussian differential privacy says."""
    oracle("dp_accounting")
    found = epsilon(Privacy(1.0, multiplier, 1e-5), steps, batch, examples).sampled
    assert 0.7 * published < found < published
    # Bu et al.: in the limit of many steps, one look through noise of 1 / mu.
    mu = batch / examples * math.sqrt(steps * (math.exp(multiplier**-2) - 1))
    assert found == pytest.approx(gaussian_epsilon(1 / mu, 1e-5), rel=0.05)


@pytest.mark.parametrize(
    ("batch", "steps", "taken"),
    [(100, 10, 1), (100, 11, 2), (100, 20, 2), (30, 34, 2), (30, 35, 4), (1000, 3, 3)],
)
def test_epsilon_of_shuffled_epochs_is_exact(batch, steps, taken):
    """1,000 examples: what was taken n times was looked at through noise smaller by root n."""
    oracle("dp_accounting")
    found = epsilon(Privacy(1.0, 4.0, 1e-5), steps, batch, 1000).shuffled
    assert found == pytest.approx(gaussian_epsilon(4 / math.sqrt(taken), 1e-5), rel=1e-3)


class Rows(Counting):
    """As many records as rows in an epoch of ten batches, less a few."""

    records = [{}] * (10 * ROWS - 3)


class Packed(Rows):
    records = [{}] * (20 * ROWS)


class Stream(Rows):
    records = None


def test_a_run_states_what_it_tells(tmp_path):
    oracle("dp_accounting")
    lines = []
    privacy = Privacy(1.0, 2.0, 1e-3)
    changes = {"train": Rows(ROWS, 12, 16, seed=0), "privacy": privacy, "steps": 4}
    fit(*toy(**changes), run_folder(tmp_path / "run"), say=lines.append)
    stated = [line for line in lines if line.startswith("privacy: ")]
    found = epsilon(privacy, 4, ROWS, 77)
    assert len(stated) == 2 and stated[0] == stated[1]
    assert re.search(
        rf"after 4 steps of 8 of 77 examples, noise 2 x clip 1: epsilon {found.shuffled:.3g} at"
        rf" delta 0\.001 .*; {found.sampled:.3g} if",
        stated[0],
    )


@pytest.mark.parametrize("pipeline", [Packed, Stream])
def test_what_cannot_be_accounted_for_is_refused_before_anything_is_written(pipeline, tmp_path):
    train = pipeline(ROWS, 12, 16, seed=0)
    changes = {"train": train, "privacy": Privacy(1.0, 2.0, 1e-3), "steps": 4}
    with pytest.raises(UserError, match="a row of its own"):
        fit(*toy(**changes), run_folder(tmp_path / "run"), say=print)
    assert not (tmp_path / "run").exists()


def test_wrong_settings_are_refused():
    for clip, multiplier, delta in ((0.0, 1.0, 0.1), (1.0, 0.0, 0.1), (1.0, 1.0, 0.0)):
        with pytest.raises(UserError, match="must be above 0"):
            Privacy(clip, multiplier, delta)
    with pytest.raises(UserError, match="carried state"):
        toy(privacy=Privacy(1.0, 1.0, 0.1), carry_state=True)
    with pytest.raises(UserError, match="batch of 9 cannot be taken from 8"):
        epsilon(Privacy(1.0, 1.0, 0.1), 1, 9, 8)


def test_without_the_accountant_nothing_is_promised(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match=r"install recattn_jax\[privacy\]"):
        statement(Privacy(1.0, 1.0, 0.1), 1, Rows(ROWS, 12, 16, seed=0))
