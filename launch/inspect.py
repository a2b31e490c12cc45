r"""Looks inside a trained run: what attention looks at and what recurrence remembers.

A language model predicts a text, a classifier reads one, and a translator reads a source and is
given its own answer, or --target, token by token:

  python -m launch.inspect --workdir=runs/a --text="To be, or not to be"
  python -m launch.inspect --workdir=runs/b --text="ein Haus" --target="a house" --out=maps

The folder --out gets inside.html, a page for a browser: hover over a token, and see what it looks
at, by layer and head, beside its loss, gates and hidden states. The same as PNG: one for each layer
of attention and each recurrent layer, and one of the loss of each token. All numbers are in
maps.npz: attention/PATH [H, T, S], gates/PATH/NAME [T, H], carries/PATH/K [T, H] (the hidden state
first), labels/AXIS, and losses. Runs of series, sound and tables are not looked into.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from absl import flags

from launch import app
from recattn_jax.analysis import inside_figures
from recattn_jax.analysis.inside_page import attention_maps, write_inside_page
from recattn_jax.analysis.inspection import Inspection, inspect_run
from recattn_jax.errors import StorageError, UserError
from recattn_jax.training.loading import load_run
from recattn_jax.untrusted import one_line, place


class Unfaithful(Exception):
    """What was seen is not what the run computes."""


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    app.define_run_flags(flag_values)
    flags.DEFINE_string("text", None, "the text that is read", flag_values=flag_values)
    flags.DEFINE_string(
        "target", None, "what a translator is to write; default: its own answer",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_string(
        "out", None, "the folder to write; default: inspect, in the run's", flag_values=flag_values
    )

    def main() -> None:
        workdir, text = (app.required(flag_values, name) for name in ("workdir", "text"))
        checkpoint = app.checkpoint(flag_values.checkpoint)
        run = load_run(workdir, checkpoint, flag_values.config)
        out = place(flag_values.out) if flag_values.out else run.path / "inspect"
        seen = inspect_run(run, text, flag_values.target)
        for line in seen.left_out:
            print(f"not shown: {one_line(line)}")
        print(seen.exactness)
        if not seen.exact:
            raise Unfaithful(
                f"logits differ by {seen.difference:.1e}; what is seen is not what {run.path}"
                " computes, and nothing was written"
            )
        if seen.answer is not None:
            print(f"prediction: {one_line(seen.answer)}")
        write(seen, f"Inside {run.path} at step {run.step}", out)

    return argv, main


def write(seen: Inspection, title: str, out: Path) -> None:
    """Writes the page, figures and numbers, and says which.

    Args:
      seen: what was seen.
      title: which run that is.
      out: the folder.

    Raises:
      UserError: the folder cannot be made.
      StorageError: a file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot create the folder {out}: {error}") from error
    try:
        seen.save(out / "maps.npz")
        names = _files(each.path for each in seen.attention)
        for attention, name in zip(seen.attention, names, strict=True):
            rows, columns = (seen.labels.get(axis) for axis in seen.axes[attention.path])
            inside_figures.attention(attention, rows, columns, out / f"attention-{name}.png")
        names = _files(each.path for each in seen.recurrence)
        for trace, name in zip(seen.recurrence, names, strict=True):
            steps = seen.labels[seen.axis(trace.path)]
            inside_figures.recurrence(trace, steps, out / f"recurrence-{name}.png")
        if seen.losses is not None:
            inside_figures.losses(seen.losses, seen.expected, out / "losses.png")
        write_inside_page(out / "inside.html", title, seen, attention_maps(seen))
    except OSError as error:
        raise StorageError(f"cannot write into {out}: {error.strerror}") from error
    print(
        f"{out}: inside.html (open it in a browser), maps.npz, and figures of"
        f" {len(seen.attention)} layers of attention and {len(seen.recurrence)} recurrent ones"
    )


def _files(paths: Iterable[str]) -> list[str]:
    """Names of files for paths of layers: numbered, so that no two are one."""
    return [
        f"{number:02d}-{re.sub(r'[^A-Za-z0-9_]+', '.', path).strip('.')[-80:]}"
        for number, path in enumerate(paths)
    ]


if __name__ == "__main__":
    app.run(command, __doc__)
