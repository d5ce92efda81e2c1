"""Where memory is short a fold is trained with half the batch, which is said and recorded."""

import dataclasses
import os
import signal
import types

import numpy as np
import pytest

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data.competition import KANNADA
from kit.training import (
    checkpoints,
    fit,
    job_runner,
    memory,
    models,
    pace,
    predict,
    workers,
)
from kit.training.job_runner import Clock
from kit.training.jobs import FoldJob
from kit.training.trainer import trainer_for

JOB = FoldJob("tiny", seed=0, fold=0, epochs=2, batch_size=64, precision="float32", tta=2)


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


class XlaRuntimeError(RuntimeError):
    """As JAX's."""


ResourceExhaustedError.__module__ = "tensorflow.python.framework.errors_impl"
XlaRuntimeError.__module__ = "jaxlib.xla_extension"
SHORT = [ResourceExhaustedError("OOM when allocating tensor with shape[64,28,28,4]"),
         XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes"),
         MemoryError()]


@pytest.fixture(autouse=True)
def _forget():
    memory.forget()
    yield
    memory.forget()


@pytest.fixture
def train(fold_data, tmp_path):
    """Trains a job as an executor does; its done.json, and the events of the training."""
    def in_folder(job=JOB, name="run", act=lambda event: None):
        plan = types.SimpleNamespace(
            folder=lambda job: tmp_path / name / job.key,
            data=types.SimpleNamespace(competition=KANNADA), config=RunConfig())
        events = []

        def report(event):
            events.append(event)
            act(event)

        return job_runner.train_job(plan, job, Clock(None), report, fold_data), events

    return in_folder


