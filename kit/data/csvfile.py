"""Open an untrusted CSV file, and read its header and blocks of lines.

The reader of pixels and the validator of submissions share this.

The file may be huge, binary, or no regular file at all: a bad file ends in a KitError that names
the place, and never in a full memory.
"""

import contextlib
import csv
import difflib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kit.core.errors import KitError

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20  # a row of 784 quoted pixels takes 5 KB
AGAIN = "get the file again from where it came, or correct it there"
NUMBERS = "there are numbers where the column names should be"
BOM = b"\xef\xbb\xbf"


@contextlib.contextmanager
def open_csv(path: Path, wanted: str = "CSV file") -> Iterator[BinaryIO]:
    """Open a regular file for reading bytes. KitError for anything else, and if reading fails.

    wanted: what it should be, in words.
    """
    try:
        # Opening a pipe would wait for its writer, so check first that it is a regular file.
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            kind = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file"
            raise KitError(f"{path} is {kind}, not a {wanted}",
                           f"give the path of the {wanted} itself")
        file = path.open("rb")
    except ValueError as error:  # a NUL byte inside the path
        raise KitError(f"{str(path)!r} cannot be a path: {error}", "check the path") from None
    except OSError as error:
        raise unreadable(error, path) from None
    with file:
        try:
            yield file
        except OSError as error:
            raise unreadable(error, path) from None


def unreadable(error: OSError, path: Path, never: tuple[str, ...] = ()) -> KitError:
    """The KitError for a file that cannot be read, with a fix for that cause.

    never: endings of names that cannot have been meant.
    """
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return KitError(f"{path} is a link to {path.readlink()}, which is not there",
                            "put that file there, or give the path of the file itself")
        if not path.parent.is_dir():
            return KitError(f"there is no folder {path.parent}", "check the path")
        with contextlib.suppress(OSError):
            names = [other.name for other in path.parent.iterdir()
                     if not other.name.endswith(never)]
            if near := difflib.get_close_matches(path.name, names, n=1):
                return KitError(f"there is no file {path}",
                                f"did you mean {path.parent / near[0]}?")
        return KitError(f"there is no file {path}", "check the path")
    if isinstance(error, PermissionError):
        closed = next((folder for folder in reversed(path.absolute().parents)
                       if not os.access(folder, os.X_OK)), None)
        if closed:
            return KitError(f"you may not read {path}: its folder {closed} is closed to you",
                            f"allow it, e.g. with chmod u+x '{closed}', or copy the file to a "
                            "folder of yours")
        return KitError(f"you may not read {path}",
                        f"allow it, e.g. with chmod u+r '{path}'; if it is somebody else's file, "
                        "ask them to")
    if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN,
                       errno.ENODEV):
        return KitError(f"cannot read {path}: {error.strerror}",
                        "its disk or network share does not answer: mount it again, or copy the "
                        "file elsewhere")
    if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return KitError(f"there is no file {path}: {error.strerror}", "check the path")
    return KitError(f"cannot read {path}: {error.strerror or error}",
                    "see whether another program can open it, and copy it to another place if so")


