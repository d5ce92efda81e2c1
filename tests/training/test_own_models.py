"""A file of one's own becomes a model like any other; what is wrong with it is said with its line."""

import dataclasses
import json

import numpy as np
import pytest

from kit.core import storage
from kit.core.config import RunConfig, differences, model_spec
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data.competition import KANNADA
from kit.training import fit, models, own_models, records
from kit.training.augment import Augment
from kit.training.jobs import FoldJob, make_jobs
from kit.training.trainer import Trainer, trainer_for, try_step

GOOD = """
from keras import layers, ops
import kit

@kit.recipe(epochs=3, batch_size=32, learning_rate=0.01, augment=kit.Augment(shift=0.1), tta=2)
def build():
    return [layers.Conv2D(2, 5, strides=4, kernel_regularizer=REGULARIZER),
            layers.SeparableConv2D(3, 3, activation="relu"), layers.BatchNormalization(),
            layers.Flatten(), layers.Dropout(0.3), layers.Dense(8, activation="relu")]

def plain():
    return layers.Flatten()

def block(x):
    return layers.add([x, layers.Dense(784)(x)])

def residual():
    return [layers.Flatten(), block]

WIDE = kit.Augment(rotation=20)

def bar(images, numbers):
    return ops.where(numbers[:, :1, None, None] > 0, images, 255.0 - images)

REGULARIZER = None
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)

    def write(text=GOOD, name="my_model.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        return name

    return write


def config_of(models, augment=None, **options):
    names, code = own_models.parse_models(models)
    if augment:
        augment, more = own_models.parse_augment(augment)
        own_models.add_code(code, more)
    return RunConfig(models=names, code=code, augment=augment, **options)


def test_a_model_of_one_s_own_is_named_like_a_folder_and_keeps_its_file(write, tmp_path):
    write()
    write(name="more/other-2.py")
    config = config_of(f"cnn, my_model.py:build,{tmp_path}/more/other-2.py:plain", "more/other-2.py:WIDE", epochs=7)
    assert config.models == ("cnn", "my_model-build", "other-2-plain")
    assert config.code == {"my_model.py": GOOD, "more/other-2.py": GOOD} and config.augment == "more/other-2.py:WIDE"
    assert config.options() == ["--model", "cnn,my_model.py:build,more/other-2.py:plain", "--epochs", "7",
                                "--augment", "more/other-2.py:WIDE"]
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert model_spec("cnn") == "cnn" and model_spec("my_model-build") == "my_model.py:build"
    jobs = {job.model: job for job in make_jobs(dataclasses.replace(config, epochs=None), "float32")}
    assert [(jobs[name].epochs, jobs[name].batch_size, jobs[name].tta) for name in config.models] \
        == [(6, 256, 1), (3, 32, 2), (10, 256, 1)]


def test_the_recipe_beside_it_holds_and_an_augmentation_for_all_goes_before_it(write):
    write()
    config = config_of("my_model.py:build,cnn")
    recipe = own_models.recipe_of(config, "my_model-build")
    assert (recipe.epochs, recipe.optimizer, recipe.schedule) == (3, "adam", "cosine")
    assert recipe.augment == Augment(shift=0.1) and recipe.about == "a model of your own"
    write(GOOD.replace("def build():\n", 'def build():\n    """Small.\n\n    Quick."""\n'))
    assert own_models.recipe_of(config_of("my_model.py:build"), "my_model-build").about == "Small."
    write()
    assert recipe is own_models.recipe_of(config, "my_model-build") and recipe.cost > 0
    assert own_models.recipe_of(config, "cnn") is models.get("cnn")
    for name, kind in (("WIDE", Augment), ("bar", own_models.OwnAugment)):
        config = config_of("my_model.py:build,cnn", f"my_model.py:{name}")
        for model in config.models:
            found = own_models.recipe_of(config, model)
            assert type(found.augment) is kind and found == own_models.recipe_of(config, model)
            assert hash(found) == hash(own_models.recipe_of(config, model))  # a process builds it once
        assert own_models.recipe_of(config, "mlp").augment is None  # the baseline beside it


@pytest.mark.parametrize(("text", "spec", "message", "fix"), [
    (GOOD, "my_modle.py:build", "there is no file my_modle.py", "did you mean my_model.py?"),
    (GOOD, "elsewhere.py:build", "there is no file elsewhere.py", "give its path from here"),
    (GOOD, "my_model.py", "does not say what to take", "--model my_model.py:build"),
    (GOOD, "my_model:build", "'my_model' is no file of Python's", "--model my_model.py:build"),
    (GOOD, "my_model.py:buidl", "my_model.py has no 'buidl'", "did you mean my_model.py:build?"),
    (GOOD, "my_model.py:WIDE", "my_model.py:WIDE is an Augment, not a function", "def WIDE(): return"),
    (GOOD, "my_model.py:block", "cannot be called without arguments: missing a required argument: 'x'", "default"),
    (GOOD, "my_model.py:build,resnet", "there is no model 'resnet'", "choose from: mlp, cnn"),
    (GOOD, "my_model.py:build,my_model.py:build", "names a model twice", "--model my_model.py:build"),
    (GOOD, "my_model.py:build,more/my_model.py:build", "have the same name", "rename one"),
    ("def build(:\n", "my_model.py:build", "my_model.py, line 1, column 11: ", "def build(:"),
    ("x = 1\ny = x / 0\n", "my_model.py:build", "my_model.py, line 2: ZeroDivisionError: division by zero", "correct"),
    ("\nimport no_such_package\n", "my_model.py:build", "line 2: ModuleNotFoundError", "if Kaggle's image has it"),
    ("\nfrom beside import x\n", "my_model.py:build", "line 2: it imports beside, which lies beside it",
     "into my_model.py itself"),
    ("raise SystemExit(3)\n", "my_model.py:build", "my_model.py, line 1: SystemExit: 3", "correct"),
    ("x = 1\n\udcff", "my_model.py:build", "my_model.py, line 2: byte 7 is not UTF-8", "as UTF-8"),
    ("\0", "my_model.py:build", "my_model.py is no Python: ", "in an editor"),
    ("import kit\n\n@kit.recipe(epoch=3)\ndef build(): ...\n", "my_model.py:build",
     "my_model.py, line 3: a recipe has no 'epoch'", "did you mean 'epochs'?"),
    ("import kit\n@kit.recipe(lr=3)\ndef build(): ...\n", "my_model.py:build",
     "my_model.py, line 2: a recipe has no 'lr'", "did you mean 'learning_rate'?"),
    ("import kit\n\n@kit.recipe(epochs='3')\ndef build(): ...\n", "my_model.py:build",
     "my_model.py, line 3: epochs='3' is not a whole number from 1 to", "epochs=10"),
    ("import kit\n@kit.recipe(optimizer='adm')\ndef build(): ...\n", "my_model.py:build",
     "line 2: optimizer='adm' is unknown", "did you mean 'adam'?"),
    ("import kit\n@kit.recipe(3)\ndef build(): ...\n", "my_model.py:build", "line 2: a recipe was given to an int",
     "write @kit.recipe"),
    ("import kit\n@kit.recipe(learning_rate=0)\ndef build(): ...\n", "my_model.py:build",
     "line 2: learning_rate=0 is not a number above 0", "learning_rate=0.001"),
    ("import kit\n@kit.recipe(augment=3)\ndef build(): ...\n", "my_model.py:build",
     "my_model.py:build's augment is an int, not an augmentation", "kit.Augment"),
])
def test_what_is_no_model_is_said_with_its_line(write, text, spec, message, fix):
    write(text)
    write("x = 1\n", "beside.py")
    write(GOOD, "more/my_model.py")
    with pytest.raises(KitError, match=message.replace("(", r"\(")) as caught:
        config_of(spec)
    assert fix in caught.value.fix


@pytest.mark.parametrize(("body", "message", "fix"), [
    ("return None", "my_model.py:build returned None", "return layers"),
    ("return []", "my_model.py:build returned an empty list", "return layers"),
    ("return [layers.Flatten(), 3]", "returned a list with an int in it", "return layers"),
    ("return [layers.Flatten]", "a list with the class Flatten in it", "return layers"),
    ("return [layers.Conv2D(4, 3)]", "ends in 26 × 26 × 4 for each image, where a vector", "Flatten()"),
    ("return [layers.Flatten(), layers.Dense(10, activation='softmax')]", "a softmax of its own", "leave the last"),
    ("return [layers.Flatten(), layers.Conv2D(4, 3)]", "layer 2 of 2 (conv2d", "or the layers before it"),
    ("return [layers.MaxPooling2D(40), layers.Flatten()]", "gets 28 × 28 × 1",
     "or the layers before it"),
    ("return [layers.Dnese(3)]", "my_model.py, line 5: AttributeError", "correct it there"),
    ("return [layers.Flatten(name='a'), layers.Dense(3, name='a')]", "unique", "a name of its own"),
    ("return [layers.Flatten(), Mine(3)]", "NotImplementedError: thing is lost", "get_config"),
])
def test_a_function_that_returns_no_network_is_said_to(write, body, message, fix):
    write(f"""
