"""The commands as functions, for a notebook and for the command line: `kit.cv(model="cnn")`.

A function takes its command's options, with `_` for `-`, and returns a `Result`: a dict of the
numbers that the command prints with `--json`, which a notebook shows as text and pictures. Progress
is printed, unless `quiet` is given or a `progress` that takes it. `kit.cv` is `actions.cv`: the
package loads this module when one of its functions is first used.
"""

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kit.commands import blends, find_runs, request
from kit.commands.command import Result, check_suffix, command, notebook_progress
from kit.commands.request import TrainingOptions, open_request
from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.core.run_folder import RunFolder
from kit.data import competition as competitions
from kit.data import source as sources
from kit.data.competition import KANNADA
from kit.data.source import DataFolder
from kit.data.table import read_table
from kit.reporting import digits
from kit.reporting.numerals import plain_names
from kit.reporting.score import score as score_file
from kit.reporting.score import score_lines
from kit.reporting.verdict import percent
from kit.training.records import read_competition

MISTAKES = 12  # shown below a score


class Data(DataFolder):
    """A data folder (`.train()`, `.test()`, `.extra()`) that a notebook shows with its digits."""

    exit_code = 0

    def __str__(self) -> str:
        about = "drawn sample" if self.is_sample else f"real data, {self.source_in_words}"
        return f"{self.path}: {about}"

    def to_json(self) -> str:
        numbers = {"path": self.path, "source": self.source, "is_sample": self.is_sample}
        return Result(numbers, []).to_json()

    def _repr_html_(self) -> str:
        train, test = self.train(), self.test()
        banner = "Drawn sample: scores on it say nothing about the competition."
        about = (f"{len(train):,} training and {len(test):,} test {self.competition.items}, "
                 f"{self.source_in_words}")
        pictures = [digits.class_gallery(train, self.competition),
                    digits.class_count_chart(train.labels, self.competition)]
        return Result({}, [f"{self.path}: {about}"], banners=[banner] if self.is_sample else [],
                      pictures=lambda: pictures)._repr_html_()


# -- the main job ----------------------------------------------------------------------------------


@command
def download(competition: str = KANNADA.slug, source: str | Path | None = None,
             data_dir: str | Path = "data", force: bool = False,
             progress: Progress | None = None) -> Data:
    """Get the competition's files, checked.

    `source`: kaggle, sample, keras, or a zip, folder or .npz that you have.
    """
    data = sources.download(competitions.get(competition), source or None, Path(data_dir), force,
                            progress or notebook_progress())
    return Data(data.path, data.competition)


@command
def cv(competition: str = KANNADA.slug, against: str | Result | None = None,
       difference: float | None = None, quiet: bool = False, progress: Progress | None = None,
       **options: Any) -> Result:
    """Train k folds and report an honest score.

    `options` are the fields of `TrainingOptions`: model, folds, epochs, limit, run, …

    `against`: a run or submission. The new run is trained in its folds, and no further than needed
    to see which of the two is better, or that no `difference` in accuracy that matters will show.
    """
    progress = progress or notebook_progress(quiet)
    if difference is not None and against is None:
        raise KitError("--difference says what matters in a comparison, and there is none",
                       "name the run to compare with: --against RUN")
    run = open_request(competitions.get(competition), TrainingOptions(**options), progress,
                       against=None if against is None else _name(against), difference=difference)
    trained = run.cv(progress)
    return _report(trained.report, trained.run.path, run.data)


@command
def submit(competition: str = KANNADA.slug, fetch: bool = False, upload: bool = False,
           message: str = "", keep_weights: bool = False,
           submissions: str | Path = "submissions", quiet: bool = False,
           progress: Progress | None = None, **options: Any) -> Result:
    """`cv`, then ensemble, submission.csv and report; `options` are those of `cv`.

    `fetch` gets the data first; `upload` hands the file in, where the competition takes files;
    `keep_weights` puts the folds' weights beside it, as float16, for `predict`.
    """
    progress = progress or notebook_progress(quiet)
    run = open_request(competitions.get(competition), TrainingOptions(**options), progress, fetch,
                       Path(submissions))
    trained, folder, said = run.submit(Path(submissions), upload, message, progress,
                                       keep_weights)
    return _report(trained.report, folder, run.data, *said)


