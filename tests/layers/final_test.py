import jax.numpy as jnp
import numpy as np

from recattn_jax.layers import Context, Final


def test_every_step_is_the_last_of_its_document():
    x_BTD = jnp.arange(14.0).reshape(1, 7, 2)
    y_BTD, _ = Final().apply({}, x_BTD)
    np.testing.assert_array_equal(y_BTD[0], np.tile([12.0, 13.0], (7, 1)))
    segments = jnp.array([[0, 1, 1, 1, 2, 2, 0]])
    y_BTD, _ = Final().apply({}, x_BTD, None, Context(segments=segments))
    np.testing.assert_array_equal(y_BTD[0, :, 0], [0, 6, 6, 6, 10, 10, 0])
