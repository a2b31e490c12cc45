"""Losses against torch and against their formulas in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.tasks import losses
from tests.oracles import oracle

N, V = 9, 5
RANDOM = np.random.default_rng(0)
LOGITS = jnp.asarray(RANDOM.normal(0, 3, (N, V)), jnp.float32)
LABELS = jnp.asarray(RANDOM.integers(0, V, N), jnp.int32)
WEIGHTS = (0.5, 2.0, 1.0, 0.0, 3.0)


def value_and_gradient(loss):
    total = jax.jit(jax.value_and_grad(lambda logits: jnp.sum(loss(logits, LABELS))))
    return jax.device_get(total(LOGITS))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_equals_torch(smoothing):
    torch = oracle("torch")
    logits = torch.tensor(np.asarray(LOGITS), requires_grad=True)
    wanted = torch.nn.functional.cross_entropy(
        logits, torch.tensor(np.asarray(LABELS)).long(), label_smoothing=smoothing, reduction="sum"
    )
    wanted.backward()
    loss = functools.partial(losses.cross_entropy, smoothing=smoothing, weights=None)
    value, gradient = value_and_gradient(loss)
    np.testing.assert_allclose(value, float(wanted.detach()), rtol=1e-5)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), atol=1e-5)


def test_class_weights_equal_torch():
    torch = oracle("torch")
    wanted = torch.nn.functional.cross_entropy(
        torch.tensor(np.asarray(LOGITS)),
        torch.tensor(np.asarray(LABELS)).long(),
        weight=torch.tensor(WEIGHTS),
        reduction="none",
    )
    got = losses.cross_entropy(LOGITS, LABELS, smoothing=0.0, weights=WEIGHTS)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-5, atol=1e-6)
    # With smoothing torch also weighs the classes that the target is spread over; here an example
    # has one weight, that of its class, whatever the loss.
    plain = losses.cross_entropy(LOGITS, LABELS, smoothing=0.2, weights=None)
    got = losses.cross_entropy(LOGITS, LABELS, smoothing=0.2, weights=WEIGHTS)
    np.testing.assert_allclose(
        got, plain * np.array(WEIGHTS, np.float32)[np.asarray(LABELS)], rtol=1e-6
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_its_formula(gamma):
    exact = np.asarray(LOGITS, np.float64)
    p = np.exp(exact) / np.exp(exact).sum(-1, keepdims=True)
    p = p[np.arange(N), np.asarray(LABELS)]
    wanted = -((1 - p) ** gamma) * np.log(p) * np.array(WEIGHTS)[np.asarray(LABELS)]
    got = losses.focal(LOGITS, LABELS, gamma=gamma, weights=WEIGHTS)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
    if gamma == 0:
        plain = losses.cross_entropy(LOGITS, LABELS, smoothing=0.0, weights=WEIGHTS)
        np.testing.assert_allclose(got, plain, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_a_certain_model_has_finite_gradients(gamma):
    certain = jnp.array([[200.0, 0.0], [-200.0, 0.0]])
    loss = functools.partial(losses.focal, gamma=gamma, weights=None)
    value, gradient = jax.value_and_grad(lambda x: loss(x, jnp.array([0, 0])).sum())(certain)
    assert float(value) == pytest.approx(200.0)
    np.testing.assert_allclose(gradient, [[0, 0], [-1, 1]], atol=1e-6)


def test_inverse_frequency_equals_sklearn():
    weight = oracle("sklearn.utils.class_weight").compute_class_weight
    labels = np.array([0] * 7 + [1] * 2 + [2])
    wanted = weight("balanced", classes=np.arange(3), y=labels)
    got = losses.inverse_frequency(labels, 3)
    np.testing.assert_allclose(got, wanted)
    assert np.mean(np.array(got)[labels]) == pytest.approx(1.0)


def test_a_class_without_labels_weighs_nothing():
    assert losses.inverse_frequency([0, 0, 2, 2, 2, 2], 4) == (1.5, 0.0, 0.75, 0.0)


def test_padding_counts_for_nothing_whatever_it_holds():
    nats = functools.partial(losses.cross_entropy, smoothing=0.1, weights=WEIGHTS)
    logits = LOGITS.at[3:].set(jnp.nan)
    labels = LABELS.at[3:].set(-1)
    weight = jnp.where(jnp.arange(N) < 3, 1.0, 0.0)
    loss, accuracy = losses.label_means(nats, logits, labels, weight)
    wanted, right = losses.label_means(nats, LOGITS[:3], LABELS[:3], weight[:3])
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    np.testing.assert_allclose(accuracy, right)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="expected one a class, 5, found 2"):
        losses.cross_entropy(LOGITS, LABELS, smoothing=0.0, weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="smoothing is 2"):
        losses.cross_entropy(LOGITS, LABELS, smoothing=2.0, weights=None)
    with pytest.raises(ValueError, match="gamma is -1"):
        losses.focal(LOGITS, LABELS, gamma=-1.0, weights=None)
