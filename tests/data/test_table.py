"""What the reader accepts comes back as it was written; what it does not accept is named with its line and column."""

import gzip
import re
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.core.errors import KitError
from kit.data import csvfile
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.data.table import read_table
from tests.data import bad_files
from tests.data.tiny import TINY, table_text

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 6))
TRAIN = table_text("label", np.arange(200) % 10, PIXELS).encode()
TEST = table_text("id", range(200), PIXELS).encode()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def read(tmp_path, data: bytes, labelled: bool = True):
    path = tmp_path / ("train.csv" if labelled else "test.csv")
    path.write_bytes(data)
    return read_table(path, TINY, labelled, cache=False)


# -- what is accepted -----------------------------------------------------------------------------------------------


ACCEPTED = {
    "as it is": lambda data: data,
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "BOM and CRLF": lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"),
    "some CRLF": lambda data: data.replace(b"\n", b"\r\n", 50),
    "no line end at the end": lambda data: data[:-1],
    "CRLF, none at the end": lambda data: data.replace(b"\n", b"\r\n")[:-2],
    "all quoted": lambda data: re.sub(rb"[^,\n]+", rb'"\g<0>"', data),
    "all quoted, CRLF": lambda data: re.sub(rb"[^,\n]+", rb'"\g<0>"', data).replace(b"\n", b"\r\n"),
    "header quoted": lambda data: re.sub(rb"[^,\n]+", rb'"\g<0>"', data, count=7),
    "first column quoted": lambda data: re.sub(rb"(?m)^[^,\n]+", rb'"\g<0>"', data),
    "last column quoted": lambda data: re.sub(rb"(?m)[^,\n]+$", rb'"\g<0>"', data),
    "one cell quoted": lambda data: bad_files.cell(7, 2, b'"7"')(bad_files.cell(7, 2, b"7")(data)),
}


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_unambiguous_is_accepted(tmp_path, name, labelled):
    pixels = PIXELS.copy()
    if name == "one cell quoted":
        pixels[5, 1] = 7
    table = read(tmp_path, ACCEPTED[name](TRAIN if labelled else TEST), labelled)
    assert table.pixels.dtype == np.uint8
    np.testing.assert_array_equal(table.pixels, pixels)
    if labelled:
        assert table.labels.dtype == np.uint8
        np.testing.assert_array_equal(table.labels, np.arange(200) % 10)
    else:
        assert table.labels is None
    assert table.ids.dtype == np.int64
    np.testing.assert_array_equal(table.ids, np.arange(200))


def test_every_value_in_every_place(tmp_path):
    pixels = (np.arange(256)[:, None] + 43 * np.arange(6)) % 256
    table = read(tmp_path, table_text("label", np.zeros(256, int), pixels).encode())
    np.testing.assert_array_equal(table.pixels, pixels)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), *[st.integers(0, 255)] * 6), min_size=1, max_size=30),
       st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.booleans(), st.integers(8, 300))
def test_round_trip_whatever_the_blocks(scratch, rows, line_end, bom, last, block):
    rows = np.array(rows)
    data = b"\xef\xbb\xbf" * bom + table_text("label", rows[:, 0], rows[:, 1:]).encode().replace(b"\n", line_end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvfile, "BLOCK_BYTES", block)
        table = read(scratch, data if last else data[:-len(line_end)])
    np.testing.assert_array_equal(table.labels, rows[:, 0])
    np.testing.assert_array_equal(table.pixels, rows[:, 1:])


