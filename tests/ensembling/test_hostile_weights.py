"""A model.keras from somebody else gives numbers, and runs nothing."""

import os

import numpy as np

from kit.core import backend
from kit.training import records

RAN = "KIT_TEST_HOSTILE_CODE_RAN"


def test_code_in_a_model_file_is_not_run(tmp_path, monkeypatch):
    backend.load()
    import keras

    monkeypatch.setenv(RAN, "while it was made")
    path = tmp_path / "model.keras"
    code = keras.layers.Lambda(lambda x: (__import__("os").environ.update(KIT_TEST_HOSTILE_CODE_RAN="yes"), x)[1])
    evil = keras.Sequential([keras.Input((4,)), code, keras.layers.Dense(2, name="probs")])
    evil.save(path)
    ours = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="probs")])

    os.environ[RAN] = "no"
    records.load_weights(ours, path)
    assert os.environ[RAN] == "no"
    np.testing.assert_array_equal(ours.get_weights()[0], evil.get_weights()[0])

    keras.saving.load_model(path, safe_mode=False, compile=False)  # it is armed: taken for a model it does run
    assert os.environ[RAN] == "yes"
