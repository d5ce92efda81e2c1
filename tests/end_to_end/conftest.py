"""A working folder with the drawn sample in it, as `kit download --from sample` leaves it; drawn once."""

import shutil

import pytest

from kit.commands import cli


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample") / "data"
    assert cli.run(["download", "--from", "sample", "--data-dir", str(root), "--quiet"]) == 0
    return root


@pytest.fixture
def workplace(sample_data, tmp_path, monkeypatch):
    """An empty folder, the current one, with `data/` in it."""
    shutil.copytree(sample_data, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path
