"""What no source of this project does: run data as code, unpack without a check, or fetch anything.

The sources are read, not run. An exception is a file and a name, and says why.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Modules whose import is refused, and what they would do.
MODULES = {
    **dict.fromkeys(
        ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "codeop"),
        "makes code of data",
    ),
    **dict.fromkeys(
        (
            "urllib.request", "http", "http.client", "requests", "httpx", "aiohttp", "ftplib",
            "smtplib", "socket", "ssl", "huggingface_hub", "gdown", "wandb", "xmlrpc",
        ),
        "speaks to the network",
    ),
}  # fmt: skip
# Names that are called, alone or as the last of a path.
CALLS = {
    **dict.fromkeys(("eval", "exec", "__import__"), "runs text as code"),
    **dict.fromkeys(("import_module", "exec_module", "load_module", "run_path"), "runs a file"),
    **dict.fromkeys(
        ("os.system", "os.popen", "getoutput", "getstatusoutput", "create_subprocess_shell"),
        "lets a shell read a line",
    ),
    **dict.fromkeys(("extractall", "extract", "unpack_archive"), "unpacks where an archive says"),
    **dict.fromkeys(("yaml.load", "unsafe_load", "full_load", "load_all"), "makes objects of text"),
    **dict.fromkeys(("torch.load", "load_model", "mktemp"), "trusts a file"),
    **dict.fromkeys(("tfds.load", "tfds.builder", "urlopen", "urlretrieve"), "may fetch something"),
}
ALLOWED = {
    # Imports an experiment file, which is code, where `trusted_experiment_file` lets it or a person
    # has named it.
    ("recattn_jax/training/experiment_file.py", "exec_module"),
    # Tiny Shakespeare, where a person asks for it without a folder; its digest is checked.
    ("recattn_jax/data/sources.py", "urllib.request"),
    ("recattn_jax/data/sources.py", "http.client"),
    ("recattn_jax/data/sources.py", "urlopen"),
    # The name of this machine, and a free port of it for the processes of one run.
    ("recattn_jax/training/runs.py", "socket"),
    ("recattn_jax/training/metrics.py", "socket"),
    ("launch/drivers/local.py", "socket"),
    ("launch/drivers/supervisor.py", "socket"),
}


def sources() -> list[Path]:
    tops = ("recattn_jax", "experiments", "launch")
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


def found(source: str) -> list[tuple[str, str]]:
    """What a source does that is refused: the name, and what is wrong with it."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        wrong += [(name, MODULES[name]) for name in names if name in MODULES]
        if not isinstance(node, ast.Call):
            continue
        path = ast.unparse(node.func)
        last = path.rpartition(".")[2]
        wrong += [(name, CALLS[name]) for name in {path, last} if name in CALLS]
        if path == "compile":
            wrong.append(("compile", "runs text as code"))
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if keywords.get("shell", "False") != "False":
            wrong.append(("shell", "lets a shell read a line"))
        if keywords.get("allow_pickle", "False") != "False":
            wrong.append(("allow_pickle", "makes code of data"))
        if path in ("np.load", "numpy.load") and "allow_pickle" not in keywords:
            wrong.append(("np.load", "does not say allow_pickle=False"))
    return wrong


def test_no_source_runs_data_or_fetches_anything() -> None:
    files = sources()
    assert len(files) > 150
    wrong = [
        f"{path.relative_to(ROOT)}: {name} {what}"
        for path in files
        for name, what in found(path.read_text(encoding="utf-8"))
        if (str(path.relative_to(ROOT)), name) not in ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_needed() -> None:
    used = {
        (str(path.relative_to(ROOT)), name)
        for path in sources()
        for name, _ in found(path.read_text(encoding="utf-8"))
    }
    unused = {(file, name) for file, name in ALLOWED - used if (ROOT / file).exists()}
    assert not unused


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "def f(x):\n    return eval(x)",
        "exec(text)",
        "exec(compile(text, 'a', 'exec'))",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(file)",
        "yaml.load(text)",
        "importlib.import_module(name)",
        "import urllib.request",
        "from http import client",
        "import requests",
        "tfds.load('trec')",
    ],
)
def test_what_is_refused_is_seen(source: str) -> None:
    assert found(source)


def test_what_is_harmless_is_not() -> None:
    harmless = """
import re, subprocess, json
re.compile("a"); lowered.compile(); np.load(file, allow_pickle=False); yaml.safe_load(text)
subprocess.run(["a", "b"]); archive.extractfile(member); from_bytes(data); model.evaluate(x)
"""
    assert found(harmless) == []
