"""A run's config comes back as it was, and nothing unknown slips in."""

import ast
import json
import re

import pytest

from kit.core.config import RunConfig, differences
from kit.core.errors import KitError


def test_round_trip_through_json():
    config = RunConfig(models=("cnn", "mlp"), n_folds=3, time_budget=60.0, limit=20)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_command_line_of_a_config():
    assert RunConfig().options() == ["--model", "cnn"]
    config = RunConfig("digit-recognizer", ("mlp", "cnn"), 3, epochs=1, time_budget=90.0, class_prior="equal")
    assert config.options() == [
        "--competition", "digit-recognizer", "--model", "mlp,cnn", "--folds", "3", "--epochs", "1",
        "--time-budget", "90.0", "--class-prior", "equal"]


@pytest.mark.parametrize(("balanced", "class_prior"), [(None, "auto"), (True, "equal"), (False, "none")])
def test_runs_from_before_the_class_prior_open(balanced, class_prior):
    old = RunConfig(n_folds=3).to_dict()
    del old["class_prior"]
    assert RunConfig.from_dict(old | {"balanced": balanced}) == RunConfig(n_folds=3, class_prior=class_prior)
    for value in ("yes", [True], 1):
        with pytest.raises(KitError, match="--class-prior"):
            RunConfig.from_dict(old | {"balanced": value})


def test_unknown_keys_are_errors():
    with pytest.raises(KitError, match="unknown keys: n_flods"):
        RunConfig.from_dict({"n_flods": 5})


@pytest.mark.parametrize(("options", "words"), [
    ({"n_folds": 1}, "--folds 1"), ({"n_seeds": 0}, "--seeds 0"), ({"epochs": 0}, "--epochs 0"),
    ({"batch_size": 0}, "--batch-size 0"), ({"limit": -1}, "--limit -1"), ({"tta": 0}, "--tta 0"),
    ({"split": "random"}, "--split 'random'"), ({"precision": "int8"}, "--precision 'int8'"),
    ({"executor": "dask"}, "--executor 'dask'"), ({"class_prior": "even"}, "--class-prior 'even'"),
    ({"seed": 2**40}, "--seed 1099511627776 is too large"),
    ({"n_seeds": 10**9}, "--seeds 1000000000 is too large"), ({"time_budget": float("nan")}, "--time-budget nan"),
    ({"n_folds": "5"}, "--folds .5. is not a whole number"), ({"epochs": 1.5}, "--epochs 1.5"),
    ({"models": "cnn"}, "--model .cnn."), ({"models": ("cnn", "cnn")}, "a model twice"), ({"models": ()}, "no model"),
])
def test_impossible_options(options, words):
    with pytest.raises(KitError, match=words):
        RunConfig(**options)


@pytest.mark.parametrize(("options", "fix"), [
    ({"epochs": "3"}, "epochs=3"), ({"epochs": 3.0}, "epochs=3"), ({"epochs": []}, "epochs=12"),
    ({"epochs": "few"}, "epochs=12"), ({"n_folds": "4"}, "n_folds=4"), ({"n_folds": None}, "n_folds=5"),
    ({"time_budget": "60"}, "time_budget=60.0"), ({"time_budget": float("inf")}, "such as --time-budget 6600"),
    ({"models": "cnn,mlp"}, "models=('cnn', 'mlp')"), ({"models": 3}, "models=('cnn',)"),
    ({"tensorboard": "yes"}, "tensorboard=False"), ({"split": 3}, "split='auto'"), ({"limit": "x"}, "limit=200"),
    ({"models": ("cnn", "mlp", "cnn")}, "--model cnn,mlp"), ({"n_folds": 1}, "one from 2 to 127, such as --folds 5"),
])
def test_advice_is_of_the_option_s_kind_and_taken(options, fix):
    with pytest.raises(KitError) as caught:
        RunConfig(**options)
    assert fix in caught.value.fix and "None" not in caught.value.fix
    if advised := re.match(r"write (\w+)=(.+)$", caught.value.fix):
        RunConfig(**{advised[1]: ast.literal_eval(advised[2])})


def test_differences_name_what_changed_and_forgive_who_trains():
    a, b = RunConfig(), RunConfig(n_folds=4, executor="local", time_budget=10.0)
    assert differences(json.loads(json.dumps(a.to_dict())), b.to_dict()) == ["n_folds: 5 → 4"]


@pytest.mark.parametrize("values", [["cnn"], 3, {"models": "cnn"}, {"models": [1]}, {"n_folds": "5"}, {"seed": True},
                                    {"epochs": 1.5}, {"tensorboard": 1}, {"split": None}])
def test_values_that_no_config_has_are_errors(values):
    with pytest.raises(KitError, match="the run's config"):
        RunConfig.from_dict(values)


def test_an_error_is_two_lines_that_one_can_read():
    error = KitError("a\nb\x1b[31m" + "x" * 5000 + "z", "fix\tit")
    lines = str(error).splitlines()
    assert lines[0].startswith("error: a b\\x1b[31mxx") and lines[0].endswith("xz") and len(lines[0]) < 1100
    assert lines[1:] == ["fix: fix it"]
