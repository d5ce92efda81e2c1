"""Built kernel folders, to push to the Kaggle of tests/conftest.py."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def built(kaggle):
    """A script kernel as `kit kernel build` leaves it, as far as Kaggle looks."""
    return write_kernel(Path("kernel"), "print('one')\n")


def write_kernel(folder, text, kind='script'):
    code = "kernel.py" if kind == "script" else "kernel.ipynb"
    metadata = {"id": "ada/kannada-kit", "title": "Kannada Kit", "code_file": code, "language": "python",
                "kernel_type": kind, "is_private": True, "enable_internet": False, "enable_gpu": True,
                "dataset_sources": [], "competition_sources": ["kannada-mnist"], "kernel_sources": []}
    folder.mkdir(exist_ok=True)
    (folder / code).write_text(text)
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture
def predicting(built):
    """The same with weights to upload."""
    folder = built / "weights"
    folder.mkdir()
    (folder / "cnn-0-fold_0.keras").write_bytes(b"weights of fold 0")
    (folder / "manifest.json").write_text("{}")
    (folder / "dataset-metadata.json").write_text(json.dumps(
        {"title": "Kannada Kit Weights", "id": "ada/kannada-kit-weights", "licenses": [{"name": "other"}]}))
    return built
