"""Translation of image captions between German, English and French, lower-cased.

    python -m launch.train --config=experiments/multi30k.py --config.folder=FOLDER

where FOLDER holds `train.de`, `val.de`, `test_2016_flickr.de` and the same for en and fr, perhaps
as .gz: 29,000 pairs to train on. German to English, or as --config.languages=en-fr says. Blocks of
LSTMs that attend to blocks of bidirectional LSTMs, on subwords; with --config.mixer=lstm the
decoder is given the encoder's last states and nothing else, with --config.mixer=attention it is a
transformer of as many blocks.

Hardware: 2 CPU cores. Time and the number to expect: see RESULTS.md.

Reference: German to English, BLEU of lower-cased text, greedy, test of 2016: 28.3 by a
bidirectional GRU with additive attention, 20.6 by a GRU without attention, 13.8 by LSTMs without; a
transformer 36.5 (Trevett's tutorials). English to French: 52 to 54 by attentional GRUs (from
memory). Those are of tokenized text; here it is sacrebleu's, of text as it is written.

Tried: the numbers of this file are 5.3 epochs in less than half an hour on one core. By beam search
(launch.evaluate --beams=4 --length_penalty=0.6) German to English has 30.8 instead of 28.5. English
to French has 41.3 after as many steps, 8.5 without attention and 24.2 without recurrence, and 50.1
after 6,000.
"""

import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.common import pairs, settings
from recattn_jax.data import Source, find_file, parallel_text
from recattn_jax.errors import UserError
from recattn_jax.tasks import Bleu
from recattn_jax.training import Experiment

FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


def get_config() -> ConfigDict:
    """All numbers of the experiment."""
    return settings.numbers(
        **pairs.numbers()
        | dict(source_length=40, target_length=40, depth=1, mlp_ratio=1, dropout=0.2),
        folder="",
        languages="de-en",
        vocabulary=4_000,  # subwords of each language
        lowercase=True,
        steps=2400,
        evaluate_every=600,
        save_every=1200,
    )


def build(c: ConfigDict) -> Experiment:
    """The experiment that the numbers describe; opens no data."""
    match = re.fullmatch(r"(\w+)-(\w+)", c.languages)
    if not match:
        raise UserError(f"languages is {c.languages!r}, must be two with a hyphen, as in de-en")
    from_language, to_language = match[1], match[2]

    def source(data_dir: Path) -> Source:
        folder = settings.path(c, "folder", "train, val and test_2016_flickr of both languages")
        paths = {
            split: (
                find_file(folder, f"{name}.{from_language}"),
                find_file(folder, f"{name}.{to_language}"),
            )
            for split, name in FILES.items()
        }
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
