"""A whole run: `cv` trains and reports, `submit` writes the submission folder as well.

`submit_blend` makes one submission of several finished runs. This is the rooms in their order, and
nothing else: data, training, ensembling, reporting.
"""

import contextlib
import multiprocessing
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from kit.core import backend, provenance, storage
from kit.core.config import RunConfig, differences, matches_type
from kit.core.errors import KitError
from kit.core.progress import ForwardingProgress, Progress
from kit.core.run_folder import RunFolder, finished_folds
from kit.data import folds as folds_module
from kit.data.source import DataFolder
from kit.ensembling import blend, blend_runs, submission
from kit.ensembling.blend import RunResults
from kit.ensembling.blend_runs import FinishedRun
from kit.training import executors, planning
from kit.training.executors import Executor
from kit.training.plan import Plan, make_jobs, self_training_jobs
from kit.training.planning import Cost, Schedule, TimeTarget
from kit.training.records import SETTLED, read_config, read_data_record, read_settled

TIMING = "timing.json"
WRITE_SECONDS = 10.0  # between two writes of timing.json
FOLDER_OPTIONS = ("--data-dir", "--runs-dir", "--submissions")


def cv(config: RunConfig, data: DataFolder, run: RunFolder, progress: Progress | None = None,
       resume: bool = False, leave_out: frozenset[str] = frozenset(), force: bool = False,
       time_target: TimeTarget | None = None, baseline_first: bool = False) -> RunResults:
    """Train every fold of `config` on `data`, write all artifacts into `run`, and report.

    resume: continue what is in `run`. force: replace it, once nothing but the training can fail any
    more. leave_out: keys of jobs (model/seed_s/fold_k) that are not trained; only together with a
    time budget. baseline_first: train the baseline before the rest is measured and planned, so that
    there is something to hand in whatever happens then. KitError where `run` is another run.
    """
    # Python's `spawn` runs a script again in each worker: one without a guard would start a run in
    # each.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise KitError("this script trains as soon as it is imported, as each training process "
                       "does", 'put what it does below: if __name__ == "__main__":')
    progress, time_target = progress or Progress(), time_target or TimeTarget()
    time_target = replace(time_target, began=time_target.began or time.time())
    deadline = time.time() + config.time_budget if config.time_budget is not None else None
    timing: dict[str, Any] = {}
    with _timed(timing, "read"):
        train, test = data.train(), data.test()
    for note in (*train.notes, *test.notes):
        progress.say(note)
    with _timed(timing, "folds"):
        folds = folds_module.make_folds(
            train.labels, data.competition, config.n_folds, config.split, config.seed, config.limit,
            data.writer_block)
    settled, why = executors.settle(config)
    if note := executors.fallback_note(config):
        progress.say(note)
    if config.tensorboard:
        from kit.reporting.tensorboard import TensorBoardProgress

        progress = TensorBoardProgress(progress, run.path / "tensorboard", train, data.competition)
    with contextlib.ExitStack() as stack:
        executor, planned = None, None
        if not baseline_first and (force or not run.config.is_file()):
            executor = stack.enter_context(Executor(settled))
            with _timed(timing, "plan"):  # before anything is written or removed: it may refuse
                planned = planning.decide(executor, settled, make_jobs(config, settled.precision),
                                          data, time_target, progress, deadline)
        stack.enter_context(run.lock())
        if force:
            run.clear()
        if planned:
            planning.save(run.path / planning.SCHEDULE, *planned)
        resumed = _open_run(run, _describe(config, data, settled), resume)
        if resumed:
            settled = _settled_at_the_start(run, config, settled)
            _, slow = backend.precision_support(settled.precision)
            why = f"as it began; {slow}: slow, but the folds stay comparable" if slow else "as it began"
        if not run.folds.is_file():
            folds_module.save_folds(run.folds, folds)
        blend.checked_folds(run, data, config)
        progress.say(f"{'resuming' if resumed else 'training'} {run.name}: {', '.join(config.models)} on "
                     f"{config.n_folds} folds, {settled.precision} ({why})"
                     f"{', drawn sample' if data.is_sample else ''}")
        jobs = tuple(job for job in make_jobs(config, settled.precision) if job.key not in leave_out)
        executor = executor or stack.enter_context(Executor(settled))
        earlier = _read_timing(run)["seconds"] if resumed and (run.path / TIMING).is_file() else {}
        timing["seconds"] = {stage: earlier.get(stage, 0.0) + timing["seconds"].get(stage, 0.0)
                             for stage in {**earlier, **timing["seconds"]}}
        timed = _TimingWriter(progress, run.path / TIMING, timing, earlier.get("train", 0.0))
        # If the baseline is done and nothing is planned, an earlier process died while it measured
        # the pace.
        baseline = tuple(job for job in jobs if job.model not in config.models) if baseline_first else ()
        died = bool(baseline) and {job.key for job in baseline} <= finished_folds(run.path)
        if baseline:
            executors.run_jobs(Plan(settled, data, run.path, baseline), timed, deadline, executor)
        if resumed and not baseline_first:
            time_target = replace(time_target, keep_epochs=config.epochs is not None)
        schedule, costs = planned or _schedule(executor, Plan(settled, data, run.path, jobs),
                                               time_target, timed, deadline, measured=not died)
        timing |= {"predicted_seconds": schedule.predicted, "epochs": schedule.epochs}
        jobs = tuple(job for job in schedule.apply(jobs) if job.key not in schedule.left_out)
        partial = bool(leave_out or schedule.left_out)
        plan = Plan(settled, data, run.path, jobs)
        seconds = {job.key: costs[job.model].of(job.epochs) for job in jobs if job.model in costs}
        complete = executors.run_jobs(plan, timed, deadline, executor, seconds) and not partial
        for n in range(1, config.self_train + 1):
            plan = replace(plan, jobs=self_training_jobs(plan))
            complete = complete and _self_train(plan, n, timed, deadline, executor)
        timed.write()
        if not complete:
            progress.say("the time budget left folds out: this ensemble is partial (complete: false)")
        with _timed(timing, "blend"):
            results = blend.gather(run, data, timing)
            storage.write_npz(run.oof, row=results.folds.rows, probs=results.oof)
            if results.test is not None:
                storage.write_npz(run.test, id=test.ids, probs=results.test)
        _report(results, run.path)
        storage.write_json(run.path / TIMING, timing)
    return results


