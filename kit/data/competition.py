"""A competition as data: its files, columns, image shape, classes and submission format.

All other code reads these fields; nothing else is specific to Kannada-MNIST. Each competition is a
TOML file: the kit's own lie in `competitions/` beside this module, and `--competition FILE.toml`
takes one of the user's.
"""

import difflib
import hashlib
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kit.core.errors import KitError
from kit.data.competition_file import PIXELS, read_settings, read_text

OWN = Path(__file__).with_name("competitions")


@dataclass(frozen=True)
class CompetitionFile:
    """The user's file that describes a competition: the path as given, and the text."""

    path: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Layout:
    """The columns of one kind of file: those of the image, and what stands before and after it."""

    before: tuple[str, ...]
    pixels: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.before + self.pixels + self.after

    def index_beside_pixels(self, name: str | None) -> int | None:
        """The index of a column among `before + after`; None if it is not there."""
        beside = self.before + self.after
        return beside.index(name) if name in beside else None


@dataclass(frozen=True)
class Competition:
    slug: str
    title: str
    url: str
    class_names: tuple[str, ...]
    items: str = "images"  # what they show, in the plural
    # As they stand in the files, in the order of the classes; empty: 0, 1, 2, …
    labels: tuple[str, ...] = ()
    train: str = "train.csv"
    test: str = "test.csv"
    sample_submission: str = "sample_submission.csv"
    # A labelled out-of-domain file: the report scores it, no choice is made by it
    extra: str | None = None
    shape: tuple[int, int] = (28, 28)
    header: bool = True  # line 1 has the names of the columns
    # The others follow: pixel1, pixel2; pixel_0001, …; of 1x1 row by row 1x2, …, 28x28
    first_pixel: str = "pixel0"
    label_column: str = "label"
    # Of the test file; None: no such column, the rows are numbered from `first_id`
    id_column: str | None = "id"
    # All columns, in their order; `pixels` stands for those of the image, others are not read.
    # Empty: the label, or the id if there is one, then the image
    train_columns: tuple[str, ...] = ()
    test_columns: tuple[str, ...] = ()
    first_id: int = 0
    submission_columns: tuple[str, str] = ("id", "label")
    # Rows per writer in the training file, where its order shows who wrote what
    writer_block: int | None = None
    writer_rows: int = 0  # the largest training file whose blocks are trusted to be writers
    # Writers are sorted hardest first, and those of the test file are harder still
    hardest_first: bool = False
    # Its writers, hardest first, by how often models that had not seen them were wrong
    writers_by_difficulty: tuple[int, ...] = ()
    # The test file is a random part (or all) of so many rows, as many of each class
    test_pool: int | None = None
    code_only: bool = False  # takes notebooks, not files
    # The same digits in keras.datasets, with the labels of the test file
    keras_dataset: str | None = None
    official_rows: dict[str, int] = field(default_factory=dict, hash=False)
    # The user's file that says all this; None: the kit's own
    file: CompetitionFile | None = field(default=None, compare=False)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The label of each class, as text, as the files have it."""
        return self.labels or tuple(map(str, range(self.n_classes)))

    @property
    def labels_are_indices(self) -> bool:
        """Whether the labels in the files are the classes' numbers, 0, 1, 2, …"""
        return self.class_labels == tuple(map(str, range(self.n_classes)))

    def label(self, k: int) -> int | str:
        """The label of class `k`, as a number if all labels are whole numbers."""
        numbers = all(re.fullmatch("0|[1-9][0-9]*", label) for label in self.class_labels)
        return int(self.class_labels[k]) if numbers else self.class_labels[k]

    @property
    def n_pixels(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def pixel_columns(self) -> tuple[str, ...]:
        if by_row := re.fullmatch(r"(\d+)x(\d+)", self.first_pixel):
            first_row, first_column = map(int, by_row.groups())
            return tuple(f"{row + first_row}x{column + first_column}"
                         for row in range(self.shape[0]) for column in range(self.shape[1]))
        start = re.search(r"\d*$", self.first_pixel)
        number = start[0] if start else ""
        name = self.first_pixel.removesuffix(number)
        return tuple(f"{name}{int(number or 0) + i:0{len(number)}}" for i in range(self.n_pixels))

    def layout(self, labelled: bool) -> Layout:
        """The columns of the training file and the out-of-domain file, or those of a test file."""
        first = self.label_column if labelled else self.id_column
        columns = (self.train_columns if labelled else self.test_columns) \
            or (*filter(None, [first]), PIXELS)
        at = columns.index(PIXELS)
        return Layout(columns[:at], self.pixel_columns, columns[at + 1:])

    @property
    def test_has_labels(self) -> bool:
        """Whether the test file has the labels, as public data sets do; no model ever sees them."""
        return self.label_column in self.test_columns

    @property
    def kaggle_slug(self) -> str:
        """The slug in Kaggle's own spelling, such as `Kannada-MNIST`; a kernel's input folder is
        named so.
        """
        last = self.url.rsplit("/", 1)[1]
        return last if last.lower() == self.slug else self.slug

    @property
    def rules_url(self) -> str:
        return f"{self.url}/rules"

    @property
    def files(self) -> tuple[str, ...]:
        """The CSV files that a complete data folder holds."""
        return tuple(name for name in (self.train, self.test, self.extra, self.sample_submission)
                     if name)

    def require_extra(self) -> str:
        """The name of the labelled out-of-domain file. KitError where it has none."""
        if self.extra is None:
            raise KitError(f"{self.title} has no labelled file of other origin",
                           "leave --train-extra out")
        return self.extra

    @property
    def option(self) -> tuple[str, ...]:
        """The words that name it on a command line; none for the default."""
        if self.file is not None:
            return "--competition", self.file.path
        return ("--competition", self.slug) if self.slug != KANNADA.slug else ()

    def is_like(self, other: "Competition") -> bool:
        """Whether models of the two answer the same question, however it is described."""
        return (self.slug, self.class_labels, self.shape) \
            == (other.slug, other.class_labels, other.shape)

    def or_write(self, setting: str) -> str:
        """The end of a fix: that `setting` can be corrected in the user's file, if there is one."""
        return f"; or write {setting} in {self.file.path}" if self.file else ""


def from_text(text: str, path: str | None = None) -> Competition:
    """The competition that a TOML `text` describes. KitError where it is not right.

    path: of the user's file; None: it is one of the kit's own.
    """
    settings = read_settings(text, path or "the competition's TOML file")
    return Competition(**settings, file=CompetitionFile(path, text) if path is not None else None)


def _read_own() -> dict[str, Competition]:
    """The kit's own, by their slugs."""
    return {path.stem: from_text(path.read_text("utf-8")) for path in sorted(OWN.glob("*.toml"))}


COMPETITIONS = _read_own()
KANNADA, DIGIT_RECOGNIZER = COMPETITIONS["kannada-mnist"], COMPETITIONS["digit-recognizer"]

# What surrounds the slug in an address
_ADDRESS = re.compile(r"^(https?://)?((www\.)?kaggle\.com/)?/?((c|competitions)/)?|[?#].*$")


def get(name: str) -> Competition:
    """The competition called `name`, or described in the TOML file `name`. KitError if it is
    unknown, or the file is not right.

    Upper and lower case are the same, and `c/Kannada-MNIST` or the address of its page are
    accepted, too.
    """
    if name.lower().endswith(".toml"):
        return from_text(read_text(Path(name).expanduser()), name)
    slug = re.sub(r"[\s_]+", "-", re.sub(_ADDRESS, "", name.strip().lower()).split("/")[0])
    if slug in COMPETITIONS:
        return COMPETITIONS[slug]
    meant = difflib.get_close_matches(slug, COMPETITIONS, n=1)
    file = Path(f"{name.strip()}.toml")
    raise KitError(f"there is no competition {name!r} in this kit",
                   f"did you mean {meant[0]}?" if meant else
                   f"did you mean the file {file}?" if file.is_file() else
                   f"choose one of: {', '.join(COMPETITIONS)}; or describe it in a TOML file "
                   "(docs/competitions.md) and give that: --competition FILE.toml")


# -- what a run records ----------------------------------------------------------------------------


def record(competition: Competition) -> dict[str, Any]:
    """What a config.json says of the user's file, so that a run can be read without it."""
    if competition.file is None:
        return {}
    file = competition.file
    return {"competition_file": {"path": file.path, "sha256": file.sha256, "text": file.text}}


def from_record(stored: dict[str, Any], slug: str) -> Competition:
    """The competition `slug` of a config.json. KitError if it is unknown or not as recorded."""
    about = stored.get("competition_file")
    if about is None:
        return get(slug)
    try:
        found = from_text(about["text"], about["path"])
        intact = found.file is not None and found.file.sha256 == about["sha256"]
    except (TypeError, KeyError, AttributeError):
        intact = False
    if not intact or found.slug != slug:
        raise KitError("its competition_file is not the file that was recorded",
                       "put the original config.json back, or start a new run with --run")
    return found


def changed_settings(before: Competition, now: Competition) -> list[str]:
    """The names of the settings in which two descriptions of a competition differ."""
    return [each.name for each in fields(Competition)
            if each.compare and getattr(before, each.name) != getattr(now, each.name)]
