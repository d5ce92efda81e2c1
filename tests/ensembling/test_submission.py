"""What is written is accepted; what differs from it is named with its line, and told how to mend."""

import gzip
import os
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.core.errors import KitError
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.ensembling import submission
from kit.ensembling.submission import read_labels, validate, write_submission
from tests.data.zips import make_zip

IDS = np.arange(20)
LABELS = np.arange(20) % 10
GOOD = ("id,label\n" + "".join(f"{i},{label}\n" for i, label in zip(IDS, LABELS, strict=True))).encode()
DIGITS = "a whole number from 0 to 9 in plain digits"


def problems(tmp_path, data: bytes, ids=IDS, competition=KANNADA) -> list[str]:
    path = tmp_path / "submission.csv"
    path.write_bytes(data)
    return validate(path, competition, ids).problems


def probs_of(labels, n_classes: int = 10) -> np.ndarray:
    return np.eye(n_classes, dtype=np.float32)[labels]


# -- writing --------------------------------------------------------------------------------------------------------


def test_writes_the_likeliest_class_of_each_id_in_their_order(tmp_path):
    path = tmp_path / "deep" / "submission.csv"
    write_submission(path, np.array([7, 3, 5]), np.array([[0.1] * 9 + [0.9], [0.9] + [0.1] * 9, [0.1] * 10]), KANNADA)
    assert path.read_bytes() == b"id,label\n7,9\n3,0\n5,0\n"


def test_writes_the_competition_s_own_columns(tmp_path):
    write_submission(tmp_path / "s.csv", np.array([1, 2]), probs_of([3, 4]), DIGIT_RECOGNIZER)
    assert (tmp_path / "s.csv").read_bytes() == b"ImageId,Label\n1,3\n2,4\n"
    assert validate(tmp_path / "s.csv", DIGIT_RECOGNIZER, np.array([1, 2])).problems == []


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters='"'), min_size=1,
                max_size=20).filter(lambda text: text == text.strip())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-2**62, 2**62), min_size=1, max_size=30, unique=True)
       | st.lists(TEXTS, min_size=1, max_size=30, unique=True), st.randoms())
def test_what_is_written_is_accepted(tmp_path_factory, ids, random):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    ids = np.array(ids)
    write_submission(path, ids, probs_of([random.randrange(10) for _ in ids]), KANNADA)
    assert validate(path, KANNADA, ids) == ([], [])


@pytest.mark.parametrize(("ids", "probs", "pattern"), [
    (IDS, probs_of(LABELS)[:-1], r"shape \(19, 10\) do not fit 20 ids"),
    (IDS, probs_of(LABELS)[:, :9], r"shape \(20, 9\)"),
    (IDS, LABELS, r"shape \(20,\)"),
    (np.array([1, 2, 1]), probs_of([1, 2, 3]), "an id comes twice"),
    (np.array([1, 2]), np.array([[0.1] * 10, [np.nan] * 10]), "the probs of id '2' are not numbers"),
    (np.array([1, 2]), np.array([[0.1] * 9 + [np.inf], [0.1] * 10]), "the probs of id '1'"),
])
def test_what_does_not_fit_is_not_written(tmp_path, ids, probs, pattern):
    with pytest.raises(KitError, match=pattern):
        write_submission(tmp_path / "s.csv", ids, probs, KANNADA)
    assert not list(tmp_path.iterdir())


# -- validating -----------------------------------------------------------------------------------------------------


def test_the_good_file_is_accepted(tmp_path):
    assert problems(tmp_path, GOOD) == []
    assert problems(tmp_path, GOOD[:-1]) == []
    assert problems(tmp_path, re.sub(rb"[^,\n]+", rb'"\g<0>"', GOOD)) == []


def put(number: int, text: bytes):
    def spoil(data: bytes) -> bytes:
        lines = data.split(b"\n")
        lines[number - 1] = text
        return b"\n".join(lines)
    return spoil


