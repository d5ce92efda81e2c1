"""Find runs that are there: by the name that a user gave, or the newest that is unfinished.

Also the data that a run was made from. Nothing is trained or changed here.
"""

import difflib
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kit.commands import blends
from kit.commands.command import expand_home
from kit.core import storage
from kit.core.config import RunConfig, differences
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data import competition as competitions
from kit.data import source as sources
from kit.data.competition import Competition, changed_settings
from kit.data.source import DataFolder
from kit.training.records import read_competition, read_config, read_data_record

# -- by name ---------------------------------------------------------------------------------------


def find_run(name: str, runs_dir: Path = Path("runs"), submissions: Path = Path("submissions"),
             others: Iterable[str] = ()) -> RunFolder:
    """The folder of a run, by name or path. KitError if there is none, or only its submission.

    others: what the caller takes as well, to be named in the fix.
    """
    for path in (Path(runs_dir) / name, Path(expand_home(name))):
        if _is_run(path):
            return RunFolder(path)
    begun = RunFolder(Path(runs_dir) / name)
    if begun.config.is_file():
        raise KitError(f"the run {name!r} in {runs_dir} was interrupted before it trained anything",
                       f"go on with it: {begun.resume_command}")
    if (blend := blends.find_blend(name, submissions)) and (about := blends.read_blend(blend)):
        raise KitError(f"{name!r} is a blend, which has no models of its own",
                       "give a run that it was made of: "
                       + ", ".join(run["name"] for run in about["runs"]))
    for folder in scored_folders(name, runs_dir, submissions)[1:]:
        if (folder / "submission.csv").is_file():
            raise KitError(f"there is no run {folder.name!r} in {runs_dir}; {folder} is only its "
                           "submission, whose report cannot be written again without the run",
                           f"read {folder / 'report.html'} as it is, say where the run lies with "
                           f"--runs-dir, or train it again: {_made_by(folder)}")
    raise KitError(f"there is no run {name!r} in {runs_dir}",
                   _choose(name, {*names_with("config.json", runs_dir), *others}))


