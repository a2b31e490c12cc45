"""What the tests of commands have, here too."""

from tests.launch.conftest import call, trained, trained_folder

__all__ = ["call", "trained", "trained_folder"]
