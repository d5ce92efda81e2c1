"""A Kaggle on this machine, an account on it, and built kernel folders to push there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.kaggle import client, session, submissions
from tests.kaggle.stand_in import KaggleStandIn, point_client

REPORT = {"data": {"source": "kaggle"}, "cv": {"split": "writer", "mean": 0.991, "oof_accuracy": 0.9912},
          "leaderboard_estimate": {"value": 0.985, "low": 0.981, "high": 0.989}}


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleStandIn]:
    """The stand-in, the client sent to it, and waits of hundredths of a second. The current folder is empty."""
    server = KaggleStandIn({}).start()
    server.next_outputs["report.json"] = json.dumps(REPORT).encode()
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    point_client(monkeypatch, tmp_path / "home", server)
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    monkeypatch.setattr(session, "POLL_FIRST", 0.01)
    monkeypatch.setattr(session, "POLL_LONGEST", 0.05)
    monkeypatch.setattr(submissions, "LOOK_FOR", 0.05)
    yield server
    server.stop()


@pytest.fixture
def built(kaggle: KaggleStandIn) -> Path:
    """A script kernel as `kit kernel build` leaves it, as far as Kaggle looks."""
    return write_kernel(Path("kernel"), "print('one')\n")


def write_kernel(folder: Path, text: str, kind: str = "script") -> Path:
    code = "kernel.py" if kind == "script" else "kernel.ipynb"
    metadata = {"id": "ada/kannada-kit", "title": "Kannada Kit", "code_file": code, "language": "python",
                "kernel_type": kind, "is_private": True, "enable_internet": False, "enable_gpu": True,
                "dataset_sources": [], "competition_sources": ["kannada-mnist"], "kernel_sources": []}
    folder.mkdir(exist_ok=True)
    (folder / code).write_text(text)
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture
def predicting(built: Path) -> Path:
    """The same with weights to upload."""
    folder = built / "weights"
    folder.mkdir()
    (folder / "cnn-0-fold_0.keras").write_bytes(b"weights of fold 0")
    (folder / "manifest.json").write_text("{}")
    (folder / "dataset-metadata.json").write_text(json.dumps(
        {"title": "Kannada Kit Weights", "id": "ada/kannada-kit-weights", "licenses": [{"name": "other"}]}))
    return built
