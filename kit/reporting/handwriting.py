"""How each class is written in the test file: its rows in groups of similar shape.

Eight people wrote that file, and it does not say who wrote what. For each class by itself, k-means
puts its blurred pictures into eight groups. The farther a group lies from the others, the more of
its rows are by one person; how many is measured on the training file, where writers are known: on
eight held-out ones at a time, in as many rows as the test file has. Groups of different classes are
not joined into eight people: an embedding trained for that alone was right for two rows of five
(docs/lab-log.md, 2026-11-29).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.data.competition import KANNADA
from kit.data.folds import TEST_WRITERS

if TYPE_CHECKING:
    from kit.ensembling.blend import RunResults

LEAST_ROWS = 2_000  # of the test file; of fewer, many a group would be two or three rows
LEAST_GROUP = 10  # rows; a smaller group is one person's by chance, and is left out
EIGHTS = 3  # of held-out writers, each grouped as the test file is
EXAMPLES = 3  # rows pictured of each group, those nearest to its centre
BLUR = 1.0  # standard deviation in pixels
SEED = 0


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one class that look alike."""

    rows: np.ndarray  # int64 (m,), the most typical first
    # Mean distance of its rows to its centre, over that to the nearest centre of another group.
    # Rounded, as its last digits depend on the number of threads
    spread: float


def handwriting(results: "RunResults") -> dict[str, Any] | None:
    """The `test.handwriting` of report.json: groups by class, and how many rows are by one person.

    `groups` has a list for each class, the most separate group first: `rows`, `one_writer` (the
    share of them to expect of one person), and `examples`; a class that was hardly read has none.
    `held_out_share` and `share_by_chance` are those of held-out writers' groups and of random ones,
    `scatter` is the standard deviation of single groups around `one_writer`. None where the writers
    are not known to be Kannada-MNIST's, and where the test file or the scored rows are too few.
    """
    competition, folds, data = results.competition, results.folds, results.data
    if results.test is None or len(results.test) < LEAST_ROWS or data.is_sample \
            or competition.slug != KANNADA.slug or not folds.keeps_writers_apart \
            or folds.writers is None \
            or folds.writers[-1] + 1 != len(competition.writers_by_difficulty):
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
            measured.append((group.spread, len(group.rows), _largest_share(wrote[group.rows]),
                             _largest_share(shuffled[group.rows])))
    if not measured:
        return None
    from sklearn.isotonic import IsotonicRegression

    spreads, sizes, shares, by_chance = np.array(measured).T
    one_writer = IsotonicRegression(increasing=False, out_of_bounds="clip")
    one_writer.fit(spreads, shares, sample_weight=sizes)
    off = shares - one_writer.predict(spreads)
    read, ids = results.submitted.argmax(axis=1), data.test().ids
    by_class: list[list[dict[str, Any]]] = [[] for _ in range(competition.n_classes)]
    found = _groups(_points(data.test().pixels, competition.shape), read)
    for group in sorted(found, key=lambda group: group.spread):
        by_class[read[group.rows[0]]].append({
            "rows": len(group.rows),
            "one_writer": round(float(one_writer.predict([group.spread])[0]), 4),
            "examples": [{"index": i, "id": ids[i].item()}
                         for i in group.rows[:EXAMPLES].tolist()]})
    return {"writers": TEST_WRITERS, "groups": by_class,
            "held_out_share": float(np.average(shares, weights=sizes)),
            "share_by_chance": float(np.average(by_chance, weights=sizes)),
            "scatter": float(np.sqrt(np.average(off**2, weights=sizes)))}


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
        if len(np.unique(points[rows], axis=0)) < TEST_WRITERS:  # nothing to group
            continue
        found = KMeans(TEST_WRITERS, n_init=2, random_state=SEED).fit(points[rows])
        distances = found.transform(points[rows])
        for label in range(TEST_WRITERS):
            own = np.flatnonzero(found.labels_ == label)
            if len(own) < LEAST_GROUP:
                continue
            to_centre, to_others = distances[own, label], np.delete(distances[own], label, axis=1)
            groups.append(Group(rows[own[np.argsort(to_centre, kind="stable")]],
                                round(float(to_centre.mean() / to_others.min(axis=1).mean()), 4)))
    return groups


def _largest_share(writers: np.ndarray) -> float:
    """The share of the rows that their most frequent writer wrote."""
    return float(np.unique(writers, return_counts=True)[1].max() / len(writers))
