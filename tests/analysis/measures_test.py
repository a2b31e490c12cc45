"""Which rows a run is measured on."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recattn_jax.analysis.measures import run_flow
from recattn_jax.errors import UserError
from recattn_jax.layers import Embed, Identity
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.training.loading import Run


def flow_of(*lengths):
    model = SequenceModel(Embed(5, 4), Identity(), PerStep(5))
    params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 2), int))["params"]
    run = mock.Mock(spec=Run, experiment=mock.Mock(model=model), params=params)
    segments = (np.arange(12) < np.array(lengths)[:, None]).astype(np.int32)
    return run_flow(run, [{"inputs": np.ones_like(segments), "segments": segments}])


def test_flow_is_of_the_longest_rows_and_a_short_one_cuts_none() -> None:
    flow_T = flow_of(3, 9, 12, 0, 6)
    assert flow_T.shape == (9,) and flow_T[0] > 0 and not flow_T[1:].any()


def test_flow_needs_a_row() -> None:
    with pytest.raises(UserError, match="there are none"):
        flow_of(0, 0)
