"""Train and predict with smaller batches where memory is short.

What does not fit into a GPU's memory, or the machine's, often fits with half the batch. A fold is
then begun again, as one fold has one batch size; its done.json and the report say which.
"""

import re
from dataclasses import replace

from kit.core.errors import KitError
from kit.training.jobs import FoldJob

# Images in a batch, and predicted at a time. With fewer, batch normalisation has too few to
# average over, and memory is hardly the batch's any more.
LEAST = 16
LIBRARIES = ("tensorflow", "jax", "jaxlib")
# What their errors say, or are called, when an allocation fails. cuDNN says ALLOC_FAILED; status 1
# is oneDNN's, on a CPU: "could not create a memory object".
SIGNS = re.compile("resource_?exhausted|out.of.memory|alloc_failed|bad_alloc|failed to allocate"
                   "|status: ?1, message", re.IGNORECASE)

_fits: dict[tuple[str, str], int] = {}  # this process: by model and precision, what memory allowed


def is_short(error: BaseException) -> bool:
    """Whether `error` says that memory is short: Python's, TensorFlow's or JAX's."""
    if isinstance(error, MemoryError):
        return True
    return type(error).__module__.partition(".")[0] in LIBRARIES \
        and bool(SIGNS.search(f"{type(error).__name__}: {error}"))


def fitting(job: FoldJob, n_rows: int) -> FoldJob:
    """The job with the batch size that this process has found to fit; n_rows: that it trains on."""
    return _with_batch(job, _fits.get((job.model, job.precision), job.batch_size), n_rows)


def halve(job: FoldJob, n_rows: int, error: BaseException) -> FoldJob:
    """The job with half its batch, also for `fitting`; n_rows: that it trains on.

    KitError where that is less than `LEAST`. error: which says that memory is short.
    """
    batch_size = min(job.batch_size, n_rows) // 2
    if batch_size < LEAST:
        raise too_short(f"{job.key}: memory is short even for batches of {2 * batch_size}", error)
    _fits[job.model, job.precision] = batch_size
    return _with_batch(job, batch_size, n_rows)


def batch_note(batch_size: int, asked: int) -> str:
    """What is said and reported of a fold whose batch is smaller than was asked for."""
    return f"batch size {batch_size} instead of {asked}, as memory was short"


def forget() -> None:
    """Try what is asked for again: another run may find more memory."""
    _fits.clear()


def too_short(what: str, error: BaseException) -> KitError:
    """The error of a machine on which no batch is small enough; error: the library's."""
    why = (str(error).strip().splitlines() or [""])[0][:120]
    return KitError(f"{what} ({type(error).__name__}{f': {why}' if why else ''})",
                    "end what else uses the memory (nvidia-smi shows a GPU's), then run the same "
                    "command with --resume; or train a smaller network in a new run: --model light")


def _with_batch(job: FoldJob, batch_size: int, n_rows: int) -> FoldJob:
    whole = min(job.batch_size, n_rows)
    if batch_size >= whole:
        return job
    return replace(job, batch_size=batch_size, asked_batch_size=job.asked_batch_size or whole)