def _schedule(executor: Executor, plan: Plan, time_target: TimeTarget, progress: Progress,
              deadline: float | None, measured: bool) -> tuple[Schedule, dict[str, Cost]]:
    """The run's schedule and its costs: from its schedule.json, or planned now and saved there."""
    path, config, done = plan.run / planning.SCHEDULE, plan.config, finished_folds(plan.run)
    todo = [job for job in plan.jobs if job.key not in done]
    if path.is_file() and (deadline is None or any(plan.folder(job).is_dir() for job in plan.jobs)):
        # Under a time budget that was too short to begin any fold, the run is planned anew instead.
        stored, costs = planning.load(path, config.models)
        schedule = planning.resume(executor, config, stored.apply(todo), stored, costs, progress,
                                   deadline)
        return schedule, costs
    schedule, costs = planning.decide(executor, config, todo, plan.data, time_target, progress,
                                      deadline, measured)
    planning.save(path, schedule, costs)
    return schedule, costs


def _self_train(plan: Plan, n: int, progress: Progress, deadline: float | None,
                executor: Executor) -> bool:
    """Round `n` of self-training: every fold goes on, with test rows that the ensemble labelled.

    Whether all folds got done.
    """
    run = RunFolder(plan.run)
    if not run.guesses(n).is_file():
        labels = blend.gather(run, plan.data, {}, rounds=n - 1).submitted.argmax(1).astype("uint8")
        storage.write_npz(run.guesses(n), id=plan.data.test().ids, label=labels)
    progress.say(f"self-training, round {n}: every fold goes on with the test rows as the ensemble "
                 "reads them")
    return executors.run_jobs(plan, progress, deadline, executor)


class _TimingWriter(ForwardingProgress):
    """Passes progress on, and keeps timing.json current, since a run may be killed at any time."""

    def __init__(self, progress: Progress, path: Path, timing: dict[str, Any],
                 earlier: float) -> None:
        """earlier: seconds that the run had trained when it was resumed."""
        super().__init__(progress)
        self.path, self.timing = path, timing
        self.began, self.last = time.perf_counter() - earlier, time.perf_counter()

    def handle(self, event: dict[str, Any]) -> None:
        super().handle(event)
        if event["event"] == "done" or time.perf_counter() - self.last > WRITE_SECONDS:
            with contextlib.suppress(KitError):  # a full disk must not stop the training over this
                self.write()

    def write(self) -> None:
        self.last = time.perf_counter()
        self.timing.setdefault("seconds", {})["train"] = self.last - self.began
        storage.write_json(self.path, self.timing)


def submit(config: RunConfig, data: DataFolder, run: RunFolder, submissions: Path,
           progress: Progress | None = None, resume: bool = False, force: bool = False,
           time_target: TimeTarget | None = None) -> Path:
    """`cv`, then write the submission folder `submissions/<run>/`, and return it."""
    results = cv(config, data, run, progress, resume, force=force, time_target=time_target)
    return write_submission_folder(results, run, submissions)


