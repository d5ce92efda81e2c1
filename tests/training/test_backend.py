"""The machine as Keras sees it, where it does not see what it should."""

import os
import subprocess
import sys

import pytest

from kit.training import backend
from tests.test_docs import ROOT

LOAD = """
from kit.training import backend
try:
    backend.load()
except backend.KitError as error:
    print(error)
"""


@pytest.mark.parametrize(("asked", "said"), [
    ("theano", "theano"), ("torch", "set it to jax"), ("jax", "install the JAX")])
def test_a_backend_that_is_not_there_is_two_lines(tmp_path, asked, said):
    (tmp_path / f"{asked}.py").write_text("raise ImportError('its libraries do not fit')")
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "KERAS_BACKEND": asked})
    assert done.returncode == 0 and done.stdout.startswith("error: ") and "unset KERAS_BACKEND" in done.stdout
    assert said in done.stdout


def test_a_tpu_is_seen_by_jax_alone():
    assert backend.has_tpu() is False
