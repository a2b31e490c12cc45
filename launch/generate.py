"""Continues a prompt with a trained language model; the text streams to stdout, prompt first.

  python -m launch.generate --workdir=runs/a --prompt="ROMEO:" --tokens=500 --temperature=0.8

`--prompt=-` reads the prompt from stdin; without a prompt the text begins as a new document does.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from absl import flags

from launch import app
from recattn_jax.data import Tokenizer, Vocabulary
from recattn_jax.decoding import Sampler, generate
from recattn_jax.errors import UserError
from recattn_jax.training.runs import load_run


def command(flag_values: flags.FlagValues, argv: list[str]) -> tuple[list[str], Callable[[], None]]:
    """Defines the flags: see `app.Command`."""
    app.define_run_flags(flag_values)
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
        sampler = Sampler(flag_values.temperature, flag_values.top_k, flag_values.top_p)
        run = load_run(app.required(flag_values, "workdir"), app.checkpoint(flag_values.checkpoint))
        tokenizer = text_tokenizer(run.vocabularies)
        prompt = read_prompt(flag_values.prompt)
        ids = generate(
            run.experiment.model,
            run.params,
            tokenizer.encode(prompt).tolist(),
            separator=tokenizer.separator,
            n_tokens=flag_values.tokens,
            sampler=sampler,
            seed=flag_values.seed,
            stop_at_separator=flag_values.stop,
        )
        # A terminal that cannot show a character gets a question mark, not an end.
        sys.stdout.reconfigure(errors="replace")
        for text in itertools.chain([prompt], texts(tokenizer, ids), ["\n"]):
            sys.stdout.write(text)
            sys.stdout.flush()

    return argv, main


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


def texts(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Text as soon as ids complete it; an empty line where one document ends and another starts."""
    for separator, group in itertools.groupby(ids, lambda token: token == tokenizer.separator):
        if separator:
            yield from ("\n\n" for _ in group)
        else:
            yield from tokenizer.decode_stream(group)


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