from keras import Layer, layers

def build():
    {body}

class Mine(Layer):
    def __init__(self, thing):
        super().__init__()
        self.thing = thing + object.__sizeof__(thing)

    def call(self, x):
        return x

    def get_config(self):
        raise NotImplementedError("thing is lost")
""")
    config = config_of("my_model.py:build")
    with pytest.raises(KitError) as caught:
        own_models.recipe_of(config, "my_model-build").build(KANNADA)
    assert message in caught.value.message and "Arguments received" not in caught.value.message
    assert fix in caught.value.fix


@pytest.mark.parametrize(("text", "message", "fix"), [
    ("def turn(images): return images", "does not take images and numbers", "def turn(images, numbers)"),
    ("turn = 'rotate'", "my_aug.py:turn is a str, not an augmentation", "kit.Augment"),
    ("turn = None", "my_aug.py:turn is None", "kit.Augment"),
    ("import kit\nturn = kit.Augment(shift='0.1')", "shift='0.1' is not a number from 0 on", "shift=0.1"),
])
def test_what_is_no_augmentation_is_said(write, text, message, fix):
    write(text, "my_aug.py")
    with pytest.raises(KitError) as caught:
        config_of("cnn", "my_aug.py:turn")
    assert message in caught.value.message and fix in caught.value.fix
    with pytest.raises(KitError, match="--augment turn does not name a file"):
        config_of("cnn", "turn")


@pytest.mark.parametrize(("body", "message", "fix"), [
    ("return images[:, 1:]", "of shape (2, 28, 28, 1) and returned shape (2, 27, 28, 1)", "the shape that came in"),
    ("return None", "and returned None", "the shape that came in"),
    ("\n    import numpy\n    return numpy.flip(images.numpy(), 1)", "my_aug.py, line 3: ", "keras.ops"),
])
def test_an_augmentation_that_fails_is_said_to_before_it_trains(write, body, message, fix):
    write(f"def turn(images, numbers): {body}", "my_aug.py")
    write("from keras import layers\ndef build(): return layers.Flatten()\n")
    config = config_of("my_model.py:build", "my_aug.py:turn")
    with pytest.raises(KitError) as caught:
        try_step(own_models.recipe_of(config, "my_model-build"), KANNADA)
    assert message in caught.value.message and fix in caught.value.fix


def job(seed=0, **options):
    return FoldJob("my_model-build", seed, 0, 2, 32, "float32", 2, **options)


def test_the_same_job_gives_the_same_numbers_in_every_process(write, fold_data, tmp_path):
    """Initial weights of all kinds of layers, dropout and augmentation come from the job's seed."""
    write()
    recipe = own_models.recipe_of(config_of("my_model.py:build", "my_model.py:bar"), "my_model-build")
    first = fit.train_fold(job(), recipe, KANNADA, fold_data, tmp_path / "a")
    trainer_for.cache_clear()  # as in another process: another model, built when Keras has drawn other seeds
    second = fit.train_fold(job(), recipe, KANNADA, fold_data, tmp_path / "b")
    fit.train_fold(job(seed=1), recipe, KANNADA, fold_data, tmp_path / "c")
    probs = [storage.read_npz(tmp_path / name / "test.npz")["probs"] for name in "abc"]
    np.testing.assert_array_equal(probs[0], probs[1])
    assert np.abs(probs[0] - probs[2]).max() > 1e-3
    assert first["mflops"] == second["mflops"] > 0
    model = recipe.build(KANNADA)
    by_hand = 25 * 2 * 36 + (9 * 2 + 2 * 3) * 16 + 48 * 8 + 8 * 10
    assert models.flops(model) == 2 * by_hand and first["parameters"] == model.count_params()


