"""Turn the options of `kit cv` and `kit submit` into a `Request`.

A `Request` is a run to make or to continue: the config with every default filled in, the data, and
the run's folder. The user is told what was chosen for them. Nothing is trained here.
"""

import contextlib
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from kit.commands import blends
from kit.commands.command import check_arguments
from kit.commands.find_runs import (
    changed_file,
    find_run_data,
    find_scored_folder,
    find_unfinished,
    names_with,
    nearest_name,
    newest_unfinished,
    scored_folders,
)
from kit.core import os_errors
from kit.core.config import (
    FREE_TO_CHANGE,
    OPTIONS,
    RunConfig,
    differences,
    option_name,
)
from kit.core.durations import parse_duration
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.core.run_folder import RunFolder, check_run_name
from kit.data import competition as competitions
from kit.data import source as sources
from kit.data.competition import Competition
from kit.data.folds import HARDER_FOLDS, HARDER_NOTE
from kit.data.source import DataFolder
from kit.ensembling.blend import read_against
from kit.training import kept_weights, own_models, planning, settings
from kit.training.planning import TimeTarget
from kit.training.records import read_config, untrained

if TYPE_CHECKING:
    from kit.pipeline import TrainedRun
    from kit.reporting.against import Against


@dataclass(frozen=True)
class TrainingOptions:
    """The options that `kit cv` and `kit submit` share, by their names there (see `kit cv --help`).

    None: not given. A new run then has RunConfig's default, a resumed one what it began with.
    KitError where a value is not of its kind.
    """

    data_dir: str | Path = "data"
    model: str | None = None  # NAME or FILE.py:FUNCTION, or several with commas
    augment: str | None = None  # FILE.py:NAME
    setting: str | None = None
    folds: int | None = None
    split: str | None = None
    seeds: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    precision: str | None = None
    tta: int | None = None
    executor: str | None = None
    threads: int | None = None
    time_budget: str | None = None  # 110m, 2h, 90s
    seed: int | None = None
    run: str | None = None
    resume: bool = False
    force: bool = False
    break_lock: bool = False
    limit: int | None = None
    class_prior: str | None = None
    self_train: int | None = None
    train_extra: bool | None = None
    tensorboard: bool | None = None
    runs_dir: str | Path = "runs"

    def __post_init__(self) -> None:
        values = check_arguments(vars(self), get_type_hints(type(self)), "see kit cv --help")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def given(self) -> dict[str, Any]:
        """The given fields of RunConfig. KitError for an unknown model or a bad duration."""
        values: dict[str, Any] = {}
        code: dict[str, str] = {}  # the files of the user's own
        for each in fields(RunConfig):
            value = getattr(self, OPTIONS.get(each.name, each.name), None)
            if value is not None:
                values[each.name] = value
        if self.model is not None:
            values["models"], code = own_models.parse_models(self.model)
        if self.augment is not None:
            values["augment"], more = own_models.parse_augment(self.augment)
            own_models.add_code(code, more)
        if code:
            values["code"] = code
        if self.split == "harder" and self.folds is None:
            values["n_folds"] = HARDER_FOLDS
        if self.time_budget is not None:
            values["time_budget"] = parse_duration(self.time_budget)
        return values


