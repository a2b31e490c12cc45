"""requirements.lock holds all that pyproject.toml asks for, each release with its hashes."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("test", "dev")
RECOMPILE = "run the command in the first lines of requirements.lock"


def wanted(project: dict) -> dict[str, Requirement]:
    """What the package, its tests and its tools ask for, by name."""
    lines = [*project["dependencies"]]
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pins(lock: str) -> Iterator[tuple[str, str, list[str], bool]]:
    """Name, version, hashes, and whether it is asked for by this project, of each pin."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", lock):
        if found := re.match(r"([\w.-]+)==(\S+)", block):
            hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block)
            ours = "recattn-jax (pyproject.toml)" in block
            yield canonicalize_name(found[1]), found[2], hashes, ours


def complaints(project: dict, lock: str) -> list[str]:
    """What of a project its lock does not hold."""
    asked = wanted(project)
    found = list(pins(lock))
    said = [f"{name}: not locked" for name in asked.keys() - {name for name, *_ in found}]
    for name, version, hashes, ours in found:
        if not hashes:
            said.append(f"{name}: no hash")
        if ours != (name in asked):
            said.append(f"{name}: {'no longer' if ours else 'not yet'} asked for by the lock")
        elif ours and version not in asked[name].specifier:
            said.append(f"{name}: {version} is not {asked[name].specifier}")
    return sorted(said)


def test_the_lock_holds_all_that_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements.lock").read_text()
    assert len(list(pins(lock))) > len(wanted(project)) > 20
    assert complaints(project, lock) == [], RECOMPILE
    assert all(f"--extra {extra}" in lock for extra in EXTRAS) and "--generate-hashes" in lock
    # Whoever installs from it finds releases by their hashes, wherever they are.
    assert not re.search(r"https?://|--index-url|--find-links", lock)


def test_a_stale_lock_is_found():
    digest = "0" * 64
    lock = f"""# made by a command
some-package==1.5 \\
    --hash=sha256:{digest}
    # via recattn-jax (pyproject.toml)
gone==2.0 \\
    --hash=sha256:{digest}
    # via
    #   recattn-jax (pyproject.toml)
    #   some-package
bare==1.0
    # via some-package
"""
    project = {
        "dependencies": ["Some_Package[more]>=2", "new>=1"],
        "optional-dependencies": {"test": ["bare>=1"], "dev": []},
    }
    assert complaints(project, lock) == [
        "bare: no hash",
        "bare: not yet asked for by the lock",
        "gone: no longer asked for by the lock",
        "new: not locked",
        "some-package: 1.5 is not >=2",
    ]
