"""Epochs are cut before folds, folds before the last one, and never the baseline."""

import pytest

from kit.config import RunConfig
from kit.delivery.planning import plan
from kit.training.plan import make_jobs

CONFIG = RunConfig(models=("cnn_aug",), n_folds=5)
JOBS = make_jobs(CONFIG, "float32")
EPOCHS = max(job.epochs for job in JOBS if job.model == "cnn_aug")
PACE = {"mlp": 1.0, "cnn_aug": 10.0}
PLENTY = 5 * EPOCHS * 10 * 1.15 / 0.8 + 500


def test_with_time_enough_every_recipe_keeps_its_epochs():
    assert plan(JOBS, PACE, PLENTY, 1, CONFIG.models).to_dict() == {"epochs": None, "left_out": []}


def test_with_less_time_all_folds_get_fewer_epochs():
    schedule = plan(JOBS, PACE, PLENTY * 0.7, 1, CONFIG.models)
    assert EPOCHS / 2 <= schedule.epochs < EPOCHS
    assert schedule.left_out == ()


def test_then_folds_are_left_out_whole_and_the_last_ones_first():
    schedule = plan(JOBS, PACE, PLENTY * 0.3, 1, CONFIG.models)
    assert schedule.epochs == round(EPOCHS / 2)
    assert schedule.left_out
    assert schedule.left_out == tuple(f"cnn_aug/seed_0/fold_{k}" for k in range(5 - len(schedule.left_out), 5))


def test_with_hardly_any_time_one_fold_gets_what_there_is():
    schedule = plan(JOBS, PACE, 200, 1, CONFIG.models)
    assert schedule.epochs >= 1
    assert schedule.left_out == tuple(f"cnn_aug/seed_0/fold_{k}" for k in range(1, 5))


def test_epochs_that_were_asked_for_are_cut_like_a_recipes_own():
    jobs = make_jobs(RunConfig(models=("cnn_aug",), n_folds=5, epochs=2 * EPOCHS), "float32")
    schedule = plan(jobs, PACE, PLENTY * 1.2, 1, CONFIG.models)
    assert EPOCHS <= schedule.epochs < 2 * EPOCHS and not schedule.left_out


def test_every_fold_of_a_seed_goes_before_the_next_seed():
    jobs = make_jobs(RunConfig(models=("cnn_aug",), n_folds=5, n_seeds=2), "float32")
    assert {key.split("/")[1] for key in plan(jobs, PACE, PLENTY * 0.6, 1, CONFIG.models).left_out} == {"seed_1"}


def test_two_gpus_do_twice_as_much():
    assert plan(JOBS, PACE, PLENTY * 0.55, 1, CONFIG.models).epochs is not None
    assert plan(JOBS, PACE, PLENTY * 0.55, 2, CONFIG.models).epochs is None


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
def test_what_is_planned_fits(share):
    seconds = PLENTY * share + 60
    schedule = plan(JOBS, PACE, seconds, 1, CONFIG.models)
    planned = sum(PACE[job.model] * (job.epochs if job.model == "mlp" else schedule.epochs or EPOCHS)
                  for job in JOBS if job.key not in schedule.left_out)
    assert planned <= seconds or schedule.epochs == 1
