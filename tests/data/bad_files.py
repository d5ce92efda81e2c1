"""Files that must not be read, by name: what is done to a good file of the tiny competition, and what the kit says.

The good training file has a header on line 1 and `label,pixel0…pixel5` rows; lines are counted from 1.
"""

import gzip
from collections.abc import Callable

from tests.data.zips import make_zip

Spoil = Callable[[bytes], bytes]


def line(number: int, text: bytes) -> Spoil:
    """Put `text` in the place of a line."""
    def spoil(data: bytes) -> bytes:
        lines = data.split(b"\n")
        lines[number - 1] = text
        return b"\n".join(lines)
    return spoil


def cell(number: int, column: int, text: bytes) -> Spoil:
    """Put `text` in the place of a cell; columns are counted from 0."""
    def spoil(data: bytes) -> bytes:
        cells = data.split(b"\n")[number - 1].split(b",")
        cells[column] = text
        return line(number, b",".join(cells))(data)
    return spoil


def columns(change: Callable[[list[bytes]], list[bytes]]) -> Spoil:
    """Change the columns in every line alike."""
    return lambda data: b"\n".join(b",".join(change(row.split(b","))) if row else row for row in data.split(b"\n"))


def swap(a: bytes, b: bytes) -> Spoil:
    return lambda data: data.replace(a, b, 1)