# name: (what is done, a pattern for each problem said, or for the first ones)
BAD = {
    "empty file": (lambda data: b"", ["the file is empty: it needs a first line id,label"]),
    "header alone": (lambda data: b"id,label\n", ["rows of 20 of the 20 ids are missing: '0', '1', '2' … '19'",
                                                  "there are 0 rows below line 1; the test file has 20"]),
    "no header": (lambda data: data[9:], ["line 1: there are numbers where the column names .* must read id,label"]),
    "columns in another order": (put(1, b"label,id"),
                                 ["line 1: columns in another order: column 1 is 'label', not 'id'", ...]),
    "column renamed": (put(1, b"id,Label"), ["column missing: 'label'; column unknown: 'Label'"]),
    "column missing": (put(1, b"id"), ["column missing: 'label'"]),
    "column with a space": (put(1, b"id, label"), ["column unknown: ' label'"]),
    "semicolons": (lambda data: data.replace(b",", b";"),
                   ["line 1: the columns are separated by ';', not by commas; it must read id,label"]),
    "column extra": (lambda data: b"\n".join(line + b",x" for line in data[:-1].split(b"\n")) + b"\n",
                     ["line 1: column unknown: 'x'"]),
    "index column": (lambda data: b"\n".join(b"," + line for line in data[:-1].split(b"\n")) + b"\n",
                     ["line 1: column unknown: ''"]),
    "column twice": (put(1, b"id,label,label"), ["line 1: column there more than once: 'label'", ...]),
    "extra cell": (put(5, b"3,3,7"), ["line 5: '3,3,7' has 3 cells, line 1 has 2", "ids are missing: '3'"]),
    "comma at the end": (put(5, b"3,3,"), ["line 5: '3,3,' has 3 cells", "missing: '3'"]),
    "label missing": (put(5, b"3"), ["line 5: '3' has 1 cells", "missing: '3'"]),
    "label empty": (put(5, b"3,"), [f"line 5: the label is empty: it must be {DIGITS}"]),
    "label 10": (put(5, b"3,10"), [f"line 5: the label '10' is not {DIGITS}"]),
    "label -1": (put(5, b"3,-1"), ["line 5: the label '-1' is not"]),
    "label 1.0": (put(5, b"3,1.0"), ["line 5: the label '1.0' is not"]),
    "label 07": (put(5, b"3,07"), ["line 5: the label '07' is not"]),
    "label with a space": (put(5, b"3, 7"), ["line 5: the label ' 7' is not"]),
    "label 1e0": (put(5, b"3,1e0"), ["line 5: the label '1e0' is not"]),
    "label NaN": (put(5, b"3,NaN"), ["line 5: the label 'NaN' is not"]),
    "label in text": (put(5, b"3,three"), ["line 5: the label 'three' is not"]),
    "label in Kannada": (put(5, "3,೩".encode()), ["line 5: the label '೩' is not"]),
    "label True": (put(5, b"3,True"), ["line 5: the label 'True' is not"]),
    "label with an escape": (put(5, b"3,\x1b[31m"), [r"line 5: the label '\\x1b\[31m' is not"]),
    "label of a megabyte": (put(5, b"3," + b"9" * 900_000), ["line 5: the label '9{39}…' is not"]),
    "id empty": (put(5, b",3"), ["line 5: the id is empty", "missing: '3'"]),
    "id unknown": (put(5, b"77,3"), ["line 5: there is no id '77' in the test file", "missing: '3'"]),
    "id as a float": (put(5, b"3.0,3"), ["line 5: there is no id '3.0' in the test file", "missing: '3'"]),
    "id with zeros": (put(5, b"03,3"), ["line 5: there is no id '03'", "missing: '3'"]),
    "id with a space": (put(5, b"3 ,3"), ["line 5: there is no id '3 '", "missing: '3'"]),
    "id twice": (put(5, b"2,3"), ["line 5: the id '2' is there already, on line 4", "missing: '3'"]),
    "row twice": (lambda data: data + b"19,9\n",
                  ["line 22: the id '19' is there already, on line 21", "there are 21 rows"]),
    "row missing": (lambda data: data.replace(b"7,7\n", b"", 1), ["missing: '7'", "there are 19 rows .* has 20"]),
    "row too many": (lambda data: data + b"20,0\n", ["line 22: there is no id '20'", "there are 21 rows"]),
    "half of the rows": (lambda data: data[:49], ["rows of 10 of the 20 ids are missing", "there are 10 rows"]),
    "empty line": (lambda data: data.replace(b"3,3\n", b"3,3\n\n", 1),
                   ["line 6: the line is empty; delete it", "21 rows"]),
    "empty line at the end": (lambda data: data + b"\n", ["line 22: the line is empty; delete it", "21 rows"]),
    "cut off": (lambda data: data[:-3], ["line 21: '19' has 1 cells", "missing: '19'"]),
    "byte order mark": (lambda data: b"\xef\xbb\xbf" + data, ["line 1: the file begins with a byte order mark"]),
    "Latin-1": (put(5, b"3,\xe9"), [r"line 5: '3,\\\\xe9' is not UTF-8 at byte 3; save it as UTF-8", "missing: '3'"]),
    "quote left open": (put(5, b'3,"3'), ["line 5: .* is not readable as CSV", "missing: '3'"]),
    "markup": (put(5, b"3,<script>"), ["line 5: the label '<script>' is not"]),
    "another file": (lambda data: b"label,pixel0\n1,2\n", ["column missing: 'id'; column unknown: 'pixel0'"]),
}


