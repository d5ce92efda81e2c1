"""Epochs are cut before folds, folds before the last one, by a common share, and never the baseline."""

import contextlib
import json
import os
import re
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from kit.core import storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.training import executors, planning, settings
from kit.training.jobs import Plan, make_jobs, self_training_jobs
from kit.training.pace import Cost
from kit.training.planning import TimeTarget, plan, seconds_of

# Invented, of the size that two cores without bfloat16 might have with all 60,000 rows; measured nowhere.
COSTS = {"mlp": Cost(2.5, 3, 9), "cnn": Cost(78, 17, 180), "cnn_aug": Cost(80, 45, 210), "strong": Cost(95, 50, 250)}


def jobs_of(*models, **options):
    return make_jobs(RunConfig(models=models, n_folds=5, **options), "float32")


def full(*models, n_workers=2, **options):
    return seconds_of(jobs_of(*models, **options), COSTS, n_workers)


def test_with_time_enough_every_recipe_keeps_its_epochs():
    schedule = plan(jobs_of("strong", "cnn"), COSTS, full("strong", "cnn"), 2, ("strong", "cnn"))
    assert schedule.epochs == {"strong": 16, "cnn": 6} and not schedule.left_out and schedule.fits


@pytest.mark.parametrize("short", [0.01, 0.05, 0.2])
def test_of_several_models_each_keeps_its_share_of_its_own_epochs(short):
    """One per cent too little time once took strong from 16 epochs to the 6 of the cnn beside it."""
    seconds = full("strong", "cnn") * (1 - short)
    schedule = plan(jobs_of("strong", "cnn"), COSTS, seconds, 2, ("strong", "cnn"))
    assert schedule.fits and not schedule.left_out and schedule.seconds <= seconds
    assert schedule.epochs["strong"] >= int(16 * (1 - short)) - 1
    assert schedule.epochs["cnn"] >= int(6 * (1 - short)) - 1 and schedule.epochs != {"strong": 16, "cnn": 6}


def test_what_is_planned_fits_and_one_more_share_would_not():
    for part in np.linspace(0.55, 1, 20):
        seconds = full("strong") * part
        schedule = plan(jobs_of("strong"), COSTS, seconds, 2, ("strong",))
        assert schedule.seconds <= seconds
        if schedule.epochs["strong"] < 16:
            more = replace(schedule, epochs={"strong": schedule.epochs["strong"] + 1})
            assert seconds_of(more.apply(jobs_of("strong")), COSTS, 2) > seconds


def test_five_folds_on_two_workers_take_the_time_of_three():
    folds = [job for job in jobs_of("strong") if job.model == "strong"]
    assert seconds_of(folds, COSTS, 2) == pytest.approx(3 * (16 * 95 + 50))
    assert seconds_of(folds, COSTS, 5) == pytest.approx(16 * 95 + 50)


@pytest.mark.parametrize("n_workers", range(2, 9))
@pytest.mark.parametrize(("names", "gain"), [
    (("strong",), 0.0), (("cnn_aug",), 0.0), (("cnn", "strong"), 0.05), (("strong", "cnn"), 0.0)])
def test_the_longest_first_takes_no_longer_than_the_baseline_first(names, n_workers, gain):
    """Simulated as the workers take their jobs; on two, of the models as named, `gain` at least."""
    before = seconds_of(jobs_of(*names, time_budget=1e6), COSTS, n_workers)
    after = seconds_of(jobs_of(*names), COSTS, n_workers)
    assert after <= before and (n_workers > 2 or after < before * (1 - gain))


def test_the_last_of_five_folds_leaves_time_for_the_whole_baseline():
    assert full("strong") == pytest.approx(3 * (16 * 95 + 50))


def test_rounds_of_self_training_are_counted():
    jobs = jobs_of("strong")
    assert seconds_of(jobs, COSTS, 2, ("strong",), 2) == pytest.approx(seconds_of(jobs, COSTS, 2) + 2 * 3 * 250)