@command
def blend(runs: list | tuple, run: str | None = None, weights: str | list | tuple = "equal",
          class_prior: str = "auto", force: bool = False, upload: bool = False, message: str = "",
          data_dir: str | Path = "data", runs_dir: str | Path = "runs",
          submissions: str | Path = "submissions", quiet: bool = False,
          progress: Progress | None = None) -> Result:
    """Several finished runs as one: their OOF and test probs, a submission and its report.

    `runs`: names, folders, or what `cv` and `submit` returned. `run`: the name of the blend.
    `weights`: equal, oof (fitted to the OOF probs), or a number for each run.
    """
    from kit import pipeline
    from kit.ensembling import blend_runs

    progress = progress or notebook_progress(quiet)
    parents = Path(runs_dir), Path(submissions)
    folders = [find_runs.find_scored_folder(_name(each), *parents) for each in runs]
    folder = blends.new_folder(run, folders, *parents, force)
    blend_runs.check_weights(weights, len(folders))
    config = RunConfig(class_prior=class_prior)
    finished = blend_runs.read_runs(folders)
    data = find_runs.find_run_data(RunFolder(folders[0]), Path(data_dir), with_extra=False)
    if upload and data.competition.code_only:
        raise KitError(f"{data.competition.title} takes notebooks, not files, and a blend has no "
                       "models that a notebook could run",
                       f"train them as one run: {blend_runs.as_one_run(finished)}")
    numbers = pipeline.submit_blend(finished, weights, config.class_prior, data, folder, progress)
    said = request.hand_in(folder, numbers, data.competition, upload, message, progress)
    return _report(numbers, folder, data, *said)


@command
def predict(run: str | Result, test: str | Path, out: str | Path, runs_dir: str | Path = "runs",
            quiet: bool = False, progress: Progress | None = None) -> Result:
    """Label another test file with a trained run, or with a submission that keeps its weights.

    `out`: a .csv for labels, a .npz for probs.
    """
    from kit.ensembling.predict import predict_file

    progress = progress or notebook_progress(quiet)
    folder = find_runs.find_trained(_name(run), Path(runs_dir))
    if note := find_runs.changed_file(folder.path, KANNADA):
        progress.say(f"{note}; what it was then is used")
    rows = predict_file(folder, Path(test), Path(out), progress)
    return Result({"rows": rows, "out": str(out)}, [f"{out}: {rows} rows"])


@command
def validate(file: str | Path, competition: str = KANNADA.slug, test: str | Path | None = None,
             data_dir: str | Path = "data") -> Result:
    """Is this submission acceptable, and if not, why: `["ok"]`, `["problems"]` and `["notes"]`."""
    from kit.ensembling import submission

    about = competitions.get(competition)
    table = read_table(Path(test), about, labelled=False) if test \
        else sources.find_data(about, Path(data_dir)).test()
    found = submission.validate(Path(file), about, table.ids)
    ok = not found.problems
    return Result({"ok": ok, **found._asdict()}, found.lines(Path(file)), ok=ok)


@command
def score(file: str | Path, competition: str = KANNADA.slug,
          data_dir: str | Path = "data") -> Result:
    """How much of a submission is right, where the labels of the test file are known."""
    data = sources.find_data(competitions.get(competition), Path(data_dir))
    result = score_file(Path(file), data)

    def pictures() -> list[Markup]:
        own = [data.competition.label(k) for k in range(data.competition.n_classes)]
        rows = result["shown"]
        predicted, actual = ([own.index(row[name]) for row in rows]
                             for name in ("predicted", "actual"))
        pixels = data.test().pixels[:len(rows)]
        return [digits.prediction_gallery(pixels, predicted, data.competition, actual, columns=10)]

    return Result(result, score_lines(result, data.competition), pictures=pictures,
                  monospace=True)


