"""Get a competition's data files: from Kaggle, the drawn sample, a zip, a folder or an .npz.

`download` collects and checks the files in a scratch folder and then moves them into place, the
manifest last: if it fails, earlier data is unchanged. Real data goes to <root>/<slug>/ and the
sample to <root>/<slug>-sample/, so that they cannot be confused; `find_data` chooses between the
two.
"""

import contextlib
import errno
import functools
import hashlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kit.core import os_errors, storage
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data import archive, npz
from kit.data import cache as table_cache
from kit.data.cells import split_texts
from kit.data.competition import Competition
from kit.data.csvfile import AGAIN, check_columns, line_blocks, open_csv, quoted, read_header
from kit.data.table import Table, read_table, read_test_labels
from kit.kaggle import transfer
from kit.kaggle.credentials import has_credential

MANIFEST = "manifest.json"
_SAMPLE = "-sample"
SOURCES = {"kaggle": "downloaded from Kaggle", "keras": "from keras.datasets",
           "path": "from files on this machine", "sample": "drawn by the kit"}


@dataclass(frozen=True)
class DataFolder:
    """A folder with the competition's files, and a manifest.json if the kit has put them there."""

    path: Path
    competition: Competition

    @property
    def manifest(self) -> dict[str, Any]:
        """The contents of manifest.json; defaults if there is none. KitError if it is damaged."""
        path = self.path / MANIFEST
        if not path.is_file():
            return {"competition": self.competition.slug, "source": "path", "is_sample": False}
        # Without it, nobody would know how many rows of the sample are one writer's
        origin = "sample" if self.path.name.endswith(_SAMPLE) else "SOURCE"
        again = download_command(self.competition, self.path.parent, "--force", "--from", origin)
        with storage.fix_of_damage(f"get the data again: {again}"):
            return self._read_manifest(path)

    def _read_manifest(self, path: Path) -> dict[str, Any]:
        manifest = storage.read_json(path)
        block = manifest.get("writer_block") if isinstance(manifest, dict) else None
        if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), dict) \
                or type(manifest.get("is_sample", False)) is not bool \
                or not (block is None or (type(block) is int and 0 < block < 1 << 31)):
            raise storage.damaged(path, "not a manifest of the kit's")
        if manifest.get("competition") != self.competition.slug:
            raise KitError(f"{self.path} holds {quoted(str(manifest.get('competition')))}, not "
                           f"{self.competition.slug}", "choose another --data-dir or --competition")
        return manifest

    @property
    def source(self) -> str:
        """kaggle, sample, keras or path."""
        return str(self.manifest.get("source"))

    @property
    def source_in_words(self) -> str:
        """Such as `from files on this machine`."""
        return SOURCES.get(self.source, self.source)

    @property
    def is_sample(self) -> bool:
        """Whether these are drawn digits, which must be said wherever their scores are shown."""
        return bool(self.manifest.get("is_sample")) or self.path.name.endswith(_SAMPLE)

    @property
    def writer_block(self) -> int | None:
        """Rows per writer in the training file; None: the competition's number."""
        return self.manifest.get("writer_block")

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of each table, by the name of its CSV file, plain or packed."""
        about, extra = self.competition, self.extra()
        sums = {about.train: self.train().sha256, about.test: self.test().sha256}
        return sums | ({about.extra: extra.sha256} if about.extra and extra is not None else {})

    @property
    def download_again(self) -> str:
        """The fix "get it again: …", with the command that does so if the kit has put the data
        here.
        """
        origin = self.manifest.get("origin")
        if origin is None:
            return "get the file again from where it came"
        place = self.source if self.source != "path" else origin.rsplit(" ", 2)[0]
        again = download_command(self.competition, self.path.parent, "--force", "--from", place)
        return f"get it again: {again}"

    def file(self, name: str) -> Path | None:
        """The path of the CSV file `name` in this folder, plain, .zip or .gz; None if it is not
        there.
        """
        return next((path for path in (self.path / (name + suffix)
                                       for suffix in ("", *archive.PACKED_SUFFIXES))
                     if path.is_file()), None)

    def train(self) -> Table:
        """The training file. KitError if it is invalid, or not the file in the manifest."""
        return self._table(self.competition.train, labelled=True)

    def test(self) -> Table:
        """The file whose labels are to be predicted."""
        return self._table(self.competition.test, labelled=False)

    def extra(self) -> Table | None:
        """The labelled out-of-domain file; None if the competition or this folder has none."""
        name = self.competition.extra
        if name is None or self.file(name) is None:
            return None
        return self._table(name, labelled=True)

    def test_labels(self) -> np.ndarray | None:
        """The labels of the test file, uint8 (n,), for scoring a finished submission; None if not
        known.
        """
        path = self.path / npz.TEST_LABELS
        digest = self.manifest.get("sha256", {}).get(path.name)
        if digest is None or not path.is_file():
            # A file that is not in the manifest was left by earlier data
            return None
        if storage.sha256_file(path) != digest:
            raise self._changed(path)
        return npz.read_test_labels(path, self.competition, self.test().ids)

    def _table(self, name: str, labelled: bool) -> Table:
        path = self.file(name)
        if path is None:
            raise KitError(f"there is no {name} in {self.path}", self.download_again)
        # A run asks for its tables in a dozen places: they are read once while the files are the
        # same. A file that changed a moment ago could change again without another stamp
        stamp = table_cache.trusted(table_cache.file_stamp(path.stat()))
        try:
            table = read_table(path, self.competition, labelled) if stamp is None \
                else _read_stamped(path, tuple(stamp), self.competition, labelled)
        except KitError as error:
            raise KitError(error.message, error.fix.replace(AGAIN, self.download_again)) from error
        recorded = self.manifest.get("sha256", {})
        if recorded and recorded.get(name) != table.sha256:
            raise self._changed(table.path)
        return table

    def _changed(self, path: Path) -> KitError:
        return KitError(f"{path} is not the file that {MANIFEST} records: it was changed, or half "
                        "replaced",
                        f"{self.download_again}; or delete {self.path / MANIFEST} if the file is "
                        "meant to be so")


@functools.lru_cache(maxsize=6)  # the tables of two data folders
def _read_stamped(path: Path, stamp: tuple[int, ...], competition: Competition,
                  labelled: bool) -> Table:
    return read_table(path, competition, labelled)


def find_data(competition: Competition, root: Path) -> DataFolder:
    """The data folder below `root` to use: real data if there is any, otherwise the sample.

    KitError if neither.
    """
    for folder in (data_folder(competition, root, False), data_folder(competition, root, True)):
        if folder.file(competition.train) is not None:
            return folder
    raise KitError(f"there is no data of {competition.slug} in {root}",
                   f"{download_command(competition, root)}; or "
                   + _without_account(competition, root))


def _without_account(competition: Competition, root: Path) -> str:
    """The `kit download` command for somebody who has no account, and what it gets."""
    from kit.data import sample

    place, what = ("keras", f"the same {competition.items}, without an account") \
        if competition.keras_dataset \
        else ("sample", "drawn digits, without an account") if sample.is_drawable(competition) \
        else ("FOLDER", "files that you have: a folder, a zip or an .npz")
    return f"{download_command(competition, root, '--from', place)} for {what}"


def download_command(competition: Competition, root: Path, *words: str) -> str:
    """The `kit download` command that gets this competition's data to `root`."""
    words = ("kit", "download", *words)
    words += competition.option
    words += ("--data-dir", str(root)) if Path(root) != Path("data") else ()
    return shlex.join(words)


