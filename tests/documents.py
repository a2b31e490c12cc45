"""What pages of documentation hold: blocks of code, and the command lines among them."""

import contextlib
import dataclasses
import importlib
import importlib.util
import io
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from packaging.requirements import Requirement

from launch import app, submit, train

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
OUTPUT = ("text", "json")
"""Languages of blocks that show what a command or a program said."""
PROGRAMS = ("python", "pip", "cd", "ls", "printf")
_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([\w./-]+)"')
_SETTING = re.compile(r"[A-Z_]+=")
_DEVICES = "XLA_FLAGS=--xla_force_host_platform_device_count="
# A script that a command writes, and where its source is.
_WRITTEN = {"load.py": ROOT / "recattn_jax/training/export_loader.py"}
# What the tests of a page do not run, but check.
_CHECKED_ONLY = ("pip", "launch.compile_check", "launch.submit", "pytest")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
      where: page and line, for messages.
      language: of the fence; "sh" where it has none and begins with one of `PROGRAMS`, else "text".
      title: the file that a reader is to make of it, or None.
      code: its lines.
    """

    where: str
    language: str
    title: str | None
    code: str


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        language, _, info = fence[2].strip().partition(" ")
        code = textwrap.dedent(fence[3])
        if not language:
            language = "sh" if code.split()[0] in PROGRAMS else "text"
        title = _TITLE.search(info)
        where = f"{page.relative_to(ROOT)}, line {text.count(chr(10), 0, fence.start()) + 1}"
        found.append(Block(where, language, title and title[1], code))
    return found


@dataclasses.dataclass(frozen=True)
class Call:
    """One program of a command line.

    Attributes:
      words: the program and its arguments.
      stdin: the file that it reads, or None.
      piped: whether it reads what the program before it says.
    """

    words: tuple[str, ...]
    stdin: str | None = None
    piped: bool = False

    @property
    def module(self) -> str | None:
        """The module of `python -m MODULE`."""
        return self.words[2] if self.words[:2] == ("python", "-m") else None


def calls(line: str) -> list[Call]:
    """The programs of a command line, in order; settings of the environment are left out.

    >>> [call.words for call in calls("pip install -e . && python -m launch.train  # minutes")]
    [('pip', 'install', '-e', '.'), ('python', '-m', 'launch.train')]
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found, words, stdin, piped = [], [], None, False
    tokens = [*lexer, "&&"]
    while tokens:
        token = tokens.pop(0)
        if token == "<":
            stdin = tokens.pop(0)
        elif token in ("&&", "|"):
            if words:
                found.append(Call(tuple(words), stdin, piped))
            words, stdin, piped = [], None, token == "|"
        elif not words and _SETTING.match(token):
            assert token == f"{_DEVICES}{jax.device_count()}", f"{token} is not what tests have"
        else:
            words.append(token)
    return found


def lines(block: Block) -> Iterator[str]:
    """The command lines of a block; one that ends in a backslash goes on."""
    yield from filter(str.strip, block.code.replace("\\\n", " ").splitlines())


def check(call: Call, files: Sequence[str] = ()) -> None:
    """Sees to it that a call could be made: what it names exists, and its flags are known.

    Args:
      call: the program and its arguments; commands of this project are parsed and not run.
      files: Python files that the page has told its reader to make.

    Raises:
      AssertionError: it could not; says why.
    """
    program, *arguments = call.words
    assert program in PROGRAMS, f"{program!r} is none of {', '.join(PROGRAMS)}"
    if program == "pip":
        assert arguments[0] == "install", arguments
        check_requirements(arguments[1:])
    elif call.module == "pytest":
        paths = [word for word in arguments[2:] if "/" in word]
        assert all((ROOT / path).exists() for path in paths), paths
    elif call.module and call.module.startswith("launch."):
        parse(call.module, arguments[2:])
    elif call.module:
        assert importlib.util.find_spec(call.module), f"no module {call.module}"
    elif program == "python":
        assert arguments[0] in (*files, *_WRITTEN), f"no file {arguments[0]}"


def check_requirements(arguments: Sequence[str]) -> None:
    """Sees to it that `pip install` asks for this project and its extras, or what it needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    names = {Requirement(line).name for line in needed}
    for word in arguments:
        if word == "-e":
            continue
        if word.startswith("."):
            asked = word.strip(".[]").split(",") if "[" in word else []
            assert set(asked) <= set(extras), f"no extra {word}"
        else:
            assert Requirement(word).name in names, f"{word} is not needed"


def parse(module: str, arguments: Sequence[str]) -> None:
    """Parses the flags of a command of ours, and does no more."""
    command = importlib.import_module(module).command

    def parsed_only(flag_values, argv):
        return command(flag_values, argv)[0], lambda: None

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = ended(parsed_only, module, arguments)
    assert code == 0, said.getvalue()
    if module == "launch.submit":  # what comes after -- is given to launch.train
        parse(train.__name__, submit.split(["", *arguments])[1])


def ended(command: app.Command, module: str, arguments: Sequence[str]) -> int:
    """The exit code of a command of ours in this process."""
    try:
        app.run(command, None, argv=[module, *arguments])
    except SystemExit as leaving:
        return int(leaving.code or 0)


@dataclasses.dataclass(frozen=True)
class Page:
    """Does what a page tells its reader to do, in the current folder.

    Attributes:
      names: of the Python blocks that are no files.
      shrink: flags that are added to every training.
    """

    names: dict
    shrink: tuple[str, ...] = ()

    def follow(self, block: Block, *, commands: bool) -> None:
        """Runs a block of Python; checks one of command lines, and runs it if `commands`.

        Raises:
          AssertionError: naming page and line.
        """
        if block.language == "python" and block.title:
            Path(block.title).write_text(block.code)
        elif block.language == "python":
            before = "\n" * int(block.where.rpartition(" ")[2])  # for the lines in tracebacks
            page = str(ROOT / block.where.partition(",")[0])
            exec(compile(before + block.code, page, "exec"), self.names)
        elif block.language == "sh":
            for line in lines(block):
                try:
                    self._line(line, commands)
                except AssertionError as error:
                    raise AssertionError(f"{block.where}: {line}: {error}") from error
        else:
            assert block.language in OUTPUT, f"{block.where}: is it code, commands or output?"

    def _line(self, line: str, run: bool) -> None:
        said = b""
        for call in calls(line):
            check(call, [str(path) for path in Path().glob("*.py")])
            if run and not {call.words[0], call.module} & set(_CHECKED_ONLY):
                given = Path(call.stdin).read_bytes() if call.stdin else said if call.piped else b""
                said = self._run(call, given)

    def _run(self, call: Call, given: bytes) -> bytes:
        if call.words[0] != "python":
            return subprocess.run(call.words, input=given, capture_output=True, check=True).stdout
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        stdin = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(given), "utf-8")
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                if call.module is None:
                    runpy.run_path(call.words[1], run_name="__main__")
                else:
                    added = self.shrink if call.module == train.__name__ else ()
                    command = importlib.import_module(call.module).command
                    code = ended(command, call.module, (*call.words[3:], *added))
                    assert code == 0, err.getvalue()
        finally:
            sys.stdin = stdin
        out.flush()
        return out.buffer.getvalue()
