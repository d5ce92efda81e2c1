"""A run's damaged, swapped or hostile artifacts end in two lines, and nothing in them is run.

Damage is noticed by its checksum, and an artifact whose checksum fits is trusted. What remains are
files with a fitting checksum that belong to another run or version, or that would run code.
"""

import hashlib
import io
import json
import re
import shutil
import zipfile

import numpy as np
import pytest

from kit.commands import cli
from kit.core import storage
from tests.end_to_end.test_reliability import QUICK, kit, two_lines

FOLD = "mlp/seed_0/fold_0/"
REPORT = ("report", "it")
PREDICT = ("predict", "it", "--test", "data/kannada-mnist-sample/test.csv", "--out", "p.npz")
RESUME = ("cv", *QUICK, "--run", "it", "--resume")
BUILD = ("kernel", "build", "--mode", "predict", "--run", "it", "--out", "kernel", "--user", "me")


def flipped(data):
    return data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1:]


def halved(data):
    return data[:len(data) // 2]


def text(words):
    return lambda data: words.encode()


def npz(**arrays):
    """Another .npz, each array made of the one that was there."""
    def spoil(data):
        with np.load(io.BytesIO(data)) as file:
            there = dict(file)
        buffer = io.BytesIO()
        np.savez(buffer, **{name: make(there.get(name)) for name, make in arrays.items()})
        return buffer.getvalue()
    return spoil


def same(array):
    return array


def changed_in(name, **values):
    """Other values in the object that a JSON file holds as `name`."""
    def spoil(data):
        value = json.loads(data)
        return json.dumps({**value, name: {**value[name], **values}}).encode()
    return spoil


def relabelled(data):
    """Another label for the first row of folds.csv."""
    return re.sub(rb"^0,0,", b"0,7,", data, flags=re.MULTILINE)


def without_weights(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in ("metadata.json", "config.json"):
            new.writestr(name, old.read(name))
    return buffer.getvalue()


# name: (file, what is done to it, the command that then reads it)
DAMAGED = {
    "a bit of config.json": ("config.json", flipped, REPORT),
    "a bit of folds.csv": ("folds.csv", flipped, REPORT),
    "a bit of timing.json": ("timing.json", flipped, REPORT),
    "a bit of val.npz": (FOLD + "val.npz", flipped, REPORT),
    "a bit of test.npz": (FOLD + "test.npz", flipped, REPORT),
    "a bit of extra.npz": (FOLD + "extra.npz", flipped, REPORT),
    "a bit of history.csv": (FOLD + "history.csv", flipped, REPORT),
    "a bit of done.json": (FOLD + "done.json", flipped, RESUME),
    "a bit of model.keras": (FOLD + "model.keras", flipped, PREDICT),
    "half of model.keras, for a kernel": (FOLD + "model.keras", halved, BUILD),
    "half of test.npz": (FOLD + "test.npz", halved, REPORT),
    "an empty done.json": (FOLD + "done.json", text(""), PREDICT),
}
FITTING = {
    "config.json: a list": ("config.json", text("[]"), REPORT),
    "config.json: an unknown key": ("config.json", changed_in("config", flavour="x"), REPORT),
    "config.json: folds as text": ("config.json", changed_in("config", n_folds="2"), REPORT),
    "config.json: a path as a model": (
        "config.json", changed_in("config", models=["../../evil"]), PREDICT),
    "config.json: another competition": (
        "config.json", changed_in("config", competition="imagenet"), PREDICT),
    "folds.csv: another label": ("folds.csv", relabelled, REPORT),
    "folds.csv: another label, resumed": ("folds.csv", relabelled, RESUME),
    "folds.csv: three rows": (
        "folds.csv", text("row,label,writer,fold\n0,0,0,0\n1,1,1,1\n2,2,1,1\n"), REPORT),
    "val.npz: a pickle": (
        FOLD + "val.npz", npz(row=same, probs=lambda a: np.array([{}], object)), REPORT),
    "val.npz: fewer rows": (
        FOLD + "val.npz", npz(row=lambda a: a[:5], probs=lambda a: a[:5]), REPORT),
    "val.npz: other rows": (FOLD + "val.npz", npz(row=lambda a: a + 1, probs=same), REPORT),
    "val.npz: three classes": (FOLD + "val.npz", npz(row=same, probs=lambda a: a[:, :3]), REPORT),
    "test.npz: an id twice": (FOLD + "test.npz", npz(id=lambda a: a * 0, probs=same), REPORT),
    "done.json: a path as a model": (
        FOLD + "done.json", changed_in("job", model="../evil"), PREDICT),
    "model.keras: no weights": (FOLD + "model.keras", without_weights, PREDICT),
    "checksums.json: words": ("checksums.json", text("none"), REPORT),
}


def seal(path):
    """Let the table of checksums beside a file fit it."""
    table = path.parent / storage.CHECKSUMS
    sums = json.loads(table.read_text())
    sums[path.name] = [hashlib.sha256(path.read_bytes()).hexdigest()]
    table.write_text(json.dumps(sums))


@pytest.fixture(scope="module")
def finished(sample_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    options = ("--run", "it", "--data-dir", str(sample_data), "--runs-dir", str(folder))
    assert cli.run(["cv", *QUICK, *options]) == 0
    return folder


@pytest.mark.parametrize("name", DAMAGED | FITTING)
def test_a_bad_artifact_is_named(workplace, finished, capsys, name):
    shutil.copytree(finished, workplace / "runs")
    file, change, command = (DAMAGED | FITTING)[name]
    path = workplace / "runs" / "it" / file
    path.write_bytes(change(path.read_bytes()))
    if name in FITTING and path.name != storage.CHECKSUMS:
        seal(path)
    before = {other: other.read_bytes() for other in workplace.rglob("*.csv")}
    code, _, err = kit(capsys, *command)
    assert code == 2 and two_lines(err), err
    assert "runs/it" in err
    if name in DAMAGED:
        assert f"{path.relative_to(workplace)} is damaged" in err
    assert not (workplace / "p.npz").exists()
    assert {other: other.read_bytes() for other in workplace.rglob("*.csv")} == before
