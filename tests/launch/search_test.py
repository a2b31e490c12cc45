"""The flags of a search replace what a run's task has, and leave the rest."""

import dataclasses
from pathlib import Path

import pytest
from absl import flags

from launch import search
from recattn_jax.decoding import Beam, Sampler, Translator
from recattn_jax.errors import UserError
from recattn_jax.tasks import SequenceToSequence
from recattn_jax.training.loading import Run
from tests.training.toy import toy

GREEDY = Sampler(0.0, None, None)


def run_of(decoder):
    task = SequenceToSequence(0, decoder, len, ())
    experiment = dataclasses.replace(toy()[0], task=task)
    return Run(Path("run"), {}, experiment, {}, {}, 0)


def searched(decoder, *arguments):
    flag_values = flags.FlagValues()
    search.define_flags(flag_values)
    flag_values(["it", *arguments])
    return search.with_search(run_of(decoder), flag_values).experiment.task.decoder


@pytest.mark.parametrize(
    ("before", "arguments", "after"),
    [
        (Beam(4, 0.6, 0.2), [], Beam(4, 0.6, 0.2)),
        (GREEDY, [], GREEDY),
        (Beam(4, 0.6, 0.2), ["--beams=8"], Beam(8, 0.6, 0.2)),
        (Beam(4, 0.6, 0.2), ["--length_penalty=0"], Beam(4, 0.0, 0.2)),
        (Beam(4, 0.6, 0.2), ["--coverage_penalty=0"], Beam(4, 0.6, 0.0)),
        (GREEDY, ["--beams=4"], Beam(4, 0.0, 0.0)),
        (GREEDY, ["--beams=4", "--length_penalty=1"], Beam(4, 1.0, 0.0)),
    ],
)
def test_flags_replace_parts_of_the_search(before, arguments, after):
    decoder = Translator(3, 2, 9, before, seed=5)
    assert searched(decoder, *arguments) == dataclasses.replace(decoder, search=after)


def test_a_decoder_of_ones_own_has_no_search():
    assert searched(print) is print
    with pytest.raises(UserError, match="^--beams, --length_penalty: run holds no model"):
        searched(print, "--beams=4", "--length_penalty=1")


def test_a_penalty_needs_a_beam():
    with pytest.raises(UserError, match="^--coverage_penalty: run decodes .* give --beams too"):
        searched(Translator(3, 2, 9, GREEDY, seed=5), "--coverage_penalty=1")