IDS = {
    "huge numbers": (["123456789012345678901234567890", "5"], "U"),
    "int64's own": ([str(2**59), str(-2**59), "0"], "i"),
    "above int64": ([str(2**63), str(2**64), "7"], "U"),
    "text": (["img_1.png", "img_2.png"], "U"),
    "leading zeros": (["0001", "0002"], "U"),
    "other scripts": (["೧", "日本", "é"], "U"),
    "mixed": (["1", "2", "x3"], "U"),
    "hexadecimal": (["1e5", "0x1F", "abc"], "U"),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_of_any_kind_come_back_as_written(tmp_path, name):
    ids, kind = IDS[name]
    table = read(tmp_path, table_text("id", ids, PIXELS[: len(ids)]).encode(), labelled=False)
    assert table.ids.dtype.kind == kind
    assert [str(x) for x in table.ids.tolist()] == ids
    assert any("text" in note for note in table.notes) == (kind == "U")


def test_a_quoted_id_may_hold_commas(tmp_path):
    table = read(tmp_path, table_text("id", ['"a, b"', '"c"', "d"], PIXELS[:3]).encode(), labelled=False)
    assert table.ids.tolist() == ["a, b", "c", "d"]


def test_without_an_id_column_ids_count_from_the_first(tmp_path):
    path = tmp_path / "test.csv"
    header = ",".join(DIGIT_RECOGNIZER.pixel_columns)
    path.write_text(header + "\n" + (",".join(["3"] * 784) + "\n") * 4)
    table = read_table(path, DIGIT_RECOGNIZER, labelled=False)
    assert table.ids.tolist() == [1, 2, 3, 4]
    assert table.pixels.shape == (4, 784) and (table.pixels == 3).all()


def test_one_test_row(tmp_path):
    table = read(tmp_path, table_text("id", [0], PIXELS[:1]).encode(), labelled=False)
    assert table.ids.tolist() == [0] and table.pixels.shape == (1, 6)


def test_200_000_test_rows(tmp_path):
    row = b"," + b",".join(str(x).encode() for x in range(6)) + b"\n"
    header = TEST.split(b"\n")[0] + b"\n"
    table = read(tmp_path, header + b"".join(b"%d" % i + row for i in range(200_000)), labelled=False)
    np.testing.assert_array_equal(table.ids, np.arange(200_000))
    assert (table.pixels == np.arange(6)).all() and len(table) == 200_000


def test_other_row_counts_and_absent_classes_are_mentioned(tmp_path):
    table = read(tmp_path, table_text("label", [0, 1, 2], PIXELS[:3]).encode())
    assert table.notes == ("train.csv has 3 rows; the competition's own has 200",
                           "train.csv has no row of class 3, 4, 5, 6, 7, 8, 9")
    assert read(tmp_path, TRAIN).notes == ()


def test_arrays_are_read_only(tmp_path):
    table = read(tmp_path, TRAIN)
    with pytest.raises(ValueError, match="read-only"):
        table.pixels[0] = 0


def test_sha256_is_that_of_the_file(tmp_path):
    import hashlib

    assert read(tmp_path, TRAIN).sha256 == hashlib.sha256(TRAIN).hexdigest()


# -- what is not ----------------------------------------------------------------------------------------------------


def check_refusal(tmp_path, data: bytes, labelled: bool, pattern: str) -> None:
    began = time.process_time()
    with pytest.raises(KitError) as caught:
        read(tmp_path, data, labelled)
    assert re.search(pattern, caught.value.message), caught.value.message
    assert caught.value.message.startswith(str(tmp_path)) and caught.value.fix
    assert caught.value.message.isprintable() and len(caught.value.message) < 500 + len(str(tmp_path))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", bad_files.TRAIN)
def test_bad_training_file(tmp_path, name):
    spoil, pattern = bad_files.TRAIN[name]
    check_refusal(tmp_path, spoil(TRAIN), True, pattern)


@pytest.mark.parametrize("name", bad_files.TEST)
def test_bad_test_file(tmp_path, name):
    spoil, pattern = bad_files.TEST[name]
    check_refusal(tmp_path, spoil(TEST), False, pattern)


def test_the_line_is_right_in_a_later_block(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfile, "BLOCK_BYTES", 100)
    check_refusal(tmp_path, bad_files.cell(150, 3, b"x")(TRAIN), True, "line 150, column 'pixel2': 'x'")
    check_refusal(tmp_path, bad_files.cell(150, 0, b"7")(TEST), False,
                  "line 150: the id '7' is there already, on line 9")


def test_the_first_of_many_errors_is_named(tmp_path):
    data = bad_files.cell(5, 1, b"x")(bad_files.cell(150, 3, b"y")(TRAIN))
    check_refusal(tmp_path, data, True, "line 5, column 'pixel0': 'x'")


def test_paths_that_are_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path, pattern in [(tmp_path, "is a folder"), (tmp_path / "none.csv", "there is no file"),
                          (tmp_path / "pipe", "not a regular file"), (tmp_path / "a\0b", "cannot be a path"),
                          (tmp_path / ("x" * 300), "File name too long"), (tmp_path / "pipe" / "x", "Not a directory")]:
        for labelled in (True, False):
            with pytest.raises(KitError, match=pattern):
                read_table(path, TINY, labelled)


def test_a_file_without_permission(tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "train.csv").write_bytes(TRAIN)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(KitError, match="you may not read") as caught:
        read_table(tmp_path / "train.csv", TINY, labelled=True)
    assert "chmod" in caught.value.fix


def test_a_disk_that_fails_while_reading(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_bytes(TRAIN)

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("kit.data.table.line_blocks", fail)
    with pytest.raises(KitError, match="Input/output error"):
        read_table(tmp_path / "train.csv", TINY, labelled=True)


CELLS = st.binary(max_size=8) | st.text("0123456789+-.eExX \"'_", max_size=5).map(str.encode)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 199), st.integers(0, 6), CELLS | st.integers(0, 300).map(lambda number: b"%d" % number))
def test_any_change_of_one_cell_is_read_or_named(scratch, row, column, text):
    """The reference: a cell is what matches a pattern, quoted or not, at the end of a line with or without `\\r`."""
    data = bad_files.cell(row + 2, column, text)(TRAIN)
    number = re.fullmatch(rb'("?)(0|[1-9][0-9]{0,2})\1', text.removesuffix(b"\r") if column == 6 else text)
    if number and int(number[2]) <= (255 if column else 9):
        table = read(scratch, data)
        expected = np.column_stack([np.arange(200) % 10, PIXELS])
        expected[row, column] = int(number[2])
        np.testing.assert_array_equal(np.column_stack([table.labels, table.pixels]), expected)
    else:
        with pytest.raises(KitError, match=rf"line {row + 2}\b"):
            read(scratch, data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(scratch, data):
    for labelled, header in ((True, TRAIN), (False, TEST)):
        for text in (data, header.split(b"\n")[0] + b"\n" + data):
            with pytest.raises(KitError):
                read(scratch, text, labelled)


def test_memory_for_bad_files_stays_small(tmp_path):
    """Python's own allocations, NumPy's included; 20 MB must not end up in memory."""
    (tmp_path / "train.csv").write_bytes(bad_files.TRAIN["20 MB of line ends"][0](TRAIN))
    tracemalloc.start()
    with pytest.raises(KitError):
        read_table(tmp_path / "train.csv", TINY, labelled=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_memory_for_long_ids_stays_small(tmp_path):
    """A .csv.gz of 50 KB with 40 MB of ids in it is refused at its first block."""
    row = b"," + b",".join([b"0"] * 6) + b"\n"
    rows = b"".join(b"%d" % i + b"x" * 100_000 + row for i in range(400))
    (tmp_path / "test.csv.gz").write_bytes(gzip.compress(TEST[:TEST.index(b"\n") + 1] + rows))
    del rows
    tracemalloc.start()
    with pytest.raises(KitError, match=r"line 2: the id '0xxx.* has more than 256 bytes"):
        read_table(tmp_path / "test.csv.gz", TINY, labelled=False, cache=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_real_shape_takes_at_most_four_bytes_a_pixel(tmp_path):
    rng = np.random.default_rng(0)
    rows = [",".join(map(str, row)) for row in rng.integers(0, 256, (50, 785)) % np.array([10] + [256] * 784)]
    text = ",".join(["label", *KANNADA.pixel_columns]) + "\n" + "\n".join(rows * 80) + "\n"
    (tmp_path / "train.csv").write_text(text)
    tracemalloc.start()
    table = read_table(tmp_path / "train.csv", KANNADA, labelled=True, cache=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.pixels.shape == (4000, 784)
    assert peak < 4 * table.pixels.size + 20e6
