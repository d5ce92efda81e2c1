"""What --tensorboard writes is what the epochs were; nobody who did not ask for it imports it."""

import dataclasses
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data.competition import KANNADA
from kit.data.table import Table
from kit.training.jobs import FoldJob

JOB = FoldJob("cnn", 0, 1, 2, 256, "float32", 1)
LINE = {"loss": 0.5, "accuracy": 0.875, "val_loss": 0.25, "val_accuracy": 0.9375, "learning_rate": 1e-3,
        "seconds": 1.0, "images_per_second": 4000.0}


@pytest.fixture(autouse=True)
def _no_tensorflow(monkeypatch):
    """TensorBoard does without, which is also quicker."""
    pytest.importorskip("tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))


def probs_of(predicted):
    probs = np.full((len(predicted), 10), 0.01, np.float32)
    probs[np.arange(len(predicted)), predicted] = 0.91
    return probs


@pytest.fixture
def written(tmp_path):
    """Two epochs of one job: three mistakes, then none."""
    from kit.reporting.tensorboard import TensorBoardProgress

    labels = np.tile(np.arange(10, dtype=np.uint8), 10)
    rng = np.random.default_rng(0)
    train = Table(Path("train.csv"), rng.integers(0, 256, (100, 784), np.uint8), labels, np.arange(100), "", ())
    heard = Progress()
    heard.events, heard.handle = [], lambda event: heard.events.append(event)
    board, rows = TensorBoardProgress(heard, tmp_path, train, KANNADA, RunConfig()), np.arange(0, 100, 2)
    wrong = labels[rows].copy()
    wrong[[3, 5, 7]] = 9
    board.start({JOB.key: 1.0})
    board.handle({"event": "step", "job": JOB.key})
    for epoch, predicted in ((1, wrong), (2, labels[rows])):
        board.on_epoch_end({"event": "epoch", "job": JOB.key, "settings": dataclasses.asdict(JOB),
                            "epoch": epoch, **LINE, "rows": rows, "probs": probs_of(predicted)})
    board.stop()
    assert heard.events == [{"event": "step", "job": JOB.key}]
    return tmp_path


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_the_numbers_pictures_and_texts_of_each_epoch(written):
    found = read(written / "cnn" / "seed_0" / "fold_1")
    for tag, name in (("loss/train", "loss"), ("loss/val", "val_loss"), ("accuracy/train", "accuracy"),
                      ("accuracy/val", "val_accuracy"), ("images_per_second", "images_per_second")):
        assert [(event.step, event.value) for event in found.Scalars(tag)] == [(1, LINE[name]), (2, LINE[name])]
    pictures = found.Images("confusion")
    assert [picture.step for picture in pictures] == [1, 2] and (pictures[0].width, pictures[0].height) == (160, 160)
    assert pictures[0].encoded_image_string.startswith(b"\x89PNG") and \
        pictures[0].encoded_image_string != pictures[1].encoded_image_string
    mistakes = found.Images("mistakes")
    assert [picture.step for picture in mistakes] == [1] and (mistakes[0].width, mistakes[0].height) == (168, 28)
    texts = [event.tensor_proto.string_val[0].decode() for event in found.Tensors("mistakes/text")]
    assert texts[0].splitlines()[2:] == ["| 6 | 6 | 9 | 0.910 |", "| 10 | 0 | 9 | 0.910 |", "| 14 | 4 | 9 | 0.910 |"]
    assert texts[1] == "none"
    matrix = found.Tensors("confusion/text")[0].tensor_proto.string_val[0].decode().splitlines()
    assert matrix[2] == "| **0** | 9 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 1 |"


def test_hparams(written):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = read(written / "cnn" / "seed_0" / "fold_1").SummaryMetadata("_hparams_/session_start_info")
    data = HParamsPluginData.FromString(content.plugin_data.content).session_start_info.hparams
    assert data["model"].string_value == "cnn" and data["batch_size"].number_value == 256
    assert data["optimizer"].string_value == "adam" and data["augment"].bool_value is False and "fold" not in data


def test_it_is_small(written):
    assert sum(path.stat().st_size for path in written.rglob("*.tfevents.*")) < 20_000


def test_without_the_package_the_fix_is_said(monkeypatch, tmp_path):
    from kit.reporting.tensorboard import TensorBoardProgress

    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(KitError, match="needs a package") as caught:
        TensorBoardProgress(Progress(), tmp_path, None, KANNADA, RunConfig())
    assert "bash scripts/setup.sh tensorboard " in caught.value.fix


def test_nobody_else_imports_it():
    code = ("import sys, kit.pipeline, kit.commands.cli, kit.training.executors\n"
            "assert not [name for name in sys.modules if name.startswith('tensorboard')]")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
