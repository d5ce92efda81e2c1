"""Votes are aligned by id, and nothing is missing without a word."""

from pathlib import Path

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.ensembling.blend import aligned, mean_probs

PROBS = np.arange(12, dtype="float32").reshape(4, 3)


def test_alignment_is_by_id_never_by_position():
    wanted = np.array([7, 3, 9, 1])
    ids = np.array([3, 1, 7, 9])
    result = aligned(ids, PROBS, wanted, Path("test.npz"))
    for i, name in enumerate(wanted):
        np.testing.assert_array_equal(result[i], PROBS[ids.tolist().index(name)])


def test_ids_may_be_strings():
    result = aligned(np.array(["b", "a", "d", "c"]), PROBS, np.array(["a", "b", "c", "d"]), Path("test.npz"))
    np.testing.assert_array_equal(result, PROBS[[1, 0, 3, 2]])


@pytest.mark.parametrize(("ids", "words"), [
    ([1, 2, 3], "4 rows for 3 ids"), ([1, 2, 3, 3], "other ids"), ([1, 2, 3, 5], "other ids"),
    ([1, 2, 3, 4, 5], "4 rows"),
])
def test_what_does_not_fit_is_an_error(ids, words):
    with pytest.raises(KitError, match=words):
        aligned(np.array(ids), PROBS, np.array([1, 2, 3, 4]), Path("test.npz"))


def test_the_mean_of_probs():
    a, b = np.array([[0.2, 0.8], [1, 0]]), np.array([[0.6, 0.4], [np.nan, np.nan]])
    result = mean_probs([a, b])
    np.testing.assert_allclose(result, [[0.4, 0.6], [1, 0]], atol=1e-6)
    assert result.dtype == np.float32


def test_rows_that_nobody_predicted_stay_nan():
    assert np.isnan(mean_probs([np.full((1, 2), np.nan)] * 2)).all()
