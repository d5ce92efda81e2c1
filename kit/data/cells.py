"""Parse the cells of a CSV file as uint8, strictly, and say where and why a cell is wrong.

`parse_cells` takes a block of whole lines. A number is the one to three digits before each comma or
line end, so NumPy finds, checks and computes all cells of a block at once, faster than pyarrow's
reader and stricter: `0x1F`, `1e3`, `+5`, `007` and empty cells are refused. `raise_bad_cell` then
goes through a refused block cell by cell for the message.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from kit.core.errors import KitError
from kit.data.csvfile import AGAIN, quoted

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,2}")
_QUOTED_ID = re.compile(rb'"((?:[^"]|"")*)"(?:,|$)')
_COMMA, _LINE_END, _QUOTE = b",\n\""


def parse_cells(block: bytes, n_columns: int) -> np.ndarray | None:
    """The cells of `block` as uint8 (rows, n_columns); None unless every cell is plain digits from
    0 to 255.
    """
    plain = _without_quotes(block)
    if plain is None:
        return None
    data = np.frombuffer(b"\n\n" + plain, np.uint8)  # so that there are two bytes before each one
    number = data - np.uint8(ord("0"))  # separators become numbers above 9
    digit = number <= 9
    here, before, before_that = digit[2:], digit[1:-1], digit[:-2]
    values = 10 * number[1:-1]
    values *= before
    values += number[2:]
    third = here & before
    third &= before_that
    hundreds = number[:-2] * third
    if hundreds.max(initial=0) > 2:
        return None
    hundreds *= np.uint8(100)
    cells = values + hundreds  # valid at the last digit of each number only
    line_end = data[2:] == _LINE_END
    ends = np.flatnonzero(~here)
    n_separators = np.count_nonzero(line_end) + np.count_nonzero(data[2:] == _COMMA)
    leading_zero = (number[2:-1] == 0) & here[1:]
    leading_zero &= ~before[:-1]
    if len(ends) != n_separators or len(ends) != np.count_nonzero(before > here) \
            or (third[:-1] & here[1:]).any() or leading_zero.any() or (cells < values).any() \
            or not np.array_equal(ends[n_columns - 1::n_columns], np.flatnonzero(line_end)):
        # Other bytes, an empty cell, a fourth digit, a leading zero, above 255; a line of another
        # length
        return None
    ends -= 1
    return cells.take(ends).reshape(-1, n_columns)


def _without_quotes(block: bytes) -> bytes | None:
    """`block` without quotes around cells and with `\\n` for `\\r\\n`; None if a quote is anywhere
    else.
    """
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if b'"' not in block:
        return block
    data = np.frombuffer(block, np.uint8)
    is_quote = data == _QUOTE
    is_end = (data == _COMMA) | (data == _LINE_END)
    # From an opening quote up to before the closing one
    inside = np.logical_xor.accumulate(is_quote)
    before, after = np.roll(is_end, 1), np.roll(is_end, -1)
    opens_well = before[is_quote & inside].all()
    closes_well = after[is_quote & ~inside].all()
    if (inside & is_end).any() or inside[-1] or not opens_well or not closes_well:
        return None
    return block.replace(b'"', b"")


def split_ids(block: bytes) -> tuple[list[bytes], bytes]:
    """The first cell of each line, unquoted, and the block without these cells."""
    ids, rests = [], []
    for line in block[:-1].split(b"\n"):
        name, _, rest = line.partition(b",")
        if name.startswith(b'"') and (quoted := _QUOTED_ID.match(line)):
            name, rest = quoted[1].replace(b'""', b'"'), line[quoted.end():]
        ids.append(name)
        rests.append(rest)
    rests.append(b"")
    return ids, b"\n".join(rests)


def raise_bad_cell(path: Path, line: int, block: bytes, columns: Sequence[str],
                   n_classes: int | None,
            has_id: bool) -> NoReturn:
    """Raise the KitError that names the first bad cell of a block that `parse_cells` refused.

    line: the number of the block's first line. n_classes: if the first column holds labels, the
    number of classes. has_id: whether the first column holds ids, which may be any text.
    """
    for number, text in enumerate(block[:-1].split(b"\n"), line):
        _explain_line(f"{path}, line {number}", text.removesuffix(b"\r"), columns, n_classes,
                      has_id)
    raise KitError(f"{path}, from line {line}: cannot be read as numbers", AGAIN)


def _explain_line(place: str, text: bytes, columns: Sequence[str], n_classes: int | None,
                  has_id: bool) -> None:
    if not text.strip():
        raise KitError(f"{place}: an empty line", "delete the line")
    if b"\r" in text:
        raise KitError(f"{place}: a carriage return inside the line",
                       "save it with line ends \\n or \\r\\n")
    ids, rest = split_ids(text + b"\n") if has_id else ([], text + b"\n")
    cells = ids + (rest[:-1].split(b",") if rest[:-1] or not has_id else [])
    wrong_number = f"{len(cells)} cells instead of {len(columns)}"
    for index, (cell, column) in enumerate(zip(cells, columns, strict=False)):
        most = n_classes - 1 if n_classes and not index else 255
        number = cell[1:-1] if len(cell) > 2 and cell[:1] == cell[-1:] == b'"' else cell
        if index >= len(ids) and (not _NUMBER.fullmatch(number) or int(number) > most):
            what = f"{quoted(cell)} is not a whole number from 0 to {most}" if cell else "the cell is empty"
            also = f" (and the line has {wrong_number})" if len(cells) != len(columns) else ""
            raise KitError(f"{place}, column {quoted(column)}: {what}{also}",
                           f"write a whole number from 0 to {most} in plain digits; or {AGAIN}")
    if len(cells) < len(columns):
        raise KitError(f"{place}: {wrong_number}; the first missing one is of column "
                       f"{quoted(columns[len(cells)])}", AGAIN)
    if len(cells) > len(columns):
        raise KitError(f"{place}: {wrong_number}; the first too many, after column "
                       f"{quoted(columns[-1])}, is {quoted(cells[len(columns)])}", AGAIN)
