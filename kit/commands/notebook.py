"""What the commands do, for a notebook: `import kit; kit.cv(model="cnn", folds=5)`.

Each function takes its command's options, with `_` for `-`, and returns an `Answer`: the dict that the command prints
with `--json`, which shows itself in words and pictures. They call what the commands call and add nothing but the looks.
`import kit` makes them its own (`kit.cv`), but loads them only when one of them is used.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
from markupsafe import Markup

from kit.commands import request
from kit.core import storage
from kit.core.config import EXAMPLES, KINDS, suggest_value, unwrap_optional
from kit.core.errors import KitError
from kit.core.progress import PlainProgress, Progress
from kit.data import competition as competitions
from kit.data import source as sources
from kit.data.source import DataFolder
from kit.reporting import tutorial
from kit.reporting.verdict import percent

KANNADA = "kannada-mnist"
MISTAKES = 12  # shown below a score
Answered = TypeVar("Answered")
BANNER = "padding:.5em .8em;background:#7c1f0e;color:#fff"


class Spoken(PlainProgress):
    """Plain lines on stdout, since notebooks paint stderr red."""

    def say(self, text: str) -> None:
        print(text, flush=True)


class Answer(dict[str, Any]):
    """A command's numbers; printed, its lines; in a notebook, these with banners, a table and pictures.

    `drawn`: a picture made of characters, for where there are no others.
    """

    def __init__(self, numbers: dict[str, Any], lines: Sequence[str], *, banners: Sequence[str] = (),
                 table: Sequence[Sequence[str]] = (), pictures: Sequence[Markup] = (), folder: Path | None = None,
                 monospace: bool = False, drawn: str = "") -> None:
        super().__init__(numbers)
        self.lines, self.banners, self.table, self.pictures = list(lines), list(banners), list(table), list(pictures)
        self.folder, self.monospace, self.drawn = folder, monospace, drawn

    def __repr__(self) -> str:
        return "\n".join([*self.banners, *[self.drawn] * bool(self.drawn), *self.lines])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        parts = [Markup('<p style="{}"><strong>{}</strong></p>').format(BANNER, banner) for banner in self.banners]
        if self.monospace:
            parts.append(Markup('<pre style="line-height:1.2">{}</pre>').format("\n".join(self.lines)))
        else:
            parts += [Markup("<p>{}</p>").format(line) for line in self.lines]
        return str(Markup("<div>{}</div>").format(Markup("\n").join([*parts, _table(self.table), *self.pictures])))


class Data(DataFolder):
    """A data folder (`.train()`, `.test()`, `.extra()`) that shows what is in it."""

    def _repr_html_(self) -> str:
        train, test = self.train(), self.test()
        banners = ["Drawn sample: scores on it say nothing about the competition."] if self.is_sample else []
        about = f"{self.path}: {len(train):,} training and {len(test):,} test digits, from {self.source}"
        pictures = [tutorial.samples(train, self.competition), tutorial.balance(train.labels, self.competition)]
        return Answer({}, [about], banners=banners, pictures=pictures)._repr_html_()


# -- the commands ---------------------------------------------------------------------------------------------------


def _command(function: Callable[..., Answered]) -> Callable[..., Answered]:
    """What is of the wrong kind, and what the system refuses, is a KitError in a notebook as well."""
    signature, hints = inspect.signature(function), get_type_hints(function)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Answered:
        given = signature.bind(*arguments, **options)
        for name, value in given.arguments.items():
            if isinstance(value, np.generic):
                given.arguments[name] = value = value.item()  # NumPy's numbers are numbers here, too
            if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD \
                    and not isinstance(value, hints[name]):
                if unwrap_optional(hints[name]) is int:
                    raise KitError(f"{name}={value!r:.60} is not {KINDS[int]}",
                                   f"write {name}={suggest_value(value, int, EXAMPLES.get(name, 5))!r}")
                raise KitError(f"{name}={value!r:.60} is of the wrong kind",
                               f"give {getattr(hints[name], '__name__', hints[name])}: help(kit.{function.__name__})")
            if isinstance(value, str | Path) and Path in get_args(hints[name]):
                given.arguments[name] = type(value)(request.expanded(str(value)))
        try:
            return function(*given.args, **given.kwargs)
        except OSError as error:  # of what a library writes for itself; the kit's own files say more
            raise storage.explain_os_error(error, error.filename or "a file", "use") from error

    return call


@_command
def download(competition: str = KANNADA, source: str | Path | None = None, data_dir: str | Path = "data",
             force: bool = False) -> Data:
    """Get the competition's files, checked; `source`: kaggle, sample, keras, or a zip, folder or .npz that you have."""
    data = sources.download(competitions.get(competition), source, Path(data_dir), force, Spoken())
    return Data(data.path, data.competition)