@dataclass(frozen=True)
class Request:
    """A run to make or to continue."""

    config: RunConfig
    data: DataFolder
    run: RunFolder  # for a new run without a name of the user's: the first one to try
    resume: bool
    force: bool  # replace a run of that name
    named: bool = True  # the user named the run, or it exists
    time_target: TimeTarget = field(default_factory=TimeTarget)  # of a new run
    against: "Against | None" = None  # what a new run is compared with, fold by fold

    def cv(self, progress: Progress) -> "TrainedRun":
        """Train and report. KitError where a blend has the name of a new run."""
        from kit import pipeline

        if not self.resume and (blend := blends.find_blend(self.run.name)):
            raise KitError(f"{self.run.name!r} is a blend, and by that name commands would find it "
                           "in place of the run",
                           "choose another name with --run, or remove the blend first (kit runs "
                           f"remove {shlex.quote(str(blend))})")
        with self._reserved() as run:
            return pipeline.cv(self.config, self.data, run, progress, self.resume,
                               force=self.force, time_target=self.time_target,
                               against=self.against)

    def submit(self, submissions: Path, upload: bool, message: str, progress: Progress,
               keep_weights: bool = False) -> tuple["TrainedRun", Path, list[str]]:
        """`cv`, then the submission folder and its row in the ledger; `upload` hands it in, too.

        keep_weights: also put the folds' weights into the folder, so that it can predict.
        Returns the run, the submission folder, and what there is to say about it.
        """
        from kit import pipeline
        from kit.kernel.upload import check_takes_files
        from kit.reporting.against import resume_against

        if self.config.split == "harder":
            raise KitError(HARDER_NOTE,
                           "choose with kit cv --split harder, then submit without it")
        folder = submissions / self.run.name
        if not self.force and blends.is_blend(folder):
            raise KitError(f"{folder} is a blend, and the run's submission would take its place",
                           f"remove that first (kit runs remove {shlex.quote(str(folder))})"
                           if self.resume else
                           "replace it with --force, or choose another name with --run")
        if self.resume and untrained(self.run, self.config) \
                and (against := resume_against(self.run, self.data, self.config)):
            raise KitError(f"the comparison of {self.run.name} with {against.other.name} is not "
                           "finished, and may end before all folds are trained",
                           f"finish that first: {self.run.resume_command}")
        if upload:
            check_takes_files(self.data.competition)
        if keep_weights:
            parameters = sum(own_models.recipe_of(self.config, name).parameters
                             for name in self.config.models)
            kept_weights.check_size(parameters * self.config.n_seeds * self.config.n_folds)
        kept = RunFolder(folder).keeps_weights
        with self._reserved() as run:
            trained = pipeline.cv(self.config, self.data, run, progress, self.resume,
                                  force=self.force, time_target=self.time_target)
            folder = pipeline.submit(trained, submissions)
        about, lines = self.data.competition, []
        if keep_weights:
            progress.say("keeping the folds' weights, and predicting the test file with them")
            lines = [keep_run_weights(trained, folder)]
        elif kept and not RunFolder(folder).keeps_weights:
            lines = [f"the weights in {RunFolder(folder).weights} were those of other folds, and "
                     "are removed; --keep-weights keeps these"]
        return trained, folder, [*hand_in(folder, trained.report, about, upload, message, progress),
                                 *lines]

    @contextlib.contextmanager
    def _reserved(self) -> Iterator[RunFolder]:
        """The run's folder. If the user gave no name, it is made now, so that nobody else takes it.

        A folder made here is removed again if nothing was written into it.
        """
        run = self.run
        if not self.named:
            with os_errors.disk_errors(run.path, "write into"):
                run.path.parent.mkdir(parents=True, exist_ok=True)
                # If the name is taken, a number is appended.
                for name in (run.name, *(f"{run.name}-{n}" for n in range(2, 1000))):
                    run = replace(run, path=run.path.with_name(name))
                    with contextlib.suppress(FileExistsError):
                        run.path.mkdir()
                        break
                else:
                    raise KitError(f"{self.run.path} and the next 999 names are taken",
                                   "name the run: --run NAME")
        try:
            yield run
        finally:
            if not self.named:
                with contextlib.suppress(OSError):
                    run.path.rmdir()


def keep_run_weights(trained: "TrainedRun", submission: Path) -> str:
    """Keep a run's weights in the folder of its submission; a line that says so."""
    from kit import pipeline

    n_bytes, changed = pipeline.keep_weights(trained, submission)
    rows = len(trained.results.data.test())
    return (f"weights: {RunFolder(submission).weights}, {n_bytes / 1e6:.1f} MB; rounded to float16 "
            f"they read {changed} of {rows:,} test rows otherwise; to predict with them: "
            f"kit predict {shlex.quote(str(submission))} --test FILE --out FILE")


def hand_in(folder: Path, report: dict[str, Any], competition: Competition, upload: bool,
            message: str, progress: Progress) -> list[str]:
    """Enter a submission into the ledger, and upload it if asked to; lines that say so.

    report: the folder's report.json.
    """
    from kit import ledger
    from kit.kernel.upload import submit_file

    ledger.record_submission(folder, report)
    file = folder / "submission.csv"
    lines = [f"submission: {file}"]
    if upload:
        lines += submit_file(file, competition, message, progress=progress.say).lines()
    return lines


