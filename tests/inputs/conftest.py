"""What the tests of commands have, here too."""

from tests.launch.conftest import call, scored, trained, trained_folder

__all__ = ["call", "scored", "trained", "trained_folder"]