@_command
def cv(competition: str = KANNADA, folds: int | None = None, seeds: int | None = None, quiet: bool = False,
       **options: Any) -> Answer:
    """Train k folds and report an honest score; further options are those of `kit cv`: model, epochs, limit, run, …"""
    progress = _progress(quiet)
    wish = request.open_request(competitions.get(competition), progress, n_folds=folds, n_seeds=seeds, **options)
    return _report(wish.cv(progress), wish.data)


@_command
def submit(competition: str = KANNADA, folds: int | None = None, seeds: int | None = None, fetch: bool = False,
           upload: bool = False, message: str = "", submissions: str | Path = "submissions", quiet: bool = False,
           **options: Any) -> Answer:
    """`cv`, then ensemble, submission.csv and report; `upload` hands it in, where the competition takes files."""
    progress = _progress(quiet)
    wish = request.open_request(competitions.get(competition), progress, fetch=fetch, submissions=Path(submissions),
                                n_folds=folds, n_seeds=seeds, **options)
    folder, said = wish.submit(Path(submissions), upload, message, progress)
    return _report(folder, wish.data, *said)


@_command
def predict(run: "str | Answer", test: str | Path, out: str | Path, runs_dir: str | Path = "runs",
            quiet: bool = False) -> Answer:
    """Label another test file with a trained run: labels to a .csv, probs to a .npz."""
    from kit.ensembling import predict as infer

    rows = infer.predict_file(request.existing_run(_name(run), Path(runs_dir)), Path(test), Path(out), _progress(quiet))
    return Answer({"rows": rows, "out": str(out)}, [f"{out}: {rows} rows"])


@_command
def validate(file: str | Path, competition: str = KANNADA, test: str | Path | None = None,
             data_dir: str | Path = "data") -> Answer:
    """Is this submission acceptable, and if not, why: `["ok"]`, `["problems"]` and `["notes"]`."""
    from kit.ensembling import submission

    about = competitions.get(competition)
    ids = request.test_ids(about, Path(test) if test else None, Path(data_dir))
    found = submission.judge(Path(file), about, ids)
    return Answer({"ok": not found.problems, **found._asdict()}, found.lines(Path(file)))


@_command
def score(file: str | Path, competition: str = KANNADA, data_dir: str | Path = "data") -> Answer:
    """How much of a submission is right, where the labels of the test file are known; 20 predicted against actual."""
    data = sources.find_data(competitions.get(competition), Path(data_dir))
    result = tutorial.score(Path(file), data)
    shown = result["shown"]
    pictures = [tutorial.predictions(data.test().pixels[:len(shown)], [row["predicted"] for row in shown],
                                     data.competition, [row["actual"] for row in shown], columns=10)]
    return Answer(result, tutorial.score_lines(result, data.competition), pictures=pictures, monospace=True)


@_command
def report(run: "str | Answer", competition: str = KANNADA, data_dir: str | Path = "data",
           runs_dir: str | Path = "runs", submissions: str | Path = "submissions") -> Answer:
    """Write report.json and report.html of a run again, its submission's too, and show the verdict."""
    from kit import pipeline

    folder = request.existing_run(_name(run), Path(runs_dir))
    data = request.data_of(folder, Path(data_dir))
    pipeline.report(folder, data, Path(submissions))
    return _report(folder.path, data)