def open_request(competition: Competition, options: TrainingOptions, progress: Progress,
                 fetch: bool = False, submissions: Path | None = None,
                 against: str | None = None, difference: float | None = None) -> Request:
    """The request of `kit cv` or `kit submit`. KitError for options that cannot be met.

    Without a model and a setting, a setting is chosen that suits the data and the machine; the
    options given override the setting's. With `resume` the run of that name is continued, or
    without a name the newest unfinished one, with the options in its config.json; options given
    must agree with those, except the ones in FREE_TO_CHANGE.

    fetch: get the data first. submissions: the folder in which a finished run has its submission.
    against: the run or submission that a new run is compared with while it trains, in the same
    folds; a resumed one must have begun with it. difference: the least that matters then.
    """
    began = time.time()
    if options.resume and options.force:
        raise KitError("--resume goes on with a run and --force replaces it", "give one of the two")
    if options.run is not None:
        check_run_name(options.run)
    data_dir, runs_dir = Path(options.data_dir), Path(options.runs_dir)
    given = options.given()
    other = None
    if against is not None and not options.resume:
        other = _open_against(against, difference, options)
        given = {**given, **other.fold_options(given)}
    chosen = settings.get(options.setting) if options.setting else None
    config = RunConfig(competition.slug, **given)
    fetched = sources.download(competition, None, data_dir, progress=progress) if fetch else None
    if options.resume:
        if chosen:  # but for its epochs, which may have been fitted to the machine
            given = {"models": chosen.models, "n_seeds": chosen.n_seeds} | given
        begun = _resume(competition, options.run, given, data_dir, runs_dir, submissions)
        if against is not None:
            _check_begun_against(begun.run, against, difference, runs_dir)
        return replace(begun, run=replace(begun.run, break_lock=options.break_lock))
    data = fetched or sources.find_data(competition, data_dir)
    if other:
        other.folds(data)  # or it is refused, before the pace is measured
    if config.train_extra and not data.file(competition.require_extra()):
        raise KitError(f"there is no {competition.extra} in {data.path}",
                       f"put {competition.extra} there, or leave --train-extra out")
    given = _without_what_does_not_suit(config, data, other is not None) | given
    time_target = TimeTarget(
        named=True, keep_epochs="epochs" in given, began=began, given=given,
        deadline=None if config.time_budget is None else began + config.time_budget)
    if options.model is None and chosen is None:
        suitable, why = settings.suitable(data.is_sample, config.limit is not None)
        configs = {each: RunConfig(competition.slug, **{**each.options(), **given})
                   for each in suitable}
        time_target = replace(time_target, named=False)
        chosen, time_target, why = planning.choose_setting(configs, data, time_target, why)
        progress.say(f"setting: {chosen.name}, {chosen.about}, {why}; choose with --setting or "
                     "--model")
    if chosen:
        config = RunConfig(competition.slug, **{**chosen.options(), **given})
        time_target = replace(time_target, setting=chosen)
    if not options.force and not options.run \
            and (unfinished := find_unfinished(config, data, runs_dir)):
        progress.say(f"the run {unfinished} has the same options and is not finished: continue it "
                     f"with --resume --run {shlex.quote(unfinished)}")
    name = options.run or f"{'+'.join(config.models)}-{datetime.now():%Y%m%d-%H%M%S}"
    return Request(config, data, RunFolder(runs_dir / name, options.break_lock), options.resume,
                   options.force, options.run is not None, time_target, other)


def _without_what_does_not_suit(config: RunConfig, data: DataFolder,
                                compared: bool) -> dict[str, Any]:
    """What of any setting is turned off in this run, unless the user asks for it.

    compared: with another run, after each round of folds.
    """
    off: dict[str, Any] = {}
    harder = config.split == "harder"  # than any writer that is trained on, that file's included
    if compared or config.limit or harder:
        off["self_train"] = 0  # it begins when all folds are trained, to label the test rows well
    if config.limit or harder or data.extra() is None:  # --limit: a quick look, at few rows
        off["train_extra"] = False
    return off


# -- a run to compare with -------------------------------------------------------------------------


