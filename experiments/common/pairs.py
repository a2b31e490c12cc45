"""From pairs of texts and a model to an experiment: sequence to sequence."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import settings
from recattn_jax.data import (
    PAIRS,
    Data,
    Examples,
    Pipeline,
    Record,
    Source,
    SubwordTokenizer,
    Vocabulary,
    bucketed,
    pair_examples,
    record_data,
)
from recattn_jax.decoding import Beam, Sampler, Translator
from recattn_jax.errors import UserError, choose
from recattn_jax.layers import (
    LSTM,
    Bidirectional,
    CrossAttention,
    Dropout,
    Embed,
    Final,
    Repeat,
    RMSNorm,
    SelfAttention,
    SequenceLayer,
    Serial,
    Slice,
)
from recattn_jax.models import EncoderDecoder, SequenceModel, TiedPerStep
from recattn_jax.models.hybrids import pre_norm, pre_norm_block
from recattn_jax.tasks import SequenceToSequence, losses
from recattn_jax.tasks.text_scores import TextScore
from recattn_jax.training import Experiment


def numbers() -> dict[str, Any]:
    """The numbers that `pairs` and `encoder_decoder` read."""
    return dict(
        batch=64,
        source_length=64,  # symbols of the widest rows; others are half of it
        target_length=64,
        smoothing=0.1,  # of the right symbols
        beams=1,  # hypotheses that are followed in decoding; 1 is greedy
        length_penalty=0.6,
        mixer="lstm+attention",  # or lstm, which hears of the source's last state alone; attention
        width=256,
        depth=2,
        heads=4,
        mlp_ratio=2,
        embedding=1.0,  # standard deviation of the vectors of symbols at first
        dropout=0.3,
    )


def encoder_decoder(c: ConfigDict, sources: int, targets: int) -> EncoderDecoder:
    """Blocks of recurrence that attend to blocks of recurrence in both directions.

    Without attention (`lstm`) the decoder is given the encoder's last states at every step; without
    recurrence (`attention`) it is a transformer of as many blocks.

    Args:
      c: the config.
      sources: how many symbols sources are written in.
      targets: how many symbols targets are written in.
    """

    def lstm() -> SequenceLayer:
        return LSTM(c.width)

    def both_ways() -> SequenceLayer:
        return Bidirectional(LSTM(c.width // 2), LSTM(c.width // 2))

    def sees_all() -> SequenceLayer:
        return SelfAttention(c.heads, causal=False)

    def looks_back() -> SequenceLayer:
        return SelfAttention(c.heads, window=c.target_length)

    def last_states() -> SequenceLayer:
        onward, back = Slice(stop=c.width // 2), Slice(start=c.width // 2)
        each = Bidirectional(Serial((onward, Final())), Serial((back, Final())))
        return Serial((RMSNorm(), each))

    # What mixes the steps of a source, what a decoder looks at, what mixes those of a target.
    mixers: dict[str, tuple[Callable[[], SequenceLayer], ...]] = {
        "lstm+attention": (both_ways, RMSNorm, lstm),
        "lstm": (both_ways, last_states, lstm),
        "attention": (sees_all, RMSNorm, looks_back),
    }
    over_source, memory, over_target = choose(mixers, c.mixer, "mixer")
    hidden = c.mlp_ratio * c.width
    read = pre_norm_block(over_source(), hidden, c.dropout)
    ask = pre_norm_block(CrossAttention(c.heads), hidden, c.dropout)
    write = Serial((pre_norm(over_target(), c.dropout), ask))
    target = Embed(targets, c.width, stddev=c.embedding)
    return EncoderDecoder(
        encoder=Serial(
            (
                Embed(sources, c.width, stddev=c.embedding),
                Dropout(c.dropout),
                Repeat(read, c.depth),
                memory(),
            )
        ),
        decoder=SequenceModel(
            frontend=Serial((target, Dropout(c.dropout))),
            body=Serial((Repeat(write, c.depth), RMSNorm(), Dropout(c.dropout))),
            readout=TiedPerStep(target),
        ),
    )


def pairs(
    c: ConfigDict,
    source: Callable[[Path], Source],
    vocabularies: Callable[[Source], Mapping[str, Vocabulary]],
    separator: int,
    scores: tuple[TextScore, ...],
    model: EncoderDecoder,
    about: Callable[[Source], str] = Source.summary,
) -> Experiment:
    """An experiment that writes a text for a text.

    Args:
      c: the config.
      source: from the folder for prepared data to the records.
      vocabularies: from the records to the tokenizers "source" and "target".
      separator: where targets start and end, of the latter tokenizer.
      scores: what written texts are compared with their references by.
      model: reads the one and writes the other.
      about: what the log says of the records.
    """

    def data() -> Data:
        found = source(settings.data_dir(c))
        lengths = (c.source_length, c.target_length)
        examples = functools.partial(pair_examples, lengths=lengths)
        return record_data(found.splits, about(found), vocabularies(found), examples, pipeline)

    def pipeline(examples: Examples, host: int, hosts: int) -> Pipeline:
        widths = [
            (max(1, c.source_length // parts), max(1, c.target_length // parts)) for parts in (2, 1)
        ]
        return bucketed(examples, c.batch, sorted(set(widths)), c.seed, host, hosts)

    search = Sampler(0.0, None, None) if c.beams == 1 else Beam(c.beams, c.length_penalty, 0.0)
    return Experiment(
        model=model,
        task=SequenceToSequence(
            stop=separator,
            decoder=Translator(separator, separator, c.target_length, search, seed=0),
            loss=functools.partial(losses.cross_entropy, smoothing=c.smoothing, weights=None),
            scores=scores,
        ),
        data=data,
        batch=PAIRS.batch(c.batch, c.source_length, c.target_length),
        optimization=settings.adamw(c),
        cadence=settings.cadence(c),
        layout=settings.layout(c),
        seed=c.seed,
    )


def of_subwords(
    c: ConfigDict,
    source: Callable[[Path], Source],
    scores: tuple[TextScore, ...],
    about: Callable[[Source], str] = Source.summary,
) -> Experiment:
    """`pairs` of `encoder_decoder` on subwords of each side; reads `vocabulary` and `lowercase`."""
    return pairs(
        c,
        source,
        lambda found: subwords(c, found),
        SubwordTokenizer.separator,
        scores,
        encoder_decoder(c, c.vocabulary, c.vocabulary),
        about,
    )


def subwords(c: ConfigDict, found: Source) -> Mapping[str, Vocabulary]:
    """Subwords of each side, made of the training pairs; reads `vocabulary` and `lowercase`."""
    train: list[Record] = list(found.splits["train"])
    sides = {
        "source": [record["source"] for record in train],
        "target": [record["targets"][0] for record in train],
    }
    try:
        return {
            side: SubwordTokenizer.of(texts, c.vocabulary, c.lowercase)
            for side, texts in sides.items()
        }
    except UserError as error:
        raise UserError(f"{error}; set --config.vocabulary") from None


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    return settings.tiny(c, batch=8, width=16, heads=2, source_length=16, target_length=16)
