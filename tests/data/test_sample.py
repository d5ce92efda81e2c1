"""The drawn sample: the competition's format, the same digits for a seed, framed as MNIST frames, hardest first."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from kit.core.errors import KitError
from kit.data import pen, sample, strokes
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA

# An easy writer's ೫ (seed 0), rows 4-23 and columns 4-23, two hexadecimal digits a pixel, and the mean grey of all ten
# digits: a change of the strokes, of the pen or of the random numbers shows here.
GOLDEN_TOP = 4
GOLDEN_ROWS = (
    "000000002a64731c0b000000000000000eff3700",
    "00000000afd52fc6e56f00000000000002ef9600",
    "000000a7ff120000395d5000000000000d26e800",
    "000029de470000000003c500000000002e24e20a",
    "000082a2000000000005d000000000007204b73e",
    "00000000000000000042ef0000000000dd23ff51",
    "000000000000000000ff030000000000bedea900",
    "000000000000000079c3000000000027ffa60300",
    "000000000000000063b10000000041b0c9190000",
    "0000000000000000d16700000089e8d1b4000000",
    "0000000009651a007f54353087fe376da5000000",
    "0000b5b5e8e084ede7f3ffa6b91b00cbc5000000",
    "0175a99d00000056a64e1f00000000db08000000",
    "5bff020000000015d2000000000000e272000000",
    "ad240000000000f1be000000000000ec0c000000",
    "ff260000000012ea1d000000000000e600000000",
    "8f0e00002dd7ffbd0000000000004fb000000000",
    "7357e3dbfff28d00000000000000cac900000000",
    "2097ff43270000000000000000004e8200000000",
    "0000000000000000000000000000ec5900000000",
)
GOLDEN_MEANS = [18.55, 14.55, 10.3, 12.25, 17.56, 25.98, 10.79, 17.07, 16.61, 15.54]


@pytest.fixture(scope="module")
def digits():
    return sample.draw_digits(12, 30, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample")
    sample.draw_sample(path, seed=1, n_writers=3, rows_per_writer=20, n_test_writers=2, n_extra_writers=1)
    return path


def frames(digits):
    return digits.pixels.reshape(-1, 28, 28).astype(np.float64)


# -- the digits -----------------------------------------------------------------------------------------------------


def test_shapes_blocks_and_cycling_labels(digits):
    assert digits.pixels.shape == (360, 784) and digits.pixels.dtype == np.uint8
    assert digits.labels.dtype == np.uint8 and np.array_equal(digits.labels, np.arange(360) % 10)
    assert digits.writers.dtype == np.int32 and np.array_equal(digits.writers, np.arange(360) // 30)


def test_the_same_seed_draws_the_same_digits_and_another_one_others(digits):
    again, other = sample.draw_digits(12, 30, seed=3), sample.draw_digits(12, 30, seed=4)
    assert np.array_equal(again.pixels, digits.pixels)
    assert np.all(np.any(other.pixels != digits.pixels, axis=1))


def test_the_golden_digits():
    drawn = sample.draw_digits(1, 10, seed=0, difficulty=(0.2, 0.2)).pixels.astype(int)
    golden = np.zeros((28, 28), dtype=int)
    golden[GOLDEN_TOP:GOLDEN_TOP + len(GOLDEN_ROWS), 4:24] = [list(bytes.fromhex(row)) for row in GOLDEN_ROWS]
    assert abs(drawn[5].reshape(28, 28) - golden).max() <= 1
    assert drawn.mean(axis=1) == pytest.approx(GOLDEN_MEANS, abs=0.2)


def test_other_machines_rounding_changes_no_grey_by_more_than_one(digits, monkeypatch):
    exact = sample.PortableRandom.normal
    monkeypatch.setattr(sample.PortableRandom, "normal", lambda self, *shape: exact(self, *shape) * (1 + 1e-13))
    other = sample.draw_digits(12, 30, seed=3)
    assert abs(other.pixels.astype(int) - digits.pixels).max() <= 1


def test_streams_of_a_seed_differ():
    one, two = (sample.draw_digits(1, 10, seed=0, stream=stream).pixels for stream in (0, 1))
    assert np.all(np.any(one != two, axis=1))


def test_a_writer_of_the_same_difficulty_does_not_depend_on_the_others():
    few, many = (sample.draw_digits(n, 10, seed=5, difficulty=(0.4, 0.4)).pixels for n in (2, 4))
    assert np.array_equal(few, many[:20])


def test_no_two_digits_are_alike(digits):
    assert len(np.unique(digits.pixels, axis=0)) == len(digits.pixels)


def test_the_longer_side_fills_the_box(digits):
    inked = frames(digits) > 0
    rows, columns = inked.any(axis=2), inked.any(axis=1)
    height = 28 - rows.argmax(axis=1) - rows[:, ::-1].argmax(axis=1)
    width = 28 - columns.argmax(axis=1) - columns[:, ::-1].argmax(axis=1)
    assert np.array_equal(np.unique(np.maximum(height, width)), [pen.BOX])


def test_the_centre_of_mass_is_in_the_middle(digits):
    grey, at = frames(digits), np.arange(28)
    mass = grey.sum(axis=(1, 2))
    off = np.maximum(abs(grey.sum(axis=2) @ at / mass - 14), abs(grey.sum(axis=1) @ at / mass - 14))
    assert np.mean(off < 0.6) > 0.97  # a box at the edge of the frame can go no further
    assert off.max() < 2


def test_ink_is_dark_and_its_edges_are_smooth(digits):
    grey = frames(digits)
    assert np.all(grey.max(axis=(1, 2)) == 255)
    assert 0.08 < np.mean(grey > 0) < 0.25  # the real training file: 0.135
    assert 0.3 < np.mean((grey > 0) & (grey < 250)) / np.mean(grey > 0) < 0.9  # the real one: 0.76


def nearest_mean_accuracy(train, other):
    means = np.stack([train.pixels[train.labels == label].mean(axis=0) for label in range(10)])
    distance = ((other.pixels[:, None, :] - means) ** 2).sum(axis=2)
    return np.mean(distance.argmin(axis=1) == other.labels)


def test_harder_writers_are_harder_to_read():
    train = sample.draw_digits(20, 20, seed=0, difficulty=(0.3, 0.3))
    easy, middle, hard = (nearest_mean_accuracy(train, sample.draw_digits(12, 20, seed=1, difficulty=(d, d)))
                          for d in (0.0, 0.5, 1.0))
    assert easy > middle + 0.02 > hard + 0.04
    assert easy > 0.75


def test_difficulty_falls_through_the_training_file_and_the_test_writers_are_harder_still():
    assert sample.TRAIN_DIFFICULTY[0] > sample.TRAIN_DIFFICULTY[1]
    assert min(sample.TEST_DIFFICULTY) > max(sample.TRAIN_DIFFICULTY)


def test_the_extra_paper_is_inkier():
    plain, extra = (sample.draw_digits(10, 10, seed=0, difficulty=(0.4, 0.4), paper=paper).pixels.mean()
                    for paper in (sample.TRAIN_PAPER, sample.EXTRA_PAPER))
    assert extra > 1.2 * plain


@pytest.mark.parametrize(("writers", "rows"), [(0, 10), (1, 0), (1, 15), (2, 5)])
def test_rows_that_do_not_hold_every_digit_equally_often_are_refused(writers, rows):
    with pytest.raises(KitError, match="equally often") as error:
        sample.draw_digits(writers, rows)
    assert "multiple of 10" in error.value.fix


# -- the random numbers ---------------------------------------------------------------------------------------------


def test_uniform_numbers_are_pcg64s_as_numpy_makes_them():
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence((7, 1)))).random(5)
    assert np.array_equal(sample.PortableRandom(7, 1).uniform(5), expected)


def test_normal_numbers_are_normal():
    numbers = sample.PortableRandom(0).normal(100, 200)
    assert numbers.shape == (100, 200)
    assert abs(numbers.mean()) < 0.03 and abs(numbers.std() - 1) < 0.03
    assert abs(np.mean(abs(numbers) < 1.96) - 0.95) < 0.01


# -- the files ------------------------------------------------------------------------------------------------------


def test_the_training_file_has_the_competitions_format(folder):
    frame = pd.read_csv(folder / "train.csv")
    assert tuple(frame.columns) == ("label", *KANNADA.pixel_columns)
    assert np.array_equal(frame["label"], np.arange(60) % 10)
    drawn = sample.draw_digits(3, 20, seed=1)
    assert np.array_equal(frame.to_numpy()[:, 1:], drawn.pixels)


def test_the_test_file_is_shuffled_balanced_and_numbered(folder):
    frame = pd.read_csv(folder / "test.csv")
    answers = sample.draw_test_digits(2, seed=1)
    assert tuple(frame.columns) == ("id", *KANNADA.pixel_columns)
    assert np.array_equal(frame["id"], np.arange(200))
    assert np.array_equal(frame.to_numpy()[:, 1:], answers.pixels)
    assert np.array_equal(np.bincount(answers.labels), np.full(10, 20))
    assert np.mean(answers.labels == np.arange(200) % 10) < 0.3
    assert len(np.unique(answers.writers[:40])) == 2


def test_dig_mnist_and_the_sample_submission(folder):
    extra, submission = pd.read_csv(folder / "Dig-MNIST.csv"), pd.read_csv(folder / "sample_submission.csv")
    assert tuple(extra.columns) == ("label", *KANNADA.pixel_columns)
    assert np.array_equal(extra["label"], np.arange(100) % 10)
    assert tuple(submission.columns) == ("id", "label")
    assert np.array_equal(submission["id"], np.arange(200)) and set(submission["label"]) == {0}


def test_files_are_byte_for_byte_the_same_for_a_seed(folder, tmp_path):
    sample.draw_sample(tmp_path, seed=1, n_writers=3, rows_per_writer=20, n_test_writers=2, n_extra_writers=1)
    for name in KANNADA.files:
        digest, again = (hashlib.sha256((where / name).read_bytes()).hexdigest() for where in (folder, tmp_path))
        assert digest == again, name
        assert b"\r" not in (folder / name).read_bytes()


def test_no_sample_of_another_competition(tmp_path):
    with pytest.raises(KitError, match="no sample for digit-recognizer"):
        sample.draw_sample(tmp_path, competition=DIGIT_RECOGNIZER)
    assert not list(tmp_path.iterdir())


# -- pen and strokes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", range(10))
def test_every_habit_is_a_line_without_gaps(label):
    for habit in strokes.GLYPHS[label]:
        line = strokes.make_curve(habit)
        assert np.allclose(line.basis.sum(axis=1), 1)  # moving all control points moves the line
        points, start = line.basis @ line.control, 0
        for stroke in habit.strokes:
            first = np.flatnonzero((points[start:] == stroke[0]).all(axis=1))[0] + start
            last = np.flatnonzero((points[first + 1:] == stroke[-1]).all(axis=1))[0] + first + 1
            assert first == start
            assert np.hypot(*np.diff(points[first:last + 1], axis=0).T).max() * pen.BOX < 1.0
            start = last + 1
        assert start == len(points)
        assert 0.8 < np.ptp(points[:, 1]) < 1.2 or np.ptp(points[:, 0]) > 0.8


def test_a_corner_stays_one_point():
    line = strokes.make_curve(strokes.Habit(1, (((0, 0), (1, 0), (1, 0), (1, 1)),)))
    assert line.group.tolist() == [0, 1, 1, 2]


def test_a_dab_covers_its_area_wherever_it_falls():
    at = np.array([[10.0, 10.0], [10.3, 9.6], [5.5, 5.5]])[:, :, None]
    covered = pen.rasterize(at, np.full((3, 1), 1.8)).sum(axis=(1, 2))
    assert np.allclose(covered, np.pi * 1.8**2, rtol=0.06)


def test_the_box_is_filled_by_ink_not_by_lines():
    points = np.array([[[0.0, 3.0, 50.0], [0.0, 7.0, 0.0]]])  # the third point is not drawn
    placed = pen.fit_to_box(points, np.array([[1.0, 2.0, pen.UNSEEN]]))
    assert placed[0, 1, 0] - 1.0 == pytest.approx(0, abs=0.01) and placed[0, 1, 1] + 2.0 == pytest.approx(20, abs=0.01)
    assert placed[0, 0, 0] - 1.0 > 2  # the shorter side stands in the middle


def test_ink_at_the_edge_of_the_frame_stays_whole():
    box = np.zeros((1, 20, 20))
    box[0, :, 0] = 1.0  # a centre of mass that would push the box out of the frame
    assert pen.center_by_mass(box).sum() == 20
    assert np.flatnonzero(pen.center_by_mass(box)[0].any(axis=0)).tolist() == [8]
