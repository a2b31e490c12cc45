import contextlib
import errno
import importlib
import io
import re
import types

import jax
import pytest
from absl import flags

from launch import app, train, usage
from recattn_jax.errors import Interrupted, NonFiniteError, StorageError, UserError
from tests.launch.commands import TINY


def command_that(action):
    """A command with three flags that then does `action`."""

    def command(flag_values, argv):
        flags.DEFINE_integer("tokens", 500, "how many", flag_values=flag_values)
        flags.DEFINE_string("workdir", None, "the folder", flag_values=flag_values)
        flags.DEFINE_string("said", "a b", "words", flag_values=flag_values)
        return argv, lambda: action(flag_values)

    return types.SimpleNamespace(command=command, __doc__="What it does.", __name__="it")


def raiser(error):
    def action(_):
        raise error

    return command_that(action)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("wrong"), 2),
        (NonFiniteError("loss is nan"), 3),
        (StorageError("no good checkpoint"), 4),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (Interrupted("saved at step 3"), 42),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_ending_has_its_code_and_one_line(call, error, code):
    result = call(raiser(error))
    assert result.code == code
    assert result.out == "" and result.err.count("\n") == 1 and result.err.endswith("\n")
    assert str(error) in result.err
    assert result.err.startswith("error: ") == (code in (2, 3, 4))


def test_a_message_of_several_lines_becomes_one(call):
    result = call(raiser(UserError("one\n  two")))
    assert result.err == "error: one two\n"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a  /\nb"), PermissionError(errno.EACCES, "denied"), KeyError("k")]
)
def test_a_bug_is_one_line_and_its_traceback_is_there_for_the_asking(call, error):
    result = call(raiser(error))
    assert result.code == 1 and result.out == "" and result.err.count("\n") == 1
    name = type(error).__name__
    assert result.err.startswith(f"error: unforeseen {name}: "), result.err
    assert "(app_test.py, line " in result.err and "--debug" in result.err
    result = call(raiser(error), "--debug")
    assert result.code == 1 and "Traceback (most recent call last)" in result.err
    assert result.err.splitlines()[-1].startswith(f"error: unforeseen {name}: ")


def test_debug_shows_where_a_wrong_flag_was_found_too(call):
    result = call(raiser(AssertionError("must not be reached")), "--debug", "--tokns=3")
    assert result.code == 2 and "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("error: unknown flag --tokns")


def test_debug_looks_for_nan_and_leaks_and_leaves_no_trace(call):
    def look(_):
        seen.append((jax.debug_nans.value, jax.check_tracer_leaks.value))

    seen = []
    call(command_that(look), "--debug")
    call(command_that(look), "--debug=1")
    call(command_that(look), "--debug", "--nodebug")
    call(command_that(look), "--workdir", "--debug")  # the name of a folder
    assert seen == [(True, True), (True, True), (False, False), (False, False)]


def test_a_work_goes_on_that_nobody_hears(call):
    def work(_):
        class Gone(io.StringIO):
            def write(self, text):
                raise BrokenPipeError

        with contextlib.redirect_stdout(Gone()):
            app.tell("step 1")
        seen.append("done")

    seen = []
    assert call(command_that(work)).code == 0 and seen == ["done"]


def test_done_is_zero(call):
    seen = []
    result = call(command_that(lambda values: seen.append(values.tokens)), "--tokens=3")
    assert (result.code, result.out, result.err, seen) == (0, "", "", [3])


def test_flags_do_not_leak_into_the_next_call(call):
    seen = []
    module = command_that(lambda values: seen.append(values.tokens))
    call(module, "--tokens=3")
    call(module)
    assert seen == [3, 500]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--tokns=3", ["--tokns", "did you mean --tokens?"]),
        ("--zzzz", ["--zzzz"]),
        ("stray", ["'stray'", "--name=value"]),
        ("--tokens=3.5", ["--tokens=3.5", "expected an integer"]),
        ("--tokens", ["tokens"]),
    ],
)
def test_wrong_usage_is_one_line_and_two(call, argument, words):
    result = call(raiser(AssertionError("must not be reached")), argument)
    assert result.code == 2 and result.out == ""
    assert result.err.count("\n") == 1
    assert all(word in result.err for word in words), result.err


@pytest.mark.parametrize("argument", ["--help", "-h", "--helpfull"])
def test_help_is_for_stdout_and_zero(call, argument):
    result = call(raiser(AssertionError("must not be reached")), "stray", argument)
    assert result.code == 0 and result.err == ""
    assert result.out.startswith("What it does.\n\nFlags")
    assert "\n  --tokens=500   how many\n  --workdir=...  the folder\n" in result.out
    assert "\n  --said=a b     words\n  --debug " in result.out
    assert all(f"\n  {code} " in result.out for code in (0, 1, 2, 3, 4, 42, 130))


COMMANDS = (
    "compile_check", "evaluate", "export", "generate", "inspect", "report", "submit", "sweep",
    "train",
)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole_and_fits(call, monkeypatch, name):
    """Only examples, which are to be pasted, and words without a space may be longer."""
    module = importlib.import_module(f"launch.{name}")
    defined = flags.FlagValues()
    module.command(defined, [name])
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        page = call(module, "--help").out
        assert page.isprintable() or set(page) - {"\n"} <= set(map(chr, range(32, 127)))
        long = [line for line in page.splitlines() if len(line) > columns]
        assert all("python" in line or " " not in line.strip() for line in long), long
        assert f"python -m launch.{name}" in page.partition("Flags")[0]
        assert all(f"\n  --{flag}" in page for flag in [*defined, "debug"])
        assert "no help available" not in page and "\n  130  " in page


def test_help_tells_the_numbers_of_the_experiment_that_is_named(call):
    page = call(train, "--help").out
    assert "\n  --config.steps=450\n" in page
    assert "\n  --config.window=64            steps that attention looks back\n" in page
    assert re.search(r"--config.mesh=data:-1 +devices along data", page)  # of another file's
    tiny = call(train, f"--config={TINY}", "--config.nonsense=3", "--help").out
    assert "\n  --config.held_out=(0.1,0.1)\n" in tiny and "--config.window" not in tiny


def test_a_wrapped_table_stays_in_its_columns():
    rows = [("--a=1", "one two three"), ("--" + "x" * 40, "word"), ("--b", "")]
    assert usage.table(rows, 60).splitlines() == [
        "  --a=1" + " " * 25 + "one two three",
        "  --" + "x" * 40,
        " " * 32 + "word",
        "  --b",
    ]
    assert usage.prose("A  long\nline.\n\n  an   example\n\nwords " + "w " * 30, 20) == (
        "A long line.\n\n  an   example\n\nwords w w w w w w w\n" + "w w w w w w w w w w\n" * 2
        + "w w w"
    )  # fmt: skip