def download(competition: Competition, source: str | Path | None, root: Path, force: bool = False,
             progress: Progress | None = None) -> DataFolder:
    """Get the competition's files, check them, and put them below `root`, unless they are there and
    intact.

    source: kaggle, sample, keras (for keras.datasets), or the path of a zip, a folder or an .npz in
    Keras' layout; None: Kaggle if there is a credential, otherwise the sample. force: get them
    again in any case. On a KitError, earlier data is unchanged.
    """
    say = (progress or Progress()).say
    if source is None:
        real = data_folder(competition, root, sample=False)
        # Data that the user has put there, or that nobody can download without a credential
        kept = not (real.path / MANIFEST).is_file() or not has_credential()
        if not force and kept and real.file(competition.train) is not None:
            say(f"{real.path} is there")
            return real
        source = "kaggle" if has_credential() else "sample"
    if "://" in str(source):
        raise KitError(f"{source} is an address, not a path",
                       "download it in a browser and give the file to --from; or take --from "
                       "kaggle")
    folder = data_folder(competition, root, source == "sample")
    origin = str(source)
    if source not in ("kaggle", "sample"):
        # The path, size and time of a zip or folder, by which an unchanged one is recognized
        with contextlib.suppress(OSError, ValueError):
            info = Path(source).stat()
            origin = f"{Path(source).resolve()} {info.st_size} {info.st_mtime_ns}"
    if not force and _is_intact(folder, origin):
        say(f"{folder.path} is there and intact")
        return folder
    with transfer.scratch_folder(Path(root)) as scratch:
        new = DataFolder(scratch / "new", competition)
        new.path.mkdir()
        try:
            manifest = _gather(new, source, say) | {"origin": origin}
            manifest |= _check_files(new, say)
        except KitError as error:
            if source == "kaggle" and not has_credential():
                raise KitError(error.message, f"{error.fix}; or "
                               f"{_without_account(competition, root)}") from error
            # Its path is in the scratch folder, which will be gone: name the source instead
            raise KitError(error.message.replace(str(new.path), str(source)), error.fix) from error
        folder = data_folder(competition, root, manifest["is_sample"])
        storage.write_json(new.path / MANIFEST, manifest)
        _move(new, folder)
    say(f"{folder.path} is ready")
    return folder


