"""Who trains does not change what comes out; folds that go wrong are noticed."""

import dataclasses
import errno
import json
import multiprocessing
import multiprocessing.synchronize
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data import competition, folds, sample, source
from kit.training import executors, fit, job_runner, workers
from kit.training.jobs import FoldJob, Plan, make_jobs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six writers' data folder, without a manifest."""
    root = tmp_path_factory.mktemp("data")
    folder = source.data_folder(competition.KANNADA, root, sample=True)
    sample.draw_sample(folder.path, n_writers=6, rows_per_writer=20, n_test_writers=1, n_extra_writers=1)
    return folder


def plan_of(data, run, **options):
    options = {"executor": "local"} | options
    config = RunConfig(models=("mlp",), n_folds=2, epochs=1, precision="float32", **options)
    made = folds.make_folds(data.train().labels, data.competition, 2, "auto", 0, None, 20)
    return Plan(config, data, run, made, make_jobs(config, "float32"))


def run_jobs(plan, progress, deadline=None):
    with executors.Executor(plan.config) as executor:
        return executors.run_jobs(executor, plan, progress, deadline)


def probs(plan):
    return [np.load(plan.folder(job) / "test.npz")["probs"] for job in plan.jobs]


def test_the_baseline_comes_first_where_time_is_short_and_once():
    config = RunConfig(models=("cnn", "cnn_aug"), n_folds=3, n_seeds=2, epochs=1, batch_size=64,
                       tta=2, time_budget=60.0)
    jobs = make_jobs(config, "float32")
    assert [job.key for job in jobs[:3]] == [f"mlp/seed_0/fold_{k}" for k in range(3)]
    assert [job.model for job in jobs[3:]] == ["cnn"] * 6 + ["cnn_aug"] * 6
    assert len(jobs) == 3 + 2 * 2 * 3 and len({job.key for job in jobs}) == len(jobs)
    assert {(job.epochs, job.batch_size, job.tta) for job in jobs[:3]} == {(10, 128, 1)}
    assert {(job.epochs, job.batch_size, job.tta) for job in jobs[3:]} == {(1, 64, 2)}


def test_without_a_time_budget_the_longest_come_first():
    jobs = make_jobs(RunConfig(models=("cnn", "strong"), n_folds=3), "float32")
    assert [job.model for job in jobs] == ["strong"] * 3 + ["cnn"] * 3 + ["mlp"] * 3
    assert [job.fold for job in jobs] == [0, 1, 2] * 3


