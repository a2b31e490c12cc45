"""What every command shares: flags, errors of one line, exit codes.

With --debug a traceback comes before the line.
"""

import contextlib
import difflib
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import absl.app
import absl.logging
from absl import flags

from launch import usage
from recattn_jax.errors import (
    Interrupted,
    NonFiniteError,
    RunError,
    StorageError,
    UserError,
    summary,
)
from recattn_jax.untrusted import brief, shown

EXIT_BUG = 1
EXIT_KILLED = 130
EXIT_CODES = {
    0: "done, and --help",
    EXIT_BUG: "a bug of ours, or what was asked for failed outside of this process",
    UserError.exit_code: "wrong usage or bad input",
    NonFiniteError.exit_code: "a loss or a gradient that is not finite",
    StorageError.exit_code: "storage: full, read-only, damaged",
    Interrupted.exit_code: "interrupted and saved; the same command goes on",
    EXIT_KILLED: "stopped at once, by a second Ctrl-C",
}
_CHECKOUT = Path(__file__).resolve().parents[1]
_STORAGE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
# What is said of a path that someone gave: too long, a link to itself, a folder for a file, ...
_PATH_ERRNOS = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
)
_LONGEST_NAME = 100
_HELP = ("-h", "-help", "--help", "--helpshort", "--helpfull")

Command = Callable[[flags.FlagValues, list[str]], tuple[list[str], Callable[[], None]]]
"""Given where to define flags and the arguments (a config file defines flags too): the arguments
that are left for absl to parse, and what to do once they are parsed."""


def run(command: Command, doc: str | None, argv: list[str] | None = None) -> NoReturn:
    """Parses the flags, runs the command and leaves the process by one of `EXIT_CODES`.

    absl's own habits (a usage page on stderr, exit code 1) are replaced through its `flags_parser`.

    Args:
      command: defines the flags, and returns the arguments to parse and the work to do.
      doc: what `--help` prints above the flags.
      argv: the program name and the arguments; the process's own if None.

    Raises:
      SystemExit: always.
    """

    def parse(arguments: list[str]) -> tuple[Callable[[], None], bool]:
        _hush()
        with exit_codes(debug="--debug" in arguments):  # which may not be parsed any more
            return _parse(command, doc, arguments)

    def work(parsed: tuple[Callable[[], None], bool]) -> None:
        _hush()  # absl.app has made its log louder in between
        main, debug = parsed
        with exit_codes(debug), _checks(debug):
            main()

    absl.app.run(work, argv=argv, flags_parser=parse)
    raise AssertionError("absl.app.run returned")


@contextlib.contextmanager
def _checks(debug: bool) -> Iterator[None]:
    """While entered, JAX looks for NaN in what programs return, and for leaked tracers."""
    if not debug:
        yield
        return
    import jax  # noqa: PLC0415  (half a second, and not every command needs it)

    with jax.debug_nans(True), jax.checking_leaks():
        yield


def _parse(command: Command, doc: str | None, argv: list[str]) -> tuple[Callable[[], None], bool]:
    """What the command does, and whether it is debugged."""
    # Nothing of ours reads absl's global flags, but libraries (Grain's workers) refuse to start
    # before somebody has parsed them.
    flags.FLAGS.mark_as_parsed()
    flag_values = flags.FlagValues()
    flags.DEFINE_bool(
        "debug", False, "show tracebacks, and stop at the first NaN and at leaked tracers (slow)",
        flag_values=flag_values,
    )  # fmt: skip
    if asks_help(argv):
        command(flag_values, argv)
        print(usage.page(doc or "", flag_values, EXIT_CODES, usage.width()))
        raise SystemExit(0)
    argv, main = command(flag_values, argv)
    for argument in argv[1:]:
        name = argument.partition("=")[0]
        if name.startswith("-") and len(name) > _LONGEST_NAME:  # absl would look for one like it
            raise UserError(f"unknown flag {name:.40}...")
    try:
        rest = flag_values(argv)
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        raise UserError(f"unknown flag --{name}{nearest(name, flag_values, '--')}") from error
    except flags.IllegalFlagValueError as error:
        # absl says: flag --name=value: the reason, which may be Python's wording of it
        given = str(error).removeprefix("flag ").partition(": ")[0]
        name = given.removeprefix("--").partition("=")[0]
        expected = _expected(flag_values[name])
        raise UserError(f"wrong value in {given}: expected {expected}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}: every setting is a flag, --name=value")
    return main, flag_values.debug