@command
def report(run: str | Result, competition: str = KANNADA.slug, data_dir: str | Path = "data",
           runs_dir: str | Path = "runs", submissions: str | Path = "submissions",
           keep_weights: bool = False) -> Result:
    """Write report.json and report.html of a run and of its submission again; show the verdict.

    `keep_weights`: put the folds' weights into its submission, too, as `submit` does.
    """
    from kit import pipeline
    from kit.ensembling.blend_runs import read_runs

    blended = blends.find_blend(_name(run), Path(submissions))
    if blended and keep_weights:
        raise KitError(f"{_name(run)!r} is a blend, which has no models of its own",
                       "keep the weights of the runs that it was made of")
    if blended:
        data = find_runs.find_run_data(RunFolder(blended), Path(data_dir))
        runs = read_runs(blends.find_runs(blended, Path(runs_dir)))
        numbers = pipeline.report_blend(blended, runs, data)
        return _report(numbers, blended, data, *_changed_file(blended, competition))
    folder = find_runs.find_run(_name(run), Path(runs_dir), Path(submissions))
    data = find_runs.find_run_data(folder, Path(data_dir))
    submission = Path(submissions) / folder.name
    taken = blends.is_blend(submission)  # by a blend of the run's name
    if keep_weights and (taken or not submission.is_dir()):
        raise KitError(f"the run {folder.name!r} has no submission in {submissions} that could "
                       "keep its weights", "make it: kit submit --resume --run "
                       f"{shlex.quote(folder.name)} --keep-weights")
    trained = pipeline.report(folder, data, None if taken else Path(submissions))
    said = [request.keep_run_weights(trained, submission)] if keep_weights else []
    return _report(trained.report, folder.path, data, *said,
                   *_changed_file(folder.path, competition))


@command
def compare(run_a: str | Result, run_b: str | Result, out: str | Path | None = None,
            data_dir: str | Path = "data", runs_dir: str | Path = "runs",
            submissions: str | Path = "submissions") -> Result:
    """Is A better than B: difference, interval and p, over rows and over writers.

    `out`: a .html file to write the same to.
    """
    from kit.reporting import compare as comparing

    if out is not None:
        check_suffix(out, ".html", "--out")
    folders = [find_runs.find_scored_folder(_name(run), Path(runs_dir), Path(submissions))
               for run in (run_a, run_b)]
    result = comparing.compare(*folders)
    if out is not None:
        about, table = read_competition(folders[0]), None
        with contextlib.suppress(KitError):  # a page without pictures is better than none
            table = sources.find_data(about, Path(data_dir)).train()
        storage.write_text(Path(out), comparing.render_compare(result, table), record=False)
    return Result(result, comparing.lines(result))


# -- runs ------------------------------------------------------------------------------------------


@command
def runs(runs_dir: str | Path = "runs", submissions: str | Path = "submissions") -> Result:
    """The runs and submissions that are here, finished or not: scores, size on disk, when made."""
    from kit.commands import runs as runs_module

    entries = runs_module.list_runs(Path(runs_dir), Path(submissions))
    return Result({"runs": [entry.to_dict() for entry in entries]}, runs_module.lines(entries),
                  monospace=True)


@command
def remove_runs(names: str | list | tuple, yes: bool = False, runs_dir: str | Path = "runs",
                submissions: str | Path = "submissions") -> Result:
    """Remove runs by their names, and submissions by their paths; asks first unless `yes`."""
    from kit.commands import runs as runs_module

    entries = runs_module.find_named([names] if isinstance(names, str) else list(map(str, names)),
                               Path(runs_dir), Path(submissions))
    if not yes and not runs_module.confirm(entries):
        return Result({"removed": [], "bytes": 0}, ["nothing was removed"], ok=False)
    for entry in entries:
        runs_module.remove(entry)
    n_bytes = sum(entry.bytes for entry in entries)
    return Result({"removed": [str(entry.path) for entry in entries], "bytes": n_bytes},
                  [f"removed {entry.path}" for entry in entries]
                  + [f"{runs_module.format_size(n_bytes)} freed"])


# -- looking around --------------------------------------------------------------------------------


@command
def show(row: int, competition: str = KANNADA.slug, out: str | Path | None = None,
         data_dir: str | Path = "data") -> Result:
    """One digit of the training file, as a picture; `out`: as a .png or .svg file, too."""
    data = sources.find_data(competitions.get(competition), Path(data_dir))
    image, label = digits.read_digit(row, data)
    name, own = plain_names(data.competition.class_names)[label], data.competition.label(label)
    called = f"{own} ({name})" if data.competition.labels and str(own) != name else str(own)
    if out is not None:
        digits.write_digit(image, name, f"row {row}", Path(out))
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return Result({"row": row, "label": own}, [f"row {row}: {called}"],
                  drawing=digits.digit_as_text(image, colours),
                  pictures=lambda: [digits.gallery([image], [name], 1, f"row {row}")])


