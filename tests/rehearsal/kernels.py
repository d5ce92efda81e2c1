"""Small data and small kernels for the rehearsal: one that is right, and the ways to be wrong."""

import json
from pathlib import Path

import numpy as np

from kit.data.competition import KANNADA

GOOD = """
import os
from pathlib import Path
import numpy as np

root = Path(os.environ.get("KIT_KAGGLE_ROOT", "/kaggle"))
data = root / "input" / "competitions" / "Kannada-MNIST"
test = np.loadtxt(data / "test.csv", int, delimiter=",", skiprows=1)
ids = test[:, 0]
labels = test[:, 1:].reshape(len(test), 28, 28).sum(2).argmax(1)
lines = ["id,label"] + [f"{i},{label}" for i, label in zip(ids, labels)]
(root / "working" / "submission.csv").write_text("\\n".join(lines) + "\\n")
"""  # the digits of `write_data` say their label by the row that is lit

METADATA = {"id": "someone/a-kernel", "title": "A Kernel", "code_file": "kernel.py", "language": "python",
            "kernel_type": "script", "enable_internet": False, "competition_sources": ["kannada-mnist"]}


def write_data(folder: Path, train_rows: int = 200, test_rows: int = 30) -> Path:
    """The competition's files with digits that anybody can read: row `label` of the image is lit."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = ",".join(KANNADA.pixel_columns)
    rng = np.random.default_rng(0)
    for name, first, rows in (("train.csv", "label", train_rows), ("test.csv", "id", test_rows),
                              ("Dig-MNIST.csv", "label", 20)):
        labels = np.arange(rows) % 10
        images = rng.integers(0, 60, (rows, 28, 28))
        images[np.arange(rows), labels] += rng.integers(120, 190, (rows, 28))
        lead = np.arange(rows) if first == "id" else labels
        body = np.column_stack([lead, images.reshape(rows, -1)])
        np.savetxt(folder / name, body, "%d", delimiter=",", header=f"{first},{pixels}", comments="")
    (folder / "sample_submission.csv").write_text(
        "id,label\n" + "".join(f"{i},0\n" for i in range(test_rows)))
    return folder


def write_kernel(folder: Path, code: str, **metadata: object) -> Path:
    """A kernel folder with this script; a notebook where `kernel_type` says so, a cell per blank-line block."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = METADATA | metadata
    if facts["kernel_type"] == "notebook":
        facts["code_file"] = "kernel.ipynb"
        cells = [{"cell_type": "markdown", "metadata": {}, "source": "# words"}]
        cells += [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None,
                   "source": block.splitlines(keepends=True)} for block in code.strip().split("\n\n")]
        notebook = {"cells": cells, "nbformat": 4, "nbformat_minor": 5,
                    "metadata": facts.pop("notebook", {"kernelspec": {"name": "python3"}})}
        (folder / "kernel.ipynb").write_text(json.dumps(notebook))
    else:
        (folder / "kernel.py").write_text(code)
    (folder / "kernel-metadata.json").write_text(json.dumps(facts))
    return folder


DOCTOR = """
import sys

sys.path.insert(0, unpack())
import kit

print(kit.doctor())
"""


def with_doctor(code: Path) -> None:
    """Let a kernel that the kit has built run `kit doctor`, as docs/kaggle.md says it, and nothing else."""
    built = code.read_text()
    code.write_text(built[:built.rindex("if __name__")] + DOCTOR)
