"""An LSTM beside self-attention (system S3), on the bytes of Python's own documentation.

The default experiment: the text is what every Python installation carries, so it needs no network.

    python -m launch.train

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recattn_jax.data import (
    ByteTokenizer,
    Data,
    Pipeline,
    Source,
    Tokenizer,
    TokenStream,
    lanes,
    python_docs,
    text_data,
    token_batch,
    windows,
)
from recattn_jax.errors import choose
from recattn_jax.layers import (
    LSTM,
    Dropout,
    Embed,
    RMSNorm,
    Rotary,
    SelfAttention,
    SequenceLayer,
    Serial,
)
from recattn_jax.models import PerStep, SequenceModel
from recattn_jax.models.hybrids import pre_norm_block, recurrence_beside_attention
from recattn_jax.tasks import LanguageModel
from recattn_jax.training import (
    DEFAULT_RULES,
    Cadence,
    Experiment,
    Layout,
    MeshShape,
    Optimization,
    optimizers,
)


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    config = ConfigDict(
        dict(
            seed=0,
            data_dir="~/.cache/recattn_jax",
            batch=8,
            length=512,
            carry_state=False,  # truncated BPTT: rows go on where the batch before ended
            mixer="lstm+attention",
            width=256,
            depth=1,
            heads=2,
            window=64,  # steps that attention looks back
            mlp_ratio=1,
            dropout=0.0,
            steps=450,
            peak_lr=1.5e-2,
            end_lr=0.0,
            warmup=30,
            momentum=0.95,
            adam_b2=0.99,  # of what Muon leaves to Adam: embeddings, readout, norms, biases
            weight_decay=0.1,
            clip=1.0,
            accumulate=1,
            ema_decay=0.0,  # 0 keeps no average
            log_every=10,
            evaluate_every=150,
            save_every=150,
            keep=2,
            patience=0,  # evaluations without a better one before the run stops; 0 never stops
            mesh_data=-1,
            mesh_fsdp=1,
            mesh_model=1,
        )
    )
    return config.lock()


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    return language_model(c, ByteTokenizer(), python_docs)


def language_model(
    c: ConfigDict, tokenizer: Tokenizer, source: Callable[[Path], Source]
) -> Experiment:
    """A language model of the config's shape, on any text.

    Args:
      c: the config.
      tokenizer: its vocabulary sets the width of the readout.
      source: from the folder for prepared data to the text.
    """
    mixers: dict[str, Callable[[], SequenceLayer]] = {
        "lstm": lambda: LSTM(c.width),
        "attention": lambda: SelfAttention(c.heads, window=c.window),
        "lstm+attention": lambda: recurrence_beside_attention(
            c.width, c.heads, c.window, positions=Rotary()
        ),
    }
    mixer = choose(mixers, c.mixer, "mixer")
    blocks = [pre_norm_block(mixer(), c.mlp_ratio * c.width, c.dropout) for _ in range(c.depth)]

    def data() -> Data:
        data_dir = Path(c.data_dir).expanduser()

        def pipeline(stream: TokenStream, host: int, hosts: int) -> Pipeline:
            if c.carry_state:
                return lanes(stream, c.batch, c.length, host, hosts)
            return windows(stream, c.batch, c.length, c.seed, host, hosts)

        return text_data(source(data_dir), tokenizer, data_dir, pipeline)

    rate = optimizers.linear(c.peak_lr, c.warmup, c.steps, end=c.end_lr)
    return Experiment(
        model=SequenceModel(
            frontend=Embed(tokenizer.vocabulary_size, c.width),
            body=Serial((*blocks, RMSNorm(), Dropout(c.dropout))),
            readout=PerStep(tokenizer.vocabulary_size),
        ),
        task=LanguageModel(tokenizer.separator, tokenizer.symbol),
        data=data,
        batch=token_batch(c.batch, c.length),
        optimization=Optimization(
            optimizer=optimizers.muon(
                rate,
                beta=c.momentum,
                adam_b1=0.9,
                adam_b2=c.adam_b2,
                weight_decay=c.weight_decay,
                clip=c.clip,
            ),
            learning_rate=rate,
            accumulate=c.accumulate,
            ema_decay=c.ema_decay or None,
            carry_state=c.carry_state,
        ),
        cadence=Cadence(
            steps=c.steps,
            log_every=c.log_every,
            evaluate_every=c.evaluate_every,
            save_every=c.save_every,
            keep=c.keep,
            patience=c.patience or None,
            score_every=None,
        ),
        layout=Layout(
            mesh=MeshShape(data=c.mesh_data, fsdp=c.mesh_fsdp, model=c.mesh_model),
            rules=DEFAULT_RULES,
            storage=(),
        ),
        seed=c.seed,
    )


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (3e-3, 1e-2, 2e-2),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.0, 0.1),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(batch=8, length=16, width=16, heads=2, steps=2, evaluate_every=2, save_every=2)
    return c