def _expected(flag: flags.Flag) -> str:
    names = getattr(flag.parser, "enum_values", None)
    if names:
        return f"one of {', '.join(names)}"
    # Of numbers with bounds, absl's help says them: a positive integer.
    kind = flag.parser.syntactic_help or flag.parser.flag_type()
    return f"{kind}, such as {flag.default!r}" if flag.default is not None else kind


def asks_help(argv: Sequence[str]) -> bool:
    """Whether the arguments of a command, its name first, ask what it does."""
    return any(argument in _HELP for argument in argv[1:])


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a message about an unknown name: `; did you mean width?`, or nothing.

    Example:
      >>> nearest("widht", ["width", "heads"])
      '; did you mean width?'
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def define_run_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags of every command that reads a trained run."""
    flags.DEFINE_string("workdir", None, "folder of the run to read", flag_values=flag_values)
    flags.DEFINE_string(
        "config", None, "the run's experiment file, which is code and is run; default: the one that"
        " the folder names, if it lies in this checkout and cannot have come with the run",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_string(
        "checkpoint", "best", "which checkpoint: best, last or a step", flag_values=flag_values
    )


def required(flag_values: flags.FlagValues, name: str) -> str:
    """The value of a flag that has no default.

    Raises:
      UserError: it was not given.
    """
    value = flag_values[name].value
    if not value:
        raise UserError(f"--{name} is missing: {flag_values[name].help}")
    return value


def refuse(flag_values: flags.FlagValues, names: Sequence[str], reason: str) -> None:
    """Sees to it that no flag is given that would change nothing.

    Raises:
      UserError: one of `names` was given.
    """
    found = ", ".join(f"--{name}" for name in names if flag_values[name].present)
    if found:
        raise UserError(f"{found}: {reason}")


def checkpoint(text: str) -> str | int:
    """Reads "best", "last" or a step.

    Raises:
      UserError: it is none of these.
    """
    if text in ("best", "last"):
        return text
    if not text.isdecimal() or len(text) > 18:
        raise UserError(f"--checkpoint={text}: expected best, last or a step")
    return int(text)


@contextlib.contextmanager
def exit_codes(debug: bool = False) -> Iterator[None]:
    """Turns every error into one line on stderr and its exit code.

    Args:
      debug: its traceback comes first.
    """
    try:
        yield
    except Interrupted as error:
        _leave(error.exit_code, str(error))
    except KeyboardInterrupt:
        _leave(EXIT_KILLED, "stopped by Ctrl-C")
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes
        # stdout on the way out, so stdout is pointed elsewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:
        if debug:
            print(shown(traceback.format_exc()), file=sys.stderr)
        code = exit_code(error)
        if isinstance(error, RunError) or code == StorageError.exit_code:
            _leave(code, f"error: {error}")
        if code == UserError.exit_code:
            _leave(code, f"error: {error}; give another path")
        _leave(code, f"error: {_unforeseen(error)}")


def exit_code(error: BaseException) -> int:
    """The code that a process ends with because of an error."""
    if isinstance(error, RunError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return EXIT_KILLED
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        return StorageError.exit_code
    if isinstance(error, OSError) and error.errno in _PATH_ERRNOS and error.filename:
        return UserError.exit_code
    return EXIT_BUG


def _unforeseen(error: Exception) -> str:
    """An error that nobody expected, with the line of ours that it came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).is_relative_to(_CHECKOUT)] or frames
    place = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return (
        f"unforeseen {summary(error)}{place}; please report it with what the same command says"
        " with --debug"
    )


def _leave(code: int, message: str) -> NoReturn:
    print(brief(shown(" ".join(message.split()))), file=sys.stderr)
    raise SystemExit(code) from None


def tell(line: str) -> None:
    """Prints a line of a long work, which goes on if nobody can hear it any more.

    The other end of a pipe may have gone, or the disk of a log be full.
    """
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _hush() -> None:
    # What libraries log (a folder is read-only, an accelerator is there but not used) is for their
    # authors; what a user must know, we say. That holds for their errors too, which we get as well.
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
