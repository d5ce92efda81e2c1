"""What scripts/bench.py measures, one function each; each measurement has a process of its own.

On the command line stand a function's name and its options as JSON; the answer is one JSON line. A
function prepares (imports, data, first compilation) and gives back what is to be timed. Between the
two the process says "ready" and waits for a line on stdin, so that several start at once.
"""

import functools
import inspect
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# The checkout that this script is in, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from kit import pipeline
from kit.core import backend
from kit.core.config import RunConfig
from kit.core.progress import LiveProgress, PlainProgress
from kit.core.run_folder import RunFolder
from kit.core.storage import read_csv
from kit.core.system import cores
from kit.data.competition import KANNADA
from kit.data.folds import make_folds
from kit.data.source import DataFolder
from kit.data.table import read_table
from kit.training import checkpoints, fit, models, predict
from kit.training.augment import N_NUMBERS
from kit.training.job_runner import events_to
from kit.training.jobs import FoldData, FoldJob
from kit.training.trainer import Trainer, trainer_for

Result = dict[str, Any]
Measure = Callable[[], Result]
VAL_ROWS = 500  # of a fold whose training is timed: few, since its predictions are not


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


# -- reading ---------------------------------------------------------------------------------------


def read(data: str, how: str) -> Measure:
    """Seconds to read train.csv, which is in the page cache.

    how: pandas, pyarrow, kit, or cached (from the kit's own cache).
    """
    import pandas as pd

    scratch = Path(tempfile.mkdtemp(prefix="kit-bench-"))
    path = Path(shutil.copy(Path(data) / KANNADA.train, scratch))
    ways = {"pandas": lambda: pd.read_csv(path),
            "pyarrow": lambda: pd.read_csv(path, engine="pyarrow"),
            "kit": lambda: read_table(path, KANNADA, labelled=True),
            "cached": lambda: read_table(path, KANNADA, labelled=True)}
    if how == "cached":
        time.sleep(2.1)  # the cache of a file that has just changed is not trusted yet
        read_table(path, KANNADA, labelled=True)

    def measure() -> Result:
        try:
            return {"value": seconds(ways[how])}
        finally:
            shutil.rmtree(scratch)

    return measure


# -- the machine -----------------------------------------------------------------------------------


def machine(data: str) -> Measure:
    """What the numbers were measured on, and with which versions."""
    import importlib.util

    about = backend.describe()
    if importlib.util.find_spec("torch"):
        import torch

        versions = {**about["versions"], "torch": torch.__version__}  # type: ignore[dict-item]
        about["versions"] = versions
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    about |= {"cpu": names[0] if names else "", "sample": DataFolder(Path(data), KANNADA).is_sample}
    return lambda: {"value": 0.0, "machine": about}


def matmul(precision: str, size: int) -> Measure:
    """TFLOP/s of a square matrix product, the fastest of a hundred: convolutions get no more."""
    from keras import ops

    backend.configure_devices()
    numbers = np.random.default_rng(0).normal(size=(size, size)).astype("float32")
    matrix = ops.cast(numbers, precision)

    def product() -> None:
        ops.convert_to_numpy(ops.cast(ops.matmul(matrix, matrix)[0, 0], "float32"))

    def measure() -> Result:
        return {"value": 2 * size**3 / min(seconds(product) for _ in range(100)) / 1e12}

    product()
    return measure


# -- training --------------------------------------------------------------------------------------