def names_with(file: str, *parents: Path) -> set[str]:
    """The names of the folders in `parents` that hold `file`."""
    return {folder.name for parent in parents for folder in parent.glob("*")
            if (folder / file).is_file()}


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that a misspelt `name` may mean; None where none is like it."""
    return next(iter(difflib.get_close_matches(name, sorted(names), 1)), None)


def _choose(name: str, names: set[str]) -> str:
    """A fix that offers these names, the one most like `name` first."""
    if not names:
        return "make one: kit cv, or kit submit"
    choice = f"choose one of: {', '.join(sorted(names))}"
    near = nearest_name(Path(name).name, names)
    return f"did you mean {near}? Else {choice}" if near else choice


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file() and (path / "folds.csv").is_file()


def find_trained(name: str, runs_dir: Path = Path("runs"),
                 submissions: Path = Path("submissions")) -> RunFolder:
    """A folder whose models can predict: a run's, or a submission's that keeps its weights.

    By name or path; runs go first. KitError if there is none.
    """
    places = scored_folders(name, runs_dir, submissions)
    for run in map(RunFolder, places):
        if _is_run(run.path) or run.keeps_weights:
            return run
    for folder in places[1:]:
        if not (folder / "submission.csv").is_file() or blends.is_blend(folder):
            continue
        if _is_run(runs_dir / folder.name):
            run_name = shlex.quote(folder.name)
            where = "" if runs_dir == Path("runs") else f" --runs-dir {shlex.quote(str(runs_dir))}"
            fix = (f"name its run {run_name} in its place, or put that one's weights beside it: "
                   f"kit report {run_name} --keep-weights{where}")
        else:
            fix = f"train it again and keep them: {_made_by(folder)} --keep-weights"
        raise KitError(f"{folder} is a submission that does not keep its run's weights, so that "
                       "nothing can predict with it", fix)
    keep_weights = names_with("weights/folds.json", submissions)
    return find_run(name, runs_dir, submissions, keep_weights)  # which says what is amiss


def _made_by(submission: Path) -> str:
    """The command that made a submission, with its options where they are known."""
    stored = storage.read_json(submission / "config.json", "command")["command"]
    return stored if str(stored).startswith("kit submit ") else "kit submit"


def find_scored_folder(name: str, runs_dir: Path = Path("runs"),
                       submissions: Path = Path("submissions")) -> Path:
    """A run or submission folder that holds OOF probs, by name or path; runs go first."""
    places = scored_folders(name, runs_dir, submissions)
    for path in places:
        if (path / "oof.npz").is_file():
            return path
    if (begun := RunFolder(runs_dir / name)).config.is_file():
        raise KitError(f"the run {name!r} is not finished, so it has no OOF probs",
                       f"go on with it: {begun.resume_command}")
    what = "there are no OOF probs of" if any(path.is_dir() for path in places) \
        else "there is no run or submission"
    raise KitError(f"{what} {name!r} in {runs_dir} or {submissions}",
                   _choose(name, names_with("oof.npz", runs_dir, submissions)))


def scored_folders(name: str, runs_dir: Path,
                   submissions: Path = Path("submissions")) -> tuple[Path, ...]:
    """Where a run or submission may lie that is given by name or path."""
    return runs_dir / name, submissions / name, Path(expand_home(name))


def find_run_data(run: RunFolder, data_dir: Path, with_extra: bool = True) -> DataFolder:
    """The data that a run was made from. KitError where what is there now is other data.

    with_extra: whether the out-of-domain file has to be the same, too.
    """
    competition = read_competition(run.path)
    about = read_data_record(run.path)
    data = sources.data_folder(competition, data_dir, sample=about["is_sample"])
    if not data.path.is_dir():
        # Plain `kit download` would draw a sample where there is no account
        place = "sample" if about["is_sample"] \
            else "keras" if about.get("source") == "keras" \
            else "FOLDER" if competition.file else "kaggle"
        command = sources.download_command(competition, data_dir, "--from", place)
        or_file = ", or with --from and the zip or folder that you have" * (place == "kaggle")
        kind = "drawn" if about["is_sample"] else "real"
        raise KitError(f"the {kind} data that {run.name} was trained on is not in {data_dir}",
                       f"get it with {command}{or_file}; or say where it lies with --data-dir")
    ignored = () if with_extra else (competition.extra,)
    before, now = ({name: digest for name, digest in sums.items() if name not in ignored}
                   for sums in (about["sha256"], data.sha256))
    if before != now:
        raise KitError(f"{data.path} is not the data that {run.name} was trained on: "
                       f"{sources.changed_files(before, now)}",
                       "put the old data back, or train on what is there now under another name: "
                       "--run")
    return data


def changed_file(run: Path, given: Competition) -> str:
    """How the file that describes a run's competition has changed since, in words; empty where it
    has not, is not there any more, or there is none.

    given: the competition of this command; its file goes first if it is of the same name.
    """
    recorded = read_competition(run)
    now = given if given.file and given.slug == recorded.slug else recorded
    if now is recorded and recorded.file and Path(expand_home(recorded.file.path)).is_file():
        try:
            now = competitions.get(recorded.file.path)
        except KitError as error:
            return f"{recorded.file.path} is not as it was: {error.message}"
    changed = changed_settings(recorded, now)
    if now.file is None or not changed:
        return ""
    return f"{now.file.path} has another {', '.join(changed)} than when {run.name} began"


# -- the newest unfinished one ---------------------------------------------------------------------


def newest_unfinished(competition: Competition, given: dict[str, Any], data_dir: Path,
                      runs_dir: Path, submissions: Path | None) -> str:
    """Name of the newest unfinished run that fits the options `given`, the data and the code."""
    data, why = sources.find_data(competition, data_dir), ""
    given = {"competition": competition.slug, **given}
    for path, stored in _unfinished(runs_dir, submissions):
        changed = differences(stored.to_dict(), stored.to_dict() | given) \
            or _changed(path, stored, data)
        if not changed:
            return path.name
        why = why or f"; the newest, {path.name}, was made differently: {'; '.join(changed)}"
    raise KitError(f"there is no unfinished run in {runs_dir} to go on with{why}",
                   "leave --resume out to start one")


def find_unfinished(config: RunConfig, data: DataFolder, runs_dir: Path) -> str | None:
    """Name of the newest run with this config, data and code that has no report."""
    return next((path.name for path, stored in _unfinished(runs_dir)
                 if not differences(stored.to_dict(), config.to_dict())
                 and not _changed(path, stored, data)), None)


def _unfinished(runs_dir: Path,
                submissions: Path | None = None) -> Iterator[tuple[Path, RunConfig]]:
    """Runs without a report, the newest first; then those without a submission in `submissions`.

    Runs that are training right now are left out.
    """
    there = [path.parent for path in Path(runs_dir).glob("*/config.json")]
    there.sort(key=lambda run: -(run / "config.json").stat().st_mtime)
    without = [run for run in there if not (run / "report.json").is_file()]
    if submissions is not None:
        submitted = [path.parent.name for path in submissions.glob("*/submission.csv")]
        without += [run for run in there if run not in without and run.name not in submitted]
    for run in without:
        if RunFolder(run).is_in_use:
            continue
        try:
            stored = read_config(run)
        except KitError:
            continue
        yield run, stored


def _changed(run: Path, stored: RunConfig, data: DataFolder) -> list[str]:
    """What besides the options has changed since a run began, so that it cannot be resumed."""
    from kit.core import backend
    from kit.training import run_record

    try:
        return [*filter(None, [changed_file(run, data.competition)]),
                *(what for what, _ in run_record.changes(RunFolder(run), stored.to_dict(),
                                                         data.sha256, backend.load()))]
    except KitError as error:
        return [error.message]
