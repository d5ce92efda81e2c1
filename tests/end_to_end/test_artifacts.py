"""Artifacts that were damaged, forged or swapped end in two lines, and nothing in them is run.

Damage is noticed by its checksum. What was forged has a fitting checksum here, as whoever can write a file can write
the table of checksums beside it: then the content itself must be looked at.
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
BUILD = ("kernel", "build", "--mode", "predict", "--run", "it", "--out", "kernel", "--user", "someone")


def flipped(data):
    return data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1:]


def halved(data):
    return data[:len(data) // 2]


def emptied(data):
    return b""


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


def changed(**values):
    """The JSON object with other values; `None` takes a key out."""
    def spoil(data):
        value = {**json.loads(data), **values}
        return json.dumps({key: item for key, item in value.items() if item is not None}).encode()
    return spoil


def changed_in(name):
    """`changed` for the object that the JSON file holds as `name`."""
    def change(**values):
        def spoil(data):
            value = json.loads(data)
            return json.dumps({**value, name: {**value[name], **values}}).encode()
        return spoil
    return change


config, settled, job = changed_in("config"), changed_in("settled"), changed_in("job")


def relabelled(data):
    """Another label for the first row of folds.csv."""
    return re.sub(rb"^0,0,", b"0,7,", data, flags=re.MULTILINE)


def without_weights(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        new.writestr("metadata.json", old.read("metadata.json"))
        new.writestr("config.json", old.read("config.json"))
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
    "half of test.npz": (FOLD + "test.npz", halved, REPORT),
    "half of model.keras": (FOLD + "model.keras", halved, PREDICT),
    "an empty done.json": (FOLD + "done.json", emptied, PREDICT),
    "done.json: seconds of 400 digits": (
        FOLD + "done.json", changed(train_seconds=10**400), REPORT),
    "done.json: no rows": (FOLD + "done.json", changed(val_rows=0, val_accuracy=0.0), RESUME),
    "done.json: a job of batches of 0": (FOLD + "done.json", job(batch_size=0), PREDICT),
    "done.json: a job of a billion views": (FOLD + "done.json", job(tta=10**9), PREDICT),
    "done.json: accuracy as text": (FOLD + "done.json", changed(val_accuracy="high"), REPORT),
}
FORGED = {
    "config.json: nothing": ("config.json", emptied, REPORT),
    "config.json: a list": ("config.json", text("[]"), REPORT),
    "config.json: NUL bytes": ("config.json", text("\0" * 50), REPORT),
    "config.json: half": ("config.json", halved, RESUME),
    "config.json: 100,000 brackets": ("config.json", text("[" * 100_000), REPORT),
    "config.json: no config": ("config.json", changed(config=None), PREDICT),
    "config.json: config a number": ("config.json", changed(config=3), RESUME),
    "config.json: data a number": ("config.json", changed(data=3), REPORT),
    "config.json: an unknown key": ("config.json", config(flavour="x"), REPORT),
    "config.json: folds as text": ("config.json", config(n_folds="2"), REPORT),
    "config.json: a million folds": ("config.json", config(n_folds=10**6), REPORT),
    "config.json: a trillion seeds and a budget": ("config.json", config(n_seeds=10**12, time_budget=5.0), PREDICT),
    "config.json: a trillion folds and a budget": ("config.json", config(n_folds=10**12, time_budget=5.0), REPORT),
    "config.json: a seed of 400 digits": ("config.json", config(seed=10**400), REPORT),
    "config.json: no environment": ("config.json", changed(environment=3), REPORT),
    "config.json: a command of numbers": ("config.json", changed(command=[1]), REPORT),
    "config.json: which data is not said": ("config.json", changed(data={"is_sample": "no", "sha256": {}}), REPORT),
    "config.json: settled a list": ("config.json", changed(settled=[1]), RESUME),
    "config.json: nothing settled": ("config.json", changed(settled=None), RESUME),
    "config.json: settled on a precision that there is not": ("config.json", settled(precision="int4"), RESUME),
    "config.json: settled on minus three threads": ("config.json", settled(threads=-3), RESUME),
    "config.json: an unknown model": ("config.json", config(models=["../../evil"]), PREDICT),
    "config.json: another competition": ("config.json", config(competition="imagenet"), PREDICT),
    "folds.csv: nothing": ("folds.csv", emptied, REPORT),
    "folds.csv: words": ("folds.csv", text("row,label,writer,fold\na,b,c,d\n"), REPORT),
    "folds.csv: a ragged row": ("folds.csv", text("row,label,writer,fold\n1,2\n3,4,5,6,7,8\n"), REPORT),
    "folds.csv: three rows": ("folds.csv", text("row,label,writer,fold\n0,0,0,0\n1,1,1,1\n2,2,1,1\n"), REPORT),
    "folds.csv: another label": ("folds.csv", relabelled, REPORT),
    "folds.csv: another label, resumed": ("folds.csv", relabelled, RESUME),
    "folds.csv: 30 MB of text": ("folds.csv", lambda data: data + b"x\n" * (15 << 20), REPORT),
    "folds.csv: rows far outside": ("folds.csv", text("row,label,writer,fold\n0,0,0,0\n999999,1,1,1\n"), RESUME),
    "val.npz: a pickle": (FOLD + "val.npz", npz(row=same, probs=lambda a: np.array([{}], object)), REPORT),
    "val.npz: no probs": (FOLD + "val.npz", npz(row=same), REPORT),
    "val.npz: fewer rows": (FOLD + "val.npz", npz(row=lambda a: a[:5], probs=lambda a: a[:5]), REPORT),
    "val.npz: other rows": (FOLD + "val.npz", npz(row=lambda a: a + 1, probs=same), REPORT),
    "val.npz: three classes": (FOLD + "val.npz", npz(row=same, probs=lambda a: a[:, :3]), REPORT),
    "val.npz: text": (FOLD + "val.npz", npz(row=same, probs=lambda a: a.astype(str)), REPORT),
    "val.npz: NaN": (FOLD + "val.npz", npz(row=same, probs=lambda a: a * np.nan), REPORT),
    "test.npz: an id twice": (FOLD + "test.npz", npz(id=lambda a: a * 0, probs=same), REPORT),
    "test.npz: a single number": (FOLD + "test.npz", npz(id=same, probs=lambda a: np.float32(1)), REPORT),
    "test.npz: minus infinity": (FOLD + "test.npz", npz(id=same, probs=lambda a: a - np.inf), REPORT),
    "extra.npz: complex": (FOLD + "extra.npz", npz(row=same, probs=lambda a: a * 1j), REPORT),
    "model.keras: half of it, for a kernel": (FOLD + "model.keras", lambda data: data[:len(data) // 2], BUILD),
    "config.json: a number, for a kernel": ("config.json", text("5"), BUILD),
    "history.csv: nothing": (FOLD + "history.csv", emptied, REPORT),
    "history.csv: other columns": (FOLD + "history.csv", text("a,b\n1,2\n"), REPORT),
    "history.csv: NaN": (FOLD + "history.csv", lambda data: data.split(b"\n")[0] + b"\n1" + b",nan" * 7, REPORT),
    "history.csv: 1e308": (FOLD + "history.csv", lambda data: data.split(b"\n")[0] + b"\n1" + b",1e308" * 7, REPORT),
    "history.csv: no epoch": (FOLD + "history.csv", lambda data: data.split(b"\n")[0] + b"\n", REPORT),
    "history.csv: words": (FOLD + "history.csv", lambda data: data.replace(b"1", b"x"), REPORT),
    "done.json: an empty object": (FOLD + "done.json", text("{}"), REPORT),
    "done.json: parameters missing": (FOLD + "done.json", changed(parameters=None), REPORT),
    "done.json: seconds missing": (FOLD + "done.json", changed(train_seconds=None), REPORT),
    "done.json: a job of any precision": (FOLD + "done.json", job(precision="auto"), PREDICT),
    "done.json: an accuracy of NaN": (FOLD + "done.json", changed(val_accuracy=float("nan")), RESUME),
    "done.json: a job too many words": (FOLD + "done.json", job(flavour="x"), PREDICT),
    "done.json: a job of another model": (FOLD + "done.json", job(model="../evil"), PREDICT),
    "timing.json: a list": ("timing.json", text("[]"), REPORT),
    "timing.json: NaN": ("timing.json", text('{"seconds": {"train": NaN}}'), REPORT),
    "timing.json: 400 digits": ("timing.json", text('{"seconds": {"train": 1%s}}' % ("0" * 400)), REPORT),
    "timing.json: words": ("timing.json", text('{"seconds": "long"}'), REPORT),
    "model.keras: nothing": (FOLD + "model.keras", emptied, PREDICT),
    "model.keras: no zip": (FOLD + "model.keras", text("weights"), PREDICT),
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
    assert cli.run(["cv", *QUICK, "--run", "it", "--data-dir", str(sample_data), "--runs-dir", str(folder)]) == 0
    return folder


def spoil(workplace, finished, name):
    """A finished run of which one file is bad; the command that reads it."""
    shutil.copytree(finished, workplace / "runs")
    file, change, command = (DAMAGED | FORGED)[name]
    path = workplace / "runs" / "it" / file
    path.write_bytes(change(path.read_bytes()))
    if name in FORGED and path.name != storage.CHECKSUMS:
        seal(path)
    return path, command


FEW = ("a bit of test.npz", "config.json: a trillion seeds and a budget", "config.json: folds as text",
       "val.npz: a pickle", "model.keras: no weights")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FEW else pytest.mark.slow)
                                  for name in DAMAGED | FORGED])
def test_a_bad_artifact_is_named(workplace, finished, capsys, name):
    path, command = spoil(workplace, finished, name)
    before = {other: other.read_bytes() for other in workplace.rglob("*.csv")}
    code, _, err = kit(capsys, *command)
    assert code == 2 and two_lines(err), err
    assert "runs/it" in err
    if name in DAMAGED:
        assert f"{path.relative_to(workplace)} is damaged" in err
    assert not (workplace / "p.npz").exists()
    assert {other: other.read_bytes() for other in workplace.rglob("*.csv")} == before
