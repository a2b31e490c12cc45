"""System S2: an encoder, an attention calculator, and a decoder; on commands to actions.

    python -m launch.train --config=experiments/s2.py --config.folder=FOLDER

with the data of `scan`. `h = RNN(x)`, `a = W_a h` (`W_a x` with --config.encoder=inputs), `e = W_e
s` with the decoder's state s, `c = sum_t softmax_t(e . a_t) a_t`, and the decoder RNN reads `[y;
c]`. With --config.mixer=rnn the decoder is given the encoder's last state in place of c; with
--config.mixer=attention both are one block of a transformer.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from experiments import scan
from experiments.common import pairs, settings
from recattn_jax.errors import choose
from recattn_jax.layers import RNN, Embed, Final, Identity, SequenceLayer, Serial
from recattn_jax.models import EncoderDecoder, PerStep, SequenceModel
from recattn_jax.models.hybrids import (
    mapped_decoder,
    mapped_encoder,
    transformer,
    transformer_decoder,
)
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        mixer="rnn+attention",  # or rnn, attention
        encoder="states",  # what is attended to: states of an RNN, or the inputs
        width=128,
        heads=4,  # of the transformer
        source_length=10,
        target_length=50,
        batch=64,
        smoothing=0.0,
        beams=1,  # hypotheses that are followed in decoding; 1 is greedy
        length_penalty=0.6,
        folder="",
        split="simple",
        steps=1500,
        evaluate_every=500,
        peak_lr=2e-3,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    encoders: dict[str, Callable[[], SequenceLayer]] = {
        "states": lambda: RNN(c.width),
        "inputs": Identity,
    }

    def attends() -> tuple[SequenceLayer, SequenceLayer]:
        read = choose(encoders, c.encoder, "encoder")()
        return mapped_encoder(read, c.width), mapped_decoder(c.width, c.width)

    def recurs() -> tuple[SequenceLayer, SequenceLayer]:
        last = Serial((RNN(c.width), Final()))
        return mapped_encoder(last, c.width), mapped_decoder(c.width, c.width)

    def attends_only() -> tuple[SequenceLayer, SequenceLayer]:
        hidden, window = 2 * c.width, c.target_length
        return (
            transformer(c.heads, hidden, depth=1, causal=False, window=None, dropout=0.0),
            transformer_decoder(c.heads, hidden, depth=1, window=window, dropout=0.0),
        )

    mixers = {"rnn+attention": attends, "rnn": recurs, "attention": attends_only}
    encoder, decoder = choose(mixers, c.mixer, "mixer")()
    model = EncoderDecoder(
        encoder=Serial((Embed(scan.COMMANDS, c.width), encoder)),
        decoder=SequenceModel(Embed(scan.ACTIONS, c.width), decoder, PerStep(scan.ACTIONS)),
    )
    return scan.commands(c, model)


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {"peak_lr": (1e-3, 2e-3, 4e-3), "mixer": ("rnn", "attention", "rnn+attention")}


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return pairs.tiny(c)
