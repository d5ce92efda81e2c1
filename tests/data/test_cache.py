"""A cache gives back what was read, and never anything else."""

import errno
import json
import mmap
import os
import pickle
import time

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data import table as table_module
from kit.data.competition import Competition
from kit.data.table import read_table
from tests.data.tiny import TINY, write_folder

PICKLE = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 58 + b"\n"
PICKLE += pickle.dumps(np.array([None]))
OLD = time.time_ns() - 3600 * 10**9


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


@pytest.fixture
def parsed(monkeypatch):
    """The paths that were parsed, not taken from a cache."""
    paths = []
    read = table_module._read
    monkeypatch.setattr(table_module, "_read", lambda path, *rest: paths.append(path.name) or read(path, *rest))
    return paths


def test_a_file_system_that_maps_nothing_has_a_cache_all_the_same(folder, parsed, monkeypatch):
    first = read_table(folder / "train.csv", TINY, labelled=True)

    def refuse(*_, **__):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    again = read_table(folder / "train.csv", TINY, labelled=True)
    assert parsed == ["train.csv"] and same(first, again)


def same(a, b) -> bool:
    return (np.array_equal(a.pixels, b.pixels) and a.sha256 == b.sha256 and a.notes == b.notes
            and np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels))


@pytest.mark.parametrize(("name", "labelled"), [("train.csv", True), ("extra.csv", True), ("test.csv", False)])
def test_the_second_read_is_the_first_again(folder, parsed, name, labelled):
    first = read_table(folder / name, TINY, labelled)
    second = read_table(folder / name, TINY, labelled)
    assert parsed == [name] and same(first, second)
    assert second.pixels.dtype == np.uint8 and not second.pixels.flags.writeable
    assert isinstance(second.pixels.base, np.memmap)


def test_text_ids_come_back(folder, parsed):
    text = (folder / "test.csv").read_text().replace("\n3,", "\nimg_೩,")
    (folder / "test.csv").write_text(text)
    first = read_table(folder / "test.csv", TINY, False)
    second = read_table(folder / "test.csv", TINY, False)
    assert parsed == ["test.csv"] and same(first, second) and second.ids[3] == "img_೩"


def test_not_asked_for_none_is_made_or_used(folder, parsed):
    read_table(folder / "train.csv", TINY, True, cache=False)
    assert not (folder / ".cache").exists()
    read_table(folder / "train.csv", TINY, True)
    read_table(folder / "train.csv", TINY, True, cache=False)
    assert parsed == ["train.csv"] * 3


def changed_in_place(path):
    """Another file of the same size and times under the same inode: only ctime tells."""
    info = path.stat()
    text = path.read_text()
    path.write_text(text.replace("\n0,", "\n1,", 1))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (info.st_size, info.st_mtime_ns)


def test_a_changed_file_is_read_again(folder, parsed):
    first = read_table(folder / "train.csv", TINY, True)
    changed_in_place(folder / "train.csv")
    second = read_table(folder / "train.csv", TINY, True)
    assert parsed == ["train.csv"] * 2 and second.labels[0] == 1 and first.sha256 != second.sha256


def test_a_change_within_one_tick_of_the_clock_is_seen(folder, parsed, monkeypatch):
    """Even if no time-stamp tells: a stamp so young is not believed."""
    path = folder / "train.csv"
    now = time.time_ns()
    monkeypatch.setattr("kit.data.cache.file_stamp", lambda info: [info.st_size, now, now, 7])
    read_table(path, TINY, True)
    path.write_text(path.read_text().replace("\n0,", "\n1,", 1))
    assert read_table(path, TINY, True).labels[0] == 1


def test_an_old_stamp_is_believed_without_hashing(folder, parsed, monkeypatch):
    monkeypatch.setattr("kit.data.cache.file_stamp", lambda info: [info.st_size, OLD, OLD, 7])
    read_table(folder / "train.csv", TINY, True)
    monkeypatch.setattr("kit.data.cache.sha256_file", lambda path: pytest.fail("hashed for nothing"))
    read_table(folder / "train.csv", TINY, True)
    assert parsed == ["train.csv"]


