"""What MkDocs calls in every build, since `mkdocs.yml` names this file: pages made of the code."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the experiments are not installed

from docs import gallery  # noqa: E402


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the gallery to the pages of the documentation."""
    files.append(File.generated(config, "gallery.md", content=gallery.page()))
    return files
