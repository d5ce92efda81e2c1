"""Read a CSV file out of an untrusted zip or gzip as if it were not packed.

Nothing is written. A hostile archive (links, `../`, two files of one name, a zip bomb) is refused
as a whole. The error tells whether an archive is cut off, damaged, encrypted, packed by a method
that Python lacks, or no archive at all.
"""

import contextlib
import errno
import gzip
import io
import os
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from kit.core.errors import KitError
from kit.data.csvfile import identify_foreign_format, list_names, open_csv, quoted

# For all files of a zip together, unpacked. Ten times the competition's training rows take 1 GB.
MAX_BYTES = 4 << 30
MAX_ENTRIES = 1000
MAX_LIST_BYTES = MAX_ENTRIES << 10  # of a zip's list of its entries
GZIP, ZIP, EMPTY_ZIP = b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06"
DOWNLOAD_AGAIN = "get it again, and see that the download ends"
UNPACK_YOURSELF = "unpack it yourself, and give what is in it"


@contextlib.contextmanager
def open_packed(path: Path, called: str = "") -> Iterator[BinaryIO]:
    """Open a CSV file that is plain, gzipped, or the only CSV file in a zip, and yield its bytes
    unpacked.

    The format is recognized by the first bytes, not by the name. called: the name of the archive in
    errors, if not its path. KitError as from `open_csv`, for an archive that is refused, and for a
    zip of several CSV files or of none.
    """
    called = called or str(path)
    with open_csv(path) as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(GZIP):
            yield io.BufferedReader(_Unpacked(gzip.GzipFile(fileobj=file), called))
        elif start in (ZIP, EMPTY_ZIP):
            with open_zip(path, called) as archive:
                info = _the_csv(archive, called)
                called = f"{called} → {info.filename.rsplit('/', 1)[-1]}"
                with unpacking_errors(called):
                    stream = archive.open(info)
                with stream:
                    yield io.BufferedReader(_Unpacked(stream, called))
        else:
            yield file


def is_packed(path: Path) -> bool:
    """Whether the file is a zip or a gzip, by its first bytes."""
    with open_csv(path) as file:
        start = file.read(4)
    return start.startswith(GZIP) or start in (ZIP, EMPTY_ZIP)


class _Unpacked(io.RawIOBase):
    """The unpacked stream. KitError if it is longer than MAX_BYTES or cannot be unpacked."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, called: str) -> None:
        super().__init__()
        self.stream, self.called = stream, called

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with unpacking_errors(self.called):
            return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with unpacking_errors(self.called):
            data = self.stream.read(len(buffer))
        buffer[:len(data)] = data
        if self.tell() > MAX_BYTES:
            raise KitError(f"{self.called} unpacks to more than {MAX_BYTES:,} bytes",
                           "give the right file")
        return len(data)


def _the_csv(archive: zipfile.ZipFile, called: str) -> zipfile.ZipInfo:
    """The only CSV file in a zip, in whatever folder.

    Hidden files and those of __MACOSX/ don't count.
    """
    files = [info for info in archive.infolist() if not info.is_dir()]
    found = [info for info in files if info.filename.lower().endswith(".csv")
             and not info.filename.startswith("__MACOSX/")
             and not info.filename.rsplit("/", 1)[-1].startswith(".")]
    names = [info.filename for info in files]
    if len(found) == 1:
        return found[0]
    if found:
        found_names = list_names([info.filename for info in found])
        raise KitError(f"{called} holds {len(found)} CSV files: {found_names}",
                       "unpack it, and give the one that is meant")
    if "[Content_Types].xml" in names:
        raise KitError(f"{called} is an Office document, such as an Excel workbook, no CSV file",
                       "save it from there as CSV (UTF-8, comma delimited)")
    raise KitError(f"{called} holds no CSV file; it holds {list_names(names) or 'nothing'}",
                   "give a zip of the CSV file, or the CSV file itself")


class _CappedFile(io.FileIO):
    """A zip's file, of which no more than `limit` bytes are read at once.

    zipfile reads the list of entries at once, as long as the zip says that it is, and then takes
    half a kilobyte of memory for each entry.
    """

    def __init__(self, path: Path, called: str) -> None:
        super().__init__(path)
        self.called, self.limit = called, MAX_LIST_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.limit:
            raise _too_many(self.called)
        return super().read(size)


def _too_many(called: str) -> KitError:
    return KitError(f"{called} has more than {MAX_ENTRIES:,} entries",
                    "get it again from the competition")


@contextlib.contextmanager
def open_zip(
    path: Path, called: str,
    wanted: str = "give the competition's zip, or the folder of its CSV files",
) -> Iterator[zipfile.ZipFile]:
    """Open the zip at `path` after checking the names, kinds and sizes of all its entries.

    called: its name in errors. wanted: the fix if it is not a zip.
    """
    with _CappedFile(path, called) as file:
        start = file.read(512)
        what, fix = identify_foreign_format(start) or (None, "")
        if what:
            raise KitError(f"{called} is {what}", fix)
        if not start:
            raise KitError(f"{called} is empty", DOWNLOAD_AGAIN)
        with unpacking_errors(called):
            if not zipfile.is_zipfile(file):
                if start.startswith(ZIP):
                    raise KitError(f"{called} is cut off: its end, the list of its files, is "
                                   "missing", DOWNLOAD_AGAIN)
                gzipped = "a gzip, " if start.startswith(GZIP) else ""
                raise KitError(f"{called} is {gzipped}not a zip", wanted)
            archive = zipfile.ZipFile(file)
        if len(archive.infolist()) > MAX_ENTRIES:
            raise _too_many(called)
        file.limit = sys.maxsize
        seen: set[str] = set()
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise KitError(f"{called}: {quoted(info.filename)} is encrypted",
                               "unpack it yourself, with its password, and give what is in it")
            problem = _problem(info)
            if info.filename.lower() in seen:
                problem = "is there twice (upper and lower case count the same)"
            if problem:
                raise KitError(f"{called}: {quoted(info.filename)} {problem}",
                               "do not trust it: get it again from the competition")
            seen.add(info.filename.lower())
        total = sum(info.file_size for info in archive.infolist())
        if total > MAX_BYTES:
            raise KitError(f"{called} unpacks to {total:,} bytes; "
                           f"more than {MAX_BYTES:,} are never unpacked",
                           "get it again from the competition")
        yield archive


def _problem(info: zipfile.ZipInfo) -> str | None:
    parts = info.filename.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or ":" in parts[0]:
        return "names a place outside of the folder that it is unpacked into"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link, not a file"
    return None


@contextlib.contextmanager
def unpacking_errors(called: str) -> Iterator[None]:
    """Turn what unpacking raises inside the with block into a KitError: cut off, damaged, unknown
    method.
    """
    try:
        yield
    except (KitError, MemoryError):
        raise
    except EOFError as error:
        raise KitError(f"{called} is cut off: it ends in the middle of a file",
                       DOWNLOAD_AGAIN) from error
    except NotImplementedError as error:
        raise KitError(f"{called} is packed by a method that Python cannot unpack: {_said(error)}",
                       UNPACK_YOURSELF) from error
    except Exception as error:  # zipfile and the decompressors raise a dozen kinds on damaged bytes
        # EINVAL: a damaged zip made zipfile seek to before the file. Other errors are the system's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise KitError(f"{called} is damaged: {_said(error)}", DOWNLOAD_AGAIN) from error


def _said(error: Exception) -> str:
    """The error's message, escaped and shortened: it may quote the damaged bytes."""
    return quoted(str(error) or type(error).__name__, 100)