def test_rounds_of_self_training_are_given_up_before_folds_and_after_epochs():
    jobs, rounds = jobs_of("strong"), seconds_of(jobs_of("strong"), COSTS, 2, ("strong",), 2) - full("strong")
    planned = [plan(jobs, COSTS, seconds, 2, ("strong",), n_rounds=2) for seconds in (
        full("strong") + rounds, full("strong"), full("strong") * 0.6 + rounds / 2, full("strong") * 0.3)]
    assert [schedule.rounds for schedule in planned] == [2, 2, 1, 0]
    assert planned[0].epochs == {"strong": 16} and 8 <= planned[1].epochs["strong"] < 16
    assert [bool(schedule.left_out) for schedule in planned] == [False, False, False, True]


def done_of(job, seconds, rows):
    return {"job": asdict(job), "train_rows": rows, "train_seconds": seconds, "predict_seconds": 10.0}


def test_a_round_begins_only_where_the_folds_own_pace_says_that_it_fits(tmp_path):
    """48,000 rows took 25 s an epoch; with 5,000 test rows thrice that is 33 s, for two epochs and to predict 76 s."""
    folds = tuple(job for job in jobs_of("strong", epochs=4) if job.model == "strong")
    run = Plan(RunConfig(models=("strong",), self_train=2), Rows(), tmp_path, None, folds)
    done = {job.key: done_of(job, 100.0, 48_000) for job in folds}
    first = replace(run, jobs=self_training_jobs(run))
    expected = 2 * 25 * 63 / 48 + 10
    assert planning.seconds_of_round(first.jobs, done, 5_000, 2) == pytest.approx(3 * expected)

    def why(plan, left):
        return planning.why_no_round(TwoWorkers(), plan, done, time.time() + left)

    enough = 3 * expected / planning.SAFETY
    assert why(first, enough + 5) == "" and planning.why_no_round(TwoWorkers(), first, done, None) == ""
    assert re.fullmatch("it would take about 4 min, and 26[0-3] s are left", why(first, enough - 5))
    for job in first.jobs[:4]:  # done by an earlier process; its last fold takes a third of the time
        (tmp_path / job.key).mkdir(parents=True)
        (tmp_path / job.key / "done.json").touch()
    assert why(first, enough / 3 + 5) == "" and why(first, enough / 3 - 5)
    done |= {job.key: done_of(job, 200.0, 63_000) for job in first.jobs}  # two epochs, slower than the folds promised
    second = replace(first, jobs=self_training_jobs(first))
    assert planning.seconds_of_round(second.jobs, done, 5_000, 2) == pytest.approx(3 * 210)


def test_then_folds_are_left_out_whole_and_the_last_ones_first():
    schedule = plan(jobs_of("cnn_aug"), COSTS, full("cnn_aug") * 0.3, 2, ("cnn_aug",))
    assert schedule.epochs == {"cnn_aug": 7}
    assert schedule.left_out
    assert schedule.left_out == tuple(f"cnn_aug/seed_0/fold_{k}" for k in range(5 - len(schedule.left_out), 5))


def test_with_hardly_any_time_one_fold_gets_what_there_is():
    schedule = plan(jobs_of("cnn_aug"), COSTS, 400, 2, ("cnn_aug",))
    assert 1 <= schedule.epochs["cnn_aug"] < 7
    assert schedule.left_out == tuple(f"cnn_aug/seed_0/fold_{k}" for k in range(1, 5))


def test_every_fold_of_a_seed_goes_before_the_next_seed():
    jobs = jobs_of("cnn_aug", n_seeds=2)
    schedule = plan(jobs, COSTS, full("cnn_aug", n_seeds=2) * 0.4, 2, ("cnn_aug",))
    assert {key.split("/")[1] for key in schedule.left_out} == {"seed_1"}


def test_epochs_that_the_user_named_stay():
    jobs = jobs_of("cnn_aug", epochs=20)
    schedule = plan(jobs, COSTS, full("cnn_aug", epochs=20) * 0.5, 2, ("cnn_aug",), keep_epochs=True)
    assert schedule.epochs == {"cnn_aug": 20} and schedule.left_out
    assert {job.epochs for job in schedule.apply(jobs) if job.model == "cnn_aug"} == {20}


