"""The supported competitions: their files, columns, image shape, classes and submission format.

All other code reads these fields; nothing else is specific to Kannada-MNIST. To support another
competition, describe it here.
"""

import difflib
import re
from dataclasses import dataclass, field

from kit.core.errors import KitError


@dataclass(frozen=True)
class Competition:
    slug: str
    title: str
    url: str
    class_names: tuple[str, ...]
    train: str = "train.csv"
    test: str = "test.csv"
    sample_submission: str = "sample_submission.csv"
    # A labelled out-of-domain file: the report scores it, no choice is made by it
    extra: str | None = None
    shape: tuple[int, int] = (28, 28)
    label_column: str = "label"
    # Of the test file; None: no such column, the rows are numbered from `first_id`
    id_column: str | None = "id"
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

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def n_pixels(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def pixel_columns(self) -> tuple[str, ...]:
        return tuple(f"pixel{i}" for i in range(self.n_pixels))

    @property
    def kaggle_slug(self) -> str:
        """The slug in Kaggle's own spelling, such as `Kannada-MNIST`; a kernel's input folder is
        named so.
        """
        return self.url.rsplit("/", 1)[1]

    @property
    def rules_url(self) -> str:
        return f"{self.url}/rules"

    @property
    def files(self) -> tuple[str, ...]:
        """The CSV files that a complete data folder holds."""
        return tuple(name for name in (self.train, self.test, self.extra, self.sample_submission)
                     if name)


KANNADA = Competition(
    slug="kannada-mnist",
    title="Kannada MNIST",
    url="https://www.kaggle.com/competitions/Kannada-MNIST",
    class_names=("೦", "೧", "೨", "೩", "೪", "೫", "೬", "೭", "೮", "೯"),
    extra="Dig-MNIST.csv",
    writer_block=1280,
    writer_rows=60_000,
    hardest_first=True,
    # By the held-out errors of four runs together (docs/lab-log.md, 2026-11-29)
    writers_by_difficulty=(
        1, 24, 15, 13, 42, 7, 16, 12, 3, 5, 17, 14, 28, 31, 4, 0, 25, 21, 6, 20, 9, 19, 10, 39,
        30, 11, 26, 38, 36, 33, 43, 2, 34, 23, 37, 35, 8, 27, 41, 22, 40, 32, 29, 44, 45, 18, 46),
    test_pool=10_000,
    code_only=True,
    official_rows={"train.csv": 60_000, "test.csv": 5_000, "Dig-MNIST.csv": 10_240,
                   "sample_submission.csv": 5_000},
)

DIGIT_RECOGNIZER = Competition(
    slug="digit-recognizer",
    title="Digit Recognizer (MNIST)",
    url="https://www.kaggle.com/competitions/digit-recognizer",
    class_names=tuple("0123456789"),
    id_column=None,
    first_id=1,
    submission_columns=("ImageId", "Label"),
    keras_dataset="mnist",
    official_rows={"train.csv": 42_000, "test.csv": 28_000, "sample_submission.csv": 28_000},
)

# What surrounds the slug in an address
_ADDRESS = re.compile(r"^(https?://)?((www\.)?kaggle\.com/)?/?((c|competitions)/)?|[?#].*$")

COMPETITIONS = {competition.slug: competition for competition in (KANNADA, DIGIT_RECOGNIZER)}


def get(name: str) -> Competition:
    """The competition called `name`. KitError if it is unknown.

    Upper and lower case are the same, and `c/Kannada-MNIST` or the address of its page are
    accepted, too.
    """
    slug = re.sub(r"[\s_]+", "-", re.sub(_ADDRESS, "", name.strip().lower()).split("/")[0])
    if slug in COMPETITIONS:
        return COMPETITIONS[slug]
    meant = difflib.get_close_matches(slug, COMPETITIONS, n=1)
    raise KitError(f"there is no competition {name!r} in this kit",
                   f"did you mean {meant[0]}?" if meant else
                   f"choose one of: {', '.join(COMPETITIONS)}; or describe it in "
                   "kit/data/competition.py")
