"""How well do networks read writers harder than all they know, and what does each step gain there?

    python scripts/unseen_writers.py [--data-dir data] [--runs-dir runs/unseen-writers]

The training writers, hardest first, make five eights. A network learns from the writers easier than
an eight alone, and is asked about that eight: as a whole, and in eight random halves, as test.csv
is a half. Three tables in Markdown:

recipes    each network by itself on the hardest eight, and after label spreading; three seeds
steps      what label spreading and the class prior gain on all five eights, and what it would gain
           to know who wrote what: then the prior is of each writer's own digits
estimate   whether the report's interval holds for each half: the estimate's steps 1 to 3, told the
           OOF rows of submissions/quick, those of easier writers alone

Needs the competition's own training file. Three quarters of an hour on two cores; started again, it
goes on with the networks that are missing.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.core import backend, storage
from kit.data.competition import KANNADA
from kit.data.folds import TEST_WRITERS, find_writers
from kit.data.source import DataFolder
from kit.ensembling.prior import ClassPrior
from kit.reporting.estimate import accuracy_bounds, extrapolate, log_margin
from kit.training import models, records
from kit.training.fit import train_fold
from kit.training.jobs import FoldData, FoldJob
from kit.training.predict import predict_features, predict_probs
from kit.training.spreading import spread
from kit.training.trainer import trainer_for
from kit.training.workers import WorkerPool

EIGHTS, HALVES, SEEDS = 5, 8, (0, 1, 2)
STEPS = ("raw", "class prior", "spread", "spread, class prior", "writers known",
         "spread, writers known")


@dataclass(frozen=True)
class Network:
    """A recipe, with its own number of epochs, trained on the writers easier than an eight."""

    recipe: str
    seed: int = 0
    eight: int = 0  # that it is asked about; 0: the hardest
    extra: bool = False  # learns from Dig-MNIST as well

    @property
    def name(self) -> str:
        return f"`{self.recipe}`{', from Dig-MNIST as well' * self.extra}"

    @property
    def folder(self) -> str:
        return f"{self.recipe}{'-extra' * self.extra}/seed_{self.seed}/eight_{self.eight}"


COMPARED = [Network(recipe, seed, extra=extra)
            for recipe, extra in (*((name, False) for name in models.RECIPES), ("light", True))
            for seed in SEEDS]
OF_EIGHTS = [Network("light", eight=eight) for eight in range(EIGHTS)]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of its eight, and what is true. Parts: the halves, then the whole."""

    raw: np.ndarray  # float32 (n, 10): each row by itself
    parts: list[np.ndarray]  # float32 (m, 10) each: spread among the rows of that part
    labels: np.ndarray  # uint8 (n,)
    writers: np.ndarray  # int32 (n,)
    seconds: float  # that a core trained it

    def errors(self, k: int) -> int:
        """Of part k, after label spreading."""
        return int((self.parts[k].argmax(1) != self.labels[rows_of_parts(len(self.raw))[k]]).sum())

    def probs_of_steps(self, k: int) -> list[np.ndarray]:
        """Of part k, the probs after each of STEPS."""
        rows, pool = rows_of_parts(len(self.raw))[k], len(self.raw)
        raw, after, writers = self.raw[rows], self.parts[k], self.writers[rows]
        return [raw, with_prior(raw, pool), after, with_prior(after, pool),
                writers_known(raw, writers, pool), writers_known(after, writers, pool)]


