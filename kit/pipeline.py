"""A whole run: `cv` trains and reports, `submit` writes the submission folder.

`submit_blend` makes one submission of several finished runs. This is the rooms in their order, and
nothing else: data, training, ensembling, reporting.
"""

import contextlib
import functools
import platform
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import ForwardingProgress, Progress
from kit.core.run_folder import RunFolder, finished_folds
from kit.data import folds as folds_module
from kit.data.source import DataFolder
from kit.ensembling import blend, blend_runs, submission
from kit.ensembling.blend import RunResults
from kit.ensembling.blend_runs import FinishedRun
from kit.ensembling.predict import ensemble_probs
from kit.ensembling.scored_run import oof_probs
from kit.reporting.against import Against, resume_against
from kit.training import executors, kept_weights, planning, run_record, workers
from kit.training.executors import DoneFolds, Executor
from kit.training.jobs import Plan, extra_learned, make_jobs, self_training_jobs
from kit.training.planning import TimeTarget
from kit.training.records import read_config_and_competition

TIMING = "timing.json"
WRITE_SECONDS = 10.0  # between two writes of timing.json


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained run: its folder, all that is known of it, and its report (report.json)."""

    run: RunFolder
    results: RunResults
    report: dict[str, Any]


def cv(config: RunConfig, data: DataFolder, run: RunFolder, progress: Progress | None = None,
       resume: bool = False, leave_out: frozenset[str] = frozenset(), force: bool = False,
       time_target: TimeTarget | None = None, baseline_first: bool = False,
       against: Against | None = None) -> TrainedRun:
    """Train every fold of `config` on `data`, write all artifacts into `run`, and report.

    resume: continue what is in `run`. force: replace it, once nothing but the training can fail any
    more. leave_out: keys of jobs (model/seed_s/fold_k) that are not trained; only together with a
    time budget; one of a round of self-training (…/guesses_n) leaves that round out.
    baseline_first: train the baseline before the rest is measured and planned, so that there is
    something to hand in whatever happens then. against: what a new run is compared with; it trains
    in the same folds, and no more of them than that needs. KitError where `run` is another run.
    """
    workers.refuse_if_starting()
    progress, time_target = progress or Progress(), time_target or TimeTarget()
    deadline = time.time() + config.time_budget if config.time_budget is not None else None
    time_target = replace(time_target, began=time_target.began or time.time(), deadline=deadline)
    timing: dict[str, Any] = {}

    # The data, and how it is split
    with _timed(timing, "read"):
        train, test = data.train(), data.test()
    for note in (*train.notes, *test.notes):
        progress.say(note)
    with _timed(timing, "folds"):
        folds = against.folds(data) if against else folds_module.make_folds(
            train.labels, data.competition, config.n_folds, config.split, config.seed, config.limit,
            data.writer_block)

    # Who trains, and in which precision: as the run began, if it is resumed
    resumed = not force and run_record.is_begun(run, config, data, resume)
    settled, why, note = run_record.settle_as_begun(run, config) if resumed \
        else executors.settle(config)
    if note:
        progress.say(note)
    if config.tensorboard:
        from kit.reporting.tensorboard import TensorBoardProgress

        progress = TensorBoardProgress(progress, run.path / "tensorboard", train, data.competition,
                                       config)
    wanted = make_jobs(config, settled.precision)
    jobs = tuple(job for job in wanted if job.key not in leave_out)

    with contextlib.ExitStack() as stack:
        executor, planned = stack.enter_context(Executor(settled)), None
        if not baseline_first and not resumed:
            with _timed(timing, "plan"):  # before anything is written or removed: it may refuse
                planned = planning.decide(executor, settled, jobs, data, time_target, progress)

        # From here on this process writes the run's folder, and no other.
        stack.enter_context(run.lock())
        stack.push(executor)  # again: its processes end before the lock is released
        if force:
            run.clear()
        if resumed:
            against = resume_against(run, data, config)
            folds = against.folds(data) if against else folds
        plan = Plan(settled, data, run.path, folds, jobs)
        plan = _write_beginning(run, config, plan, against, resumed)
        if planned:
            planning.save(run.path / planning.SCHEDULE, planned)
        also = extra_learned(config, data) is not None
        progress.say(f"{'resuming' if resumed else 'training'} {run.name}: "
                     f"{', '.join(config.models)} on {config.n_folds} folds"
                     f"{f' and {data.competition.extra}' if also else ''}, {settled.precision} "
                     f"({why}){', drawn sample' if data.is_sample else ''}")
        timed = _TimingWriter(progress, run, timing, resumed)

        # The baseline, where it goes first; then how long the rest may train
        done: DoneFolds = {}
        measured = True
        if baseline_first \
                and (baseline := tuple(job for job in jobs if job.model not in config.models)):
            # If it is done and nothing is planned, an earlier process died while it measured.
            measured = not {job.key for job in baseline} <= finished_folds(run.path)
            done |= executors.run_jobs(executor, replace(plan, jobs=baseline), timed, deadline)
        if resumed and not baseline_first:
            time_target = replace(time_target, keep_epochs=config.epochs is not None)
        is_decided = against is not None and against.is_decided  # then nothing is left to be done
        schedule = planned or planning.resume(
            executor, plan, time_target, Progress() if is_decided else timed, measured)
        timing |= {"predicted_seconds": schedule.predicted, "epochs": schedule.epochs}

        # The folds, then the rounds of self-training
        plan = replace(plan, jobs=tuple(job for job in schedule.apply(jobs)
                                        if job.key not in schedule.left_out))
        seconds = {job.key: schedule.costs[job.model].of(job.epochs) for job in plan.jobs
                   if job.model in schedule.costs}
        look = functools.partial(_look, against, run, plan, timed) if against else None
        done |= executors.run_jobs(executor, plan, timed, deadline, seconds, look)
        missing = [job for job in plan.jobs if job.key not in done]
        whole = jobs == wanted and not (schedule.left_out or missing)
        if whole and config.self_train:  # what is guessed is kept, so the whole ensemble guesses
            _self_train(executor, run, plan, timed, deadline, done, leave_out)
        timed.write()
        if not whole and against and against.is_decided:
            minutes = sum(seconds.get(job.key, 0.0) for job in missing) / executor.n_parallel / 60
            saved = f", which saves some {minutes:.0f} min" if minutes >= 1 else ""
            progress.say(f"the other folds are not trained{saved}; to train them: "
                         f"{run.resume_command}")
        elif not whole:
            progress.say("the time budget left folds out: this ensemble is partial (complete: "
                         "false)")

        # The ensemble, and its report
        with _timed(timing, "blend"):
            results = blend.gather(run, data, timing, folds=plan.folds, done=done)
            storage.write_npz(run.oof, row=results.folds.rows, **oof_probs(results))
            if results.test is not None:
                storage.write_npz(run.test, id=test.ids, probs=results.test)
        report = _report(results, run.path)
        storage.write_json(run.path / TIMING, timing)
    return TrainedRun(run, results, report)


def _write_beginning(run: RunFolder, config: RunConfig, plan: Plan, against: Against | None,
                     resumed: bool) -> Plan:
    """Write what a run begins with: its comparison, its config and its folds.

    Returns the plan; for a run that is resumed, with the folds that it began with. KitError where
    another process has begun the run, or its comparison and its options exclude each other.
    """
    if not resumed and run.config.is_file():
        raise KitError(f"another process has just begun the run {run.name!r}",
                       "choose another name with --run")
    if against and config.self_train:
        raise KitError(f"{run.name} may be decided before all folds are trained, and self-training "
                       "needs all", "leave --self-train out until the comparison has ended")
    if against and not resumed:
        against.save(run)  # before config.json, with which the run has begun
    elif not resumed:
        storage.remove_artifact(run.against)  # of one that could not begin
    run_record.write_config(run, config, plan.data, plan.config)
    if run.folds.is_file():
        return replace(plan, folds=blend.checked_folds(run, plan.data, config))
    folds_module.save_folds(run.folds, plan.folds)
    return plan


def _look(against: Against, run: RunFolder, plan: Plan, progress: Progress,
          done: DoneFolds) -> bool:
    """Judge by the folds that all members have finished, where one is new; whether to stop."""
    finished = [k for k in range(plan.config.n_folds)
                if all(f"{model}/seed_{seed}/fold_{k}" in done
                       for model, seed in plan.config.members)]
    if not against.is_decided and set(finished) > {k for each in against.rounds for k in each}:
        oof = blend.gather(run, plan.data, {}, folds=plan.folds, done=done).oof
        progress.say(against.look(finished, oof, plan.folds, run.name))
        against.save(run)
    return against.is_decided


def _self_train(executor: Executor, run: RunFolder, plan: Plan, progress: Progress,
                deadline: float | None, done: DoneFolds, leave_out: frozenset[str]) -> None:
    """Train the rounds of self-training, each from where the last one ended.

    A round that does not fit into the time, or with a job to `leave_out`, is not begun, and none
    after it. plan: of the folds, which are all `done`; what is trained is added to that.
    """
    test_ids = plan.data.test().ids
    for n in range(1, plan.config.self_train + 1):
        plan = replace(plan, jobs=self_training_jobs(plan))
        failed = leave_out & {job.key for job in plan.jobs}
        why = f"it cannot train {min(failed)}" if failed \
            else planning.why_no_round(executor, plan, done, deadline)
        if why:
            progress.say(f"round {n} of self-training is left out: {why} (complete: false)")
            return
        if not run.guesses(n).is_file():
            before = blend.gather(run, plan.data, {}, n - 1, plan.folds, done)
            storage.write_npz(run.guesses(n), id=test_ids,
                              label=before.submitted.argmax(1).astype("uint8"))
        progress.say(f"self-training, round {n}: every fold goes on with the test rows as the "
                     "ensemble reads them")
        done |= executors.run_jobs(executor, plan, progress, deadline)
        if not all(job.key in done for job in plan.jobs):
            progress.say(f"round {n} of self-training has not ended in time, so the ensemble is "
                         "that from before it (complete: false)")
            return


class _TimingWriter(ForwardingProgress):
    """Passes progress on, and keeps timing.json current, since a run may be killed at any time."""

    def __init__(self, progress: Progress, run: RunFolder, timing: dict[str, Any],
                 resumed: bool) -> None:
        """timing: of this process; to it are added the seconds of those that trained before."""
        super().__init__(progress)
        self.run, self.timing = run, timing
        self.began = self.last = time.perf_counter()
        if resumed and (run.path / TIMING).is_file():
            earlier = storage.read_json(run.path / TIMING, "seconds")["seconds"]
            self.began -= earlier.get("train", 0.0)
            seconds = timing["seconds"]
            seconds |= {stage: seconds.get(stage, 0.0) + spent for stage, spent in earlier.items()}

    def handle(self, event: dict[str, Any]) -> None:
        """KitError where a fold is done, but its run was removed meanwhile."""
        super().handle(event)
        if event["event"] == "done" and not self.run.config.is_file():
            raise KitError(f"{self.run.config} is gone: the run was removed while it trained",
                           "run the same command again")
        if event["event"] == "done" or time.perf_counter() - self.last > WRITE_SECONDS:
            with contextlib.suppress(KitError):  # a full disk must not stop the training over this
                self.write()

    def write(self) -> None:
        self.last = time.perf_counter()
        self.timing.setdefault("seconds", {})["train"] = self.last - self.began
        storage.write_json(self.run.path / TIMING, self.timing)


def submit(trained: TrainedRun, submissions: Path) -> Path:
    """Write the submission folder of a trained run, and return it: `submissions/<run>/`.

    Weights that it keeps stay there if they are this run's.
    """
    folder = Path(submissions) / trained.run.name
    for name in ("config.json", "report.html"):
        storage.write_bytes(folder / name, storage.read_bytes(trained.run.path / name))
    storage.write_json(folder / "report.json", trained.report)
    _write_submission(trained.results, folder)
    kept_weights.remove_others(RunFolder(folder), trained.run)
    return folder


def keep_weights(trained: TrainedRun, folder: Path) -> tuple[int, int]:
    """Keep a run's weights in the folder of its submission, and predict the test file with them.

    Returns their bytes, and how many test rows they read otherwise than the run, before any class
    prior. KitError where the kit's models are no longer those that the run was trained with.
    """
    test, kept = trained.results.data.test().pixels, RunFolder(folder)
    n_bytes = kept_weights.keep(trained.run, kept, test)
    before = np.asarray(trained.results.test)
    probs = ensemble_probs(kept, *read_config_and_competition(kept.path), test, Progress())
    share = kept_weights.total_variation(probs, before)
    if not share <= kept_weights.MAX_DIFFERENCE:
        kept_weights.remove(kept)
        raise KitError(f"{share:.2f} of the test probs of {trained.run.name} lie elsewhere when "
                       "they are predicted anew: its weights are of other models than the kit's "
                       "of today", "keep them with the kit that trained it: the git_commit in its "
                       "config.json")
    return n_bytes, int((probs.argmax(1) != before.argmax(1)).sum())


def _write_submission(results: RunResults, folder: Path) -> None:
    """Write the probs of a run into its submission folder, then its labels, and validate them."""
    if results.data.is_sample:
        storage.write_text(folder / ".gitignore", "*\n")  # a sample's is not to be committed
    else:
        storage.remove_artifact(folder / ".gitignore")  # of a sample's run by the same name
    scored = np.isfinite(results.oof).all(1)
    folds = results.folds
    arrays = {"row": folds.rows, "label": folds.labels, "fold": folds.fold}
    arrays |= {name: probs.astype("float16") for name, probs in oof_probs(results).items()}
    if folds.writers is not None:
        arrays["writer"] = folds.writers
    storage.write_npz(folder / "oof.npz", **{name: array[scored] for name, array in arrays.items()})
    ids = results.data.test().ids
    storage.write_npz(folder / "test.npz", id=ids, probs=np.asarray(results.test).astype("float16"))
    submission.write_submission(folder / "submission.csv", ids, results.submitted,
                                results.competition)
    found = submission.validate(folder / "submission.csv", results.competition, ids)
    if found.problems:
        raise KitError(f"the submission just written is not acceptable: {found.problems[0]}",
                       "this is a bug: please report it")


def submit_blend(runs: Sequence[FinishedRun], weights: str | Sequence[float], class_prior: str,
                 data: DataFolder, folder: Path,
                 progress: Progress | None = None) -> dict[str, Any]:
    """Blend finished runs, write the submission folder, and return the report.

    The submission folder is all that a blend has.
    """
    asked = weights if isinstance(weights, str) \
        else ",".join(f"{float(weight):g}" for weight in weights)
    words = ["kit", "blend", *[run.name for run in runs], "--run", folder.name]
    words += ["--weights", asked] * (asked != blend_runs.EQUAL)
    words += ["--class-prior", class_prior] * (class_prior != RunConfig.class_prior)
    about = {"config": {"competition": data.competition.slug, "class_prior": class_prior,
                        "models": blend_runs.models_of(runs)},
             "command": shlex.join(words), **run_record.origin(data),
             "environment": {"python": platform.python_version(), "system": platform.platform(),
                             "versions": {"numpy": np.__version__}}}
    results = _blend(runs, asked, data, folder.name, about)
    blend = cast(blend_runs.Blend, results.blended)
    if progress:
        progress.say("weights: " + ", ".join(f"{each.name} {each.weight:.4g}"
                                             for each in blend.runs))
    storage.write_json(folder / "config.json", {**about, "blend": {"weights": asked, "runs": [
        {"name": each.name, "weight": each.weight, "sha256": each.run.sha256,
         "folder": blend_runs.place_of(each.run.folder, folder)}
        for each in blend.runs]}})
    report = _report(results, folder)
    _write_submission(results, folder)
    return report


def report_blend(folder: Path, runs: Sequence[FinishedRun], data: DataFolder) -> dict[str, Any]:
    """Write a blend's report and submission again, from the `runs` that its config.json names.

    Returns the report.
    """
    about = storage.read_json(folder / "config.json", "config", "blend", "command", "environment")
    results = _blend(runs, str(about["blend"].get("weights")), data, folder.name, about)
    report = _report(results, folder)
    _write_submission(results, folder)
    return report


def _blend(runs: Sequence[FinishedRun], weights: str, data: DataFolder, name: str,
           about: dict[str, Any]) -> RunResults:
    timing: dict[str, Any] = {}
    config = {**about["config"], "command": about["command"], "environment": about["environment"],
              "parameters": {}}
    with _timed(timing, "blend"):
        return blend_runs.blend_runs(name, runs, weights, data, config, timing)


def report(run: RunFolder, data: DataFolder, submissions: Path | None = None) -> TrainedRun:
    """Write a finished run's report again, and its submission folder if there is one."""
    with run.lock():
        timing = storage.read_json(run.path / TIMING, "seconds")
        results = blend.gather(run, data, timing)
        storage.write_npz(run.oof, row=results.folds.rows, **oof_probs(results))
        trained = TrainedRun(run, results, _report(results, run.path))
    if submissions is not None and (Path(submissions) / run.name).is_dir():
        submit(trained, submissions)
    return trained


def _report(results: RunResults, folder: Path) -> dict[str, Any]:
    """Write report.json and report.html into a folder; the report."""
    from kit.reporting.report import build_report, render_report

    numbers = build_report(results)
    storage.write_json(folder / "report.json", numbers)
    storage.write_text(folder / "report.html", render_report(numbers, results))
    return numbers


@contextlib.contextmanager
def _timed(timing: dict[str, Any], stage: str) -> Iterator[None]:
    """Add the seconds of wall time of a stage to `timing["seconds"]`."""
    began = time.perf_counter()
    yield
    seconds = timing.setdefault("seconds", {})
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - began
