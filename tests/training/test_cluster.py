"""Ray: a node dies under its training, and the probs are those of `local` all the same, bit for bit."""

import multiprocessing
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data import folds
from kit.data.competition import KANNADA
from kit.data.sample import draw_sample
from kit.data.source import DataFolder
from kit.training import cluster, executors
from kit.training.jobs import Plan, make_jobs
from tests.training.test_executors import run_jobs

EPOCHS = 80  # some seconds a fold, so that it is still training when its node dies


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw_sample(folder, n_writers=8, rows_per_writer=60, n_test_writers=1, n_extra_writers=1)
    return DataFolder(folder, KANNADA)


def make_plan(data, run, executor):
    config = RunConfig(models=("mlp",), n_folds=4, epochs=EPOCHS, batch_size=32, threads=1, executor=executor)
    made = folds.make_folds(data.train().labels, KANNADA, 4, "stratified", 0)
    return Plan(config, data, run, made, make_jobs(config, "float32"))


class Spy(Progress):
    """Keeps what it is told, and does `act` at each event."""

    def __init__(self, act=lambda event: None):
        self.said, self.events, self.act = [], [], act

    def say(self, text):
        self.said.append(text)

    def handle(self, event):
        self.events.append(event)
        self.act(event)

    def nodes(self):
        return [event.get("node") for event in self.events]


# -- a real cluster -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_nodes(monkeypatch):
    """Ray's own cluster for tests: two nodes on this machine, each with a temporary folder of its own."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    scratch = Path(tempfile.mkdtemp(prefix="ray"))  # a short name, since sockets lie there
    monkeypatch.setenv("RAY_TMPDIR", str(scratch))
    (scratch / "ray").mkdir()
    here = Cluster(initialize_head=True, head_node_args={**node(scratch / "head"), "include_dashboard": False})
    worker = here.add_node(**node(scratch / "worker"))
    monkeypatch.setenv("RAY_ADDRESS", here.address)
    # conftest.py allows no address but 127.0.0.1
    monkeypatch.setattr(cluster, "_check_reachable", lambda address: None)
    yield SimpleNamespace(cluster=here, worker=worker, worker_folder=scratch / "worker")
    here.shutdown()
    shutil.rmtree(scratch, ignore_errors=True)


def node(folder):
    folder.mkdir()
    return {"num_cpus": 1, "temp_dir": str(folder), "env_vars": {"TMPDIR": str(folder)}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's own sockets and log files
def test_a_node_dies_and_the_probs_are_those_of_local(data, two_nodes, tmp_path):
    data = DataFolder(shutil.copytree(data.path, tmp_path / "data"), KANNADA)
    spawn = multiprocessing.get_context("spawn")
    local, ray = make_plan(data, tmp_path / "local", "local"), make_plan(data, tmp_path / "ray", "ray")
    with ProcessPoolExecutor(1, spawn) as pool:  # TensorFlow fixes its threads once per process
        assert pool.submit(run_jobs, local, Progress()).result()
    killed = []

    def act(event):
        if data.path.is_dir():
            data.path.rename(tmp_path / "away")  # the nodes have no disk in common with this one
        folder = tmp_path / "ray" / event["job"]
        assert not (folder / "done.json").exists()  # the task has it, and nobody else yet
        if not killed and event["node"] == two_nodes.worker.node_id and event["epoch"] >= 3:
            killed.append(event)
            two_nodes.cluster.remove_node(two_nodes.worker, allow_graceful=False)

    spy = Spy(act)
    assert run_jobs(ray, spy)
    assert killed and len(set(spy.nodes())) == 2
    # Other tasks may have died with the node.
    retry, = (text for text in spy.said
              if "trying again" in text and killed[0]["job"] in text)
    assert resumed_at(spy, killed[0]) > 1 or "from the start" in retry
    for job in ray.jobs:
        assert same_files(local.folder(job), ray.folder(job))
        assert_same_probs(local.folder(job), ray.folder(job))
    assert list(two_nodes.worker_folder.glob("kit-*"))  # what the dead task could not clean up


def resumed_at(spy, killed):
    """The first epoch of the killed job's second try."""
    later = [event for event in spy.events if event["job"] == killed["job"] and event["node"] != killed["node"]]
    return later[0]["epoch"]