def test_processes_give_what_this_process_gives(data, tmp_path):
    here, there = plan_of(data, tmp_path / "a"), plan_of(data, tmp_path / "b", executor="processes", threads=1)
    assert run_jobs(here, Progress()) and run_jobs(there, Progress())
    for a, b in zip(probs(here), probs(there), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # threads may differ: this process has all cores


def test_a_deadline_in_the_past_trains_nothing(data, tmp_path):
    plan = plan_of(data, tmp_path)
    assert run_jobs(plan, Progress(), time.time() - 1) == {}
    assert not any(fit.is_done(plan.folder(job)) for job in plan.jobs)


def test_no_job_is_begun_that_will_not_end_in_time():
    clock = job_runner.Clock(time.time() + 100)
    job = FoldJob("mlp", 0, 0, 10, 32, "float32", 1)
    assert clock.has_time_for(job)
    clock.pace["mlp"] = 9.0
    assert clock.has_time_for(job)
    clock.pace["mlp"] = 11.0
    assert not clock.has_time_for(job)


def test_a_fold_that_diverges_is_tried_once_more_and_marked(data, tmp_path, monkeypatch):
    plan, tried = plan_of(data, tmp_path), []
    train_fold = fit.train_fold

    def first_try_fails(job, *arguments):
        tried.append((job.key, job.attempt))
        if not job.attempt:
            raise fit.Diverged(f"{job.key}: the loss is nan in epoch 1")
        return train_fold(job, *arguments)

    monkeypatch.setattr(fit, "train_fold", first_try_fails)
    assert run_jobs(plan, Progress())
    assert tried == [(job.key, attempt) for job in plan.jobs for attempt in (0, 1)]
    done = json.loads((plan.folder(plan.jobs[0]) / "done.json").read_text())
    assert done["job"]["attempt"] == 1 and "loss is nan" in done["job"]["why"]
    monkeypatch.setattr(fit, "train_fold", lambda job, *_: (_ for _ in ()).throw(fit.Diverged("nan")))
    with pytest.raises(KitError, match="second time"):
        job_runner.train_job(plan, plan.jobs[0], job_runner.Clock(None), lambda event: None)


@pytest.mark.parametrize(("kind", "n_parallel", "rounds"), [
    ("processes", 5, 1), ("processes", 2, 3), ("local", 1, 5), ("ray", 1, 1)])
def test_who_trains_all_folds_at_once_is_told_that_stopping_saves_none(data, tmp_path, kind,
                                                                      n_parallel, rounds):
    config = RunConfig(models=("mlp",), n_folds=5)
    plan = Plan(config, data, tmp_path, None, make_jobs(config, "float32"))
    trained, said = [], []

    class Fake:
        def train(self, plan, jobs, *_):
            trained.extend([jobs] if jobs else [])
            return {job.key: {"job": dataclasses.asdict(job), "val_rows": 9, "val_accuracy": 1.0}
                    for job in jobs}

    fake, progress = Fake(), Progress()
    fake.kind, fake.n_parallel, progress.say = kind, n_parallel, said.append
    seen = []
    executors.run_jobs(fake, plan, progress,
                       is_enough=lambda done: seen.append(len(done)) or False)
    assert len(trained) == rounds and (rounds == 1) == any("saves none" in each for each in said)
    assert seen[0] == 0 and seen[-1] == 5 and len(seen) == rounds + 1


def test_a_fold_far_below_the_others_is_trained_again(data, tmp_path):
    jobs = [FoldJob("mlp", 0, k, 1, 32, "float32", 1) for k in range(5)]
    done = {job.key: {"job": dataclasses.asdict(job), "val_rows": 1000,
                      "val_accuracy": 0.1 if job.fold == 3 else 0.95 + job.fold / 100}
            for job in jobs}
    (again,) = executors.retries_of_collapsed(jobs, done)
    assert (again.fold, again.attempt) == (3, 1) and "0.1000" in again.why
    done[again.key]["job"]["attempt"] = 1
    # Once is enough: it is marked, and said.
    assert executors.retries_of_collapsed(jobs, done) == []


def test_a_display_that_fails_does_not_stop_the_folds(data, tmp_path):
    """A closed terminal: the news must still be taken out of the queue, or the workers wait for room in it."""
    class Gone(Progress):
        def handle(self, event):
            if event["event"] == "step":
                raise BrokenPipeError

        def on_epoch_end(self, event):
            raise BrokenPipeError

    plan = plan_of(data, tmp_path, executor="processes", threads=1)
    assert run_jobs(plan, Gone())


@pytest.mark.parametrize(("visible", "names"), [
    (None, ["0", "1"]), ("2,3", ["2", "3"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])])
def test_gpus_are_those_that_the_user_left_visible(monkeypatch, visible, names):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [workers._gpu_name(i) for i in range(2)] == names


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EACCES, errno.ENOSPC, errno.ENOENT])
def test_without_semaphores_folds_train_in_this_process(monkeypatch, number):
    """A container without /dev/shm, or with one that is full or may not be written."""
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("_multiprocessing.SemLock", refuse)
    monkeypatch.setattr(workers, "worker_slots", lambda *_: [workers.WorkerSlot((0,)), workers.WorkerSlot((1,))])
    monkeypatch.setattr(executors.backend, "configure_devices", lambda threads: None)
    settled, _, note = executors.settle(RunConfig(precision="float32"))
    assert settled.executor == "local"
    assert os.strerror(number) in note and "one fold after another" in note and "--shm-size" in note
    with pytest.raises(KitError, match="--executor processes cannot work here") as caught:
        executors.settle(RunConfig(precision="float32", executor="processes"))
    assert os.strerror(number) in caught.value.message and "--executor local" in caught.value.fix


def test_where_processes_can_work_nothing_is_said():
    assert executors.why_no_processes() == "" and executors.choose_executor(RunConfig())[1] == ""