@_command
def compare(run_a: "str | Answer", run_b: "str | Answer") -> Answer:
    """Is A better than B: difference, interval and p, over rows and over writers."""
    from kit.reporting import compare as comparing

    result = comparing.compare(*(request.scored_folder(_name(run)) for run in (run_a, run_b)))
    return Answer(result, comparing.lines(result))


@_command
def show(row: int, competition: str = KANNADA, data_dir: str | Path = "data") -> Answer:
    """One digit of the training file, as a picture."""
    data = sources.find_data(competitions.get(competition), Path(data_dir))
    image, label = tutorial.read_digit(row, data)
    name = tutorial.class_names(data.competition)[label]
    return Answer({"row": row, "label": label}, [f"row {row}: {name}"], drawn=tutorial.half_blocks(image),
                  pictures=[tutorial.gallery([image], [name], 1, f"row {row}")])


@_command
def models() -> Answer:
    """What can be trained, with size and cost."""
    from kit.training import models as registry
    from kit.training import settings

    rows = registry.table()
    return Answer({"models": rows, "settings": settings.table()}, [*registry.lines(rows), *settings.lines()],
                  monospace=True)


@_command
def examine(competition: str = KANNADA, data_dir: str | Path = "data") -> Answer:
    """What this machine has, and what is missing: `kit doctor`."""
    from kit.commands import doctor

    findings = doctor.examine(competitions.get(competition), Path(data_dir))
    return Answer({"findings": [finding.to_dict() for finding in findings]}, list(map(str, findings)), monospace=True)


# -- how a score is shown -------------------------------------------------------------------------------------------


def _progress(quiet: bool) -> Progress:
    return Progress() if quiet else Spoken()


def _name(run: "str | Answer") -> str:
    """A run by its name, or by what `cv` or `submit` returned."""
    return str(run.folder) if isinstance(run, Answer) else str(run)


def _report(folder: Path, data: DataFolder, *lines: str) -> Answer:
    """The report of a folder: its verdict, its scores, the surest mistakes and the first test digits."""
    numbers = storage.read_json(folder / "report.json")
    said, mistakes, test = numbers["verdict"], numbers["mistakes"][:MISTAKES], numbers["test"]
    pictures = []
    if mistakes:
        pictures.append(_shown(data.train().pixels, data, mistakes, "row", "Read wrong, the surest first", True))
    if test:
        pictures.append(_shown(data.test().pixels, data, test["grid"], "index", "The first digits of the test file"))
    return Answer(numbers, [*said["points"], *lines, f"report: {folder / 'report.html'}"], banners=said["banners"],
                  table=_scores(numbers), pictures=pictures, folder=folder)


def _shown(pixels: Any, data: DataFolder, rows: list[dict[str, Any]], place: str, title: str,
           known: bool = False) -> Markup:
    drawing = tutorial.predictions(pixels[[row[place] for row in rows]], [row["predicted"] for row in rows],
                                   data.competition, [row["true"] for row in rows] if known else None)
    return Markup("<h4>{}</h4>{}").format(title, drawing)


def _scores(numbers: dict[str, Any]) -> list[list[str]]:
    """Name, accuracy and interval of each score that the report has, below a line of headings."""
    cv, guess, extra = numbers["cv"], numbers["leaderboard_estimate"] or {}, numbers["dig_mnist"]
    rows = [("held out", cv["oof_accuracy"], cv["ci95"])]
    if numbers["baseline"]:
        rows.append((f"baseline {numbers['baseline']['model']}", numbers["baseline"]["oof_accuracy"],
                     numbers["baseline"]["ci95"]))
    if guess.get("value") is not None:
        rows.append(("leaderboard estimate", guess["value"], [guess["low"], guess["high"]]))
    if extra:
        rows.append((extra["file"], extra["accuracy"], extra["ci95"]))
    return [["", "accuracy", "95\u00a0% interval"],
            *([name, percent(value), " to ".join(map(percent, bounds))] for name, value, bounds in rows)]


def _table(rows: Sequence[Sequence[str]]) -> Markup:
    """Rows of text as a table, the first one its headings."""
    if not rows:
        return Markup("")
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(cell) for cell in rows[0])
    body = Markup("").join(Markup("<tr>{}</tr>").format(
        Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row)) for row in rows[1:])
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)