def same_files(a, b):
    return sorted(path.name for path in a.iterdir()) == sorted(path.name for path in b.iterdir())


def assert_same_probs(a, b):
    for name, ids in (("val.npz", "row"), ("test.npz", "id"), ("extra.npz", "row")):
        one, other = storage.read_npz(a / name, ids, "probs"), storage.read_npz(b / name, ids, "probs")
        np.testing.assert_array_equal(one[ids], other[ids])
        np.testing.assert_array_equal(one["probs"], other["probs"])


# -- the driver, with a stand-in for Ray ----------------------------------------------------------------------------


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


class FakeRay:
    """Runs no task: each gives what `outcome(job)` returns or raises."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, RuntimeEnvSetupError=MemoryError)

    def __init__(self, outcome):
        self.outcome, self.submitted, self.cancelled, self.batches = outcome, [], [], {}

    def submit(self, plan, job, *_):
        self.submitted.append(job.key)
        self.batches.setdefault(job.key, []).append(job.batch_size)
        return (len(self.submitted), job)

    def get(self, task):
        return [] if task is None else self.outcome(task[1])

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def cancel(self, task, force):
        self.cancelled.append(task)


def drive(ray, plan, progress=None, deadline=None):
    driver = cluster.Driver(ray, plan, progress or Progress(), deadline)
    driver.train = SimpleNamespace(remote=ray.submit)
    driver.queue = SimpleNamespace(take=SimpleNamespace(remote=lambda: None))
    driver.arrays, driver.threads = None, 1
    driver.rows = dict.fromkeys(range(4), (range(3_000), range(1_000)))
    driver._prepare = lambda jobs: None
    return driver.run(list(plan.jobs))


@pytest.fixture
def plan(data, tmp_path):
    return make_plan(data, tmp_path / "run", "ray")


def test_a_tasks_files_land_in_the_run_folder_and_its_checkpoint_goes(plan):
    storage.write_bytes(plan.folder(plan.jobs[0]) / "checkpoint.npz", b"old")
    ray = FakeRay(lambda job: ({"val_rows": job.fold},
                               {"done.json": b"{}", "val.npz": job.key.encode()}))
    assert drive(ray, plan) == {job.key: {"val_rows": job.fold} for job in plan.jobs}
    assert storage.read_bytes(plan.folder(plan.jobs[2]) / "val.npz") == plan.jobs[2].key.encode()
    assert {path.name for path in plan.folder(plan.jobs[0]).iterdir()} == {"done.json", "val.npz", storage.CHECKSUMS}


def test_a_lost_job_is_tried_again(plan):
    lost = [plan.jobs[1].key] * 2

    def outcome(job):
        if job.key in lost:
            lost.remove(job.key)
            raise RayError("its node died")
        return {}, {"done.json": b"{}"}

    ray, spy = FakeRay(outcome), Spy()
    assert drive(ray, plan, spy)
    assert ray.submitted.count(plan.jobs[1].key) == 3 and len(ray.submitted) == 6
    assert spy.said == [f"{plan.jobs[1].key}: the node that trained it died; trying again from the start"] * 2


def test_a_job_for_which_a_node_lacks_memory_is_tried_again_with_half_the_batch(plan):
    class OutOfMemoryError(RayError):
        pass

    def outcome(job):
        if job.fold == 1 and job.batch_size > 32:
            raise OutOfMemoryError("Task was killed due to the node running low on memory.")
        return {}, {"done.json": b"{}"}

    plan = replace(plan, jobs=tuple(replace(job, batch_size=128) for job in plan.jobs))
    ray, spy = FakeRay(outcome), Spy()
    assert len(drive(ray, plan, spy)) == 4
    key = plan.jobs[1].key
    assert ray.batches[key] == [128, 64, 32] and ray.batches[plan.jobs[0].key] == [128]
    assert spy.said[-1] == (f"{key}: memory was short on its node, so Ray ended it; trying again "
                            "from the start with batch size 32")


def test_a_job_that_is_lost_too_often_ends_the_run(plan):
    def outcome(job):
        raise RayError("out of memory\nand more")

    ray = FakeRay(outcome)
    with pytest.raises(KitError, match=r"mlp/seed_0/fold_\d was lost 4 times; the last time: out of memory") as caught:
        drive(ray, plan)
    assert "--resume" in caught.value.fix
    assert len(ray.cancelled) == 3


def test_a_tasks_kit_error_names_its_job(plan):
    def outcome(job):
        raise RayTaskError(KitError("the disk is full", "free some space"))

    with pytest.raises(KitError, match="mlp/seed_0/fold_0, on a node of the cluster: the disk is full") as caught:
        drive(FakeRay(outcome), plan)
    assert caught.value.fix == "free some space"


def test_a_task_that_fails_otherwise_is_a_kit_error_too(plan):
    def outcome(job):
        raise RayTaskError(TypeError("no such layer"))

    with pytest.raises(KitError, match=r"mlp/seed_0/fold_0 failed .* TypeError: no such layer"):
        drive(FakeRay(outcome), plan)


def test_jobs_without_time_leave_the_run_incomplete(plan):
    ray = FakeRay(lambda job: None if job.fold == 3 else ({}, {"done.json": b"{}"}))
    assert list(drive(ray, plan)) == [job.key for job in plan.jobs if job.fold != 3]
    assert [executors.fit.is_done(plan.folder(job)) for job in plan.jobs] == [True, True, True, False]


def test_what_no_node_has_begun_long_after_the_deadline_is_cancelled(plan):
    ray = FakeRay(lambda job: ({}, {"done.json": b"{}"}))
    assert drive(ray, plan, deadline=time.time() - cluster.GRACE_SECONDS - 1) == {}
    assert len(ray.cancelled) == 4


@pytest.mark.parametrize(("nodes", "n_jobs", "threads", "expected"), [
    ([{"CPU": 2.0}, {"CPU": 2.0}], 4, None, ({"num_cpus": 1}, 1)),
    ([{"CPU": 16.0}, {"CPU": 4.0}], 5, None, ({"num_cpus": 4}, 4)),
    ([{"CPU": 2.0}, {"CPU": 2.0}], 1, None, ({"num_cpus": 2}, 2)),
    ([{"CPU": 8.0}], 2, 3, ({"num_cpus": 3}, 3)),
    ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}], 5, None, ({"num_gpus": 1, "num_cpus": 1}, None)),
])
def test_what_a_task_gets(nodes, n_jobs, threads, expected):
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes])
    assert cluster._resources(ray, n_jobs, threads) == expected


def test_a_cluster_without_cores():
    ray = SimpleNamespace(nodes=lambda: [{"Alive": False, "Resources": {"CPU": 8.0}}, {"Alive": True, "Resources": {}}])
    with pytest.raises(KitError, match="no core to offer"):
        cluster._resources(ray, 1, None)


def test_a_gpu_without_a_core_beside_it_is_no_place_to_train():
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"GPU": 1.0}}])
    with pytest.raises(KitError, match="no core to offer"):
        cluster._resources(ray, 1, None)


def test_a_cluster_that_is_lost_as_a_whole_is_said(plan, monkeypatch):
    class RayError(Exception):
        pass

    def lost(*_):
        raise RayError("the head died\nsomewhere")

    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=RayError), is_initialized=lambda: True)
    monkeypatch.setattr(cluster, "load_ray", lambda: ray)
    monkeypatch.setattr(cluster.Driver, "run", lost)
    with pytest.raises(KitError, match="the Ray cluster is gone: the head died") as caught:
        cluster.run(plan, list(plan.jobs), Progress(), None)
    assert "--resume" in caught.value.fix


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_is_not_there(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(KitError, match=rf"no Ray cluster at {address}: .*refused") as caught, \
            cluster._connected(SimpleNamespace(is_initialized=lambda: False)):
        pass
    assert "RAY_ADDRESS" in caught.value.fix


def test_a_cluster_that_another_version_started(monkeypatch):
    def init(*_, **__):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(KitError, match="no Ray cluster at this machine: Version mismatch"), \
            cluster._connected(SimpleNamespace(is_initialized=lambda: False, init=init)):
        pass


def test_without_ray(plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(KitError, match="needs Ray, which is not installed") as caught:
        run_jobs(plan, Progress())
    assert "bash scripts/setup.sh ray " in caught.value.fix
