import subprocess
import sys

_PROGRAM = """
import importlib, pathlib, pkgutil, sys
import recattn_jax

for module in pkgutil.walk_packages(recattn_jax.__path__, "recattn_jax."):
    importlib.import_module(module.name)
print("imported", sum(name.startswith("recattn_jax") for name in sys.modules))

from recattn_jax.data import (
    ByteTokenizer, SubwordTokenizer, labelled_tsv, prepared, prepared_records, python_docs,
    text_file, tiny_shakespeare, tokenize, windows
)
from recattn_jax.errors import UserError

folder = pathlib.Path(sys.argv[1])
(folder / "book.txt").write_text("some text " * 100)
book = text_file(str(folder / "book.txt"), folder, validation=0.1, test=0.1)
prepared(folder / book.name / "1.0.0", "text")
(folder / "rows.tsv").write_text("one\\ta\\ntwo\\tb\\n" * 9)
rows = labelled_tsv({"train": folder / "rows.tsv"}, folder, 0, 1)
prepared_records(folder / rows.name / "1.0.0", {"text": "text", "label": "label"})
SubwordTokenizer.of(rows.texts("train"), 265, lowercase=False)
source = python_docs(folder)
stream = tokenize(source, "validation", ByteTokenizer(), folder)
with windows(stream, 2, 16, seed=0).batches(0) as batches:
    next(batches)
try:
    tiny_shakespeare(folder, folder=folder)
except UserError:
    pass
assert source.texts("train")[0]
sizes = {
    split: sum(len(text.encode()) for text in source.texts(split)) for split in source.splits
}
total = sum(sizes.values())
assert 1_000_000 < total < 4_000_000, sizes
assert all(0.01 < sizes[split] / total < 0.12 for split in ("validation", "test")), sizes
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
assert not [name for name in ("turtle", "tkinter", "antigravity") if name in sys.modules]
print("done")
"""


def test_no_module_and_no_builder_imports_tensorflow(tmp_path):
    # A stand-in makes an attempt visible also where TensorFlow is not installed.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow!')\n")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", path + _PROGRAM, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.endswith("done\n")
