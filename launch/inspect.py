r"""Looks inside a trained run: what it looks at, what it remembers, and what it depends on.

A language model predicts a text, a classifier or tagger reads one, and a translator reads a source
and is given its own answer, or --target, token by token:

  python -m launch.inspect --workdir=runs/a --text="To be, or not to be"
  python -m launch.inspect --workdir=runs/b --text="ein Haus" --target="a house" --out=maps
  python -m launch.inspect --workdir=runs/a --measure=context,flow

The folder --out gets inside.html, a page for a browser: hover over a token, and see what it looks
at, by layer and head, beside its loss, gates and hidden states. The same as PNG: one for each layer
of attention and each recurrent layer, one of the loss of each token, and, unless --noattribution,
of what the log-probability of each output owes to each input token: the norm of its gradient,
gradient times input, and, for one output, the last or --of, integrated gradients. All numbers are
in maps.npz:

  attention/PATH [H, T, S], gates/PATH/NAME [T, H],
  carries/PATH/K [T, H] (the hidden state first), labels/AXIS, losses,
  gradient_norm/AXIS and gradient_x_input/AXIS [O, T],
  integrated_gradients/AXIS [T]

--measure needs no --text. `context` scores the same tokens of the validation split from 1, 2, 4,
... tokens of context, and names the shortest that is within 1 % of the best; `flow` says how the
gradient of the last output fades over lag in the body, on --text or on the longest rows of that
split. Figures are context.png and flow.png, and numbers in context.npz (lengths, losses, errors,
paired_errors [C]: of losses, and of how far they are above the best; nats [C, N]: of each token)
and flow.npz (flow [T]).

Maps are not made of runs of series, sound and tables.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from launch import app
from launch.evaluate import check_vocabularies
from recattn_jax.analysis import attribution_figures, inside_figures, measures
from recattn_jax.analysis.attribution import Attribution, Say
from recattn_jax.analysis.context import CLOSE
from recattn_jax.analysis.flow import lag_below
from recattn_jax.analysis.inside_page import attention_maps, attribution_maps, write_inside_page
from recattn_jax.analysis.inspection import Inspection, inspect_run
from recattn_jax.errors import UserError
from recattn_jax.files import write_arrays
from recattn_jax.training.loading import Run, load_run
from recattn_jax.untrusted import one_line, place

MEASURES = ("context", "flow")
_SPLIT = "validation"
_CURVE = ("lengths", "losses", "errors", "paired_errors", "nats")
_NAMED = 3  # input tokens that a line names
_LONG = 10  # seconds


class Unfaithful(Exception):
    """What was seen is not what the run computes."""


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    app.define_run_flags(flag_values)
    flags.DEFINE_string("text", None, "the text that is read", flag_values=flag_values)
    flags.DEFINE_string(
        "target", None, "what a translator is to write, or the tags of words; default: its own",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "attribution", True, "what outputs owe to input tokens: a backward pass each",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "of", None, "the output that integrated gradients explain, from 0; default: the last",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_list(
        "measure", "", f"what to measure beside: {', '.join(MEASURES)}", flag_values=flag_values
    )
    flags.DEFINE_string(
        "out", None, "the folder to write; default: inspect, in the run's", flag_values=flag_values
    )

    def main() -> None:
        workdir = app.required(flag_values, "workdir")
        for name in flag_values.measure:
            if name not in MEASURES:
                near = app.nearest(name, MEASURES)
                raise UserError(f"--measure={name}: expected some of {', '.join(MEASURES)}{near}")
        if not flag_values.measure:
            app.required(flag_values, "text")
        if flag_values.text is None and not (flag_values.target is flag_values.of is None):
            raise UserError("--target and --of are about a text; give --text too")
        if not flag_values.attribution:
            app.refuse(flag_values, ("of",), "--noattribution explains no output")
        run = load_run(workdir, app.checkpoint(flag_values.checkpoint), flag_values.config)
        out = place(flag_values.out) if flag_values.out else run.path / "inspect"
        seen = None
        if flag_values.text is not None:
            seen = _look(run, flag_values)
            write(seen, f"Inside {run.path} at step {run.step}", out)
        if flag_values.measure:
            measure(run, flag_values.measure, seen, out)

    return argv, main


def _look(run: Run, flag_values: flags.FlagValues) -> Inspection:
    """What is seen on the text, told on stdout."""
    began = time.monotonic()
    with _progress("attribution") as say:
        seen = inspect_run(
            run,
            flag_values.text,
            flag_values.target,
            of=flag_values.of,
            attributed=flag_values.attribution,
            say=say,
        )
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
    if seen.attribution is not None:
        print(_owed(seen, seen.attribution))
        seconds = time.monotonic() - began
        if seconds > _LONG:
            print(f"all that took {seconds:.0f} s; --noattribution takes less")
    return seen


def _owed(seen: Inspection, found: Attribution) -> str:
    """What the one output owes most to, and how exact that is."""
    owed = [
        (float(value), seen.labels[axis][step], axis, step)
        for axis, values in zip(seen.inputs, found.integrated, strict=True)
        for step, value in enumerate(values)
    ]
    most = sorted(owed, key=lambda each: -abs(each[0]))[:_NAMED]
    named = ", ".join(f"{one_line(token)!r} ({axis} {n}) {v:+.2f}" for v, token, axis, n in most)
    return (
        f"integrated gradients of output {found.of}, {one_line(seen.outputs[found.of])!r}: most to"
        f" {named}; {found.exactness}"
    )


def measure(run: Run, names: list[str], seen: Inspection | None, out: Path) -> None:
    """Measures effective context and gradient flow, writes figures and numbers, and says which.

    Args:
      run: the run.
      names: some of `MEASURES`.
      seen: what was seen of a text; None for the rows of the validation split.
      out: the folder.

    Raises:
      UserError: the run is of another kind, or the folder cannot be made.
      StorageError: a file cannot be written.
    """
    curve = flow_T = None
    if "context" in names:
        with _progress("context") as say:
            curve = measures.run_context(run, _rows(run), say)
        best, close = curve.best, int(np.flatnonzero(curve.lengths == curve.effective)[0])
        above, error = curve.losses[close] - curve.losses[best], curve.paired_errors[close]
        print(
            f"effective context: {curve.effective} tokens, whose loss is within {CLOSE:.0%} of the"
            f" best, {curve.losses[best]:.3f} \u00b1 {curve.errors[best]:.3f} nats with"
            f" {curve.lengths[best]}"
            + (f" (above it by {above:.3f} \u00b1 {error:.3f}, paired)" if close != best else "")
            + f"; of {curve.targets} tokens of the {_SPLIT} split"
        )
    if "flow" in names:
        flow_T = measures.run_flow(run, _rows(run) if seen is None else _row(seen))
        lag = lag_below(flow_T, measures.GONE)
        where = f"from lag {lag} on" if lag is not None else f"at no lag up to {len(flow_T) - 1}"
        print(
            f"gradient flow: the gradient of the last output is below {measures.GONE:g} of that"
            f" of its own step {where}"
        )
    _make(out)
    if curve is not None:
        numbers = {name: getattr(curve, name) for name in _CURVE}
        write_arrays(out / "context.npz", numbers)
        attribution_figures.context(curve, out / "context.png")
    if flow_T is not None:
        write_arrays(out / "flow.npz", {"flow": flow_T})
        attribution_figures.flow(flow_T, out / "flow.png")
    print(f"{out}: {', '.join(f'{name}.png and {name}.npz' for name in names)}")


def _rows(run: Run) -> Iterator[Any]:
    """One pass over the validation split."""
    data = run.experiment.data()
    check_vocabularies(run, data)
    if _SPLIT not in data.evaluation:
        raise UserError(f"{run.path}: its data have no {_SPLIT} split to measure on")
    return data.evaluation[_SPLIT].epoch()


def _row(seen: Inspection) -> list[Any]:
    """The text as a batch of one row."""
    ids = seen.ids[0][None]
    return [{"inputs": ids, "segments": np.ones(ids.shape[:2], np.int32)}]


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Say]:
    """Shows progress on a terminal, and nothing in a log."""
    bar: tqdm[Any] | None = None

    def say(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(desc=what, total=total, disable=None, leave=False)
        bar.update(done - bar.n)

    try:
        yield say
    finally:
        if bar is not None:
            bar.close()


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot create the folder {out}: {error}") from error


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
    _make(out)
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
    if seen.attribution is not None:
        _draw(seen, seen.attribution, out)
    maps = attention_maps(seen) + attribution_maps(seen)
    write_inside_page(out / "inside.html", title, seen, maps)
    print(
        f"{out}: inside.html (open it in a browser), maps.npz, and figures"
        f" (maps of attention: {len(seen.attention)}, recurrent layers: {len(seen.recurrence)})"
    )


def _draw(seen: Inspection, found: Attribution, out: Path) -> None:
    of = one_line(seen.outputs[found.of], 20)
    for index, axis in enumerate(seen.inputs):
        tokens = seen.labels[axis]
        for name, title, unit, values in (
            ("gradient-norm", "norm of the gradient", "nats by length", found.norms[index]),
            ("gradient-x-input", "gradient x input", "nats", found.gradients[index]),
        ):
            title = f"{title} of each output (rows)"
            file = out / f"{name}-{axis}.png"
            attribution_figures.gradient_map(values, seen.outputs, tokens, title, unit, file)
        title = f"integrated gradients of output {found.of}, {of!r}"
        title += "" if found.complete else ", inexact"
        file = out / f"integrated-gradients-{axis}.png"
        attribution_figures.integrated(found.integrated[index], tokens, title, file)


def _files(paths: Iterable[str]) -> list[str]:
    """Names of files for paths of layers: numbered, so that no two are one."""
    return [
        f"{number:02d}-{re.sub(r'[^A-Za-z0-9_]+', '.', path).strip('.')[-80:]}"
        for number, path in enumerate(paths)
    ]


if __name__ == "__main__":
    app.run(command, __doc__)