def test_a_touched_file_is_hashed_and_stamped_again(folder, parsed, monkeypatch):
    path = folder / "train.csv"
    monkeypatch.setattr("kit.data.cache.file_stamp", lambda info: [info.st_size, OLD, OLD, 7])
    read_table(path, TINY, True)
    monkeypatch.setattr("kit.data.cache.file_stamp", lambda info: [info.st_size, OLD + 1, OLD + 1, 8])
    read_table(path, TINY, True)
    monkeypatch.setattr("kit.data.cache.sha256_file", lambda path: pytest.fail("was not stamped again"))
    read_table(path, TINY, True)
    assert parsed == ["train.csv"]


def test_a_file_that_is_now_bad_is_refused(folder):
    read_table(folder / "train.csv", TINY, True)
    text = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(text[:-2] + "x\n")
    with pytest.raises(KitError, match="line 201"):
        read_table(folder / "train.csv", TINY, True)


@pytest.mark.parametrize("name", ["train.csv.json", "train.csv.pixels.npy", "train.csv.names.npy"])
@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone", "folder", "noise", "pickle"])
def test_a_damaged_cache_is_not_used(folder, parsed, name, damage):
    first = read_table(folder / "train.csv", TINY, True)
    path = folder / ".cache" / name
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[-5] ^= 4
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pickle":
        path.write_bytes(PICKLE)
    elif damage != "gone":
        path.write_bytes({"bit": data, "cut": data[:-9], "empty": b"", "noise": bytes(range(256)) * 20}[damage])
    second = read_table(folder / "train.csv", TINY, True)
    assert parsed == ["train.csv"] * 2 and same(first, second)


@pytest.mark.parametrize("change", [{"crc32": []}, {"sha256": None, "stamp": None}, {"layout": "x"},
                                    {"size": 1, "stamp": None}])
def test_a_cache_that_says_something_else_is_not_used(folder, parsed, change):
    read_table(folder / "train.csv", TINY, True)
    path = folder / ".cache" / "train.csv.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    read_table(folder / "train.csv", TINY, True)
    assert parsed == ["train.csv"] * 2


def test_a_cache_of_other_columns_is_not_used(folder):
    """The same file, asked for as another kind of table, is refused as if it were read for the first time."""
    read_table(folder / "train.csv", TINY, True)
    with pytest.raises(KitError, match="column unknown: 'label'"):
        read_table(folder / "train.csv", TINY, False)
    four = Competition(slug="four", title="", url="", class_names=tuple("0123"), shape=(2, 3))
    with pytest.raises(KitError, match="line 6, column 'label': '4'"):
        read_table(folder / "train.csv", four, True)


def test_the_cache_of_another_file_is_not_used(folder, parsed):
    read_table(folder / "train.csv", TINY, True)
    read_table(folder / "extra.csv", TINY, True)
    for path in (folder / ".cache").glob("train.csv.*"):
        path.replace(path.with_name(path.name.replace("train", "extra")))
    assert len(read_table(folder / "extra.csv", TINY, True)) == 20
    assert parsed == ["train.csv", "extra.csv", "extra.csv"]


def test_where_the_folder_cannot_be_written_there_is_no_cache(folder, parsed):
    (folder / ".cache").write_text("a file stands where the folder would be")
    first = read_table(folder / "train.csv", TINY, True)
    assert same(first, read_table(folder / "train.csv", TINY, True))
    assert parsed == ["train.csv"] * 2


def test_a_full_disk_leaves_no_half_cache(folder, parsed, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    first = read_table(folder / "train.csv", TINY, True)
    assert len(first) == 200 and list((folder / ".cache").iterdir()) == []