def test_initial_weights_of_every_layer_differ_between_seeds_and_outside_random_numbers_stay(write):
    import random

    write()
    recipe = own_models.recipe_of(config_of("my_model.py:build"), "my_model-build")
    trainer = Trainer(recipe, KANNADA, "float32", 32)

    def kernels(seed):
        trainer.reset(job(seed))
        return [np.asarray(each) for each in trainer.model.trainable_variables if "kernel" in each.name]

    random.seed(5)
    expected = random.random()
    random.seed(5)
    one, other, again = kernels(0), kernels(1), kernels(0)
    assert random.random() == expected
    assert len(one) == 5 and all(np.abs(a - b).max() > 1e-3 for a, b in zip(one, other, strict=True))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_regularizer_counts_in_the_loss(write):
    losses = []
    for regularizer in ("None", "'l2'"):
        write(GOOD.replace("REGULARIZER = None", f"REGULARIZER = {regularizer}"))
        recipe = own_models.recipe_of(config_of("my_model.py:build"), "my_model-build")
        trainer = Trainer(recipe, KANNADA, "float32", 4)
        trainer.reset(job())
        weights = np.asarray(trainer.model.trainable_variables[0])
        none = np.zeros((1, 4, 8), "float32")
        none[..., [0, 4]] = 1  # the image as it is
        losses.append(trainer.train(np.full((4, 28, 28, 1), 9, "uint8"), np.zeros(4, "int32"),
                                    np.arange(4, dtype="int32")[None], none, np.zeros(1, "float32"))[0])
    assert losses[1] - losses[0] == pytest.approx(0.01 * (weights**2).sum(), rel=1e-3)