def write_submission_folder(results: RunResults, run: RunFolder, submissions: Path) -> Path:
    """Write the submission folder of a finished run, its `submission.csv` last and validated."""
    folder = Path(submissions) / run.name
    for name in ("config.json", "report.json", "report.html"):
        storage.write_bytes(folder / name, storage.read_bytes(run.path / name))
    _write_submission(results, folder)
    return folder


def _write_submission(results: RunResults, folder: Path) -> None:
    """Write the probs and the labels of a run into its submission folder."""
    if results.data.is_sample:
        storage.write_text(folder / ".gitignore", "*\n")  # a sample's is not to be committed
    else:
        storage.remove(folder / ".gitignore")  # of a sample's run by the same name
    scored = np.isfinite(results.oof).all(1)
    folds = results.folds
    arrays = {"row": folds.rows, "probs": results.oof.astype("float16"), "label": folds.labels,
              "fold": folds.fold}
    if folds.writers is not None:
        arrays["writer"] = folds.writers
    storage.write_npz(folder / "oof.npz", **{name: array[scored] for name, array in arrays.items()})
    ids = results.data.test().ids
    storage.write_npz(folder / "test.npz", id=ids, probs=np.asarray(results.test).astype("float16"))
    submission.write_submission(folder / "submission.csv", ids, results.submitted, results.competition)
    found = submission.validate(folder / "submission.csv", results.competition, ids)
    if found.problems:
        raise KitError(f"the submission just written is not acceptable: {found.problems[0]}",
                       "this is a bug: please report it")


def submit_blend(runs: Sequence[FinishedRun], weights: str | Sequence[float], class_prior: str,
                 data: DataFolder, folder: Path, progress: Progress | None = None) -> None:
    """Blend finished runs, and write the submission folder, which is all that a blend has."""
    asked = weights if isinstance(weights, str) else ",".join(f"{each:g}" for each in weights)
    words = ["kit", "blend", *[run.name for run in runs], "--run", folder.name]
    words += ["--weights", asked] * (asked != blend_runs.EQUAL)
    words += ["--class-prior", class_prior] * (class_prior != RunConfig.class_prior)
    about = {"config": {"competition": data.competition.slug, "class_prior": class_prior,
                        "models": blend_runs.models_of(runs)},
             "command": shlex.join(words), **_origin(data),
             "environment": {"python": platform.python_version(), "system": platform.platform(),
                             "versions": {"numpy": np.__version__}}}
    results = _blend(runs, asked, data, folder.name, about)
    blend = cast(blend_runs.Blend, results.blended)
    if progress:
        progress.say("weights: " + ", ".join(f"{each.name} {each.weight:.4g}"
                                             for each in blend.runs))
    storage.write_json(folder / "config.json", {**about, "blend": {"weights": asked, "runs": [
        {"name": each.name, "weight": each.weight, "sha256": each.run.sha256}
        for each in blend.runs]}})
    _report(results, folder)
    _write_submission(results, folder)


def report_blend(folder: Path, runs: Sequence[FinishedRun], data: DataFolder) -> None:
    """Write a blend's report and submission again, from the `runs` that its config.json names."""
    about = storage.read_json(folder / "config.json", "config", "blend", "command", "environment")
    results = _blend(runs, str(about["blend"].get("weights")), data, folder.name, about)
    _report(results, folder)
    _write_submission(results, folder)


def _blend(runs: Sequence[FinishedRun], weights: str, data: DataFolder, name: str,
           about: dict[str, Any]) -> RunResults:
    timing: dict[str, Any] = {}
    config = {**about["config"], "command": about["command"], "environment": about["environment"],
              "parameters": {}}
    with _timed(timing, "blend"):
        return blend_runs.blend_runs(name, runs, weights, data, config, timing)


def report(run: RunFolder, data: DataFolder, submissions: Path | None = None) -> RunResults:
    """Write a finished run's report again, and its submission folder if there is one."""
    with run.lock():
        timing = _read_timing(run)
        results = blend.gather(run, data, timing)
        _report(results, run.path)
    if submissions is not None and (Path(submissions) / run.name).is_dir():
        write_submission_folder(results, run, submissions)
    return results


def _report(results: RunResults, folder: Path) -> None:
    from kit.reporting.report import build_report, render_report

    numbers = build_report(results)
    storage.write_json(folder / "report.json", numbers)
    storage.write_text(folder / "report.html", render_report(numbers, results))


@contextlib.contextmanager
def _timed(timing: dict[str, Any], stage: str) -> Iterator[None]:
    """Add the seconds of wall time of a stage to `timing["seconds"]`."""
    began = time.perf_counter()
    yield
    seconds = timing.setdefault("seconds", {})
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began