def test_without_leave_to_leave_out_the_least_is_said_not_to_fit():
    schedule = plan(jobs_of("strong"), COSTS, 600, 2, ("strong",), least={"strong": 5}, may_leave_out=False)
    assert schedule.epochs == {"strong": 5} and not schedule.left_out and not schedule.fits


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
@pytest.mark.parametrize("n_workers", [1, 2, 8])
def test_what_is_planned_fits(share, n_workers):
    jobs, seconds = jobs_of("strong", "cnn"), full("strong", "cnn", n_workers=n_workers) * share
    schedule = plan(jobs, COSTS, seconds, n_workers, ("strong", "cnn"))
    kept = [job for job in schedule.apply(jobs) if job.key not in schedule.left_out]
    assert seconds_of(kept, COSTS, n_workers) == schedule.seconds
    assert schedule.seconds <= seconds or not schedule.fits
    assert any(job.model in ("strong", "cnn") for job in kept)


def test_a_schedule_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / planning.SCHEDULE
    schedule = replace(plan(jobs_of("strong"), COSTS, 2_000, 2, ("strong",)), predicted=2_000.5,
                       costs=COSTS)
    planning.save(path, schedule)
    stored = planning.load(path, ("strong",))
    assert (stored.epochs, stored.left_out, stored.predicted, stored.costs) == (
        schedule.epochs, schedule.left_out, 2_000.5, COSTS)


@pytest.mark.parametrize("wrong", [
    {"epochs": {"strong": 0}}, {"epochs": {"strong": "9"}}, {"epochs": {"cnn": 9}}, {"epochs": 9}, {"costs": []},
    {"costs": {"strong": {"epoch": -1, "rest": 1, "round": 1}}}, {"costs": {"strong": {"hour": 1}}},
    {"left_out": "all"}, {"predicted_seconds": "soon"}])
def test_a_damaged_schedule_is_told(tmp_path, wrong):
    path = tmp_path / planning.SCHEDULE
    planning.save(path, replace(plan(jobs_of("strong"), COSTS, 2_000, 2, ("strong",)), costs=COSTS))
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(KitError, match="damaged"):
        planning.load(path, ("strong",))


@pytest.mark.parametrize("other", [{"epochs": {"cnn": 9}}, {"costs": {"strong": {"hour": 1}}}])
def test_the_schedule_of_another_run_or_version_is_told(tmp_path, other):
    path = tmp_path / planning.SCHEDULE
    planning.save(path, replace(plan(jobs_of("strong"), COSTS, 2_000, 2, ("strong",)), costs=COSTS))
    storage.write_json(path, json.loads(path.read_text()) | other)
    with pytest.raises(KitError, match="no schedule of"):
        planning.load(path, ("strong",))


# -- what is decided, and said --------------------------------------------------------------------------------------


class Ear(Progress):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


class TwoWorkers:
    """Stands in for two processes that train, whose costs are known."""

    kind, n_parallel = "processes", 2

    def __init__(self, costs=COSTS):
        self.costs = costs

    def run_on_all(self, task, arguments, patience):
        return None if self.costs is None else [dict(self.costs)] * 2


class Rows:
    """60,000 rows, of which only the number matters."""

    def __init__(self):
        from kit.data import competition

        self.competition = competition.KANNADA

    def train(self):
        return range(60_000)

    def test(self):
        return range(5_000)

    def extra(self):
        return range(10_240)


def decided(time_target, budget=None, executor=None, **options):
    config = RunConfig(precision="float32", **{"models": ("strong",)} | options)
    ear = Ear()
    if budget is not None:
        time_target = replace(time_target, deadline=time.time() + budget)
    jobs = make_jobs(config, "float32")
    return planning.decide(executor or TwoWorkers(), config, jobs, Rows(), time_target, ear), ear.said


def goal_of(name, **options):
    setting = settings.get(name)
    return TimeTarget(**{"setting": setting, "named": True, "began": time.time()} | options)


