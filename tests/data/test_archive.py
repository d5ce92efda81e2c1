"""Zips and folders as the competition serves them are unpacked; hostile and broken ones write nothing outside."""

import gzip
import io
import os
import re
import struct
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.core.errors import KitError
from kit.data import archive, packed
from tests.data.zips import make_zip

FILES = {"train.csv": b"label,pixel0\n1,2\n", "test.csv": b"id,pixel0\n0,3\n"}


def link(name: str, target: str) -> list:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return [*FILES.items(), (info, target.encode())]


def encrypted(data: bytes) -> bytes:
    """Set the encryption flag of each entry, here and in the directory."""
    data = bytearray(data)
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(sign)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(sign, at + 4)
    return bytes(data)


def declared(data: bytes, size: int) -> bytes:
    """Let the directory say that the first entry has another size than it has."""
    data = bytearray(data)
    at = data.find(b"PK\x01\x02")
    data[at + 24:at + 28] = struct.pack("<L", size)
    return bytes(data)


def zip64(data: bytes, n: int) -> bytes:
    """An end of the directory that says 2 entries, behind a Zip64 one that says `n`, as many as there are."""
    body = data[:data.find(b"PK\1\2")]
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, *[0] * 8, 6, *[0] * 6)
    entries = b"".join(entry + b"%06d" % i for i in range(n))
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n, n, len(entries), len(body))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + len(entries), 1)
    return body + entries + end + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 92, len(body), 0)


GOOD = make_zip(FILES)
ZEROS = make_zip({"train.csv": bytes(300 << 20), "test.csv": FILES["test.csv"]})
NESTED = {name + ".zip": make_zip({name: data}) for name, data in FILES.items()}


def unpack(tmp_path: Path, data: bytes, optional=()) -> Path:
    """Unpack into a folder of its own; whatever happens, nothing lies beside it afterwards."""
    target = tmp_path / "work" / "target"
    target.mkdir(parents=True, exist_ok=True)
    (tmp_path / "some.zip").write_bytes(data)
    try:
        archive.unpack(tmp_path / "some.zip", tuple(FILES), optional, target)
    finally:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["some.zip", "work"]
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["target"]
    return target


