"""The text that every Python installation carries: its language reference and its docstrings.

Sources are parsed, never imported, so nothing runs and optional modules cannot fail.
"""

import ast
import hashlib
import pathlib
import sysconfig
from collections.abc import Iterator

from recattn_jax.errors import UserError

# Tests and demonstrations, what distributions split off or patch (so that two installations of one
# version agree), and `encodings`: a hundred files with the same sentence.
_LEFT_OUT = frozenset(
    ("__phello__", "__pycache__", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3")
    + ("dist-packages", "site-packages", "test", "tests", "tkinter", "turtle.py", "turtledemo")
)
_TOPICS = pathlib.PurePosixPath("pydoc_data/topics.py")
# A shorter paragraph may well repeat by accident, and says too little to be learnt by heart.
_PARAGRAPH = 40


def library() -> pathlib.Path:
    """Returns the folder of the standard library's sources; UserError where there is none."""
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    if not (root / _TOPICS).is_file():
        raise UserError(
            f"{root}: this Python carries no {_TOPICS}, from which the embedded corpus is made; "
            "install the whole standard library, or train on a text file"
        )
    return root


def source_files(root: pathlib.Path) -> list[pathlib.PurePosixPath]:
    """Returns the files that the corpus is made from, relative to `root`, sorted by name."""
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    names = (pathlib.PurePosixPath(path.as_posix()) for path in found)
    return sorted(name for name in names if not _LEFT_OUT.intersection(name.parts))


def fingerprint(root: pathlib.Path) -> str:
    """Returns a digest of all source files: cheap, where parsing them takes seconds."""
    digest = hashlib.sha256()
    for name in source_files(root):
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def documents(root: pathlib.Path) -> dict[str, list[dict[str, str]]]:
    """Returns records by split: a document is a topic of the reference, or a module.

    About 90 % of the documents are "train", and 5 % each "validation" and "test", by a digest of
    their names. Chapters of the reference quote each other: a paragraph that an earlier document
    has too is left out, so that nothing in one split can be learnt by heart from another.
    """
    splits: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    owner: dict[str, str] = {}
    for name, text in _texts(root):
        kept = [
            paragraph
            for paragraph in text.split("\n\n")
            if len(paragraph) < _PARAGRAPH or owner.setdefault(paragraph.strip(), name) == name
        ]
        if kept:
            splits[_split(name)].append({"name": name, "text": "\n\n".join(kept)})
    return splits


def _split(name: str) -> str:
    percent = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    if percent < 5:
        return "validation"
    return "test" if percent < 10 else "train"


def _texts(root: pathlib.Path) -> Iterator[tuple[str, str]]:
    for name in source_files(root):
        # Bytes, so that a declared encoding is obeyed.
        tree = ast.parse((root / name).read_bytes(), filename=str(name))
        if name == _TOPICS:
            for topic, text in sorted(_topics(tree).items()):
                yield f"topics/{topic}", text
        else:
            text = "\n\n".join(_docstrings(tree))
            if text:
                yield str(name), text


def _topics(tree: ast.Module) -> dict[str, str]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            return ast.literal_eval(node.value)
    raise UserError(f"{_TOPICS}: expected one dictionary of topics, found none")


def _docstrings(tree: ast.Module) -> Iterator[str]:
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
        # Reversed, so that the order is that of the file.
        stack.extend(reversed(list(ast.iter_child_nodes(node))))
