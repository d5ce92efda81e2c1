"""The score of a submission is that of its labels, where they are known."""

import dataclasses

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data.competition import DIGIT_RECOGNIZER
from kit.data.source import download
from kit.ensembling import submission
from kit.reporting.score import score, score_lines
from tests.data.tiny import TINY, write_folder

MNIST = dataclasses.replace(DIGIT_RECOGNIZER, shape=(2, 3))


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mnist.npz",
             x_train=rng.integers(0, 256, (20, 2, 3), np.uint8), y_train=np.arange(20) % 10,
             x_test=rng.integers(0, 256, (30, 2, 3), np.uint8), y_test=np.arange(30) % 10)
    return download(MNIST, tmp_path / "mnist.npz", tmp_path / "data")


def test_the_score_of_a_submission(mnist, tmp_path):
    predicted = np.arange(30) % 10
    predicted[:3] = [5, 5, 5]
    submission.write_submission(tmp_path / "submission.csv", mnist.test().ids,
                                np.eye(10)[predicted], MNIST)
    result = score(tmp_path / "submission.csv", mnist)
    assert (result["rows"], result["right"], result["accuracy"]) == (30, 27, 0.9)
    assert result["ci95"][0] < 0.9 < result["ci95"][1] and len(result["shown"]) == 20
    assert result["shown"][0] == {"id": 1, "predicted": 5, "actual": 0}
    lines = score_lines(result, MNIST)
    assert lines[0].startswith("90.00\u00a0% right: 27 of 30")
    assert lines[3].split() == ["1", "5", "0", "wrong"]
    assert lines[-1].split() == ["20", "9", "9"]


def test_no_score_where_nobody_knows(tmp_path):
    data = download(TINY, write_folder(tmp_path / "given"), tmp_path / "data")
    with pytest.raises(KitError, match="nobody knows the labels"):
        score(tmp_path / "submission.csv", data)


def test_no_score_for_what_is_no_submission(mnist, tmp_path):
    (tmp_path / "submission.csv").write_text("ImageId,Label\n1,0\n")
    with pytest.raises(KitError, match="is not acceptable") as caught:
        score(tmp_path / "submission.csv", mnist)
    assert "kit validate" in caught.value.fix
