"""A model of a thousand parameters on a text file: seconds on one core; for the tests of launch."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import config_dict

from recattn_jax.data import ByteTokenizer, text_data, text_file, token_batch, windows
from recattn_jax.layers.base import Context
from recattn_jax.tasks.language_model import LanguageModel
from recattn_jax.training.experiment import Cadence, Experiment, Layout, MeshShape, Optimization
from recattn_jax.training.sharding import DEFAULT_RULES


class DecayingSum(nn.Module):
    """Logits from a sum over the document that decays; it streams."""

    vocabulary: int
    width: int
    streams: bool

    @nn.compact
    def __call__(self, inputs, state=None, context=Context()):
        embedded = nn.Embed(self.vocabulary, self.width)(inputs)
        segments = context.segments
        if segments is None:
            segments = jnp.ones(inputs.shape, jnp.int32)
        if state is None:
            state = {
                "sum": jnp.zeros((inputs.shape[0], self.width)),
                "segment": jnp.zeros(inputs.shape[0], jnp.int32),
            }

        def step(state, now):
            vector, segment = now
            padding = segment == 0
            decayed = 0.7 * jnp.where((segment == state["segment"])[:, None], state["sum"], 0)
            total = jnp.where(padding[:, None], state["sum"], decayed + vector)
            return {"sum": total, "segment": jnp.where(padding, state["segment"], segment)}, total

        state, sums = jax.lax.scan(step, state, (embedded.swapaxes(0, 1), segments.T))
        return nn.Dense(self.vocabulary)(sums.swapaxes(0, 1)), state


def get_config():
    """Numbers and short strings."""
    config = config_dict.ConfigDict()
    config.seed = 0
    config.data_dir = "prepared"
    config.text = "text.txt"
    config.held_out = (0.1, 0.1)
    config.width = 4
    config.batch = 8
    config.length = 8
    config.steps = 4
    config.peak_lr = 0.5
    config.streams = True
    config.mesh = "data:-1"
    return config.lock()


def build(c):
    """The experiment; opens nothing."""
    tokenizer = ByteTokenizer()

    def data():
        source = text_file(c.text, c.data_dir, *c.held_out)
        return text_data(
            source,
            tokenizer,
            c.data_dir,
            lambda stream, *host: windows(stream, c.batch, c.length, c.seed, *host),
        )

    return Experiment(
        model=DecayingSum(tokenizer.vocabulary_size, c.width, c.streams),
        task=LanguageModel(separator=tokenizer.separator, symbol=tokenizer.symbol),
        data=data,
        batch=token_batch(c.batch, c.length),
        optimization=Optimization(
            optimizer=optax.sgd(c.peak_lr),
            learning_rate=lambda step: c.peak_lr,
            accumulate=1,
            ema_decay=None,
            carry_state=False,
        ),
        cadence=Cadence(
            steps=c.steps,
            log_every=1,
            evaluate_every=2,
            save_every=2,
            keep=2,
            patience=None,
            score_every=None,
        ),
        layout=Layout(mesh=MeshShape.parse(c.mesh), rules=DEFAULT_RULES, storage=()),
        seed=c.seed,
    )


def sweep():
    """What is worth varying."""
    return {"peak_lr": (0.1, 0.2, 0.5, 1.0), "width": (2, 4, 6), "streams": (True, False)}
