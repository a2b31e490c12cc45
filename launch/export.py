"""Takes a trained model elsewhere: writes it as programs that need nothing of this project.

  python -m launch.export --workdir=runs/a --out=exported
  cd exported && pip install jax flatbuffers safetensors && python load.py "Once upon a time"

The new folder holds StableHLO (by jax.export) for CPUs, CUDA and TPUs, `whole.bin` of whole rows
and, of a language model that streams, `step.bin`; `weights.safetensors`; `vocabularies.json`;
`model.json`, which describes functions, arguments, state and input; and `load.py`, which runs them,
with `words.py` where the model reads words.
Language models, classifiers and taggers are exported. Rows may be as many and as long as one
likes; --lengths makes a program for each length instead, for models that need it. What was written
is compared with the run before the folder takes its name.
"""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from launch import app
from recattn_jax.errors import UserError
from recattn_jax.training.exporting import export_run
from recattn_jax.training.loading import load_run


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    app.define_run_flags(flag_values)
    flags.DEFINE_string(
        "out", None, "folder to write, which does not exist yet", flag_values=flag_values
    )
    flags.DEFINE_string(
        "lengths", "", "lengths of rows, each a program of its own, such as 64,512; default: one"
        " program for all", flag_values=flag_values,
    )  # fmt: skip

    def main() -> None:
        path = app.required(flag_values, "workdir")
        out = Path(app.required(flag_values, "out"))
        lengths = read_lengths(flag_values.lengths)
        run = load_run(path, app.checkpoint(flag_values.checkpoint), flag_values.config)
        described = export_run(run, out, lengths)
        print(f"step {run.step} of {path}, {described['parameters']:,} parameters, in {out}:")
        for file in sorted(out.iterdir()):
            print(f"  {file.name:<20} {file.stat().st_size:>12,} bytes")

    return argv, main


def read_lengths(text: str) -> list[int]:
    """Reads numbers of steps, 64,512.

    Raises:
      UserError: one of them is none.
    """
    parts = text.split(",") if text else []
    for part in parts:
        if not part.isdecimal() or len(part) > 9 or not int(part):
            raise UserError(f"--lengths={text}: {part!r} is no number of steps; write 64,512")
    return [int(part) for part in parts]


if __name__ == "__main__":
    app.run(command, __doc__)