def test_a_process_that_cannot_be_started_is_two_lines(data, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("multiprocessing.popen_spawn_posix.Popen._launch", refuse)
    with pytest.raises(KitError, match="cannot start a training process") as caught:
        run_jobs(plan_of(data, tmp_path, executor="processes", threads=1), Progress())
    assert "ulimit -u" in caught.value.fix


@pytest.mark.parametrize(("throttled", "threads", "pinned"), [(False, None, [(3,)]), (True, 2, [])])
def test_a_share_of_all_cores_is_no_core_of_ones_own(monkeypatch, throttled, threads, pinned):
    """With a quota, containers side by side would all sit on the machine's first cores."""
    calls, prepared = [], []
    monkeypatch.setattr(executors.system, "is_throttled", lambda: throttled)
    monkeypatch.setattr(executors.system, "cores", lambda: [0, 1])
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: calls.append(cores), raising=False)
    monkeypatch.setattr(executors.backend, "configure_devices", prepared.append)
    monkeypatch.setattr(workers, "_exit_with_parent", lambda: None)
    executors.settle(RunConfig(precision="float32", executor="local"))
    turn = multiprocessing.get_context("spawn").Value("i", 0)
    workers._start_worker([workers.WorkerSlot((3,))], None, turn, None, None)
    assert calls == pinned and prepared == [threads, 1]


PARENT = """
import multiprocessing, threading, time
from kit.training import workers

def work():
    threading.Thread(target=workers._exit_with_parent, daemon=True).start()
    print("it works", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work).start()
    time.sleep(600)
"""


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, stdout=subprocess.PIPE,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}) as parent:
        assert parent.stdout.readline() == b"it works\n"
        parent.kill()
        parent.communicate(timeout=300)  # until the worker as well has closed its output


def test_one_process_alone_may_have_a_tpu(monkeypatch):
    monkeypatch.setattr(executors.backend, "has_tpu", lambda: True)
    assert executors.choose_executor(RunConfig()) == ("local", "")


def test_no_more_workers_than_there_is_memory_for(monkeypatch):
    monkeypatch.setattr(executors.backend, "gpus", lambda: [])
    monkeypatch.setattr(executors.system, "cores", lambda: list(range(16)))
    for free, sizes in ((None, [1] * 16), (10**11, [1] * 16), (4 * workers.WORKER_BYTES, [4] * 4), (0, [16])):
        monkeypatch.setattr(executors.system, "free_memory", lambda free=free: free)
        assert [len(place.cores) for place in workers.worker_slots(20, None)] == sizes


def test_core_groups_are_disjoint_and_as_large_as_asked(monkeypatch):
    monkeypatch.setattr(executors.backend, "gpus", lambda: [])
    monkeypatch.setattr(executors.system, "free_memory", lambda: None)
    monkeypatch.setattr(executors.system, "CGROUP", Path("/nowhere"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for n_jobs, threads, sizes in ((10, None, [1] * 8), (3, None, [2] * 3), (10, 3, [3, 3]), (1, None, [8]),
                                   (2, 16, [8])):
        places = workers.worker_slots(n_jobs, threads)
        cores = [core for place in places for core in place.cores]
        assert [len(place.cores) for place in places] == sizes and len(set(cores)) == len(cores)
    monkeypatch.setattr(executors.backend, "gpus", lambda: ["T4", "T4"])
    assert [place.gpu for place in workers.worker_slots(5, None)] == [0, 1]


@pytest.mark.parametrize(("cores", "options", "threads"), [
    (2, {}, 1), (8, {}, 1), (16, {}, 3), (16, {"n_seeds": 2}, 1), (16, {"threads": 2}, 2)])
def test_the_folds_of_the_asked_models_share_all_cores(monkeypatch, cores, options, threads):
    """The baseline is in every run, and short: were it counted, 16 cores would train five folds with a thread each."""
    monkeypatch.setattr(executors.backend, "gpus", lambda: [])
    monkeypatch.setattr(executors.system, "free_memory", lambda: None)
    monkeypatch.setattr(executors.system, "cores", lambda: list(range(cores)))
    settled, *_ = executors.settle(RunConfig(models=("strong",), precision="float32", **options))
    assert (settled.executor, settled.threads) == ("processes", threads)
