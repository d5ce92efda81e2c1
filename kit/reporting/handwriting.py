"""Whose hand is it? The test file's rows of each class, in eight groups of like shape.

Eight people wrote that file, and it does not say which rows are whose. For each class by itself,
k-means puts its blurred pictures into eight groups. The farther a group lies from the others, the
more of its rows are by one person; how many is measured on the training file, where writers are
known: on eight held-out ones at a time, in as many rows as the test file has. Groups of different
classes are not joined into eight people: an embedding trained for that alone was right for two rows
of five (docs/lab-log.md, 2026-11-29).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.data.folds import TEST_WRITERS
from kit.training.spreading import LEAST_ROWS

if TYPE_CHECKING:
    from kit.ensembling.blend import RunResults

EIGHTS = 3  # of held-out writers, each grouped as the test file is
EXAMPLES = 3  # rows pictured of each group, those nearest to its centre
LEAST_GROUP = 10  # rows; a smaller one is mostly one person's by chance, and shows nothing
BLUR = 1.0  # standard deviation in pixels
SEED = 0


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one class that look alike."""

    rows: np.ndarray  # int64 (m,), the most typical first
    # Mean distance of its rows to its centre, over that to the nearest centre of another group
    spread: float


def handwriting(results: "RunResults") -> dict[str, Any] | None:
    """The `test.handwriting` of report.json: groups by class, and how many rows are by one person.

    `groups` has a list for each class, the groups that are most surely one person's first: `rows`,
    `one_writer` (the share of them to expect of one person), and `examples`. None where the test
    file's writers are not those of Kannada-MNIST, where it is too short, and where too few held-out
    writers are known to measure the shares on.
    """
    competition, folds, data = results.competition, results.folds, results.data
    if results.test is None or not competition.writers_by_difficulty or data.is_sample \
            or folds.writers is None or not folds.keeps_writers_apart \
            or len(results.test) < LEAST_ROWS:
        return None
    n, rng = len(results.test), np.random.default_rng(SEED)
    scored = np.isfinite(results.oof).all(axis=1)
    drawn = rng.permutation(np.unique(folds.writers[scored]))[:EIGHTS * TEST_WRITERS]
    measured: list[tuple[float, int, float, float]] = []  # spread, rows, share, share by chance
    for writers in np.array_split(drawn, EIGHTS):
        rows = rng.permutation(np.flatnonzero(scored & np.isin(folds.writers, writers)))[:n]
        if len(writers) < TEST_WRITERS or len(rows) < n / 2:
            return None
        wrote, shuffled = folds.writers[rows], rng.permutation(folds.writers[rows])
        points = _points(data.train().pixels[folds.rows[rows]], competition.shape)
        for group in _groups(points, results.oof[rows].argmax(axis=1)):
            if len(group.rows) >= LEAST_GROUP:
                measured.append((group.spread, len(group.rows), _largest_share(wrote[group.rows]),
                                 _largest_share(shuffled[group.rows])))
    if not measured:
        return None
    from sklearn.isotonic import IsotonicRegression

    spreads, sizes, shares, by_chance = np.array(measured).T
    one_writer = IsotonicRegression(increasing=False, out_of_bounds="clip")
    one_writer.fit(spreads, shares, sample_weight=sizes)
    read, ids = results.submitted.argmax(axis=1), data.test().ids
    by_class: list[list[dict[str, Any]]] = [[] for _ in range(competition.n_classes)]
    for group in _groups(_points(data.test().pixels, competition.shape), read):
        by_class[read[group.rows[0]]].append({
            "rows": len(group.rows), "one_writer": float(one_writer.predict([group.spread])[0]),
            "examples": [{"index": i, "id": ids[i].item()}
                         for i in group.rows[:EXAMPLES].tolist()]})
    for groups in by_class:
        groups.sort(key=lambda group: -group["one_writer"])
    return {"writers": TEST_WRITERS, "held_out_share": float(np.average(shares, weights=sizes)),
            "share_by_chance": float(np.average(by_chance, weights=sizes)), "groups": by_class}


def _points(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pictures `(n, d)` float32, blurred and half as wide and high, of pixels `(n, h·w)` uint8."""
    from scipy.ndimage import gaussian_filter

    images = np.asarray(pixels, "float32").reshape(-1, *shape)
    return gaussian_filter(images, (0, BLUR, BLUR))[:, ::2, ::2].reshape(len(images), -1)


def _groups(points: np.ndarray, read: np.ndarray) -> list[Group]:
    """The groups of every class, of points `(n, d)` that were read as classes `(n,)`."""
    from sklearn.cluster import KMeans

    groups = []
    for k in np.unique(read):
        rows = np.flatnonzero(read == k)
        if len(rows) < 2 * TEST_WRITERS:  # nothing to group
            continue
        found = KMeans(TEST_WRITERS, n_init=2, random_state=SEED).fit(points[rows])
        distances = found.transform(points[rows])
        for label in np.unique(found.labels_):
            own = np.flatnonzero(found.labels_ == label)
            to_centre, to_others = distances[own, label], np.delete(distances[own], label, axis=1)
            groups.append(Group(rows[own[np.argsort(to_centre, kind="stable")]],
                                float(to_centre.mean() / to_others.min(axis=1).mean())))
    return groups


def _largest_share(writers: np.ndarray) -> float:
    """The share of the rows that their most frequent writer wrote."""
    return float(np.unique(writers, return_counts=True)[1].max() / len(writers))
