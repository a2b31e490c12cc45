"""From running text and a body to a language model."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from experiments.common import settings
from recattn_jax.data import (
    Data,
    Pipeline,
    Source,
    Tokenizer,
    TokenStream,
    lanes,
    text_data,
    token_batch,
    windows,
)
from recattn_jax.models import SequenceModel
from recattn_jax.tasks import LanguageModel
from recattn_jax.training import Experiment, Optimization


def language_model(
    c: ConfigDict,
    source: Callable[[Path], Source],
    tokenizer: Callable[[Source], Tokenizer],
    task: LanguageModel,
    model: SequenceModel,
    optimization: Optimization,
) -> Experiment:
    """An experiment that predicts the next symbol of a text.

    Reads `batch`, `length`, `carry_state`, and the numbers of `settings`.

    Args:
      c: the config.
      source: from the folder for prepared data to the text.
      tokenizer: from the text to what cuts it.
      task: knows the separator of the tokenizer.
      model: from ids to as many logits.
      optimization: how parameters move; carries the state where the config says so.
    """

    def data() -> Data:
        found = source(settings.data_dir(c))
        return text_data(found, tokenizer(found), settings.data_dir(c), pipeline)

    def pipeline(stream: TokenStream, host: int, hosts: int) -> Pipeline:
        if c.carry_state:
            return lanes(stream, c.batch, c.length, host, hosts)
        return windows(stream, c.batch, c.length, c.seed, host, hosts)

    return Experiment(
        model=model,
        task=task,
        data=data,
        batch=token_batch(c.batch, c.length),
        optimization=optimization,
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, length=16, width=16)