def training_rows(data: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `rows` rows of train.csv, repeated where it has fewer: a memory map, as the kit's.

    Pixels uint8 (rows, 784), labels uint8 (rows,).
    """
    table = DataFolder(Path(data), KANNADA).train()
    if rows <= len(table):
        return table.pixels[:rows], table.labels[:rows]
    times = -(-rows // len(table))
    with tempfile.TemporaryFile() as file:
        for _ in range(times):
            np.asarray(table.pixels).tofile(file)
        file.flush()
        pixels = np.memmap(file, "uint8", "r", shape=(rows, table.pixels.shape[1]))
    return pixels, np.tile(table.labels, times)[:rows]


def tutorial_network() -> Any:
    """The Kannada tutorial's CNN as it was written, in float32, with Keras' own layers."""
    import keras
    from keras import layers

    def block(filters: int, size: int) -> list[Any]:
        return [layers.Conv2D(filters, size, padding="same", activation="relu"),
                layers.Conv2D(filters, size, padding="same", activation="relu"),
                layers.MaxPooling2D(), layers.Dropout(0.25)]

    model = keras.Sequential([keras.Input((28, 28, 1)), *block(32, 5), *block(64, 3),
                              layers.Flatten(), layers.Dense(256, activation="relu"),
                              layers.Dropout(0.5),
                              layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def as_tutorial(pixels: np.ndarray) -> np.ndarray:
    return (pixels.reshape(-1, 28, 28, 1) / 255.0).astype("float32")


def keras_fit(data: str, rows: int, epochs: int, batch_size: int = 32) -> Measure:
    """Images a second of Keras' `fit`, as the tutorial was written."""
    backend.load()
    pixels, labels = training_rows(data, rows)
    images, model = as_tutorial(pixels), tutorial_network()
    model.fit(images[:2 * batch_size], labels[:2 * batch_size], batch_size=batch_size, verbose=0)

    def measure() -> Result:
        took = seconds(lambda: model.fit(images, labels, batch_size=batch_size, epochs=epochs,
                                         verbose=0))
        return {"value": rows * epochs / took, "flops": 3 * models.flops(model),
                "precision": "float32"}

    return measure


def kit_fit(data: str, model: str, rows: int, epochs: int, precision: str = "auto",
            threads: int | None = None) -> Measure:
    """Images a second of the kit's training, its steps alone."""
    backend.configure_devices(threads)
    precision = backend.resolve_precision(precision)[0]
    recipe = models.get(model)
    fold = one_fold(data, rows)
    job = FoldJob(model, 0, 0, epochs, min(recipe.batch_size, rows), precision, 1)
    few = replace(fold, train_rows=fold.train_rows[:2 * job.batch_size])

    def train(job: FoldJob, fold: FoldData) -> Result:
        with tempfile.TemporaryDirectory(prefix="kit-bench-") as folder:
            fit.train_fold(job, recipe, KANNADA, fold, Path(folder), events_to(PlainProgress()))
            took = read_csv(Path(folder) / "history.csv")["seconds"].sum()
        steps = len(fold.train_rows) // job.batch_size
        network = trainer_for(recipe, KANNADA, precision, job.batch_size).model
        return {"value": steps * job.batch_size * job.epochs / took, "precision": precision,
                "threads": threads, "batch_size": job.batch_size,
                "flops": 3 * models.flops(network)}

    train(replace(job, epochs=1), few)  # compiles
    return lambda: train(job, fold)


def one_fold(data: str, rows: int) -> FoldData:
    """So many rows to train on, and a few to predict."""
    pixels, labels = training_rows(data, rows + VAL_ROWS)
    numbers = np.arange(len(pixels))
    return FoldData(pixels, labels, numbers[VAL_ROWS:], numbers[:VAL_ROWS])


def augmentation(data: str, model: str, rows: int, epochs: int) -> Measure:
    """% that augmentation adds to a step: `rows` images with and without it in turn, the median.

    One thread, as a fold has it; in one process, since the machine's pace changes by more within a
    minute.
    """
    from keras import ops

    backend.configure_devices(1)
    recipe, batch = models.get(model), min(models.get(model).batch_size, rows)
    pixels, labels = training_rows(data, rows)
    images, classes = (ops.convert_to_tensor(array) for array in (
        pixels.reshape(-1, *KANNADA.shape, 1), labels.astype("int32")))
    order = np.arange(rows // batch * batch, dtype="int32").reshape(-1, batch)
    rates, rng = np.full(len(order), 1e-4, "float32"), np.random.default_rng(0)
    precision = backend.resolve_precision("auto")[0]
    trainers = [trainer_for(way, KANNADA, precision, batch)
                for way in (recipe, replace(recipe, augment=None))]

    def steps(trainer: Trainer) -> None:
        augment = trainer.recipe.augment
        drawn = augment.draw(rng, order.size, KANNADA.shape) if augment \
            else np.zeros((0, N_NUMBERS), "float32")
        trainer.train(images, classes, order, drawn.reshape(len(order), -1, N_NUMBERS), rates)

    def measure() -> Result:
        ratios = []
        for turn in range(epochs):
            turns = trainers if turn % 2 == 0 else trainers[::-1]
            took = {trainer: seconds(functools.partial(steps, trainer)) for trainer in turns}
            ratios.append(took[trainers[0]] / took[trainers[1]])
        return {"value": 100 * (statistics.median(ratios) - 1)}

    for trainer in trainers:
        steps(trainer)  # compiles
    return measure


def bookkeeping(data: str, model: str, rows: int, epochs: int) -> Measure:
    """% of a fold's training that the live display, the logs and the checkpoints take."""
    backend.configure_devices(1)
    recipe, spent = models.get(model), []
    precision = backend.resolve_precision("auto")[0]
    job = FoldJob(model, 0, 0, epochs, min(recipe.batch_size, rows), precision, 1)
    fold = one_fold(data, rows)

    def timed(function: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: spent.append(seconds(lambda: function(*arguments)))

    def measure() -> Result:
        display = LiveProgress()
        display.start({job.key: 1.0})
        writer = checkpoints.CheckpointWriter
        writer.write_if_due = timed(writer.write_if_due)  # type: ignore[method-assign]
        with tempfile.TemporaryDirectory(prefix="kit-bench-") as folder:
            fit.train_fold(job, recipe, KANNADA, fold, Path(folder), timed(events_to(display)))
            took = read_csv(Path(folder) / "history.csv")["seconds"].sum()
        display.stop()
        return {"value": 100 * sum(spent) / (took + sum(spent))}

    return measure


def torch_fit(data: str, rows: int, epochs: int, batch_size: int = 256,
              threads: int | None = None) -> Measure:
    """Images a second of PyTorch on the tutorial's layers: bfloat16 by autocast, channels last."""
    import torch
    from torch import nn

    torch.set_num_threads(threads or len(cores()))
    torch.manual_seed(0)
    pixels, labels = (torch.from_numpy(np.array(array)) for array in training_rows(data, rows))
    labels = labels.long()

    def block(inside: int, filters: int, size: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, filters, size, padding="same"), nn.ReLU(),
                nn.Conv2d(filters, filters, size, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
                nn.Dropout(0.25)]

    net = nn.Sequential(*block(1, 32, 5), *block(32, 64, 3), nn.Flatten(), nn.Linear(3136, 256),
                        nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10))
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def epoch(n: int) -> None:
        for batch in torch.randperm(n).split(batch_size):
            images = pixels[batch].reshape(-1, 1, 28, 28).to(memory_format=torch.channels_last)
            images = images.float() / 255
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(net(images), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def measure() -> Result:
        took = seconds(lambda: [epoch(rows) for _ in range(epochs)])
        return {"value": rows * epochs / took, "precision": "bfloat16", "threads": threads,
                "batch_size": batch_size,
                "parameters": sum(parameter.numel() for parameter in net.parameters())}

    epoch(min(rows, 2 * batch_size))
    return measure


# -- whole jobs ------------------------------------------------------------------------------------


def cv(data: str, executor: str, model: str, folds: int, rows: int,
       epochs: int | None = None) -> Measure:
    """Seconds of `kit cv`: `folds` folds of the model and of the baseline, blend and report."""
    backend.load()
    here = DataFolder(Path(data), KANNADA)
    n = len(here.train())
    config = RunConfig(models=(model,), n_folds=folds, epochs=epochs, executor=executor,
                       limit=rows // KANNADA.n_classes if rows < n else None)

    def measure() -> Result:
        with tempfile.TemporaryDirectory(prefix="kit-bench-") as scratch:
            began = time.perf_counter()
            trained = pipeline.cv(config, here, RunFolder(Path(scratch) / "run"))
            took = time.perf_counter() - began
        accuracy = trained.report["cv"]["oof_accuracy"]
        return {"value": took, "accuracy": accuracy, "rows": min(rows, n)}

    return measure


def race(data: str, model: str, epochs: int, rows: int) -> Measure:
    """Seconds from data in memory to a trained network, and its accuracy on held-out writers.

    Compilation counts. model: `tutorial`, or one of the kit's with a schedule of so many epochs,
    which reads each row by itself.
    """
    backend.configure_devices()
    table = DataFolder(Path(data), KANNADA)
    train = table.train()
    limit = rows // KANNADA.n_classes if rows < len(train) else None
    folds = make_folds(train.labels, KANNADA, 5, "auto", 0, limit, table.writer_block)
    inside, outside = folds.rows[folds.fold != 0], folds.rows[folds.fold == 0]

    def tutorial() -> Result:
        began = time.perf_counter()
        network = tutorial_network()
        network.fit(as_tutorial(train.pixels[inside]), train.labels[inside], epochs=epochs,
                    verbose=0)
        took = time.perf_counter() - began
        probs = network.predict(as_tutorial(train.pixels[outside]), verbose=0)
        return {"value": took, "accuracy": float((probs.argmax(1) == train.labels[outside]).mean())}

    def kit() -> Result:
        recipe = replace(models.get(model), label_spreading=False)
        precision = backend.resolve_precision("auto")[0]
        batch_size = min(recipe.batch_size, len(inside))
        job = FoldJob(model, 0, 0, epochs, batch_size, precision, recipe.tta)
        with tempfile.TemporaryDirectory(prefix="kit-bench-") as folder:
            fold = FoldData(train.pixels, train.labels, inside, outside)
            began = time.perf_counter()
            done = fit.train_fold(job, recipe, KANNADA, fold, Path(folder))
            took = time.perf_counter() - began
        return {"value": took - done["predict_seconds"], "accuracy": done["val_accuracy"],
                "precision": precision}

    return tutorial if model == "tutorial" else kit


def inference(data: str, views: int, rows: int, model: str = "cnn") -> Measure:
    """Images a second from pixels to probs; views 0: Keras' `predict` of the tutorial's network."""
    backend.configure_devices()
    pixels, _ = training_rows(data, rows)
    if views:
        precision = backend.resolve_precision("auto")[0]
        trainer = trainer_for(models.get(model), KANNADA, precision, 256)

        def run(n: int) -> Any:
            return predict.predict_probs(trainer, pixels[:n], views)
    else:
        network = tutorial_network()

        def run(n: int) -> Any:
            return network.predict(as_tutorial(pixels[:n]), verbose=0)
    run(1)
    return lambda: {"value": rows / seconds(lambda: run(rows)), "views": views}


MEASURES = {function.__name__: function for function in
            (read, machine, matmul, keras_fit, kit_fit, augmentation,
             bookkeeping, torch_fit, cv, race, inference)}


def peak_mib() -> float:
    """The most memory that this process, or the largest one that it started, has held; MiB."""
    most = max(resource.getrusage(who).ru_maxrss
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most / (1024 if sys.platform != "darwin" else 1024**2)


def main(name: str, options: str) -> None:
    function = MEASURES[name]
    given = json.loads(options)
    if "cores" in given and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, given["cores"])
    known = inspect.signature(function).parameters
    out = os.fdopen(os.dup(1), "w")  # what libraries print goes to stderr
    os.dup2(2, 1)
    measure = function(**{key: value for key, value in given.items() if key in known})
    print("ready", file=out, flush=True)
    sys.stdin.readline()
    print(json.dumps({**measure(), "peak_mib": peak_mib()}), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
