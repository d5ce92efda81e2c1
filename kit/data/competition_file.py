"""Read and check the TOML file that describes a competition.

`read_settings` returns the fields of a `kit.data.competition.Competition`. Whatever is wrong in the
file is a KitError that names the file, the line and the key: a description that is almost right
would train on images that are cut at the wrong place.
"""

import difflib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.core.errors import KitError
from kit.data.csvfile import open_csv

PIXELS = "pixels"  # stands for all columns of the image in a list of columns
MAX_BYTES = 1 << 20
MAX_CLASSES = 256  # a label is a uint8
SIDES = (8, 256)  # of an image: `strong` pools three times; a line of a CSV file has its limit
COUNT = (1, 1 << 40)
# What surrounds the slug in the address of a competition's page on Kaggle
KAGGLE_PAGE = r"https://(www\.)?kaggle\.com/(c|competitions)/"
RESERVED = ("manifest.json", "test_labels.csv", "checksums.json")  # the kit's own, beside the data

Check = Callable[[Any], str]  # what a value must be, if it is not; else empty


def read_settings(text: str, called: str) -> dict[str, Any]:
    """The fields of a Competition in the TOML `text`; lists as tuples. called: the file's name.

    KitError for TOML that is none, an unknown or missing key, a value of the wrong type, and values
    that no competition can have, alone or together.
    """
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise KitError(f"{called} is not valid TOML: {error}",
                       'write each setting as key = value, text in quotes: title = "My digits"'
                       ) from error
    place = _Place(text, called)
    for key, value in values.items():
        if key not in CHECKS:
            near = difflib.get_close_matches(key, CHECKS, n=1, cutoff=0.7)
            raise KitError(f"{place.of(key)}: there is no setting {key!r}",
                           f"did you mean {near[0]}?" if near
                           else f"choose from: {', '.join(CHECKS)}")
        if wanted := CHECKS[key](value):
            raise KitError(f"{place.of(key)}: {key} = {value!r:.60} is not {wanted}",
                           f"write it like {EXAMPLES[key]}")
    if "slug" not in values:
        raise KitError(f"{called} has no slug",
                       f"write the competition's name as in its address: {EXAMPLES['slug']}")
    if "class_names" not in values and "labels" not in values:
        raise KitError(f"{called} says neither class_names nor labels",
                       f"name the classes, in the order of their labels: "
                       f"{EXAMPLES['class_names']}")
    fields = {key: tuple(value) if isinstance(value, list) else value
              for key, value in values.items()}
    _complete(fields)
    _check_together(fields, place)
    return fields


def read_text(path: Path) -> str:
    """The text of a competition's file. KitError where it cannot be read as one."""
    try:
        with open_csv(path, "competition's TOML file") as file:
            data = file.read(MAX_BYTES + 1)
    except KitError as error:
        raise KitError(error.message, f"{error.fix} (--competition takes a slug, or the path of a "
                                      "TOML file)") from error
    if len(data) > MAX_BYTES:
        raise KitError(f"{path} has more than {MAX_BYTES >> 20} MiB, as no competition's file has",
                       "give the right file")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise KitError(f"{path}, line {line}: byte {error.start + 1} of the file is not UTF-8",
                       "save it again as UTF-8") from error


class _Place:
    """Where in the file a key is."""

    def __init__(self, text: str, called: str) -> None:
        self.lines, self.called = text.splitlines(), called

    def of(self, key: str) -> str:
        """The file and the line of `key`; the file alone where the key is not written there."""
        pattern = rf"""\s*(\[\s*)?["']?{re.escape(key)}["']?\s*[=.\]]"""
        line = next((number for number, line in enumerate(self.lines, 1)
                     if re.match(pattern, line)), None)
        return f"{self.called}, line {line}" if line else self.called

    def error(self, key: str, problem: str, fix: str) -> KitError:
        return KitError(f"{self.of(key)}: {problem}", fix)


def _complete(fields: dict[str, Any]) -> None:
    """Fill in what follows from other settings, so that the file need not say it twice."""
    if "labels" in fields:
        fields["labels"] = tuple(map(str, fields["labels"]))
    if "class_names" not in fields:
        fields["class_names"] = fields["labels"]
    fields.setdefault("title", fields["slug"])
    fields.setdefault("url", f"https://www.kaggle.com/competitions/{fields['slug']}")
    fields["url"] = fields["url"].rstrip("/")
    fields.setdefault("label_column", "label")
    if "test_columns" in fields and "id_column" not in fields \
            and "id" not in fields["test_columns"]:
        fields["id_column"] = False
    fields["id_column"] = fields.get("id_column", "id") or None
    fields.setdefault("submission_columns", (fields["id_column"] or "id", fields["label_column"]))