ACCEPTED = {
    "deflated": GOOD,
    "stored": make_zip(FILES, zipfile.ZIP_STORED),
    "bzip2": make_zip(FILES, zipfile.ZIP_BZIP2),
    "lzma": make_zip(FILES, zipfile.ZIP_LZMA),
    "in a folder": make_zip({f"kannada/{name}": data for name, data in FILES.items()}),
    "each zipped again": make_zip(NESTED),
    "one zipped again": make_zip({"train.csv.zip": NESTED["train.csv.zip"], "test.csv": FILES["test.csv"]}),
    "with other files": make_zip(FILES | {"readme.txt": b"hello", "deep/er/x.bin": bytes(10)}),
    "each in a gzip": make_zip({name + ".gz": gzip.compress(data) for name, data in FILES.items()}),
    "by macOS": make_zip(FILES | {"__MACOSX/._train.csv": b"\0\5\x16\7", ".DS_Store": b"\0"}),
    "behind other bytes": b"#!/bin/sh\n" + GOOD,
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_unpacks(tmp_path, name):
    target = unpack(tmp_path, ACCEPTED[name])
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES


def test_optional_files_come_along(tmp_path):
    target = unpack(tmp_path, make_zip(FILES | {"extra.csv": b"x\n"}), optional=("extra.csv", "none.csv"))
    assert sorted(path.name for path in target.iterdir()) == ["extra.csv", "test.csv", "train.csv"]


REFUSED = {
    "empty": (b"", "some.zip is empty"),
    "no zip": (b"label,pixel0\n" * 100, "some.zip is not a zip"),
    "truncated at the end": (GOOD[:-30], "is cut off: its end"),
    "truncated in the middle": (GOOD[: len(GOOD) // 2], "is cut off: its end"),
    "beginning cut off": (GOOD[40:], "train.csv is damaged"),
    "bits flipped in a file": (GOOD[:45] + bytes([GOOD[45] ^ 255]) + GOOD[46:], "train.csv is damaged: .*CRC"),
    "encrypted": (encrypted(GOOD), "'train.csv' is encrypted"),
    "no files": (make_zip({}), "has no train.csv; it holds nothing"),
    "a file missing": (make_zip({"train.csv": FILES["train.csv"]}), "has no test.csv; it holds 'train.csv'"),
    "another competition": (make_zip({"a.csv": b"", "b.csv": b""}), "has no train.csv; it holds 'a.csv', 'b.csv'"),
    "another case": (make_zip({"Train.csv": b"", "TEST.CSV": b""}),
                     "has no train.csv; it holds 'TEST.CSV', 'Train.csv'"),
    "two cases": (make_zip(FILES | {"TRAIN.csv": b"x"}), "'TRAIN.csv' is there twice"),
    "the same name twice": (make_zip([*FILES.items(), ("copy/../train.csv", b"x")]), "names a place outside"),
    "in two folders": (make_zip([*FILES.items(), ("a/train.csv", b"x")]),
                       "has more than one train.csv: 'train.csv', 'train.csv'"),
    "zipped and not": (make_zip(FILES | {"train.csv.zip": NESTED["train.csv.zip"]}),
                       "has more than one train.csv: 'train.csv', 'train.csv.zip'"),
    "parent folder": (make_zip(FILES | {"../evil.csv": b"x"}), "'../evil.csv' names a place outside"),
    "parent folder of a wanted file": (make_zip({"../train.csv": b"x"}), "'../train.csv' names a place outside"),
    "parent folder further in": (make_zip(FILES | {"a/../../evil": b"x"}), "names a place outside"),
    "parent folder with backslashes": (make_zip(FILES | {"..\\evil": b"x"}), "names a place outside"),
    "absolute": (make_zip(FILES | {"/tmp/evil": b"x"}), "'/tmp/evil' names a place outside"),
    "drive": (make_zip(FILES | {"C:\\evil": b"x"}), "names a place outside"),
    "network share": (make_zip(FILES | {"\\\\host\\evil": b"x"}), "names a place outside"),
    "link": (make_zip(link("extra.csv", "/etc/passwd")), "'extra.csv' is a link"),
    "link to a folder": (make_zip(link("out", "..")), "'out' is a link"),
    "escape sequence in a name": (make_zip({"\x1b[2J.csv": b"x"}), r"it holds '\\x1b\[2J.csv'"),
    "zip in a zip": (make_zip({"kannada.zip": GOOD}), "has no train.csv; it holds 'kannada.zip'"),
    "three deep": (make_zip({"train.csv.zip": make_zip({"train.csv.zip": NESTED["train.csv.zip"]}),
                             "test.csv": FILES["test.csv"]}), "holds 'train.csv.zip', not train.csv"),
    "inner zip empty": (make_zip({"train.csv.zip": make_zip({}), "test.csv": b"x\n"}), "holds nothing, not train.csv"),
    "inner zip damaged": (make_zip({"train.csv.zip": b"PK\x03\x04" * 9, "test.csv": b"x\n"}),
                          "train.csv.zip is cut off"),
    "inner zip encrypted": (make_zip({"train.csv.zip": encrypted(NESTED["train.csv.zip"]), "test.csv": b"x\n"}),
                            "'train.csv' is encrypted"),
    "inner parent folder": (make_zip({"train.csv.zip": make_zip({"../train.csv": b"x"}), "test.csv": b"x\n"}),
                            "names a place outside"),
    "300 MB of zeros": (ZEROS, "train.csv, line 1: longer than 1 MiB"),
    "300 MB of zeros in a zip": (make_zip({"train.csv.zip": make_zip({"train.csv": bytes(20 << 20)}),
                                           "test.csv": b"x\n"}), "train.csv, line 1: longer than 1 MiB"),
    "more than it says": (declared(GOOD, 5), "train.csv is damaged"),
    "says 4 GB": (declared(GOOD, 0xFFFFFFF0), "does not have the size that the archive says|disk space"),
    "unknown method": (GOOD.replace(b"PK\x01\x02\x14\x03\x14\0\0\0\x08\0", b"PK\x01\x02\x14\x03\x14\0\0\0\x63\0"),
                       "packed by a method that Python cannot unpack"),
    "5,000 entries behind an end that says 2": (zip64(GOOD, 5000), "more than 1,000 entries"),
    "40,000 entries": (zip64(GOOD, 40_000), "more than 1,000 entries"),
    "a folder named train.csv": (make_zip({"train.csv/": b"", "test.csv": b"x\n"}),
                                 "has no train.csv; it holds 'test.csv'"),
    "CRC changed in the directory": (GOOD.replace(GOOD[GOOD.find(b"PK\1\2") + 16:][:4], b"\1\2\3\4"), "Bad CRC-32"),
    "local header with another name": (GOOD.replace(b"train.csv", b"../in.csv", 1), "train.csv is damaged: .*differ"),
    "local header far outside": (GOOD[:GOOD.find(b"PK\1\2") + 42] + b"\xf0\xff\xff\xff"
                                 + GOOD[GOOD.find(b"PK\1\2") + 46:], "train.csv is damaged"),
    "two entries of one body": (make_zip({"train.csv": b"x\n", "test.csv": b"x\n"}).replace(
        struct.pack("<L", 43) + b"test.csv", struct.pack("<L", 0) + b"test.csv"), "test.csv is damaged"),
    "inner gzip cut off": (make_zip({"train.csv.gz": gzip.compress(FILES["train.csv"])[:-9], "test.csv": b"x\n"}),
                           "train.csv.gz is cut off"),
    "inner gzip damaged": (make_zip({"train.csv.gz": b"\x1f\x8b" + bytes(20), "test.csv": b"x\n"}),
                           "train.csv.gz is damaged"),
    "a gzip of zeros": (make_zip({"train.csv.gz": gzip.compress(bytes(300 << 20), 1), "test.csv": b"x\n"}),
                        "train.csv.gz, line 1: longer than 1 MiB"),
    "a web page": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "is a web page"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 6\n",
                             "is a pointer of Git LFS"),
    "JSON": (b'{"code": 403, "message": "Permission denied"}', "is JSON, as a server answers"),
    "a 7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "an archive that is not read here"),
    "a gzip": (gzip.compress(FILES["train.csv"]), "is a gzip, not a zip"),
    "1,100 entries": (make_zip([*FILES.items(), *((f"{i}", b"") for i in range(1100))]), "more than 1,000 entries"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(tmp_path, name):
    data, pattern = REFUSED[name]
    began = time.process_time()
    with pytest.raises(KitError, match=pattern) as caught:
        unpack(tmp_path, data)
    assert str(tmp_path / "some.zip") in caught.value.message or "disk space" in caught.value.message
    assert caught.value.message.isprintable() and caught.value.fix
    assert time.process_time() - began < 2


def test_ten_gigabytes_of_zeros_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    """A zip that says how large it is, as zips of more than 4 GB do in their Zip64 fields."""
    def huge(self):
        info = zipfile.ZipInfo("train.csv")
        info.file_size = 10 << 30
        return [info]

    monkeypatch.setattr(zipfile.ZipFile, "infolist", huge)
    with pytest.raises(KitError, match="unpacks to 10,737,418,240 bytes"):
        unpack(tmp_path, GOOD)
    assert not list((tmp_path / "work" / "target").iterdir())


def test_lines_and_zeros_are_stopped_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "MAX_BYTES", 100)
    data = make_zip({"train.csv": b"0\n" * 1000, "test.csv": b"x\n"})
    with pytest.raises(KitError, match="unpacks to 2,002 bytes; more than 100"):
        unpack(tmp_path, data)
    monkeypatch.setattr(packed, "_problem", lambda info: setattr(info, "file_size", 10))
    with pytest.raises(KitError, match=r"train\.csv is damaged"):
        unpack(tmp_path, data)


def test_a_full_disk_is_seen_before(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.terminal_size((0, 0)) and type("", (), {"free": 10}))
    with pytest.raises(KitError, match="not enough disk space"):
        unpack(tmp_path, GOOD)


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    (tmp_path / "target").mkdir()
    (tmp_path / "some.zip").write_bytes(GOOD)
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r": (Full if "w" in mode else opened)(self, mode))
    with pytest.raises(KitError, match=r"cannot write .*target: No space left on device") as caught:
        archive.unpack(tmp_path / "some.zip", tuple(FILES), (), tmp_path / "target")
    assert "free some space on that disk, then run the same command again" in caught.value.fix


@pytest.mark.parametrize(("refused", "words"), [("given/train.csv", "chmod u\\+r"),
                                                ("target", "make the folder writable")])
def test_what_may_not_be_read_and_what_not_written_are_told_apart(tmp_path, monkeypatch, refused, words):
    for name in ("given", "target"):
        (tmp_path / name).mkdir()
    for name, data in FILES.items():
        (tmp_path / "given" / name).write_bytes(data)

    def no(self, mode="r"):
        if str(self).startswith(str(tmp_path / refused)):
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, mode)

    opened = Path.open
    monkeypatch.setattr(Path, "open", no)
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(tmp_path / "target"))
    with pytest.raises(KitError, match=refused) as caught:
        archive.unpack(tmp_path / "given", tuple(FILES), (), tmp_path / "target")
    assert re.search(words, caught.value.fix)


def test_a_folder(tmp_path):
    given, target = tmp_path / "given", tmp_path / "target"
    given.mkdir()
    target.mkdir()
    (given / "train.csv").write_bytes(FILES["train.csv"])
    (given / "test.csv.zip").write_bytes(NESTED["test.csv.zip"])
    (given / "other").mkdir()
    archive.unpack(given, tuple(FILES), (), target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES
    (given / "train.csv").rename(tmp_path / "train.csv")
    (given / "train.csv.gz").write_bytes(gzip.compress(FILES["train.csv"]))
    archive.unpack(given, tuple(FILES), (), target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == FILES


def test_what_is_neither(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, pattern in (("none", r"there is no file .*--from takes kaggle"), ("pipe", "neither a zip nor a folder")):
        with pytest.raises(KitError) as caught:
            archive.unpack(tmp_path / name, tuple(FILES), (), tmp_path)
        assert re.search(pattern, f"{caught.value.message} {caught.value.fix}")
    (tmp_path / "shapes.toml").touch()  # lies beside its data, and holds none
    with pytest.raises(KitError) as caught:
        archive.unpack(tmp_path / "shapes", tuple(FILES), (), tmp_path)
    assert "did you mean" not in caught.value.fix
    (tmp_path / "shapes.zip").touch()
    with pytest.raises(KitError) as caught:
        archive.unpack(tmp_path / "shapes", tuple(FILES), (), tmp_path)
    assert "shapes.zip?" in caught.value.fix
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitError, match=r"has no train\.csv; it holds nothing"):
        archive.unpack(tmp_path / "empty", tuple(FILES), (), tmp_path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([GOOD, ACCEPTED["each zipped again"], ACCEPTED["lzma"]]), st.data())
def test_any_damage_is_refused_or_does_no_harm(scratch, good, draw):
    """Bytes changed, cut out or put in anywhere: the files come out as they were, or there is a KitError."""
    data = bytearray(good)
    start = draw.draw(st.integers(0, len(data) - 1))
    data[start: start + draw.draw(st.integers(0, 8))] = draw.draw(st.binary(max_size=8))
    try:
        target = unpack(scratch, bytes(data))
    except KitError:
        return
    assert {path.name: path.read_bytes() for path in target.iterdir() if path.name in FILES} == FILES