@command
def models(model: str | None = None, measure: bool = False, competition: str = KANNADA.slug,
           quiet: bool = False, progress: Progress | None = None) -> Result:
    """What can be trained, with size and cost; or one model, also of your own, tried.

    `measure`: how long five folds of each take on this machine, beside their accuracy.
    """
    from kit.training import model_pace, own_models, settings
    from kit.training import models as registry

    about = competitions.get(competition)
    if measure:
        names, code = own_models.parse_models(model) if model else (tuple(registry.RECIPES), {})
        paces, config, n_workers = model_pace.measure(
            names, code, about, progress or notebook_progress(quiet))
        rows = model_pace.curve(
            own_models.inspect_models(model, about) if model else registry.table(), paces)
        return Result({"models": rows, "precision": config.precision, "n_folds": config.n_folds,
                       "n_workers": n_workers, "rows": model_pace.TRAIN_ROWS},
                      model_pace.lines(rows, config, n_workers), monospace=True)
    if model is not None:
        rows = own_models.inspect_models(model, about)
        return Result({"models": rows}, own_models.lines(rows), monospace=True)
    rows = registry.table()
    return Result({"models": rows, "settings": settings.table()},
                  [*registry.lines(rows), "", *settings.lines()], monospace=True)


@command
def doctor(competition: str = KANNADA.slug, data_dir: str | Path = "data") -> Result:
    """What this machine, or a kernel on Kaggle, has and what is missing."""
    from kit.commands import doctor as doctor_here
    from kit.commands import doctor_on_kaggle

    examine = doctor_on_kaggle.examine if doctor_on_kaggle.is_here() else doctor_here.examine
    findings = examine(competitions.get(competition), Path(data_dir))
    return Result({"findings": [finding.to_dict() for finding in findings]},
                  list(map(str, findings)), monospace=True)


# -- what the commands share -----------------------------------------------------------------------


def _name(run: str | Result) -> str:
    """A run by its name, or by what `cv` or `submit` returned."""
    return str(run.folder) if isinstance(run, Result) else str(run)


def _changed_file(run: Path, competition: str) -> list[str]:
    """What to say where the file that describes a run's competition is another one by now."""
    note = find_runs.changed_file(run, competitions.get(competition))
    return [f"note: {note}; what it was then is shown"] * bool(note)


def _report(numbers: dict[str, Any], folder: Path, data: DataFolder, *lines: str) -> Result:
    """The report in `folder`: verdict, scores, the surest mistakes, the first test images."""
    verdict = numbers["verdict"]

    def pictures() -> list[Markup]:
        shown, titled = [], Markup("<h4>{}</h4>{}").format
        if rows := numbers["mistakes"][:MISTAKES]:
            predicted, true = ([row[name] for row in rows] for name in ("predicted", "true"))
            pixels = data.train().pixels[[row["row"] for row in rows]]
            shown.append(titled("Read wrong, the surest first",
                                digits.prediction_gallery(pixels, predicted, data.competition,
                                                          true)))
        if numbers["test"]:
            rows = numbers["test"]["grid"]
            predicted = [row["predicted"] for row in rows]
            pixels = data.test().pixels[[row["index"] for row in rows]]
            shown.append(titled("The first of the test file",
                                digits.prediction_gallery(pixels, predicted, data.competition)))
        return shown

    return Result(numbers, [*verdict["points"], *lines, f"report: {folder / 'report.html'}"],
                  banners=verdict["banners"], table=_scores(numbers), pictures=pictures,
                  folder=folder)


def _scores(numbers: dict[str, Any]) -> list[list[str]]:
    """Name, accuracy and interval of each score that a report has, below a line of headings."""
    held_out, baseline = numbers["cv"], numbers["baseline"]
    estimate, extra = numbers["leaderboard_estimate"] or {}, numbers["dig_mnist"]
    rows = [("held out", held_out["oof_accuracy"], held_out["ci95"])]
    if baseline:
        rows.append((f"baseline {baseline['model']}", baseline["oof_accuracy"], baseline["ci95"]))
    if estimate.get("value") is not None:
        rows.append(("leaderboard estimate", estimate["value"],
                     [estimate["low"], estimate["high"]]))
    if extra:
        rows.append((extra["file"], extra["accuracy"], extra["ci95"]))
    return [["", "accuracy", "95\u00a0% interval"],
            *([name, percent(value), " to ".join(map(percent, bounds))]
              for name, value, bounds in rows)]
