r"""Applies a trained model: goes on from a prompt or a table, or answers stdin line by line.

A language model writes the prompt and then text, as it comes:

  python -m launch.generate --workdir=runs/a --prompt="ROMEO:" --tokens=500 --temperature=0.8

`--prompt=-` reads the prompt from stdin; without a prompt the text begins as a new document does.

A model that classifies, tags, translates, summarises or transcribes answers each line of stdin:

  python -m launch.generate --workdir=runs/b < lines.txt
  python -m launch.generate --workdir=runs/b --beams=4 --length_penalty=0.6 < lines.txt

Words to tag stand between spaces. An empty line is answered by an empty line. A series is given as
a case of a .ts file, sound as the path of a wav file.

A model that forecasts reads a table like the one it was trained on, and writes one that goes on:

  python -m launch.generate --workdir=runs/c < table.csv

What goes to a file or a pipe is what the model says; on a terminal what would steer it (escape
sequences and other control characters) is shown, as in \x1b.
"""

import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from launch import app, lines, search
from recattn_jax.data import Labels, Measurements, Tokenizer, Vocabulary, later, recent
from recattn_jax.decoding import Sampler, generate
from recattn_jax.errors import UserError
from recattn_jax.tasks import Regression, Scored
from recattn_jax.training.loading import Run, load_run
from recattn_jax.training.prediction import LinePredictor
from recattn_jax.untrusted import shown

LANGUAGE_MODEL_FLAGS = ("prompt", "tokens", "temperature", "top_k", "top_p", "seed", "stop")


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    app.define_run_flags(flag_values)
    search.define_flags(flag_values)
    flags.DEFINE_string(
        "prompt", "", "text to continue; - reads it from stdin", flag_values=flag_values
    )
    flags.DEFINE_integer("tokens", 500, "how many tokens to add", flag_values=flag_values)
    flags.DEFINE_float(
        "temperature", 0.8, "0 takes the most likely token; 1 draws from the model as it is",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "top_k", None, "draw among so many most likely tokens only", flag_values=flag_values
    )
    flags.DEFINE_float(
        "top_p", None, "draw among the most likely tokens that have this probability together",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_integer("seed", 0, "same seed, same text", flag_values=flag_values)
    flags.DEFINE_bool(
        "stop", False, "stop where the model ends the document, instead of starting another",
        flag_values=flag_values,
    )  # fmt: skip

    def main() -> None:
        run = load_run(
            app.required(flag_values, "workdir"),
            app.checkpoint(flag_values.checkpoint),
            flag_values.config,
        )
        run = search.with_search(run, flag_values)
        # A terminal that cannot show a character gets a question mark, not an end.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        if isinstance(run.experiment.task, Scored):
            reason = f"{run.path} holds no language model; it answers the lines of stdin"
            app.refuse(flag_values, LANGUAGE_MODEL_FLAGS, reason)
            answer_lines(run)
        elif isinstance(run.experiment.task, Regression):
            reason = f"{run.path} holds no language model; it goes on from a table on stdin"
            app.refuse(flag_values, LANGUAGE_MODEL_FLAGS, reason)
            forecast_table(run)
        else:
            continue_prompt(run, flag_values)

    return argv, main


def answer_lines(run: Run) -> None:
    """Writes a line for each line of stdin; what was cut off from one is said on stderr.

    Raises:
      UserError: a line cannot be read; those before it were answered.
    """
    if sys.stdin.isatty():
        print("every line is answered; Ctrl-D ends", file=sys.stderr)
    predictor = LinePredictor(run.experiment, run.params, run.vocabularies)
    number = 0
    for questions in lines.arriving(cast(io.BufferedIOBase, sys.stdin.buffer), predictor.read):
        answers = predictor.answers(questions)
        for question, answer in zip(questions, answers, strict=True):
            number += 1
            if question.left_out:
                print(
                    f"line {number}: its last {question.left_out} steps were not read; it is longer"
                    " than the rows of training",
                    file=sys.stderr,
                )
            print(visible(answer), flush=True)


def visible(text: str) -> str:
    """The text, and on a terminal no more than text."""
    return shown(text) if sys.stdout.isatty() else text


def forecast_table(run: Run) -> None:
    """Writes the lines that come after those of the table on stdin.

    Raises:
      UserError: the run forecasts no table, or what is on stdin is none of its kind.
    """
    columns, steps = (run.vocabularies.get(name) for name in ("columns", "series"))
    if not isinstance(columns, Labels) or not isinstance(steps, Measurements):
        raise UserError(f"{run.path} forecasts no table; evaluate it with launch.evaluate")
    length = run.experiment.batch["inputs"].shape[1]
    time, times, values = recent(sys.stdin.buffer.read(), columns.names, length)
    inputs = jnp.asarray(steps.of_series(values)[None])
    forecast, _ = jax.jit(run.experiment.model.apply)({"params": run.params}, inputs)
    rows = steps.unscaled(np.asarray(forecast[0]))
    print(visible(",".join([time, *columns.names])))
    for moment, row in zip(later(times, len(rows)), rows, strict=True):
        print(",".join([moment, *(f"{value:.9g}" for value in row)]))


def continue_prompt(run: Run, flag_values: flags.FlagValues) -> None:
    """Writes the prompt and what the language model makes of it.

    Raises:
      UserError: this is no language model, or a flag is out of its range.
    """
    sampler = Sampler(flag_values.temperature, flag_values.top_k, flag_values.top_p)
    tokenizer = text_tokenizer(run.vocabularies)
    prompt = read_prompt(flag_values.prompt)
    prompt_ids = tokenizer.encode(prompt).tolist()
    ids = generate(
        run.experiment.model,
        run.params,
        prompt_ids,
        separator=tokenizer.separator,
        n_tokens=flag_values.tokens,
        sampler=sampler,
        seed=flag_values.seed,
        stop_at_separator=flag_values.stop,
    )
    for text in itertools.chain([prompt], texts(tokenizer, ids, prompt_ids), ["\n"]):
        sys.stdout.write(visible(text))
        sys.stdout.flush()


def text_tokenizer(vocabularies: Mapping[str, Vocabulary]) -> Tokenizer:
    """The tokenizer of a language model.

    Raises:
      UserError: these are another task's.
    """
    tokenizer = vocabularies.get("text")
    if len(vocabularies) != 1 or not isinstance(tokenizer, Tokenizer):
        names = ", ".join(sorted(vocabularies))
        raise UserError(f"only a language model goes on from a prompt; this run has {names}")
    return tokenizer


def texts(tokenizer: Tokenizer, ids: Iterable[int], after: Sequence[int]) -> Iterator[str]:
    """Text as soon as ids complete it; an empty line where one document ends and another starts.

    Args:
      tokenizer: of the run.
      ids: what is written.
      after: the ids before them, which say whether a space stands between; without a separator.
    """
    known = len(tokenizer.decode(after))
    every = itertools.chain(after, ids)
    for separator, group in itertools.groupby(every, lambda token: token == tokenizer.separator):
        for text in ("\n\n" for _ in group) if separator else tokenizer.decode_stream(group):
            if new := text[known:]:
                yield new
            known = max(0, known - len(text))


def read_prompt(prompt: str) -> str:
    """The prompt itself, or all of stdin if it is `-`.

    Raises:
      UserError: stdin is not UTF-8.
    """
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt on stdin is not UTF-8: see byte {error.start}") from error


if __name__ == "__main__":
    app.run(command, __doc__)
