"""Translation, on two text files of your own: LSTMs that attend to LSTMs (system S2, in blocks).

    python -m launch.train --config=experiments/translate.py \
        --config.source=mine.de --config.target=mine.en

Line k of one file is the translation of line k of the other. Without --config.source_validation a
tenth of the pairs is held out. Both sides are cut into subwords. With --config.mixer=lstm the
decoder hears of the source's last states alone; with --config.mixer=attention it is a transformer.
Time and the number to expect are matters of the text.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import pairs, settings
from recattn_jax.data import Source, parallel_text
from recattn_jax.errors import UserError
from recattn_jax.tasks import Bleu
from recattn_jax.training import Experiment


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **pairs.numbers()
        | dict(source_length=40, target_length=40, depth=1, mlp_ratio=1, dropout=0.2),
        source="",  # paths; gzipped where they end in .gz
        target="",
        source_validation="",
        target_validation="",
        source_test="",
        target_test="",
        vocabulary=4_000,  # subwords of each side
        lowercase=False,
        steps=2400,
        evaluate_every=400,
        patience=3,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""

    def source(data_dir: Path) -> Source:
        ends = {"train": "", "validation": "_validation", "test": "_test"}
        sides = [
            settings.splits(c, **{split: side + end for split, end in ends.items()})
            for side in ("source", "target")
        ]
        if sides[0].keys() != sides[1].keys():
            raise UserError("each split needs two files, of source and of target")
        paths = {split: (sides[0][split], sides[1][split]) for split in sides[0]}
        return parallel_text(paths, data_dir)

    return pairs.of_subwords(c, source, (Bleu("13a", c.lowercase),))


def sweep() -> dict[str, Any]:
    """What is worth varying."""
    return {
        "peak_lr": (1e-3, 2e-3, 4e-3),
        "mixer": ("lstm", "attention", "lstm+attention"),
        "dropout": (0.1, 0.3),
    }


def tiny(c: ConfigDict) -> ConfigDict:
    """The same experiment in seconds."""
    c.update(vocabulary=320)
    return pairs.tiny(c)