def _read_timing(run: RunFolder) -> dict[str, Any]:
    timing = storage.read_json(run.path / TIMING, "seconds")
    seconds = timing["seconds"]
    if not isinstance(seconds, dict) \
            or not all(matches_type(s, float) and 0 <= s < 1e9 for s in seconds.values()):
        raise storage.damaged(run.path / TIMING, "its seconds are no numbers")
    return timing


# -- what a run was made from ---------------------------------------------------------------------------------------


def _open_run(run: RunFolder, about: dict[str, Any], resume: bool) -> bool:
    """Write config.json, or check that the one there is of this same run; whether it is resumed."""
    if not run.config.is_file():
        if finished_folds(run.path):
            raise KitError(f"{run.path} has trained folds, but not the config.json that says how they were trained",
                           "train them again with --force, or choose another name with --run")
        storage.write_json(run.config, about)
        return False
    if not resume:
        raise KitError(f"the run {run.name!r} exists in {run.path.parent}",
                       "continue it with --resume, replace it with --force, or choose another name with --run")
    changed = changes(run, about["config"], about["data"]["sha256"], about["settled"]["backend"])
    if changed:
        raise KitError(f"the run {run.name!r} was made differently: {'; '.join(what for what, _ in changed)}",
                       f"{'; '.join(dict.fromkeys(fix for _, fix in changed))}; or start a new run with --run")
    stored = storage.read_json(run.config)
    storage.write_json(run.config, {**stored, "config": about["config"]})
    return True


def changes(run: RunFolder, config: dict[str, Any], sha256: dict[str, str], keras: str) -> list[tuple[str, str]]:
    """What has changed since a run began, so that it cannot be continued; each change with its fix.

    config, sha256 (of the tables), keras (its backend): as they are now.
    """
    stored, began = storage.read_json(run.config, "code"), read_config(run.path).to_dict()
    settled = read_settled(run.path)
    changed = [(what, "give the same options") for what in differences(began, config)]
    if files := changed_files(read_data_record(run.path)["sha256"], sha256):
        changed.append((f"data: {files}", "put the old data back"))
    if stored["code"] != provenance.code_hash():
        commit = re.fullmatch("[0-9a-f]{40}", str(stored.get("git_commit")))
        changed.append(("the training code", f"go back to the kit's commit {commit[0]}" if commit else
                        "go back to the kit's code of then"))
    if (before := settled["backend"]) != keras:
        changed.append((f"KERAS_BACKEND: {before} → {keras}", f"set KERAS_BACKEND={before}"))
    if run.guesses(1).is_file() and began["class_prior"] != config["class_prior"]:
        changed.append((f"class_prior: {began['class_prior']} → {config['class_prior']}, and folds have learnt from it",
                        "give the same options"))
    return changed


def changed_files(before: dict[str, str], now: dict[str, str]) -> str:
    """Which tables are not the same as before, in words; empty where all are."""
    names = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    return f"{', '.join(names)} {'is another file' if len(names) == 1 else 'are other files'}" if names else ""


def _settled_at_the_start(run: RunFolder, config: RunConfig, settled: RunConfig) -> RunConfig:
    """`settled` with precision and threads as the run began; its executor, too, if none is named.

    KitError where this machine does not have that precision: folds of two precisions cannot be
    compared.
    """
    began = read_settled(run.path)
    speed, why = backend.precision_support(began["precision"])
    if speed == backend.NONE:
        raise KitError(f"the run {run.name!r} was begun in {began['precision']}: {why}",
                       "resume it on a machine like the one that it was begun on, or start a new run with --run")
    names = set(SETTLED)
    if config.executor != "auto" or executors.fallback_note(config):
        names.remove("executor")
    return executors.settle(replace(settled, **{name: began[name] for name in names}))[0]


def _describe(config: RunConfig, data: DataFolder, settled: RunConfig) -> dict[str, Any]:
    """The content of config.json: the config, and what else the result depends on."""
    environment = backend.describe()
    typed = sys.argv[1:] if Path(sys.argv[0]).name in ("kit", "__main__.py") else ["cv", *config.options()]
    # A report is handed on, and this machine's folders are of no use to whoever reads it.
    typed = [word for before, word in pairwise(["", *typed])
             if before not in FOLDER_OPTIONS and word.partition("=")[0] not in FOLDER_OPTIONS]
    return {"config": config.to_dict(), "command": shlex.join(["kit", *typed]),
            **_origin(data), "code": provenance.code_hash(), "environment": environment,
            "settled": {**{name: getattr(settled, name) for name in SETTLED}, "backend": environment["backend"]}}


def _origin(data: DataFolder) -> dict[str, Any]:
    """From which data, by which commit, when and where a result was made: a part of config.json."""
    return {"data": {"source": data.source, "is_sample": data.is_sample, "sha256": data.sha256},
            "git_commit": provenance.source_commit(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.node()}
