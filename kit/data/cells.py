"""Parse the cells of a CSV file as uint8, strictly, and say where and why a cell is wrong.

pandas reads a block of lines, but accepts more than plain numbers (` 7`, `007`, `5"7`, lines of
another length). `parse_cells` finds that out by counting bytes; `raise_bad_cell` then goes through
the refused block cell by cell for the message.
"""

import io
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from kit.core.errors import KitError
from kit.data.csvfile import AGAIN, quoted

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,2}")
_FIRST_QUOTED = re.compile(rb'"((?:[^"]|"")*)"(?:,|$)')
_LAST_QUOTED = re.compile(rb'(?:,|^)"((?:[^"]|"")*)"$')


def parse_cells(block: bytes, n_columns: int) -> np.ndarray | None:
    """The cells of `block` as uint8 (rows, n_columns); None unless every cell is plain digits from
    0 to 255, which may be quoted.
    """
    import pandas as pd

    block = block.replace(b"\r\n", b"\n")
    n_rows, n_quotes = block.count(b"\n"), block.count(b'"')
    # pandas reads `5"7` and `"5"7` as 57. A quote belongs to the edge of its cell
    edges = (b',"', b'",', b'\n"', b'"\n') if n_quotes else ()
    if sum((b"\n" + block).count(edge) for edge in edges) != n_quotes \
            or block.translate(None, b'0123456789,\n"') \
            or block.count(b",") != n_rows * (n_columns - 1):
        return None
    try:
        cells = pd.read_csv(io.BytesIO(block), header=None, names=range(n_columns), index_col=False,
                            dtype=np.int16, na_filter=False, skip_blank_lines=False).to_numpy()
    except (ValueError, OverflowError):  # an empty cell, two numbers in quotes, 20 digits
        return None
    # Plainly written, the numbers take as many bytes as the block has, and no fewer: leading zeros,
    # a line end in quotes, and numbers that do not fit into 16 bits are seen by that
    n_bytes = 2 * cells.size + np.count_nonzero(cells > 9) + np.count_nonzero(cells > 99) + n_quotes
    if len(cells) != n_rows or n_bytes != len(block) or cells.min() < 0 or cells.max() > 255:
        return None
    return cells.astype(np.uint8)


def split_texts(block: bytes, before: int = 1, after: int = 0) -> tuple[list[list[bytes]], bytes]:
    """The first `before` and the last `after` cells of each line, unquoted, column by column; and
    the block without these cells.
    """
    columns: list[list[bytes]] = [[] for _ in range(before + after)]
    rests = []
    for line in block[:-1].split(b"\n"):
        for column in columns[:before]:
            cell, _, rest = line.partition(b",")
            if cell.startswith(b'"') and (quoted := _FIRST_QUOTED.match(line)):
                cell, rest = quoted[1].replace(b'""', b'"'), line[quoted.end():]
            column.append(cell)
            line = rest
        if after:
            line = line.removesuffix(b"\r")
        for column in reversed(columns[before:]):
            rest, _, cell = line.rpartition(b",")
            if cell.endswith(b'"') and (quoted := _LAST_QUOTED.search(line)):
                cell, rest = quoted[1].replace(b'""', b'"'), line[:quoted.start()]
            column.append(cell)
            line = rest
        rests.append(line)
    rests.append(b"")
    return columns, b"\n".join(rests)


def raise_bad_cell(path: Path, line: int, block: bytes, columns: Sequence[str],
                   n_classes: int | None = None, texts: tuple[int, int] = (0, 0),
                   labels: tuple[int, Container[bytes], str] | None = None,
                   hint: str = "") -> NoReturn:
    """Raise the KitError that names the first bad cell of a block that `parse_cells` refused.

    line: the number of the block's first line. n_classes: if the first column holds labels, the
    number of classes. texts: how many columns at the start and at the end may hold any text.
    labels: which of them holds labels, what these may be, and the fix where one is none of them.
    hint: what else corrects a label that is no class's number.
    """
    before = texts[0]
    for number, text in enumerate(block[:-1].split(b"\n"), line):
        place, text = f"{path}, line {number}", text.removesuffix(b"\r")
        if not text.strip():
            raise KitError(f"{place}: an empty line", "delete the line")
        if b"\r" in text:
            raise KitError(f"{place}: a carriage return inside the line",
                           "save it with line ends \\n or \\r\\n")
        split, rest = split_texts(text + b"\n", *texts)
        beside = [column[0] for column in split]
        cells = rest[:-1].split(b",") if rest[:-1] or not any(texts) else []
        wrong_number = f"{len(beside) + len(cells)} cells instead of {len(columns)}"
        also = f" (and the line has {wrong_number})" \
            if len(beside) + len(cells) != len(columns) else ""
        if labels and not also and beside[labels[0]] not in labels[1]:
            name = columns[labels[0] if labels[0] < before else labels[0] - len(beside)]
            raise KitError(f"{place}, column {quoted(name)}: {quoted(beside[labels[0]])} is none "
                           "of the labels", labels[2])
        for index, (cell, column) in enumerate(zip(cells, columns[before:], strict=False)):
            most = n_classes - 1 if n_classes and not index else 255
            plain = cell[1:-1] if len(cell) > 2 and cell[:1] == cell[-1:] == b'"' else cell
            if not _NUMBER.fullmatch(plain) or int(plain) > most:
                what = f"{quoted(cell)} is not a whole number from 0 to {most}" if cell \
                    else "the cell is empty"
                raise KitError(f"{place}, column {quoted(column)}: {what}{also}",
                               f"write a whole number from 0 to {most} in plain digits"
                               f"{hint if n_classes and not index else ''}; or {AGAIN}")
        cells = [*beside[:before], *cells, *beside[before:]]
        if len(cells) < len(columns):
            raise KitError(f"{place}: {wrong_number}; the first missing one is of column "
                           f"{quoted(columns[len(cells)])}", AGAIN)
        if len(cells) > len(columns):
            raise KitError(f"{place}: {wrong_number}; the first too many, after column "
                           f"{quoted(columns[-1])}, is {quoted(cells[len(columns)])}", AGAIN)
    raise KitError(f"{path}, from line {line}: cannot be read as numbers", AGAIN)