def _check_together(fields: dict[str, Any], place: _Place) -> None:
    """KitError where settings do not fit together."""
    slug, names, labels = fields["slug"], fields["class_names"], fields.get("labels")
    if re.match(KAGGLE_PAGE, fields["url"]) and fields["url"].rsplit("/")[-1].lower() != slug:
        raise place.error("url", f"{fields['url']} is not the address of {slug}",
                          "a kernel finds its data in a folder of the competition's name: write as "
                          "slug the last part of that address, in lower case")
    if labels is not None and len(labels) != len(names):
        raise place.error("labels", f"{len(labels)} labels for {len(names)} class_names",
                          "give one label for each class, in the same order; without labels the "
                          f"classes are 0 to {len(names) - 1}")
    files = {"train": "train.csv", "test": "test.csv", "sample_submission": "sample_submission.csv"}
    files |= {key: fields[key] for key in (*files, "extra") if key in fields}
    for file in set(files.values()):
        if len(twice := [key for key in files if files[key] == file]) > 1:
            raise place.error(next(key for key in twice if key in fields),
                              f"{' and '.join(twice)} are the same file, {file}",
                              "name the file of each")
    for columns, needed in (("train_columns", fields["label_column"]),
                            ("test_columns", fields["id_column"])):
        for name in filter(None, [PIXELS, needed]):
            if name not in fields.get(columns, [name]):
                raise place.error(columns, f"{columns} has no {name!r}",
                                  f'list all columns in their order, with "{PIXELS}" for those of '
                                  f"the image: {EXAMPLES[columns]}")
    if "header" in fields and not fields["header"] and "first_pixel" in fields:
        raise place.error("first_pixel", "a file without a line of column names (header = false) "
                                         "has no first_pixel", "leave one of the two out")
    if unknown := set(fields.get("official_rows", ())) - set(files.values()):
        raise place.error(min(unknown), f"official_rows names {min(unknown)}, which is none of the "
                                        "files", f"name one of: {', '.join(files.values())}")
    for key in ("writer_rows", "hardest_first", "writers_by_difficulty"):
        if fields.get(key) and not fields.get("writer_block"):
            raise place.error(key, f"{key} needs writer_block",
                              f"say how many rows each writer has: {EXAMPLES['writer_block']}")
    block, rows = fields.get("writer_block"), fields.get("writer_rows", 0)
    if block and rows < block:
        raise place.error("writer_block", f"writer_block = {block} and writer_rows = {rows}: no "
                                          "training file would show its writers",
                          "write as writer_rows the rows of the training file")
    if block and block < len(names):
        raise place.error("writer_block", f"writer_block = {block} is less than the "
                                          f"{len(names)} classes, and each writer wrote all",
                          "say how many rows each writer has, or leave it out")
    ranked = fields.get("writers_by_difficulty", ())
    if ranked and sorted(ranked) != list(range(-(-rows // block))):
        raise place.error("writers_by_difficulty",
                          f"writers_by_difficulty does not have each writer from 0 to "
                          f"{-(-rows // block) - 1} once",
                          "give the numbers of all writers, or leave it out")
    pool = fields.get("test_pool")
    if pool and pool % len(names):
        raise place.error("test_pool", f"test_pool = {pool} rows do not have each of "
                                       f"{len(names)} classes equally often",
                          "leave it out unless each class is there equally often")


# -- what a value must be --------------------------------------------------------------------------


def _text(value: Any) -> str:
    ok = isinstance(value, str) and value.strip() == value != "" and value.isprintable()
    return "" if ok else "a text"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _whole(least: int, most: int) -> Check:
    def check(value: Any) -> str:
        ok = type(value) is int and least <= value <= most
        return "" if ok else f"a whole number from {least:,} to {most:,}"

    return check


def _list(of: Check, least: int, most: int, what: str, different: bool = True) -> Check:
    """A list of `least` to `most` values, all `different`, each of which `of` accepts."""

    def check(value: Any) -> str:
        ok = isinstance(value, list) and least <= len(value) <= most and not any(map(of, value)) \
            and not (different and len(set(map(str, value))) < len(value))
        return "" if ok else what

    return check


def _slug(value: Any) -> str:
    ok = not _text(value) and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value) \
        and not value.endswith("-sample") and len(value) <= 100
    return "" if ok else "a slug: a–z and 0–9 with single dashes, not ending in -sample"


def _file(value: Any) -> str:
    ok = not _text(value) and re.fullmatch(r"[^/\\:.][^/\\:]*\.csv", value) \
        and value not in RESERVED
    return "" if ok else "the name of a .csv file, without a folder"


def _label(value: Any) -> str:
    if type(value) is int:
        return "" if value >= 0 else "a label"
    return "a label" if _text(value) or set(value) & set(',"') else ""


def _url(value: Any) -> str:
    ok = not _text(value) and re.fullmatch(r"https?://[^\s/]+(/[^\s?#]+)+", value)
    return "" if ok else "the address of a page"


def _first_pixel(value: Any) -> str:
    return "" if not _text(value) and re.search(r"\d$", value) else \
        "the name of the first pixel's column, which ends in a number"


def _id_column(value: Any) -> str:
    return "" if value is False or not _text(value) else "the name of a column, or false"


def _keras_dataset(value: Any) -> str:
    ok = not _text(value) and re.fullmatch("[a-z0-9_]+", value)
    return "" if ok else "a name in keras.datasets"


def _rows(value: Any) -> str:
    ok = isinstance(value, dict) and not any(map(_whole(*COUNT), value.values()))
    return "" if ok else "a table of files and their rows"


_COLUMNS = _list(_text, 1, 64, f'a list of different columns, with "{PIXELS}" for those of the '
                               "image")
CHECKS: dict[str, Check] = {
    "slug": _slug, "title": _text, "url": _url, "items": _text,
    "class_names": _list(_text, 2, MAX_CLASSES, f"a list of 2 to {MAX_CLASSES} different names"),
    "labels": _list(_label, 2, MAX_CLASSES, f"a list of 2 to {MAX_CLASSES} different labels: whole "
                                            "numbers from 0, or texts without commas and quotes"),
    "train": _file, "test": _file, "sample_submission": _file, "extra": _file,
    "shape": _list(_whole(*SIDES), 2, 2, "a height and a width, each from {} to {}".format(*SIDES),
                   different=False),
    "header": _flag, "first_pixel": _first_pixel, "label_column": _text, "id_column": _id_column,
    "train_columns": _COLUMNS, "test_columns": _COLUMNS, "first_id": _whole(0, 1 << 40),
    "submission_columns": _list(_text, 2, 2, "two different columns"),
    "writer_block": _whole(*COUNT), "writer_rows": _whole(*COUNT), "hardest_first": _flag,
    "writers_by_difficulty": _list(_whole(0, 1 << 20), 2, 1 << 20,
                                   "a list of different writers' numbers"),
    "test_pool": _whole(*COUNT), "code_only": _flag, "keras_dataset": _keras_dataset,
    "official_rows": _rows}
EXAMPLES = {
    "slug": 'slug = "my-digits"', "title": 'title = "My digits"', "items": 'items = "letters"',
    "url": 'url = "https://www.kaggle.com/competitions/my-digits"',
    "class_names": 'class_names = ["circle", "square"]', "labels": "labels = [0, 1, 3]",
    "train": 'train = "train.csv"', "test": 'test = "test.csv"', "extra": 'extra = "others.csv"',
    "sample_submission": 'sample_submission = "sample_submission.csv"', "shape": "shape = [28, 28]",
    "header": "header = false", "first_pixel": 'first_pixel = "pixel0"',
    "label_column": 'label_column = "label"', "id_column": 'id_column = "id"',
    "train_columns": 'train_columns = ["label", "pixels"]',
    "test_columns": 'test_columns = ["id", "pixels"]', "first_id": "first_id = 1",
    "submission_columns": 'submission_columns = ["id", "label"]',
    "writer_block": "writer_block = 1280", "writer_rows": "writer_rows = 60_000",
    "hardest_first": "hardest_first = true",
    "writers_by_difficulty": "writers_by_difficulty = [2, 0, 1]",
    "test_pool": "test_pool = 10_000", "code_only": "code_only = true",
    "keras_dataset": 'keras_dataset = "fashion_mnist"',
    "official_rows": '[official_rows], and below it "train.csv" = 60_000'}