def test_a_setting_keeps_its_promise_by_its_epochs_and_says_it_before():
    schedule, said = decided(goal_of("cpu-45min"))
    assert 5 <= schedule.epochs["strong"] < 16
    assert 0.85 * 45 * 60 < schedule.predicted <= 45 * 60
    assert said == [f"5 folds of strong, {schedule.epochs['strong']} of 16 epochs, and the baseline: about "
                    f"{round(schedule.predicted / 60)} min (until {said[-1][-6:-1]})"]


def test_what_the_user_named_is_only_estimated():
    schedule, said = decided(goal_of("cpu-45min", keep_epochs=True), epochs=30)
    assert schedule.epochs == {"strong": 30} and schedule.predicted > 45 * 60
    assert "30 epochs, and the baseline: about 2 h 25 min, more than the 45 min that it should take" in said[0]
    schedule, said = decided(TimeTarget(), models=("strong", "cnn"))
    assert schedule.epochs == {"strong": 16, "cnn": 6}
    assert said[0].startswith("5 folds of strong, 16 epochs, 5 folds of cnn, 6 epochs, and the baseline: about ")


def test_a_named_setting_that_cannot_be_kept_is_refused_with_what_would_fit(monkeypatch):
    slow = {model: Cost(cost.epoch * 3, cost.rest * 2, cost.round * 3) for model, cost in COSTS.items()}
    monkeypatch.setitem(slow, "light", Cost(60, 20, 100))
    monkeypatch.setitem(slow, "deep", slow["strong"])
    with pytest.raises(KitError, match=r"its least, 5 folds with 5 epochs of strong, would take about 7. min") as error:
        decided(goal_of("cpu-45min", costs=slow))
    assert "--setting quick (about 1" in error.value.fix
    assert "cpu-night" not in error.value.fix  # two seeds of two networks and their self-training take 10 hours
    assert "--epochs 2 (about" in error.value.fix and "--epochs 5 (about 7" in error.value.fix


def test_a_setting_that_was_chosen_for_the_user_is_trained_with_its_least():
    slow = {model: Cost(cost.epoch * 3, cost.rest * 2, cost.round * 3) for model, cost in COSTS.items()}
    schedule, said = decided(goal_of("cpu-45min", costs=slow, named=False))
    assert schedule.epochs == {"strong": 5} and "more than the 45 min that it should take" in said[0]


def test_a_time_budget_goes_before_a_setting_and_may_leave_folds_out():
    schedule, said = decided(goal_of("cpu-45min"), budget=2 * 3600)
    assert schedule.epochs == {"strong": 16}
    schedule, said = decided(goal_of("cpu-45min"), budget=900)
    assert schedule.epochs == {"strong": 5} and schedule.left_out and schedule.seconds <= 900
    assert said[0].startswith(f"{5 - len(schedule.left_out)} folds of strong, 5 of 16 epochs, and the baseline")


def test_a_refused_setting_offers_what_the_users_own_options_make_of_another():
    """The command keeps its --model, so `quick` would be `deep` within 12 minutes, and `cpu-night` fits."""
    slow = {"deep": Cost(300, 90, 600), "strong": Cost(300, 90, 600), "light": Cost(6, 9, 9), "mlp": COSTS["mlp"]}
    with pytest.raises(KitError) as error:
        decided(goal_of("cpu-45min", costs=slow, given={"models": ("deep",)}), models=("deep",))
    assert "--setting cpu-night (about " in error.value.fix and "--setting quick" not in error.value.fix


FAST, SLOW = ({"strong": Cost(60 * n, 30 * n, 120 * n), "mlp": Cost(2 * n, 2 * n, 6 * n)} for n in (1, 3))


@pytest.mark.parametrize(("costs", "budget", "name", "why"), [
    (FAST, None, "cpu-45min", "epochs of strong fit into its 45 minutes here"),
    (SLOW, None, "quick", "since 5 of 16 epochs of strong take 86 min here"),
    (FAST, 900, "quick", "since all of cpu-45min does not fit into the time budget here"),
    (SLOW, 8 * 3600, "cpu-45min", "since 16 of 16 epochs of strong fit into the time budget here")])
