"""The baselines are the tutorials' networks, and every recipe gives probs."""

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.training import models


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 550_346), ("cnn", 887_530), ("cnn_aug", 887_530),
                                                  ("light", 145_882), ("strong", 586_698), ("deep", 762_538)])
def test_golden_sizes(name, parameters):
    recipe = models.get(name)
    model = recipe.build(KANNADA)
    assert model.count_params() == recipe.parameters == parameters
    assert models.flops(model) / 1e6 == pytest.approx(recipe.mflops, abs=1e-3)


def test_flops_of_the_tutorials_cnn():
    """By hand: 2 · (25·32·784 + 25·32·32·784 + 9·32·64·196 + 9·64·64·196 + 3136·256 + 256·10)."""
    model = models.get("cnn").build(KANNADA)
    assert models.flops(model) == 2 * (627_200 + 20_070_400 + 3_612_672 + 7_225_344 + 802_816 + 2_560)


@pytest.mark.parametrize("name", sorted(set(models.RECIPES) - {"tiny"}))
@pytest.mark.parametrize("competition", [KANNADA, DIGIT_RECOGNIZER])
def test_pixels_in_probs_out(name, competition):
    model = models.get(name).build(competition)
    probs = np.asarray(model(np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype("float32")))
    assert probs.shape == (3, 10)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)


def test_an_unknown_model_is_named_with_the_known_ones():
    with pytest.raises(KitError, match="no model 'resnet'") as caught:
        models.get("resnet")
    assert "cnn_aug" in caught.value.fix


def test_kit_models_shows_every_recipe():
    rows = models.table()
    assert [row["model"] for row in rows] == list(models.RECIPES)
    text = "\n".join(models.lines(rows))
    assert "550,346" in text and "0.9453" in text
    for row in rows:  # hard writers are hard for all
        assert row["hard_accuracy"] is None or row["hard_accuracy"] < row["accuracy"]