def changed_files(before: dict[str, str], now: dict[str, str]) -> str:
    """Which tables are not the same as before, in words; empty where all are.

    before, now: the SHA-256 of each, by its name.
    """
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    kind = "is another file" if len(names) == 1 else "are other files"
    return f"{', '.join(names)} {kind}" if names else ""


def data_folder(competition: Competition, root: Path, sample: bool) -> DataFolder:
    """The folder below `root` for the competition's real data or its sample; it need not exist."""
    return DataFolder(Path(root) / (competition.slug + _SAMPLE * sample), competition)


def _tables_of(competition: Competition) -> tuple[str, ...]:
    """The names of all files that a data folder may have besides its manifest."""
    return (*competition.files, npz.TEST_LABELS)


def _is_intact(folder: DataFolder, origin: str) -> bool:
    """Whether all files match the manifest and came from `origin`.

    If that is Kaggle, any real data will do.
    """
    try:
        manifest = folder.manifest
        if origin not in ("kaggle", manifest.get("origin")):
            return False
        sums = manifest["sha256"]
        return set(sums) <= set(_tables_of(folder.competition)) \
            and all(storage.sha256_file(folder.path / name) == sums[name] for name in sums)
    except (KitError, KeyError):
        return False


def _gather(new: DataFolder, source: str | Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Put the files into `new`, unchecked.

    Returns the part of the manifest that says where they are from.
    """
    competition = new.competition
    about: dict[str, Any] = {"competition": competition.slug, "source": str(source),
                             "is_sample": False,
                             "created": datetime.now(UTC).isoformat(timespec="seconds")}
    required = (competition.train, competition.test)
    if source == "kaggle":
        from kit.kaggle.client import download_competition

        given = download_competition(competition.slug, new.path.parent, say, competition.rules_url)
        try:
            archive.unpack(given, required,
                           [name for name in competition.files if name not in required], new.path)
        except KitError as error:
            raise KitError(error.message.replace(str(given), f"{given.name} from Kaggle"),
                           f"run the same command again, nothing was replaced; {error.fix}"
                           ) from error
    elif source == "sample":
        from kit.data import sample

        say("drawing a sample of digits")
        sample.draw_sample(new.path, competition=competition)
        about |= {"is_sample": True, "writer_block": sample.ROWS_PER_WRITER}
    elif npz.is_source(source, competition):
        say(f"writing the {competition.items} of {source} as {', '.join(competition.files)}")
        npz.write_files(new.path, source, competition)
        about["source"] = "keras" if source == "keras" else "path"
    else:
        optional = [name for name in (*_tables_of(competition), MANIFEST) if name not in required]
        archive.unpack(Path(source), required, optional, new.path,
                       competition.or_write("train and test as the files are called"))
        about["source"] = "path"
        if new.is_sample:  # a sample stays one, wherever it is copied from
            about |= {key: new.manifest.get(key) for key in ("is_sample", "writer_block")}
    return about


def _check_files(new: DataFolder, say: Callable[[str], None]) -> dict[str, Any]:
    """Read and check every file. Returns the hashes and numbers of rows for the manifest."""
    (new.path / MANIFEST).unlink(missing_ok=True)
    say("reading and checking the files")
    tables = [table for table in (new.train(), new.test(), new.extra()) if table is not None]
    for note in [note for table in tables for note in table.notes]:
        say(note)
    about = {table.path.name: (table.sha256, len(table)) for table in tables}
    path = new.path / new.competition.sample_submission
    if path.is_file():
        _check_ids(path, new.competition, new.test().ids)
        about[path.name] = (storage.sha256_file(path), len(new.test()))
    path = new.path / npz.TEST_LABELS
    if new.competition.test_has_labels:  # put aside, as no run is to see them
        known = read_test_labels(new.test().path, new.competition)
        if known is not None:
            npz.write_labels(path, new.competition, new.test().ids, known)
    if path.is_file():
        labels = npz.read_test_labels(path, new.competition, new.test().ids)
        about[path.name] = (storage.sha256_file(path), len(labels))
    return {"sha256": {name: digest for name, (digest, _) in about.items()},
            "rows": {name: rows for name, (_, rows) in about.items()}}


def _check_ids(path: Path, competition: Competition, ids: np.ndarray) -> None:
    """KitError unless the sample submission has the ids of the test file, in the same order."""
    found: list[bytes] = []
    with open_csv(path) as file:
        check_columns(path, read_header(file, path), competition.submission_columns)
        for _, block in line_blocks(file, path, hashlib.sha256()):
            found += split_texts(block)[0][0]
    wanted = [str(name).encode() for name in ids.tolist()]
    line = next((i for i, (name, other) in enumerate(zip(found, wanted, strict=False), 2)
                 if name != other), None)
    if line is not None or len(found) != len(wanted):
        line = line or min(len(found), len(wanted)) + 2
        raise KitError(f"{path}, line {line}: the ids are not those of {competition.test}, in its "
                       "order",
                       "the two files are of different downloads: get them again from one place")


def _move(new: DataFolder, folder: DataFolder) -> None:
    """Move the files of `new` into `folder`, the manifest last: half-moved files match neither
    manifest.

    Other files in that folder stay. Renaming needs no disk space, so a full disk cannot stop this
    half-way.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        (folder.path / ".cache").mkdir(exist_ok=True)
        last = [new.path / storage.CHECKSUMS, new.path / MANIFEST]
        files = [path for path in sorted(new.path.rglob("*")) if path.is_file()
                 and path not in last]
        if any((folder.path / path.relative_to(new.path)).is_dir() for path in files + last):
            raise IsADirectoryError(errno.EISDIR, "a folder bears the name of one of its files")
        for path in files + last:
            storage.move(path, folder.path / path.relative_to(new.path))
        for name in set(_tables_of(folder.competition)) - {path.name for path in files}:
            (folder.path / name).unlink(missing_ok=True)  # of earlier data that had more files
    except IsADirectoryError as error:
        raise KitError(f"cannot write {folder.path}: {error.strerror}",
                       "rename that folder, or choose another place with --data-dir") from error
    except OSError as error:
        raise os_errors.explain_os_error(error, folder.path, "write") from error