def test_a_setting_is_chosen_by_the_time_that_there_is(monkeypatch, costs, budget, name, why):
    """A budget of ten minutes once got a part of what 45 have room for: half the epochs, folds and rounds left out."""
    monkeypatch.setattr(planning, "Executor", lambda config: contextlib.nullcontext(TwoWorkers(costs)))
    monkeypatch.setattr(executors, "settle", lambda config: (config, None, None))
    chosen_from = [settings.get("cpu-45min"), settings.get("quick")]
    configs = {each: RunConfig(precision="float32", **each.options()) for each in chosen_from}
    deadline = None if budget is None else time.time() + budget
    target = TimeTarget(named=False, began=time.time(), deadline=deadline)
    chosen, target, said = planning.choose_setting(configs, Rows(), target, "")
    assert chosen.name == name and why in said and target.costs


def test_what_is_left_of_a_resumed_run_counts_the_self_training_of_all_folds(tmp_path):
    """One fold of five was left: 13 minutes of it and, of the five, two rounds of 12 and a half."""
    config = RunConfig(models=("strong",), precision="float32", self_train=2)
    run = Plan(config, Rows(), tmp_path, None, make_jobs(config, "float32"))
    planning.save(tmp_path / planning.SCHEDULE, planning.Schedule({"strong": 8}, costs=COSTS))
    done = [job for job in run.jobs if job.key != "strong/seed_0/fold_4"]
    for job in done:
        (tmp_path / job.key).mkdir(parents=True)
        storage.write_json(tmp_path / job.key / "done.json", {})
    ear = Ear()
    schedule = planning.resume(TwoWorkers(), run, TimeTarget(), ear, False)
    assert schedule.epochs == {"strong": 8}
    seconds = 8 * 95 + 50 + 2 * 3 * 250
    assert f"about {round((seconds + planning.CLOSING) / 60)} min (until" in ear.said[0]


def test_without_a_measurement_the_recipes_costs_are_planned_with():
    schedule, said = decided(TimeTarget(), budget=2 * 3600, executor=TwoWorkers(costs=None))
    assert said[0] == "this machine's pace could not be measured in time: planned by what the recipes state"
    assert 1 <= schedule.epochs["strong"] <= 16 and schedule.predicted <= 2 * 3600


def test_where_a_budget_is_over_before_the_training_nothing_is_measured(monkeypatch):
    """Neither for the setting nor for the plan: no process is started that would be ended at once."""
    class Refusing(TwoWorkers):
        def run_on_all(self, task, arguments, patience):
            raise AssertionError(f"asked to measure in {patience} seconds")

    monkeypatch.setattr(planning, "Executor", lambda config: contextlib.nullcontext(Refusing()))
    monkeypatch.setattr(executors, "settle", lambda config: (config, None, None))
    chosen_from = [settings.get("cpu-45min"), settings.get("quick")]
    configs = {each: RunConfig(precision="float32", **each.options()) for each in chosen_from}
    target = TimeTarget(named=False, began=time.time(), deadline=time.time() - 1)
    chosen, *_ = planning.choose_setting(configs, Rows(), target, "")
    assert chosen.name == "quick"
    _, said = decided(TimeTarget(), budget=-1, executor=Refusing())
    assert said[0] == "this machine's pace could not be measured in time: planned by what the recipes state"


# -- real processes -------------------------------------------------------------------------------------------------


def _hang(together):
    together()
    time.sleep(300)


def _who(together):
    return os.getpid()


def test_workers_that_hang_are_ended_in_time_and_others_take_their_place():
    with executors.Executor(RunConfig(models=("mlp",), executor="processes", threads=1)) as executor:
        began = time.monotonic()
        assert executor.run_on_all(_hang, (), patience=1.0) is None
        assert time.monotonic() - began < 30
        pids = executor.run_on_all(_who, (), patience=120.0)
        assert len(set(pids)) == executor.n_parallel and os.getpid() not in pids