# How files begin that people take for a CSV file or a zip, what they are, and what to do
_KINDS = (
    (rb"(\xef\xbb\xbf)?\s*<(!doctype\s+)?html",
     "a web page, which a site shows instead of the file",
     "open it in a browser to see what it says; then get the file again, signed in and with the "
     "rules accepted"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file itself",
     "fetch the file: git lfs pull"),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON, as a server answers instead of the file",
     "see what it says, and get the file again"),
    (rb"7z\xbc\xaf\x27\x1c|Rar!\x1a|BZh[0-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar",
     "an archive that is not read here (7z, rar, bzip2, xz, zstd or tar)",
     "unpack it yourself, and give what is in it"),
    (rb"\xd0\xcf\x11\xe0", "an Excel workbook",
     "save it from there as CSV (UTF-8, comma delimited)"),
    (rb"PAR1|ARROW1|\x89HDF|\x93NUMPY",
     "a table in a binary format (Parquet, Arrow, HDF5 or NumPy)",
     "write it as CSV: pandas' DataFrame.to_csv(path, index=False)"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|%PDF", "a picture or a PDF", "give the CSV file itself"))


def identify_foreign_format(start: bytes) -> tuple[str, str] | None:
    """(what it is, fix) for a file of another format that begins with `start`; None if it may be
    CSV, zip or gzip.
    """
    return next(((what, fix) for pattern, what, fix in _KINDS
                 if re.match(pattern, start, re.IGNORECASE | re.DOTALL)), None)


def read_header(file: BinaryIO, path: Path) -> list[str]:
    """Read the column names on line 1; `file` is then at the start of line 2.

    A UTF-8 BOM is accepted.
    """
    line = file.readline(MAX_LINE_BYTES + 1)
    if not line:
        raise KitError(f"{path} is empty", "get it again, and see that the download ends")
    if found := identify_foreign_format(line[:512]):
        raise KitError(f"{path} is {found[0]}", found[1])
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise KitError(f"{path}, line 1: the file is UTF-16, not UTF-8", "save it again as UTF-8")
    if len(line) > MAX_LINE_BYTES:
        raise too_long(path, 1)
    if b"\0" in line:
        raise KitError(f"{path}, line 1: NUL bytes; this is no CSV text in UTF-8", AGAIN)
    try:
        text = line.removeprefix(BOM).decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise KitError(f"{path}, line 1: byte {error.start + 1} ({line[error.start]:#04x}) is not "
                       "UTF-8", "save it again as UTF-8") from None
    if "\r" in text:
        raise KitError(f"{path}, line 1: a carriage return inside the line",
                       "save it with line ends \\n or \\r\\n")
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise KitError(f"{path}, line 1: no readable line of column names ({error})",
                       AGAIN) from None


def check_columns(path: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    """KitError if the columns of `path` are not the expected ones, saying how they differ."""
    problem = columns_problem(found, expected)
    if problem:
        raise KitError(f"{path}, line 1: {problem}",
                       "save it again with commas" if problem.endswith("not by commas")
                       else f"the columns must be {list_names(expected)}, in this order")


def columns_problem(found: Sequence[str], expected: Sequence[str]) -> str | None:
    """How `found` differs from `expected`, in words; None if they are the same."""
    if list(found) == list(expected):
        return None
    if not any(found):
        return "the line of column names is empty"
    wanted, there = set(expected), set(found)
    if not wanted & there and all(re.fullmatch(r"[\d.\s-]+", name) for name in found):
        return NUMBERS
    counts: dict[str, int] = {}
    for name in found:
        counts[name] = counts.get(name, 0) + 1
    mark = next((mark for mark in ";\t|" if found[0].split(mark) == list(expected)), None)
    if len(found) == 1 and mark:
        return f"the columns are separated by {quoted(mark)}, not by commas"
    parts = [("missing", [name for name in expected if name not in there]),
             ("unknown", [name for name in counts if name not in wanted]),
             ("there more than once", [name for name, count in counts.items() if count > 1])]
    said = [f"{'columns' if len(names) > 1 else 'column'} {kind}: {list_names(names)}"
            for kind, names in parts if names]
    if said:
        return "; ".join(said)
    place = next(i for i, (name, other) in enumerate(zip(found, expected, strict=True))
                 if name != other)
    return (f"columns in another order: column {place + 1} is {quoted(found[place])}, not "
            f"{quoted(expected[place])}")


def line_blocks(file: BinaryIO, path: Path, digest: "hashlib._Hash",
                line: int = 2) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the first line, whole lines, each ending in `\\n`), some 1 MiB at a time.

    `file` must be at the start of that line. `digest` is updated with all of its bytes, what lies
    before included.
    """
    header_bytes = file.tell()
    file.seek(0)
    digest.update(file.read(header_bytes))
    rest = b""
    while chunk := file.read(BLOCK_BYTES):
        digest.update(chunk)
        cut = chunk.rfind(b"\n") + 1
        if cut:
            block, rest = rest + chunk[:cut], chunk[cut:]
            yield line, block
            line += block.count(b"\n")
        else:
            rest += chunk
        if len(rest) > MAX_LINE_BYTES:
            raise too_long(path, line)
    if rest:
        yield line, rest + b"\n"


def too_long(path: Path | str, line: int) -> KitError:
    return KitError(f"{path}, line {line}: longer than {MAX_LINE_BYTES >> 20} MiB", AGAIN)


def quoted(text: str | bytes, limit: int = 40) -> str:
    """`text` for an error message: in quotes, control characters escaped, shortened to `limit`
    characters.
    """
    if isinstance(text, bytes):
        cut = " …" if len(text) > 4 * limit else ""
        text = text[: 4 * limit].decode("utf-8", "backslashreplace") + cut
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def list_names(names: Sequence[str], limit: int = 4) -> str:
    """`names` quoted and joined by commas; of a long list some, and how many there are."""
    names = list(names)
    if len(names) <= limit:
        return ", ".join(quoted(name) for name in names)
    some = ", ".join(quoted(name) for name in names[: limit - 1])
    return f"{some} … {quoted(names[-1])} ({len(names)})"


