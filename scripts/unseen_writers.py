"""How well do networks read writers harder than all they know, and what does each step gain there?

    python scripts/unseen_writers.py [--data-dir data] [--runs-dir runs/unseen-writers]

The competition's training writers, hardest first, make five eights. Networks learn from the writers
easier than an eight alone (the last eight's, than whom few are easier, from all other writers), and
are asked about that eight: as a whole, and in eight random halves, as test.csv is a half. Tables
in Markdown:

recipes    single networks on the hardest eight, each by itself and after label spreading; three
           seeds of each
pairs      two recipes, seed by seed, beside what CV over all writers says of them
steps      five folds, trained as --setting quick trains them, on all five eights: what label
           spreading and the class prior gain, and what it would gain to know who wrote what (then
           the prior is of each writer's own digits)
estimate   the same folds: whether the interval of their report holds for each half. The halves of
           an eight have writers, networks and half of their rows in common, so there are five
           trials rather than forty

Needs the training file and Dig-MNIST. An hour on two cores; started again with the same code, it
goes on where it ended.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.core import backend, provenance, storage
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data.competition import KANNADA
from kit.data.folds import TEST_WRITERS, find_writers
from kit.data.source import DataFolder
from kit.ensembling.blend import gather, mean_probs
from kit.ensembling.prior import ClassPrior, count_variance
from kit.reporting.estimate import estimate
from kit.training import models, records, settings
from kit.training.fit import train_fold
from kit.training.jobs import FoldData, FoldJob
from kit.training.predict import predict_features, predict_probs, predictor_for
from kit.training.spreading import spread
from kit.training.workers import WorkerPool

EIGHTS, HALVES, SEEDS, FOLDS = range(5), 8, (0, 1, 2), 5
# The network of --setting quick and its epochs; it has Dig-MNIST as well
QUICK = settings.get("quick").models[0], settings.get("quick").epochs
PAIRS = (("cnn", "mlp"), ("cnn_aug", "cnn"), ("strong", "cnn_aug"), ("strong", "light"),
         ("strong", "deep"), ("deep", "light"))
STEPS = ("raw", "class prior", "spread", "spread, class prior", "writers known",
         "spread, writers known")


@dataclass(frozen=True)
class Network:
    """A network that is trained on the writers easier than the hardest eight."""

    recipe: str
    epochs: int
    seed: int
    extra: bool = False  # learns from Dig-MNIST as well

    @property
    def name(self) -> str:
        return f"`{self.recipe}`{', from Dig-MNIST as well' * self.extra}"

    @property
    def folder(self) -> str:
        return f"{self.recipe}{'-extra' * self.extra}-{self.epochs}-epochs/seed_{self.seed}"


COMPARED = [Network(recipe, epochs, seed, extra) for recipe, epochs, extra in
            (*((each.name, each.epochs, False) for each in models.RECIPES.values()),
             (*QUICK, True)) for seed in SEEDS]


@dataclass(frozen=True, eq=False)
class Answers:
    """What f networks say of an eight, and what is true. Parts: the halves, then the whole."""

    raw: np.ndarray  # float32 (f, n, 10): each row by itself
    parts: list[np.ndarray]  # float32 (f, m, 10) each: spread among the rows of that part
    labels: np.ndarray  # uint8 (n,)
    writers: np.ndarray  # int32 (n,)

    def probs_of_steps(self, k: int) -> list[np.ndarray]:
        """The ensemble's probs `(m, 10)` of part k after each of STEPS."""
        rows, pool = rows_of_parts(len(self.labels))[k], len(self.labels)
        raw, after = mean_probs(self.raw[:, rows]), mean_probs(self.parts[k])
        return [raw, with_prior(raw, pool), after, with_prior(after, pool),
                *(writers_known(probs, self.writers[rows], pool) for probs in (raw, after))]

    def errors(self, k: int, probs: np.ndarray) -> int:
        """Of labels chosen by such probs of part k."""
        return int((probs.argmax(1) != self.labels[rows_of_parts(len(self.labels))[k]]).sum())