def _open_against(name: str, difference: float | None, options: TrainingOptions) -> "Against":
    """The run `name`, to compare a new one with. KitError for options that don't go with that."""
    from kit.reporting.against import open_against

    runs_dir = Path(options.runs_dir)
    folder = find_scored_folder(name, runs_dir)
    if blend := blends.read_blend(folder):
        raise KitError(f"{name!r} is a blend, which has no folds of its own",
                       "compare with a run that it was made of: "
                       f"{', '.join(str(run['name']) for run in blend['runs'])}; or train all "
                       "folds, then compare: kit compare")
    against = open_against(folder, difference)
    if options.self_train:
        raise KitError("self-training begins when all folds are trained, and --against may stop "
                       "before", "leave one of the two out")
    if options.run and (runs_dir / options.run).resolve() == folder.resolve():
        raise KitError(f"{against.other.name} would be compared with itself",
                       "give the new run another name: --run")
    return against


def _check_begun_against(run: RunFolder, name: str, difference: float | None,
                         runs_dir: Path) -> None:
    """KitError unless `run` began with a comparison with `name`, and by `difference`, if given.

    Whether `name` is still there is of no account here.
    """
    stored = read_against(run)
    if stored is None:
        raise KitError(f"the run {run.name!r} was begun without a comparison",
                       "name another run with --run, or leave --against and --difference out and "
                       "compare when it is trained: kit compare")
    if Path(stored["folder"]) not in [path.resolve() for path in scored_folders(name, runs_dir)]:
        raise KitError(f"the run {run.name!r} is compared with {stored['run']} in "
                       f"{stored['folder']}, not with {name}", "leave --against out")
    if difference not in (None, stored["difference"]):
        raise KitError(f"the run {run.name!r} was begun with --difference "
                       f"{stored['difference']:g}, not {difference:g}", "leave --difference out")


# -- resuming --------------------------------------------------------------------------------------


def _resume(competition: Competition, name: str | None, given: dict[str, Any], data_dir: Path,
            runs_dir: Path, submissions: Path | None) -> Request:
    """The run `name`, or the newest unfinished one, with the options in its config.json.

    given: the options of this command. KitError if one of them differs and must not change.
    """
    name = name or newest_unfinished(competition, given, data_dir, runs_dir, submissions)
    folder = RunFolder(runs_dir / name)
    if not folder.config.is_file():
        near = nearest_name(name, names_with("config.json", runs_dir))
        raise KitError(f"there is no run {name!r} in {runs_dir} to resume",
                       f"did you mean {near}? Else leave --resume out to start it" if near
                       else "leave --resume out to start it")
    stored = read_config(folder.path)
    # Kannada's slug may also mean that --competition was not given.
    if competition.slug not in (stored.competition, competitions.KANNADA.slug):
        given = {"competition": competition.slug, **given}
    if what := changed_file(folder.path, competition):
        raise KitError(f"the run {name!r} was made differently: {what}",
                       "put the old file back, or leave --resume out and give another --run to "
                       "start a new one")
    _check_code(folder, stored.code, given.get("code", {}))
    given = {each: value for each, value in given.items() if each != "code"}
    if changed := differences(stored.to_dict(), stored.to_dict() | given):
        names = [option_name(each) for each, value in given.items()
                 if differences({each: getattr(stored, each)}, {each: value})]
        raise KitError(f"the run {name!r} was made differently: {'; '.join(changed)}",
                       f"leave {', '.join(names)} out to continue it as it began, or leave "
                       "--resume out and give another --run to start a new one")
    free = {each: value for each, value in given.items() if each in FREE_TO_CHANGE}
    config = replace(stored, **free)
    return Request(config, find_run_data(folder, data_dir), folder, resume=True, force=False)


def _check_code(run: RunFolder, stored: dict[str, str], given: dict[str, str]) -> None:
    """KitError where a file of the user's own is no longer what the run began with.

    It need not be there any more: the run has a copy. given: text by path, of files named again.
    """
    now = {Path(path).name: text for path, text in given.items()}
    for path, text in stored.items():
        name, here = Path(path).name, ""
        if name not in now and Path(path).is_file():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                here = Path(path).read_text("utf-8-sig")
        if now.get(name, here or text) != text:
            words = shlex.join(["cp", str(run.path / name), path])
            raise KitError(f"{path} has changed since the run {run.name!r} began",
                           f"put the run's copy back ({words}), or leave --resume out and give "
                           "another --run to start a new one")