def short_above(monkeypatch, most, error=SHORT[0]):
    """Steps of batches larger than `most` find no memory."""
    for batch in (64, 32, 16):
        trainer = trainer_for(models.get("tiny"), KANNADA, "float32", batch)

        def steps(*arrays, batch=batch, train=trainer.train):
            if batch > most:
                raise error
            return train(*arrays)

        monkeypatch.setattr(trainer, "train", steps)


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_half_the_batch_is_trained_with_said_and_recorded(train, monkeypatch, error, tmp_path):
    short_above(monkeypatch, 32, error)
    done, events = train()
    job = done["job"]
    assert (job["batch_size"], job["asked_batch_size"], job["epochs"]) == (32, 64, 2)
    assert [event["text"] for event in events if event["event"] == "say"] == [
        "tiny: batch size 32 instead of 64, as memory was short; the learning rate is 0.71 of the "
        "recipe's"]
    rates = storage.read_csv(tmp_path / "run" / JOB.key / "history.csv")["learning_rate"]
    steps = 2 * (300 // 32)
    whole = fit.learning_rates(models.get("tiny"), steps)
    assert rates.iloc[0] == pytest.approx(whole[steps // 2 - 1] * 0.5 ** 0.5, rel=1e-5)

    # The next fold begins with what fits, and gives what it would give anywhere.
    monkeypatch.undo()
    again, _ = train(name="again")
    assert again["job"] == job
    a, b = (np.load(tmp_path / name / JOB.key / "test.npz")["probs"] for name in ("run", "again"))
    np.testing.assert_array_equal(a, b)


def test_without_enough_memory_for_the_least_batch_that_is_the_error(train, monkeypatch):
    short_above(monkeypatch, 8)
    with pytest.raises(KitError, match=r"tiny/seed_0/fold_0: memory is short even for batches of "
                                       r"\d+ \(ResourceExhaustedError: OOM when") as caught:
        train()
    assert "--resume" in caught.value.fix


def test_other_errors_are_no_lack_of_memory(train, monkeypatch):
    short_above(monkeypatch, 0, ValueError("out of memory is what this does not say"))
    with pytest.raises(ValueError, match="does not say"):
        train()
    assert not memory.is_short(XlaRuntimeError("INVALID_ARGUMENT"))


def test_a_fold_killed_after_its_batch_was_halved_goes_on_with_that_batch(train, monkeypatch,
                                                                          tmp_path):
    monkeypatch.setattr(checkpoints, "MAX_TIME_SHARE", 1e9)
    undisturbed, _ = train(dataclasses.replace(JOB, batch_size=32, asked_batch_size=64), "whole")

    def kill(event):
        if event.get("epoch") == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        short_above(patch, 32)
        with pytest.raises(KeyboardInterrupt):
            train(act=kill)
    memory.forget()  # as in another process, where there is memory enough
    done, events = train()
    assert done["job"] == undisturbed["job"]
    assert min(event["epoch"] for event in events if event["event"] == "step") == 2
    a, b = (np.load(tmp_path / name / JOB.key / "test.npz")["probs"] for name in ("run", "whole"))
    np.testing.assert_array_equal(a, b)


def test_fewer_images_are_predicted_at_a_time(fold_data, monkeypatch):
    predictor = predict.Predictor(models.get("tiny"), KANNADA, "float32")
    whole = predict.predict_probs(predictor, fold_data.pixels, 2)
    batches, said, predict_batch = [], [], predictor.predict_batch

    def short(images, transform):
        batches.append(len(images))
        if len(images) > 125:
            raise SHORT[0]
        return predict_batch(images, transform)

    monkeypatch.setattr(predictor, "predict_batch", short)
    monkeypatch.setattr(predictor, "say", said.append)
    probs = predict.predict_probs(predictor, fold_data.pixels, 2)
    np.testing.assert_allclose(probs, whole, atol=1e-6)
    assert said == [f"predicting {n} images at a time instead of 500, as memory is short"
                    for n in (250, 125)]
    assert batches[:3] == [500, 250, 125] and predictor.batch == 125
    monkeypatch.setattr(predictor, "predict_batch", lambda *_: (_ for _ in ()).throw(SHORT[2]))
    with pytest.raises(KitError, match="even for predicting 31 images at a time"):
        predict.predict_probs(predictor, fold_data.pixels)


def test_a_trained_fold_for_whose_predictions_memory_is_short_is_not_trained_anew(train, monkeypatch,
                                                                                  tmp_path):
    monkeypatch.setattr(checkpoints, "MAX_TIME_SHARE", 1e9)

    def short(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(fit, "predict_with_spreading", short)
        with pytest.raises(KitError, match="tiny/seed_0/fold_0 is trained, but memory is short"):
            train()
    done, events = train()
    assert done["job"]["batch_size"] == 64 and "step" not in {event["event"] for event in events}


def test_the_pace_is_measured_with_the_batch_that_fits(monkeypatch):
    tried, waited = [], []

    def measure(config, data, job, wait_for_others):
        wait_for_others()
        tried.append(memory.fitting(job, 48_000).batch_size)
        if tried[-1] > 64:
            raise SHORT[0]
        return pace.Cost(1.0, 1.0)

    monkeypatch.setattr(pace, "_measure_model", measure)
    monkeypatch.setattr(pace, "fold_rows", lambda *_: 48_000)
    job = dataclasses.replace(JOB, batch_size=256)
    assert pace._measure_here(None, None, [job], lambda: waited.append(1)) == {
        "tiny": pace.Cost(1.0, 1.0)}
    assert tried == [256, 128, 64] and waited == [1]
    fits = memory.fitting(job, 48_000)
    assert (fits.batch_size, fits.asked_batch_size) == (64, 256)


def test_what_several_processes_say_is_shown_once():
    said = []
    progress = Progress()
    progress.say = said.append
    show = job_runner.events_to(progress)
    for _ in range(2):
        show({"event": "say", "text": "half", "once": True})
        show({"event": "say", "text": "again"})
    assert said == ["half", "again", "again"]


# -- processes that are killed ---------------------------------------------------------------------


def _die_once(folder, n, report):
    """The first call kills its process, unless one has died already."""
    if n == 0 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@pytest.fixture
def pool(monkeypatch):
    """Two processes, one at least of which could train; and what it reports."""
    slots = [workers.WorkerSlot((core,)) for core in (0, 1)]
    monkeypatch.setattr(workers, "worker_slots", lambda *_: slots)
    pool, said = workers.WorkerPool(2, 1), []
    pool.report = lambda event: said.append(event["text"])
    yield pool, said
    pool.shutdown(at_once=True)


ONE_LEFT = ("one of 2 training processes was killed, as the system does when memory is short: "
            "going on with 1 at a time")


@pytest.mark.slow
def test_where_a_process_is_killed_fewer_go_on(pool, tmp_path):
    pool, said = pool
    assert pool.run(_die_once, [(tmp_path, n) for n in range(3)]) == [0, 1, 2]
    assert said == [ONE_LEFT] and len(pool.slots) == 1
    (tmp_path / "died").unlink()
    with pytest.raises(KitError, match="the only training process was killed") as caught:
        pool.run(_die_once, [(tmp_path, 0)])
    assert "--resume --executor local" in caught.value.fix


@pytest.mark.slow
def test_a_process_killed_while_the_pace_is_measured_leaves_fewer(pool, tmp_path):
    pool, said = pool
    assert pool.run_on_all(_die_once, (tmp_path, 0), patience=120.0) is None
    assert pool.run(_die_once, [(tmp_path, 0), (tmp_path, 1)]) == [0, 1] and said == [ONE_LEFT]


@pytest.mark.parametrize(("codes", "left"), [
    ([-9, -15], 1), ([0, -9], 1), ([-6, -15], "exit code -6"), ([1], "exit code 1"),
    ([-15, None], "exit code unknown")])
def test_only_what_was_killed_from_outside_is_laid_to_memory(pool, codes, left):
    pool, _ = pool
    pool.processes = [types.SimpleNamespace(exitcode=code) for code in codes]
    if left == 1:
        pool._go_on_with_fewer()
        assert len(pool.slots) == 1
    else:
        with pytest.raises(KitError, match=f"a training process died .{left}"):
            pool._go_on_with_fewer()
