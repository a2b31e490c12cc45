import pytest

from tests.analysis.run_folders import write_run


@pytest.fixture
def root(tmp_path):
    write_run(tmp_path / "worse", {"lr": 0.1, "seed": 0}, [5.0, 4.0])
    write_run(tmp_path / "deep" / "better", {"lr": 0.2, "seed": 0}, [5.0, 3.0, 3.5])
    write_run(tmp_path / "other", {"size": 1}, [1.0], config_file="other.py")
    return tmp_path