def test_a_single_layer_a_sequential_and_a_block_are_layers_too(write):
    write(GOOD + "\ndef sequential():\n    import keras\n    return keras.Sequential([layers.Flatten()])\n")
    for function, parameters in (("plain", 7_850), ("sequential", 7_850), ("residual", 785 * 784 + 7_850)):
        name = f"my_model-{function}"
        model = own_models.recipe_of(config_of(f"my_model.py:{function}"), name).build(KANNADA)
        assert model.count_params() == parameters and model.output_shape == (None, 10)


def test_kit_models_shows_what_it_is(write):
    import kit

    write()
    shown = kit.models(model="my_model.py:build,mlp")
    row, baseline = shown["models"]
    assert (row["model"], row["parameters"], row["epochs"], row["accuracy"]) == ("my_model-build", 573, 3, None)
    assert row["batch_size"] == 32 and baseline["accuracy"] == models.get("mlp").accuracy
    assert "my_model-build" in str(shown) and "adam at 0.01 (cosine)" in str(shown) and "not known" in str(shown)


def test_two_versions_of_a_file_live_side_by_side_in_a_process(write):
    write("from keras import layers\ndef build(): return layers.Flatten()\n")
    before = config_of("my_model.py:build")
    write("from keras import layers\nimport kit\n@kit.recipe(epochs=4)\ndef build(): return layers.Flatten()\n")
    after = config_of("my_model.py:build")
    assert [own_models.recipe_of(config, "my_model-build").epochs for config in (before, after, before)] == [10, 4, 10]
    assert differences(before.to_dict(), after.to_dict()) == ["my_model.py has changed"]
    assert differences(before.to_dict(), before.to_dict()) == []


def test_what_the_file_prints_does_not_mix_with_the_result(write, capsys):
    write("print('hello')\nfrom keras import layers\ndef build(): return layers.Flatten()\n")
    config_of("my_model.py:build")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


def test_a_run_is_read_without_running_its_code(tmp_path):
    config = RunConfig(models=("my_model-build",), code={"my_model.py": "raise SystemExit"})
    storage.write_json(RunFolder(tmp_path).config, {"config": config.to_dict()})
    assert records.read_config(tmp_path) == config
    broken = dataclasses.replace(config, code={})
    storage.write_json(RunFolder(tmp_path).config, {"config": broken.to_dict()})
    with pytest.raises(KitError, match=r"does not hold my_model.py"):
        records.read_config(tmp_path)