# name: (what is done, a pattern of what the error says)
TRAIN: dict[str, tuple[Spoil, str]] = {
    # columns
    "column missing": (columns(lambda row: row[:3] + row[4:]), "line 1: column missing: 'pixel2'"),
    "label missing": (columns(lambda row: row[1:]), "line 1: column missing: 'label'"),
    "column extra": (columns(lambda row: [*row, b"7"]), "line 1: column unknown: '7'"),
    "index column": (columns(lambda row: [b"", *row]), "line 1: column unknown: ''"),
    "column renamed": (swap(b"pixel2", b"pixl2"), "column missing: 'pixel2'; column unknown: 'pixl2'"),
    "column in capitals": (swap(b"label", b"Label"), "column missing: 'label'; column unknown: 'Label'"),
    "column with a space": (swap(b"pixel2", b" pixel2"), "column unknown: ' pixel2'"),
    "columns reordered": (swap(b"pixel1,pixel2", b"pixel2,pixel1"),
                          "another order: column 3 is 'pixel2', not 'pixel1'"),
    "label last": (columns(lambda row: [*row[1:], row[0]]), "another order: column 1 is 'pixel0', not 'label'"),
    "column twice": (swap(b"pixel2", b"pixel1"), "column missing: 'pixel2'; column there more than once: 'pixel1'"),
    "no header": (lambda data: data.split(b"\n", 1)[1], "numbers where the column names should be"),
    "semicolons": (lambda data: data.replace(b",", b";"), "line 1: the columns are separated by ';', not by commas"),
    "tabs": (lambda data: data.replace(b",", b"\t"), r"line 1: the columns are separated by '\\t'"),
    # rows
    "empty file": (lambda data: b"", "is empty"),
    "BOM alone": (lambda data: b"\xef\xbb\xbf", "the line of column names is empty"),
    "line end alone": (lambda data: b"\n", "the line of column names is empty"),
    "header alone": (lambda data: data.split(b"\n")[0] + b"\n", "no rows"),
    "empty line": (line(4, b""), "line 4: an empty line"),
    "empty line of spaces": (line(4, b"   "), "line 4: an empty line"),
    "empty line at the end": (lambda data: data + b"\n", "line 202: an empty line"),
    "short row": (line(4, b"2,1,2,3"), "line 4: 4 cells instead of 7; the first missing one is of column 'pixel3'"),
    "long row": (line(4, b"2,1,2,3,4,5,6,77"), "line 4: 8 cells .* too many, after column 'pixel5', is '77'"),
    "comma at the end": (line(4, b"2,1,2,3,4,5,6,"), "line 4: 8 cells instead of 7"),
    "short row, then a long one": (lambda data: line(5, b"3,1,2,3,4,5,6,7")(line(4, b"2,1,2,3,4,5")(data)),
                                   "line 4: 6 cells instead of 7"),
    "cut off in the last row": (lambda data: data[:-6], "line 201: .* cells instead of 7"),
    "text after the rows": (lambda data: data + b"-- 200 rows\n", "line 202, column 'label': '-- 200 rows'"),
    # cells
    "empty cell": (cell(7, 2, b""), "line 7, column 'pixel1': the cell is empty"),
    "empty quoted cell": (cell(7, 2, b'""'), "line 7, column 'pixel1': '\"\"' is not"),
    "empty label": (cell(7, 0, b""), "line 7, column 'label': the cell is empty"),
    "label 10": (cell(7, 0, b"10"), "line 7, column 'label': '10' is not a whole number from 0 to 9"),
    "NaN": (cell(7, 2, b"NaN"), "line 7, column 'pixel1': 'NaN' is not a whole number from 0 to 255"),
    "infinity": (cell(7, 2, b"inf"), "'inf' is not"),
    "text": (cell(7, 2, b"abc"), "line 7, column 'pixel1': 'abc' is not"),
    "markup": (cell(7, 2, b"<b>1</b>"), "'<b>1</b>' is not"),
    "negative": (cell(7, 2, b"-1"), "line 7, column 'pixel1': '-1' is not"),
    "minus zero": (cell(7, 2, b"-0"), "'-0' is not"),
    "plus": (cell(7, 2, b"+5"), "'\\+5' is not"),
    "256": (cell(7, 2, b"256"), "line 7, column 'pixel1': '256' is not"),
    "300": (cell(7, 2, b"300"), "'300' is not"),
    "999": (cell(7, 2, b"999"), "'999' is not"),
    "four digits": (cell(7, 2, b"1234"), "'1234' is not"),
    "257 digits": (cell(7, 2, b"1" * 257), "'1{39}…' is not"),
    "float": (cell(7, 2, b"1.5"), "'1.5' is not"),
    "whole float": (cell(7, 2, b"1.0"), "'1.0' is not"),
    "exponent": (cell(7, 2, b"1e3"), "'1e3' is not"),
    "hexadecimal": (cell(7, 2, b"0x1F"), "'0x1F' is not"),
    "leading zeros": (cell(7, 2, b"007"), "'007' is not"),
    "two zeros": (cell(7, 2, b"00"), "'00' is not"),
    "space before": (cell(7, 2, b" 7"), "' 7' is not"),
    "space after": (cell(7, 2, b"7 "), "'7 ' is not"),
    "underscore": (cell(7, 2, b"1_0"), "'1_0' is not"),
    "thousands": (cell(7, 2, b'"1,0"'), "line 7, column 'pixel1': '\"1' is not .* 8 cells"),
    "true": (cell(7, 2, b"True"), "'True' is not"),
    "other digits": (cell(7, 2, "೩".encode()), "'೩' is not"),
    "full-width digits": (cell(7, 2, "３".encode()), "'３' is not"),
    "formula": (cell(7, 2, b"=1+1"), "'=1\\+1' is not"),
    "escape sequence": (cell(7, 2, b"\x1b[31m"), r"'\\x1b\[31m' is not"),
    "text in the last row": (cell(201, 6, b"x"), "line 201, column 'pixel5': 'x' is not"),
    "quote left open": (cell(7, 2, b'"7'), "line 7, column 'pixel1': '\"7' is not"),
    "quote inside": (cell(7, 2, b'7"'), "'7\"' is not"),
    "quotes doubled": (cell(7, 2, b'""7""'), "'\"\"7\"\"' is not"),
    "two quoted in one": (cell(7, 2, b'"1""2"'), "line 7, column 'pixel1'"),
    "quotes around two cells": (line(7, b'5,"1,2",3,4,5,6'), "line 7, column 'pixel0': '\"1' is not"),
    "line end in quotes": (line(7, b'5,1,"2\n",3,4,5,6'), "line 7, column 'pixel1': '\"2' is not .* 3 cells"),
    # bytes
    "UTF-16 little-endian": (lambda data: b"\xff\xfe" + data.decode().encode("utf-16-le"), "is UTF-16, not UTF-8"),
    "UTF-16 big-endian": (lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"), "is UTF-16, not UTF-8"),
    "UTF-16 without a mark": (lambda data: data.decode().encode("utf-16-le"), "line 1: NUL bytes"),
    "UTF-32": (lambda data: data.decode().encode("utf-32"), "line 1: "),
    "Latin-1 in the header": (swap(b"pixel2", b"p\xedxel2"), "line 1: byte 22 .0xed. is not UTF-8"),
    "Latin-1 in a cell": (cell(7, 2, b"\xe9"), r"line 7, column 'pixel1': '\\\\xe9' is not"),
    "NUL in the header": (swap(b"pixel2", b"pixel\x002"), "line 1: NUL bytes"),
    "NUL in a cell": (cell(7, 2, b"7\x00"), r"line 7, column 'pixel1': '7\\x00' is not"),
    "NUL bytes after the rows": (lambda data: data + b"\0" * 5000, "line 202, column 'label'"),
    "second BOM": (lambda data: b"\xef\xbb\xbf\xef\xbb\xbf" + data, "column unknown: '\\\\ufefflabel'"),
    "BOM in the middle": (cell(7, 0, b"\xef\xbb\xbf5"), r"line 7, column 'label': '\\ufeff5' is not"),
    "old Mac line ends": (lambda data: data.replace(b"\n", b"\r"), "line 1: a carriage return"),
    "carriage return in a line": (line(7, b"5,1,2\r,3,4,5,6"), "line 7: a carriage return"),
    "two carriage returns": (line(7, b"5,1,2,3,4,5,6\r\r"), "line 7: a carriage return"),
    "a zip cut off": (lambda data: b"PK\x03\x04\x14\0\0\0" + data, "is cut off: its end"),
    "a zip of two CSV files": (lambda data: make_zip({"a.csv": data, "b.csv": data}),
                               "holds 2 CSV files: 'a.csv', 'b.csv'"),
    "a gzip cut off": (lambda data: gzip.compress(data)[:-20], "is cut off"),
    "bad in a zip": (lambda data: make_zip({"train.csv": cell(7, 2, b"256")(data)}),
                     "line 7, column 'pixel1': '256' is not"),
    "a picture": (lambda data: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is a picture or a PDF"),
    "an Excel workbook": (lambda data: make_zip({"[Content_Types].xml": b"<x/>"}),
                          "is an Office document"),
    "a Parquet file": (lambda data: b"PAR1" + bytes(20), "is a table in a binary format"),
    "a web page": (lambda data: b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "is a web page"),
    "a pointer of Git LFS": (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
                             "is a pointer of Git LFS"),
    "JSON": (lambda data: b'{"error": "403"}', "is JSON, as a server answers"),
    "header left open": (swap(b"label", b'"label'), "line 1: no readable line of column names"),
    "100 MB in one line": (lambda data: b"1" * 100_000_000, "line 1: longer than 1 MiB"),
    "a long line 2": (lambda data: data.split(b"\n")[0] + b"\n" + b"1" * 20_000_000, "line 2: longer than 1 MiB"),
    "20 MB of commas": (lambda data: data.split(b"\n")[0] + b"\n" + b"," * 20_000_000, "line 2: longer than 1 MiB"),
    "20 MB of line ends": (lambda data: data + b"\n" * 20_000_000, "line 202: an empty line"),
    "20 MB of NUL bytes": (lambda data: b"\0" * 20_000_000, "line 1: "),
}

TEST: dict[str, tuple[Spoil, str]] = {
    "id twice": (cell(5, 0, b"1"), "line 5: the id '1' is there already, on line 3"),
    "id empty": (cell(5, 0, b""), "line 5: the id is missing"),
    "id empty in quotes": (cell(5, 0, b'""'), "line 5: the id is missing"),
    "id NaN": (cell(5, 0, b"NaN"), "line 5: the id is missing"),
    "id of spaces": (cell(5, 0, b"  "), "line 5: the id is missing"),
    "id with a space": (cell(5, 0, b"3 "), "line 5: the id '3 ' has spaces"),
    "id with an escape": (cell(5, 0, b"\x1b[2J"), r"line 5: the id '\\x1b\[2J' has .*control"),
    "id with a NUL": (cell(5, 0, b"\x00"), "line 5: the id .* control"),
    "id in Latin-1": (cell(5, 0, b"\xe9t\xe9"), "line 5: the id .* is not UTF-8"),
    "id of 300 bytes": (cell(5, 0, b"x" * 300), "line 5: the id .* more than 256 bytes"),
    "id of 20 MB": (cell(5, 0, b"x" * 20_000_000), "line 5: longer than 1 MiB"),
    "id with an open quote": (cell(5, 0, b'"3'), "line 5: .*quotes"),
    "id alone": (line(5, b"3"), "line 5: 1 cells instead of 7; the first missing one is of column 'pixel0'"),
    "id and a comma": (line(5, b"3,"), "line 5: .*"),
    "empty line": (line(5, b""), "line 5: an empty line"),
    "short row": (line(5, b"3,1,2"), "line 5: 3 cells instead of 7; the first missing one is of column 'pixel2'"),
    "long row": (line(5, b"3,1,2,3,4,5,6,77"), "line 5: 8 cells instead of 7; .* is '77'"),
    "256": (cell(5, 3, b"256"), "line 5, column 'pixel2': '256' is not"),
    "empty cell": (cell(5, 6, b""), "line 5, column 'pixel5': the cell is empty"),
    "a training file": (swap(b"id", b"label"), "column missing: 'id'; column unknown: 'label'"),
}
