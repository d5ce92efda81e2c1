"""Thousands of mutated files: each is read, or refused in two printable lines, within seconds.

The seeds are the good and the bad files of tests/data. KIT_FUZZ_SECONDS=600 in the environment looks longer at each
reader than the half second of an ordinary test run.
"""

import io
import json
import os
import random
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas  # noqa: F401  # loaded before the clock runs
import pytest

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.data import archive, folds, npz
from kit.data.source import DataFolder
from kit.data.table import read_table
from kit.ensembling import submission
from tests.data.bad_files import TEST, TRAIN
from tests.data.tiny import TINY, table_text

SECONDS = float(os.environ.get("KIT_FUZZ_SECONDS", "0.5"))
SLOWEST = 2.0  # seconds of CPU time that an input may take; they have at most some KB here
MOST_BYTES = 1 << 16
WORDS = [b"\n", b"\r\n", b",", b'"', b"\0", b"\xef\xbb\xbf", b"256", b"-1", b"1e3", b"nan", b"\xff", b"../",
         b"PK\x01\x02", b"PK\x05\x06", b"\xff\xff\xff\xff", b"{", b"[", b"null", b"label", b"id", b"pixel0", b"9" * 30]
Target = Callable[[Path], Any]


# -- what is read --------------------------------------------------------------------------------------------------


def _unpack(path: Path) -> None:
    target = path.parent / "out"
    target.mkdir(exist_ok=True)
    try:
        archive.unpack(path, (TINY.train, TINY.test), (TINY.extra, TINY.sample_submission), target)
    finally:
        written = {found.relative_to(target).as_posix() for found in target.rglob("*")}
        allowed = set(TINY.files)
        if written - allowed - {f"{name}.zip" for name in allowed} or list(path.parent.parent.glob("*.csv")):
            raise AssertionError(f"the archive wrote {sorted(written - allowed)}")
        for name in written:
            (target / name).unlink()


def _manifest(path: Path) -> None:
    path.replace(path.parent / "manifest.json")
    DataFolder(path.parent, TINY).manifest  # noqa: B018  # a property that reads


def _config(path: Path) -> None:
    RunConfig.from_dict(storage.read_json(path))


TARGETS: dict[str, Target] = {
    "table": lambda path: read_table(path, TINY, labelled=True, cache=False),
    "test-table": lambda path: read_table(path, TINY, labelled=False, cache=False),
    "submission": lambda path: submission.validate(path, TINY, np.arange(5)),
    "archive": _unpack,
    "keras-npz": lambda path: npz.write_files(path.parent / "npz", path, TINY),
    "artifact-npz": lambda path: storage.read_npz(path, "row", "probs"),
    "folds": folds.load_folds,
    "config": _config,
    "manifest": _manifest,
}


def _zip(names: dict[str, bytes], kind: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, data in names.items():
            file.writestr(name, data)
    return buffer.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def seeds(target: str) -> list[bytes]:
    """Files to begin with: good ones, and the bad ones that are short."""
    rng = np.random.default_rng(0)
    good = {"train.csv": table_text("label", np.arange(200) % 10, rng.integers(0, 256, (200, 6))).encode(),
            "test.csv": table_text("id", range(5), rng.integers(0, 256, (5, 6))).encode()}
    handed_in = b"id,label\n" + b"".join(b"%d,%d\n" % (i, i) for i in range(5))
    spoiled = {"table": (TRAIN, "train.csv"), "test-table": (TEST, "test.csv")}
    if target in spoiled:
        cases, name = spoiled[target]
        made = [spoil(good[name]) for spoil, _ in _short(cases)]
        return [good[name], *[data for data in made if len(data) < MOST_BYTES]]
    images = {"x_train": np.zeros((20, 2, 3), "uint8"), "y_train": np.arange(20) % 10,
              "x_test": np.zeros((5, 2, 3), "uint8"), "y_test": np.arange(5)}
    inner = {f"{name}.zip": _zip({name: data}, zipfile.ZIP_DEFLATED) for name, data in good.items()}
    return {
        "submission": [handed_in, handed_in.replace(b"\n", b"\r\n"), b'id,label\n"1",2\n'],
        "archive": [_zip(good, zipfile.ZIP_STORED), _zip(good, zipfile.ZIP_DEFLATED), _zip(inner, zipfile.ZIP_STORED),
                    _zip({"a/../train.csv": b"", **good}, zipfile.ZIP_STORED)],
        "keras-npz": [_npz(**images)],
        "artifact-npz": [_npz(row=np.arange(4), probs=np.zeros((4, 10), "float32"))],
        "folds": [b"row,label,writer,fold\n0,0,-1,0\n1,1,-1,1\n", b"row,label,writer,fold\n0,0,0,0\n1,1,1,1\n"],
        "config": [json.dumps(RunConfig().to_dict()).encode()],
        "manifest": [b'{"competition": "tiny", "source": "kaggle", "sha256": {"train.csv": "0"}, "writer_block": 20}'],
    }[target]


def _short(cases: dict[str, Any]) -> list[Any]:
    """The cases that do not make files of many MB."""
    return [case for name, case in cases.items() if "MB" not in name]


def check(target: str, data: bytes, folder: Path) -> None:
    """Raises whatever is not as promised."""
    path = folder / "in" / "file"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    began = time.process_time()  # on a busy machine the clock on the wall says nothing
    try:
        TARGETS[target](path)
    except KitError as error:
        for text in (error.message, error.fix):
            if not text or re.search(r"[\x00-\x1f\x7f]", text):
                raise AssertionError(f"not one printable line: {text!r}") from error
    if time.process_time() - began > SLOWEST:
        raise AssertionError(f"{time.process_time() - began:.1f} s")


def mutated(rng: random.Random, pool: list[bytes]) -> bytes:
    data = bytearray(rng.choice(pool))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 64)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        elif kind == 3:
            data[at:at] = rng.choice(WORDS)
        elif kind == 4:
            data[at:end] = rng.randbytes(end - at)
        else:
            other = rng.choice(pool)
            data[at:] = other[rng.randrange(len(other) + 1):]
    return bytes(data[:MOST_BYTES])


@pytest.mark.timeout(SECONDS + 60)  # one that hangs is the file `last`
@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files_are_read_or_refused(tmp_path, target):
    rng, pool, n, began = random.Random(0), seeds(target), 0, time.monotonic()
    while n < len(pool) or time.monotonic() - began < SECONDS:
        data = pool[n] if n < len(pool) else mutated(rng, pool)
        (tmp_path / "last").write_bytes(data)  # what failed, for whoever wants to see it
        check(target, data, tmp_path)
        n += 1
