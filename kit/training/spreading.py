"""Label spreading: rows of one file that look alike to the network get probs alike.

A writer whose 7 is like other people's 3 has most of his sevens read right and some read wrong, and
to the network these look more like each other than like anybody's 3. So each row takes over a share
of its nearest neighbours' probs, and they of theirs (Zhou et al., Learning with local and global
consistency, 2003). No label is needed, and no writer. On writers unseen in training it takes a
quarter to two fifths of the errors that the network leaves (docs/lab-log.md, 2026-11-29).
"""

import numpy as np

NEIGHBOURS = 4
SHARE = 0.8  # of a row's probs that comes from its neighbours
TEMPERATURE = 0.05  # of a neighbour's weight, by its cosine similarity
ROUNDS = 30  # .8 ** 30 is a thousandth
LEAST_ROWS = 500  # in shorter files a row's neighbours are by other writers, and mislead
MOST_ROWS = 12_800  # spread together; the time grows with the square


def spread(probs: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Probs `(n, n_classes)` float32 of rows that belong together, spread among their neighbours.

    features: `(n, d)`, at least 0, what a network's last convolution says of each row. Where there
    are too few rows, probs as they are.
    """
    n = len(probs)
    if n < LEAST_ROWS:
        return probs
    from scipy import sparse
    from sklearn.neighbors import NearestNeighbors

    points = np.sqrt(features.astype("float32"))  # the root evens out how far single channels go
    points -= points.mean(0)
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-12
    search = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(points)
    distances, neighbours = search.kneighbors()  # of each row, itself not among them
    similarity = 1 - distances.astype("float64") ** 2 / 2
    weights = np.exp((similarity - similarity[:, :1]) / TEMPERATURE)
    graph = sparse.csr_matrix((weights.ravel(), neighbours.ravel(),
                               np.arange(0, n * NEIGHBOURS + 1, NEIGHBOURS)), shape=(n, n))
    graph = graph.maximum(graph.T)
    root = sparse.diags(1 / np.sqrt(np.asarray(graph.sum(1)).ravel()))
    graph = root @ graph @ root
    own = probs.astype("float64")
    spread_probs = own
    for _ in range(ROUNDS):
        spread_probs = (1 - SHARE) * own + SHARE * (graph @ spread_probs)
    return (spread_probs / spread_probs.sum(1, keepdims=True)).astype("float32")