def rows_of_parts(n: int) -> list[np.ndarray]:
    """Positions among the n rows of an eight: eight random halves, then all."""
    halves = [np.sort(np.random.default_rng(k).permutation(n)[:n // 2]) for k in range(HALVES)]
    return [*halves, np.arange(n)]


def with_prior(probs: np.ndarray, pool: int) -> np.ndarray:
    """Probs with the class prior of rows drawn from a pool of so many, all classes alike."""
    return ClassPrior(count_variance(*probs.shape, pool), "").apply(probs)


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
        raise KitError("this is not the competition's own training file, so nobody knows how hard "
                       "its writers are", "get it: kit download")
    return np.argsort(KANNADA.writers_by_difficulty)[writers] // TEST_WRITERS


def train_and_ask(network: Network, data: DataFolder, folder: Path, precision: str,
                  report: Callable[[dict], None]) -> None:
    """Train a network, ask it about the hardest eight; answers.npz. In any process."""
    if (folder / "answers.npz").is_file():
        return
    recipe, train, extra = models.get(network.recipe), data.train(), data.extra()
    pixels, labels = train.pixels, np.asarray(train.labels)
    eight = eight_of_rows(labels)
    asked, known = np.flatnonzero(eight == 0), np.flatnonzero(eight > 0)
    if network.extra:
        known = np.concatenate([known, len(labels) + np.arange(len(extra))])
        pixels = np.concatenate([pixels, extra.pixels])
        labels = np.concatenate([labels, np.asarray(extra.labels)])
    job = FoldJob(network.recipe, network.seed, 0, network.epochs, recipe.batch_size, precision,
                  recipe.tta)
    done = train_fold(job, recipe, KANNADA, FoldData(pixels, labels, known, asked), folder)
    raw = ask([folder], network.recipe, train.pixels[asked], precision, folder / "answers.npz")
    report({"event": "say", "text": f"{network.folder}: {done['train_seconds']:.0f} s, "
            f"{(raw[0].argmax(1) != labels[asked]).sum()} of {len(asked):,} wrong by itself"})


def ask(folds: list[Path], model: str, pixels: np.ndarray, precision: str,
        path: Path) -> np.ndarray:
    """Write what trained folds say of the rows of an eight, and of its parts; the raw probs."""
    recipe, raw, parts = models.get(model), [], []
    predictor = predictor_for(recipe, KANNADA, precision)
    for fold in folds:
        records.load_weights(predictor.model, fold / "model.keras")
        raw.append(predict_probs(predictor, pixels, recipe.tta))
        features = predict_features(predictor, pixels) if recipe.label_spreading else None
        parts.append([raw[-1][rows] if features is None else spread(raw[-1][rows], features[rows])
                      for rows in rows_of_parts(len(pixels))])
    *halves, whole = (np.stack(part) for part in zip(*parts, strict=True))
    storage.write_npz(path, raw=np.stack(raw), halves=np.stack(halves), whole=whole)
    return np.stack(raw)


def train_folds(eight: int, data: DataFolder, root: Path) -> None:
    """`kit cv` on the writers whom the networks of an eight may know, with a half of it as test."""
    if not (root / "data" / KANNADA.slug).is_dir():
        ranks, source = eight_of_rows(np.asarray(data.train().labels)), root / "source"
        known = (ranks > eight if eight < EIGHTS[-1] else ranks != eight) & (
            np.arange(len(ranks)) < KANNADA.writer_block * (len(KANNADA.writers_by_difficulty) - 1))
        head, *lines = (data.path / KANNADA.train).read_bytes().splitlines(keepends=True)
        asked = np.flatnonzero(ranks == eight)[rows_of_parts((ranks == eight).sum())[0]]
        test = (b"%d,%s" % (i, lines[row].split(b",", 1)[1]) for i, row in enumerate(asked))
        source.mkdir(parents=True, exist_ok=True)
        (source / KANNADA.train).write_bytes(head + b"".join(
            lines[row] for row in np.flatnonzero(known)))
        (source / KANNADA.test).write_bytes(head.replace(b"label", b"id", 1) + b"".join(test))
        (source / KANNADA.sample_submission).write_bytes(
            b"id,label\n" + b"".join(b"%d,0\n" % i for i in range(len(asked))))
        shutil.copy(data.path / str(KANNADA.extra), source)
        kit("download", "--from", source, "--data-dir", root / "data")
        shutil.rmtree(source)
    run = root / "quick"
    if not (run / "report.json").is_file():
        model, epochs = QUICK
        how = ["--resume"] if (run / "config.json").is_file() else [
            "--model", model, "--epochs", epochs, "--train-extra", "--folds", FOLDS, "--force"]
        kit("cv", "--run", "quick", "--runs-dir", root, "--data-dir", root / "data", *how)


def kit(*words: object) -> None:
    """A command of the kit's. Ends this script where the command fails, having said why."""
    done = subprocess.run([sys.executable, "-m", "kit", *map(str, words)])
    if done.returncode:
        sys.exit(done.returncode)


def ask_folds(eight: int, data: DataFolder, root: Path, report: Callable[[dict], None]) -> None:
    """Ask the folds of an eight's run about all of it. In any process."""
    if (root / "answers.npz").is_file():
        return
    asked = np.flatnonzero(eight_of_rows(np.asarray(data.train().labels)) == eight)
    folds = [root / "quick" / QUICK[0] / "seed_0" / f"fold_{k}" for k in range(FOLDS)]
    precision = records.read_done(folds[0])["job"]["precision"]
    ask(folds, QUICK[0], data.train().pixels[asked], precision, root / "answers.npz")


def read_answers(path: Path, data: DataFolder, eight: int) -> Answers:
    labels = np.asarray(data.train().labels)
    found, asked = storage.read_npz(path), np.flatnonzero(eight_of_rows(labels) == eight)
    return Answers(found["raw"], [*found["halves"], found["whole"]], labels[asked],
                   find_writers(labels, KANNADA)[asked])


# -- the tables ------------------------------------------------------------------------------------


def recipe_table(answers: dict[Network, Answers], seconds: dict[Network, float]) -> Iterator[str]:
    """A line for each recipe: the errors of its seeds, and their mean ± std."""
    yield ("| network | epochs | s of a core | errors, by itself | right "
           "| errors of a half, spread | right | CV over all writers, as models.py states it |")
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name in dict.fromkeys(network.name for network in answers):
        seeds = [network for network in answers if network.name == name]
        recipe, n = models.get(seeds[0].recipe), len(answers[seeds[0]].labels)
        cells = [name, str(seeds[0].epochs), f"{np.mean([seconds[each] for each in seeds]):.0f}"]
        found = [answers[network] for network in seeds]
        cells += of_seeds([by_itself(one) for one in found], n)
        cells += of_seeds([of_a_half(one) for one in found], n / 2) if recipe.label_spreading \
            else ["", ""]
        cells.append("" if seeds[0].extra else f"{recipe.accuracy:.4f}")
        yield f"| {' | '.join(cells)} |"


def pair_table(answers: dict[Network, Answers]) -> Iterator[str]:
    """A line for two recipes: their errors' difference for each seed, and its mean ± std."""
    yield ("| errors of | less those of | counted on | seed by seed: mean ± std "
           "| CV over all writers, as models.py states it |")
    yield "|---|---|---|--:|--:|"
    of = {(network.recipe, network.seed): one for network, one in answers.items()
          if not network.extra}
    for pair in PAIRS:
        spreading = all(models.get(name).label_spreading for name in pair)
        errors, what = (of_a_half, "a half of the hardest eight, spread") if spreading else \
            (by_itself, "all of the hardest eight, each row by itself")
        gaps = [errors(of[pair[0], seed]) - errors(of[pair[1], seed]) for seed in SEEDS]
        stated = ", ".join(f"{models.get(name).accuracy:.4f}" for name in pair)
        yield (f"| `{pair[0]}` | `{pair[1]}` | {what} "
               f"| {', '.join(f'{gap:+.0f}' for gap in gaps)}: {np.mean(gaps):+.1f} ± "
               f"{np.std(gaps, ddof=1):.1f} | {stated} |")


def by_itself(one: Answers) -> float:
    """Errors of the only network's whole eight, each row by itself."""
    return one.errors(HALVES, one.raw[0])


def of_a_half(one: Answers) -> float:
    """Mean errors of the only network's halves, after label spreading."""
    return float(np.mean([one.errors(k, one.parts[k][0]) for k in range(HALVES)]))


def of_seeds(errors: list[float], n: float) -> list[str]:
    """Two cells: the errors of each seed and their mean ± std; and as the share that is right."""
    each, mean, deviation = ", ".join(f"{one:.0f}" for one in errors), np.mean(errors), \
        np.std(errors, ddof=1)
    return [f"{each}: {mean:.1f} ± {deviation:.1f}", f"{1 - mean / n:.4f} ± {deviation / n:.4f}"]


def step_table(eights: list[Answers]) -> Iterator[str]:
    """Errors in %: of an eight's halves, mean ± std; of the eight; and mean ± std over eights."""
    yield f"| eight | rows | {' | '.join(STEPS)} |"
    yield "|---|---|" + "--:|" * len(STEPS)
    for kind, parts in (("half", range(HALVES)), ("whole", [HALVES])):
        means = []
        for eight, one in enumerate(eights):
            rates = np.array([[100 * one.errors(k, probs) / len(probs)
                               for probs in one.probs_of_steps(k)] for k in parts])
            means.append(rates.mean(0))
            yield f"| {name_of(eight)} | {kind} | {' | '.join(mean_and_std(rates))} |"
        yield f"| all eights | {kind} | {' | '.join(mean_and_std(np.array(means)))} |"


def mean_and_std(rates: np.ndarray) -> list[str]:
    """A cell for each column; without a std where there is one line only."""
    if len(rates) == 1:
        return [f"{rate:.2f}" for rate in rates[0]]
    return [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in
            zip(rates.mean(0), rates.std(0, ddof=1), strict=True)]


def name_of(eight: int) -> str:
    first = TEST_WRITERS * eight + 1
    return f"{first}–{first + TEST_WRITERS - 1}"


def estimates(run: Path, data: DataFolder, one: Answers) -> np.ndarray:
    """The report's estimate, its low and high end, and what is true, for each half; `(8, 4)`."""
    results, found = gather(RunFolder(run), data, {}), []
    for k in range(HALVES):
        member = replace(results.members[0], test=list(one.parts[k]), before_spreading=[])
        half = replace(results, members=[member], test=mean_probs(one.parts[k]), row_by_row=None)
        said = estimate(half)
        right = 1 - one.errors(k, half.submitted) / len(half.submitted)
        found.append((said["value"], said["low"], said["high"], right))
    return np.array(found)


def estimate_table(found: Iterable[np.ndarray]) -> Iterator[str]:
    """A line for each eight: means over its halves, and for how many of them the interval held."""
    yield "| eight | estimate | low | high | actual | held, of 8 halves | widest |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    held = []
    for eight, rows in enumerate(found):
        _, low, high, actual = rows.T
        held.append(int(((low <= actual) & (actual <= high)).sum()))
        cells = [f"{mean:.4f}" for mean in rows.mean(0)]
        yield (f"| {name_of(eight)} | {' | '.join(cells)} | {held[-1]} "
               f"| {(high - low).max():.4f} |")
    yield (f"\nIt held for {sum(held)} of {HALVES * len(held)} halves, and for all halves of "
           f"{held.count(HALVES)} of {len(held)} eights.")


def measure(data: DataFolder, runs: Path) -> None:
    """Train and ask what is missing, and print the tables."""
    eight_of_rows(np.asarray(data.train().labels))  # ends here where that is not known
    if data.extra() is None:
        raise KitError(f"{data.path} has no {KANNADA.extra}, from which networks learn here",
                       "get it: kit download")
    backend.load()
    precision, _ = backend.resolve_precision("auto")
    runs /= f"{provenance.code_hash()[:12]}-{precision}"  # other code is not gone on with
    roots = [runs / f"eight_{eight}" for eight in EIGHTS]
    for eight, root in enumerate(roots):
        train_folds(eight, data, root)
    pool = WorkerPool(len(COMPARED), None)
    pool.report = lambda event: print(event["text"], flush=True)
    try:
        pool.run(ask_folds, [(eight, data, root) for eight, root in enumerate(roots)])
        longest = sorted(COMPARED, key=lambda each: models.get(each.recipe).cost * each.epochs)
        pool.run(train_and_ask, [(each, data, runs / each.folder, precision)
                                 for each in reversed(longest)])
    finally:
        pool.shutdown()
    eights = [read_answers(root / "answers.npz", data, eight) for eight, root in enumerate(roots)]
    compared = {each: read_answers(runs / each.folder / "answers.npz", data, 0)
                for each in COMPARED}
    seconds = {each: records.read_done(runs / each.folder)["train_seconds"] for each in COMPARED}
    folders = [DataFolder(root / "data" / KANNADA.slug, KANNADA) for root in roots]
    for name, lines in (
            ("recipes", recipe_table(compared, seconds)), ("pairs", pair_table(compared)),
            ("steps", step_table(eights)),
            ("estimate", estimate_table(map(estimates, [root / "quick" for root in roots], folders,
                                            eights)))):
        print(f"\n{name} ({precision}):\n", *lines, sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/unseen-writers"))
    options = parser.parse_args()
    try:
        measure(DataFolder(options.data_dir / KANNADA.slug, KANNADA), options.runs_dir)
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
