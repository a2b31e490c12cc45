"""A hybrid of an LSTM, attention and a linear recurrence, small enough for any mesh of 8 devices.

Its optimizer keeps the gradient of the last step, so that a checkpoint tells it.
"""

import dataclasses
import itertools

import jax
import optax
from ml_collections import config_dict

from recattn_jax.data import ByteTokenizer, text_data, text_file, token_batch, windows
from recattn_jax.layers import LSTM, RGLRU, Embed, Residual, RMSNorm, SelfAttention, Serial
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.models.hybrids import recurrence_beside_attention
from recattn_jax.tasks.language_model import LanguageModel
from recattn_jax.training.experiment import Cadence, Experiment, Layout, MeshShape, Optimization
from recattn_jax.training.sharding import DEFAULT_RULES


def get_config():
    """Numbers and short strings."""
    config = config_dict.ConfigDict()
    config.seed = 0
    config.data_dir = "prepared"
    config.text = "text.txt"
    config.steps = 20
    config.save_every = 1
    config.mesh = "data:-1"
    config.fails = -1  # a batch that the second process cannot read
    return config.lock()


def failing(pipeline, batch):
    """The pipeline; on the second process one whose batches end with an error."""
    if batch < 0 or jax.process_index() != 1:
        return pipeline

    class Failing(type(pipeline)):
        def batches(self, start):
            with super().batches(start) as good:
                yield from itertools.islice(good, batch - start)
            raise OSError(5, "Input/output error")

    fields = dataclasses.fields(pipeline)
    return Failing(**{field.name: getattr(pipeline, field.name) for field in fields})


def build(c):
    """The experiment; opens nothing."""
    tokenizer = ByteTokenizer()
    width, heads, batch, length = 64, 4, 16, 8

    def data():
        source = text_file(c.text, c.data_dir, 0.1, 0.1)
        return text_data(
            source,
            tokenizer,
            c.data_dir,
            lambda stream, *host: failing(windows(stream, batch, length, c.seed, *host), c.fails),
        )

    layers = (
        recurrence_beside_attention(width, heads, window=None),
        SelfAttention(heads, window=4),
        RGLRU(heads),
        LSTM(width),
    )
    body = Serial((*(Residual(Serial((RMSNorm(), layer))) for layer in layers), RMSNorm()))
    readout = PerStep(tokenizer.vocabulary_size)
    return Experiment(
        model=SequenceModel(Embed(tokenizer.vocabulary_size, width), body, readout),
        task=LanguageModel(separator=tokenizer.separator, symbol=tokenizer.symbol),
        data=data,
        batch=token_batch(batch, length),
        optimization=Optimization(
            optimizer=optax.chain(optax.trace(decay=0.0), optax.adam(3e-3)),
            learning_rate=lambda step: 3e-3,
            accumulate=1,
            ema_decay=None,
            carry_state=False,
        ),
        cadence=Cadence(
            steps=c.steps,
            log_every=1,
            evaluate_every=5,
            save_every=c.save_every,
            keep=c.steps,
            patience=None,
            score_every=None,
        ),
        layout=Layout(mesh=MeshShape.parse(c.mesh), rules=DEFAULT_RULES, storage=()),
        seed=c.seed,
    )
