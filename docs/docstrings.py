"""Shows the examples in docstrings as code: Markdown would take `>>>` for three quotations.

`mkdocs.yml` names this file as an extension of Griffe, which reads the sources.
"""

import re
from typing import Any

import griffe

# An example and what it prints, down to an empty line; all of it is indented alike.
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1[^\n ].*|\n\1 +[^\n ].*)*", re.MULTILINE)
# A section that holds bare code.
_SECTION = re.compile(r"(?<=^Example:\n)( +)(?! |>>>|```).*(?:\n+\1.*)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Puts fences around the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of an object; Griffe calls it."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    r"""A docstring whose examples stand in fences.

    >>> fenced("It adds.\n\n>>> 1 + 1\n2\n\nA paper.")
    'It adds.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nA paper.'
    """
    docstring = _SECTION.sub(lambda found: _fence("python", found[1], found[0]), docstring)
    return _EXAMPLE.sub(lambda found: _fence("pycon", found[1], found[0]), docstring)


def _fence(language: str, indent: str, code: str) -> str:
    return f"{indent}```{language}\n{code}\n{indent}```"