def rows_of_parts(n: int) -> list[np.ndarray]:
    """Positions among the n rows of an eight: eight random halves, then all."""
    halves = [np.sort(np.random.default_rng(k).permutation(n)[:n // 2]) for k in range(HALVES)]
    return [*halves, np.arange(n)]


def with_prior(probs: np.ndarray, pool: int) -> np.ndarray:
    """Probs with the class prior of rows drawn from a pool of so many, all classes alike."""
    n = len(probs)
    return ClassPrior(n / KANNADA.n_classes * max(0, pool - n) / (pool - 1), "").apply(probs)


def writers_known(probs: np.ndarray, writers: np.ndarray, pool: int) -> np.ndarray:
    """Probs with a class prior for each writer's own rows."""
    known = np.empty_like(probs)
    for writer in np.unique(writers):
        own = writers == writer
        known[own] = with_prior(probs[own], pool // TEST_WRITERS)
    return known


# -- training and asking ---------------------------------------------------------------------------


def eight_of_rows(labels: np.ndarray) -> np.ndarray:
    """The eight of each training row's writer, `(n,)`: 0 for the hardest."""
    writers = find_writers(labels, KANNADA)
    if writers is None or writers[-1] + 1 != len(KANNADA.writers_by_difficulty):
        raise SystemExit("this is not the competition's own training file, so nobody knows how "
                         "hard its writers are")
    return np.argsort(KANNADA.writers_by_difficulty)[writers] // TEST_WRITERS


def ask(network: Network, data: DataFolder, folder: Path, precision: str,
        report: Callable[[dict], None]) -> None:
    """Train a network and write what it says of its eight into answers.npz; in any process."""
    if (folder / "answers.npz").is_file():
        return
    recipe, train = models.get(network.recipe), data.train()
    pixels, labels = train.pixels, np.asarray(train.labels)
    eight = eight_of_rows(labels)
    asked, known = np.flatnonzero(eight == network.eight), np.flatnonzero(eight > network.eight)
    if network.extra and (extra := data.extra()):
        known = np.concatenate([known, len(labels) + np.arange(len(extra))])
        pixels = np.concatenate([pixels, extra.pixels])
        labels = np.concatenate([labels, np.asarray(extra.labels)])
    job = FoldJob(network.recipe, network.seed, network.eight, recipe.epochs, recipe.batch_size,
                  precision, recipe.tta)
    done = train_fold(job, recipe, KANNADA, FoldData(pixels, labels, known, asked), folder)
    trainer = trainer_for(recipe, KANNADA, precision, recipe.batch_size)
    records.load_weights(trainer.model, folder / "model.keras")  # the fold may be an earlier call's
    raw = predict_probs(trainer, pixels[asked], recipe.tta)
    parts = [raw[rows] for rows in rows_of_parts(len(asked))]
    if recipe.label_spreading:
        features = predict_features(trainer, pixels[asked])
        parts = [spread(raw[rows], features[rows]) for rows in rows_of_parts(len(asked))]
    storage.write_npz(folder / "answers.npz", row=asked, raw=raw, halves=np.stack(parts[:HALVES]),
                      whole=parts[HALVES], seconds=done["train_seconds"])
    report({"event": "say", "text": f"{network.folder}: {done['train_seconds']:.0f} s, "
            f"{(raw.argmax(1) != labels[asked]).sum()} of {len(asked):,} wrong by itself"})


def ask_all(networks: list[Network], data: DataFolder, runs: Path
            ) -> tuple[dict[Network, Answers], str]:
    """The answers of all networks, trained side by side, the longest first; and the precision."""
    backend.load()
    precision, _ = backend.resolve_precision("auto")
    networks = sorted(networks, reverse=True, key=lambda each: models.get(each.recipe).cost
                      * models.get(each.recipe).epochs * (EIGHTS - each.eight))
    pool = WorkerPool(len(networks), None)
    pool.report = lambda event: print(event["text"], flush=True)
    try:
        pool.run(ask, [(each, data, runs / each.folder, precision) for each in networks])
    finally:
        pool.shutdown()
    labels, answers = np.asarray(data.train().labels), {}
    writers = find_writers(labels, KANNADA)
    for each in networks:
        found = storage.read_npz(runs / each.folder / "answers.npz")
        answers[each] = Answers(found["raw"], [*found["halves"], found["whole"]],
                                labels[found["row"]], writers[found["row"]],
                                float(found["seconds"]))
    return answers, precision


# -- the tables ------------------------------------------------------------------------------------


def recipe_table(answers: dict[Network, Answers]) -> Iterator[str]:
    """A line for each network; the errors of its seeds, and their mean ± std."""
    yield ("| network | epochs | s | errors of the hardest eight, by itself | right "
           "| errors of a half, spread | right | right, CV over all writers |")
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name in dict.fromkeys(network.name for network in answers):
        of_name = [network for network in answers if network.name == name]
        recipe, found = models.get(of_name[0].recipe), [answers[network] for network in of_name]
        n = len(found[0].raw)
        cells = [name, str(recipe.epochs), f"{np.mean([one.seconds for one in found]):.0f}",
                 *of_seeds([(one.raw.argmax(1) != one.labels).sum() for one in found], n)]
        cells += of_seeds([np.mean([one.errors(k) for k in range(HALVES)]) for one in found],
                          n / 2) if recipe.label_spreading else ["", ""]
        cells.append("" if of_name[0].extra else f"{recipe.accuracy:.4f}")
        yield f"| {' | '.join(cells)} |"


def of_seeds(errors: list[float], n: float) -> list[str]:
    """Two cells: the errors of each seed and their mean ± std; and as the share that is right."""
    each, mean, deviation = ", ".join(f"{one:.0f}" for one in errors), np.mean(errors), \
        np.std(errors, ddof=1)
    return [f"{each}: {mean:.1f} ± {deviation:.1f}", f"{1 - mean / n:.4f} ± {deviation / n:.4f}"]


def step_table(answers: dict[Network, Answers]) -> Iterator[str]:
    """Errors in %, mean ± std over the halves of an eight, of each whole eight, and of all."""
    yield f"| eight | rows | {' | '.join(STEPS)} |"
    yield "|---|---|" + "--:|" * len(STEPS)
    for kind, parts in (("half", range(HALVES)), ("whole", [HALVES])):
        lines = {}
        for network in OF_EIGHTS:
            one = answers[network]
            lines[eight_name(network)] = [
                [100 * (probs.argmax(1) != one.labels[rows_of_parts(len(one.raw))[k]]).mean()
                 for probs in one.probs_of_steps(k)] for k in parts]
        lines["all"] = [line for of_eight in lines.values() for line in of_eight]
        for name, rates in lines.items():
            cells = [f"{np.mean(rate):.2f}" + f" ± {np.std(rate):.2f}" * (len(rate) > 1)
                     for rate in zip(*rates, strict=True)]
            yield f"| {name} | {kind} | {' | '.join(cells)} |"


def eight_name(network: Network) -> str:
    first = TEST_WRITERS * network.eight + 1
    return f"{first}–{first + TEST_WRITERS - 1}"


def estimate_table(answers: dict[Network, Answers], told: Path,
                   labels: np.ndarray) -> Iterator[str]:
    """A line for each eight: means over its halves, and for how many of them the interval held."""
    oof = storage.read_npz(told / "oof.npz", "probs", "label", "row", "writer")
    margins, wrong = log_margin(oof["probs"]), oof["probs"].argmax(1) != oof["label"]
    eight, held = eight_of_rows(labels)[oof["row"]], 0
    yield "| eight | estimate | low | high | actual | held, of 8 halves | widest |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for network in OF_EIGHTS:
        one, found = answers[network], []
        # Few are easier than the last eight: it is estimated from all others.
        known = eight > network.eight if network.eight + 1 < EIGHTS else eight != network.eight
        for k in range(HALVES):
            single, draws = extrapolate(margins[known], wrong[known], oof["writer"][known],
                                        [log_margin(one.parts[k])], TEST_WRITERS)
            n = len(one.parts[k])
            found.append((1 - single, *accuracy_bounds(draws, n), 1 - one.errors(k) / n))
        _, low, high, actual = np.array(found).T
        held += int(right := ((low <= actual) & (actual <= high)).sum())
        cells = [f"{mean:.4f}" for mean in np.mean(found, 0)]
        yield (f"| {eight_name(network)} | {' | '.join(cells)} | {right} "
               f"| {(high - low).max():.4f} |")
    yield f"\nIt held for {held} of {EIGHTS * HALVES} halves."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/unseen-writers"))
    parser.add_argument("--told", type=Path, default=Path("submissions/quick"),
                        help="the run whose OOF rows the estimate is told")
    options = parser.parse_args()
    data = DataFolder(options.data_dir / KANNADA.slug, KANNADA)
    labels = np.asarray(data.train().labels)
    eight_of_rows(labels)  # ends here where they are not known
    answers, precision = ask_all(list(dict.fromkeys([*COMPARED, *OF_EIGHTS])), data,
                                 options.runs_dir)
    for name, lines in (
            ("recipes", recipe_table({network: answers[network] for network in COMPARED})),
            ("steps", step_table(answers)),
            ("estimate", estimate_table(answers, options.told, labels))):
        print(f"\n{name} ({precision}):\n", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