@pytest.mark.parametrize("name", BAD)
def test_says_what_is_wrong_and_where(tmp_path, name):
    spoil, patterns = BAD[name]
    said = problems(tmp_path, spoil(GOOD))
    if patterns[-1] is ...:
        patterns = patterns[:-1]
        said = said[: len(patterns)]
    for pattern, problem in zip(patterns, said, strict=True):
        assert re.search(pattern, problem), said
    assert said and all(problem.isprintable() and len(problem) < 300 for problem in said)


BACKWARDS = b"id,label\n" + b"\n".join(GOOD[9:-1].split(b"\n")[::-1]) + b"\n"
# name: (a file that Kaggle takes all the same, a pattern for each note)
NOTED = {
    "CRLF": (GOOD.replace(b"\n", b"\r\n"), [r"21 lines end in \\r\\n \(Windows\), which Kaggle takes"]),
    "one CRLF": (put(5, b"3,3\r")(GOOD), [r"a line ends in \\r\\n"]),
    "two swapped": (GOOD.replace(b"3,3\n4,4\n", b"4,4\n3,3\n", 1), ["another order .* line 5, the id '4' on"]),
    "backwards": (BACKWARDS, ["another order .* from line 2, the id '19' on: Kaggle matches rows by id"]),
    "backwards and CRLF": (BACKWARDS.replace(b"\n", b"\r\n"), ["21 lines end", "another order"]),
    "a zip": (make_zip({"submission.csv": GOOD}),
              ["is packed, and what it holds was checked; Kannada MNIST takes it only unp"]),
    "a zip from macOS": (
        make_zip({"out/s.csv": GOOD, "__MACOSX/out/._s.csv": b"\0\5\x16\7"}), ["is packed"]),
    "a gzip": (gzip.compress(GOOD), ["is packed"]),
    "a gzip of another order": (gzip.compress(BACKWARDS), ["is packed", "another order"]),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_kaggle_takes_is_acceptable_with_a_note(tmp_path, name):
    data, patterns = NOTED[name]
    path = tmp_path / "submission.csv"
    path.write_bytes(data)
    found = validate(path, KANNADA, IDS)
    assert found.problems == []
    for pattern, note in zip(patterns, found.notes, strict=True):
        assert re.search(pattern, note), found.notes
    assert found.lines(path) == [f"{path}: acceptable", *(f"note: {note}" for note in found.notes)]
    np.testing.assert_array_equal(read_labels(path, KANNADA, IDS), LABELS)


def test_a_packed_file_of_a_competition_that_takes_files_may_stay_so(tmp_path):
    path = tmp_path / "s.zip"
    path.write_bytes(make_zip({"s.csv": b"ImageId,Label\n1,3\n2,4\n"}))
    assert validate(path, DIGIT_RECOGNIZER, np.array([1, 2])) == (
        [], ["the file is packed, and what it holds was checked; Kaggle takes it so, too"])


def test_what_is_wrong_in_a_packed_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "s.csv.gz"
    path.write_bytes(gzip.compress(put(5, b"3,10")(GOOD)))
    assert validate(path, KANNADA, IDS).problems == [f"line 5: the label '10' is not {DIGITS}"]


UNREADABLE = {
    "a zip of two": (make_zip({"submission.csv": GOOD, "oof.csv": b"x\n"}),
                     "holds 2 CSV files: 'submission.csv', 'oof.csv'"),
    "a zip of none": (make_zip({"notes.txt": b"x\n"}), "holds no CSV file; it holds 'notes.txt'"),
    "a zip of nothing": (make_zip({}), "holds no CSV file; it holds nothing"),
    "an Excel workbook": (make_zip({"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<x/>"}),
                          "an Excel workbook"),
    "a zip cut off": (make_zip({"submission.csv": GOOD})[:-30],
                      "submission.csv is cut off: its end"),
    "a zip that climbs": (make_zip({"../submission.csv": GOOD}), "names a place outside"),
    "a gzip cut off": (gzip.compress(GOOD)[:-9], "submission.csv is cut off: it ends in the middle"),
    "a gzip with its bytes flipped": (gzip.compress(GOOD)[:-8] + bytes(8), "is damaged: 'CRC check failed"),
    "a gzip of 200 MB of zeros": (gzip.compress(bytes(200 << 20), 1), "line 1: longer than 1 MiB"),
    "a gzip of 70 MB": (gzip.compress(b"id,label\n" + (b"," * 1_000_000 + b"\n") * 70, 1), "more than 64 MiB"),
    "a web page": (b"<!doctype html><html>", "is a web page"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "is UTF-16"),
    "NUL in the header": (b"id,label\0\n", "line 1: NUL bytes"),
    "NUL in a row": (GOOD + b"3,\0\n", "line 22: a NUL byte"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is a picture"),
    "Latin-1 in the header": (b"id,l\xe1bel\n", "line 1: byte 5 .0xe1. is not UTF-8"),
    "old Mac line ends": (GOOD.replace(b"\n", b"\r"), "line 1: a carriage return"),
    "50 MB in one line": (b"1" * 50_000_000, "line 1: longer than 1 MiB"),
    "50 MB in line 2": (b"id,label\n" + b"1" * 50_000_000, "line 2: longer than 1 MiB"),
    "100 MB": (b"id,label\n" * 11_200_000, "more than 64 MiB"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_text_is_a_kit_error(tmp_path, name):
    data, pattern = UNREADABLE[name]
    with pytest.raises(KitError, match=pattern):
        problems(tmp_path, data)


def test_paths_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, pattern in ((tmp_path, "is a folder"), (tmp_path / "none.csv", "there is no file"),
                          (tmp_path / "pipe", "not a regular file"), (tmp_path / "a\0b", "cannot be a path")):
        with pytest.raises(KitError, match=pattern):
            validate(path, KANNADA, IDS)


def test_thousands_of_problems_are_summed_up(tmp_path):
    data = b"id,label\n" + b"".join(b"%d,x\n" % i for i in range(5000))
    said = problems(tmp_path, data, np.arange(5000))
    assert len(said) == submission.SHOWN_OF_A_KIND + 1
    assert said[0] == f"line 2: the label 'x' is not {DIGITS}" and said[-1] == "… and 4,995 more like that (label)"


@pytest.mark.parametrize("row", [b"\n", b"1\n", b"1,1\n", b"x,y\n"])
def test_millions_of_rows_end_soon(tmp_path, row):
    path = tmp_path / "submission.csv"
    path.write_bytes(b"id,label\n" + row * (10_000_000 // len(row)))
    began = time.process_time()
    said = validate(path, KANNADA, IDS).problems
    assert "there are more than 1,040 rows" in said[-1] and time.process_time() - began < 2


def test_200_000_rows_and_text_ids(tmp_path):
    ids = np.array([f"img_{i}" for i in range(200_000)])
    write_submission(tmp_path / "s.csv", ids, probs_of(np.arange(200_000) % 10), KANNADA)
    assert validate(tmp_path / "s.csv", KANNADA, ids).problems == []


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 19), st.integers(0, 1),
       st.binary(max_size=6) | st.text("0123456789.,-+ \"xe", max_size=4).map(str.encode))
def test_any_change_of_one_cell_is_accepted_or_named(tmp_path_factory, row, column, text):
    """The reference: the very value, or for a label another one, in quotes or not."""
    cells = [b"%d" % row, b"%d" % (row % 10)]
    cells[column] = text
    plain = re.fullmatch(rb'("?)(.*)\1', text, re.DOTALL)[2] if text.count(b'"') in (0, 2) else text
    fine = plain == b"%d" % row if column == 0 else re.fullmatch(rb"[0-9]", plain)
    breaks = text.count(b"\n") + text.count(b"\r")  # what follows a break is on a later line
    named = rf"line ({'|'.join(str(row + 2 + k) for k in range(breaks + 1))})\b"
    try:
        said = problems(tmp_path_factory.getbasetemp(), put(row + 2, b",".join(cells))(GOOD))
    except KitError as error:
        assert re.search(named, error.message)
    else:
        assert bool(said) == (not fine)
        assert fine or any(re.search(named, problem) for problem in said)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_judged(tmp_path_factory, data):
    for text in (data, b"id,label\n" + data):
        try:
            assert problems(tmp_path_factory.getbasetemp(), text)
        except KitError as error:
            assert error.fix
