"""The flags of how a sequence to sequence model searches for its targets."""

import dataclasses
from typing import Any

from absl import flags

from recattn_jax.decoding import Beam, Translator
from recattn_jax.errors import UserError
from recattn_jax.tasks import SequenceToSequence
from recattn_jax.training.loading import Run

FLAGS = ("beams", "length_penalty", "coverage_penalty")


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags; what is not given stays as the experiment has it."""
    flags.DEFINE_integer(
        "beams", None, "translations: how many hypotheses beam search follows; 1 is greedy; what is"
        " not given is as the run has it", flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_float(
        "length_penalty", None, "translations: 0 for plain log probabilities, which favour short"
        " ones; 1 for nearly their mean", flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_float(
        "coverage_penalty", None, "translations: how much to mind parts of the source that nothing"
        " looked at; 0 for not at all", flag_values=flag_values,
    )  # fmt: skip


def given(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The flags that were given, with their values."""
    return {name: flag_values[name].value for name in FLAGS if flag_values[name].present}


def with_search(run: Run, flag_values: flags.FlagValues) -> Run:
    """The run, but that its task searches as the flags say.

    Args:
      run: of any task.
      flag_values: parsed.

    Raises:
      UserError: flags were given and the task does not search, or a value is out of its range.
    """
    task, changes = run.experiment.task, given(flag_values)
    if not changes:
        return run
    names = ", ".join(f"--{name}" for name in changes)
    if not isinstance(task, SequenceToSequence) or not isinstance(task.decoder, Translator):
        raise UserError(f"{names}: {run.path} holds no model that searches for translations")
    search = task.decoder.search
    if not isinstance(search, Beam):
        if "beams" not in changes:
            raise UserError(f"{names}: {run.path} decodes without a beam; give --beams too")
        search = Beam(beams=1, length_penalty=0.0, coverage_penalty=0.0)
    decoder = dataclasses.replace(task.decoder, search=dataclasses.replace(search, **changes))
    experiment = dataclasses.replace(
        run.experiment, task=dataclasses.replace(task, decoder=decoder)
    )
    return dataclasses.replace(run, experiment=experiment)
