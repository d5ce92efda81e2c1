"""Throw mutated files at the kit's readers and its validator: python scripts/fuzz.py [--seconds 600] [--only table]

In go the good and the bad files of tests/data, as seeds; out comes how many inputs each reader took. Each input must be
read or end in a KitError of two printable lines, within 2 s; of an archive nothing else is written. The idea:
with atheris (pip install atheris) the mutations follow the branches of the kit's code; without it, or with
--without-atheris, they are blind but need nothing.
"""

import argparse
import importlib.util
import io
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas  # noqa: F401  # what the kit imports when it is needed is not to be instrumented, nor counted as slow

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout that this script is in, installed or not

from tests.data.bad_files import TEST, TRAIN
from tests.data.tiny import TINY, table_text

WITH_ATHERIS = "--with-atheris" in sys.argv
with ExitStack() as imports:
    if WITH_ATHERIS:
        import atheris

        imports.enter_context(atheris.instrument_imports(include=["kit"]))
    from kit.core import storage
    from kit.core.config import RunConfig
    from kit.core.errors import KitError
    from kit.data import archive, folds, npz
    from kit.data.source import DataFolder
    from kit.data.table import read_table
    from kit.ensembling import submission

SLOWEST = 2.0  # seconds that an input may take beyond being read; they have at most some KB here
MOST_BYTES = 1 << 16
WORDS = [b"\n", b"\r\n", b",", b'"', b"\0", b"\xef\xbb\xbf", b"256", b"-1", b"1e3", b"nan", b"\xff", b"../",
         b"PK\x01\x02", b"PK\x05\x06", b"\xff\xff\xff\xff", b"{", b"[", b"null", b"label", b"id", b"pixel0", b"9" * 30]
Target = Callable[[Path], Any]


# -- what is fuzzed -------------------------------------------------------------------------------------------------


def _unpack(path: Path) -> None:
    target = path.parent / "out"
    target.mkdir(exist_ok=True)
    try:
        archive.unpack(path, (TINY.train, TINY.test), (TINY.extra, TINY.sample_submission), target)
    finally:
        written = {found.relative_to(target).as_posix() for found in target.rglob("*")}
        allowed = set(TINY.files)
        if written - allowed - {f"{name}.zip" for name in allowed} or list(path.parent.parent.glob("*.csv")):
            raise AssertionError(f"the archive wrote {sorted(written - allowed)}")
        for name in written:
            (target / name).unlink()


def _manifest(path: Path) -> None:
    path.replace(path.parent / "manifest.json")
    DataFolder(path.parent, TINY).manifest  # noqa: B018  # a property that reads


def _config(path: Path) -> None:
    RunConfig.from_dict(storage.read_json(path))


TARGETS: dict[str, Target] = {
    "table": lambda path: read_table(path, TINY, labelled=True, cache=False),
    "test-table": lambda path: read_table(path, TINY, labelled=False, cache=False),
    "submission": lambda path: submission.validate(path, TINY, np.arange(5)),
    "archive": _unpack,
    "keras-npz": lambda path: npz.write_files(path.parent / "npz", path, TINY),
    "artifact-npz": lambda path: storage.read_npz(path, "row", "probs"),
    "folds": folds.load_folds,
    "config": _config,
    "manifest": _manifest,
}


def _zip(names: dict[str, bytes], kind: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, data in names.items():
            file.writestr(name, data)
    return buffer.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def seeds(target: str) -> list[bytes]:
    """Files to begin with: good ones, and the bad ones that are short."""
    rng = np.random.default_rng(0)
    good = {"train.csv": table_text("label", np.arange(200) % 10, rng.integers(0, 256, (200, 6))).encode(),
            "test.csv": table_text("id", range(5), rng.integers(0, 256, (5, 6))).encode()}
    handed_in = b"id,label\n" + b"".join(b"%d,%d\n" % (i, i) for i in range(5))
    spoiled = {"table": (TRAIN, "train.csv"), "test-table": (TEST, "test.csv")}
    if target in spoiled:
        cases, name = spoiled[target]
        made = [spoil(good[name]) for spoil, _ in _short(cases)]
        return [good[name], *[data for data in made if len(data) < MOST_BYTES]]
    images = {"x_train": np.zeros((20, 2, 3), "uint8"), "y_train": np.arange(20) % 10,
              "x_test": np.zeros((5, 2, 3), "uint8"), "y_test": np.arange(5)}
    inner = {f"{name}.zip": _zip({name: data}, zipfile.ZIP_DEFLATED) for name, data in good.items()}
    return {
        "submission": [handed_in, handed_in.replace(b"\n", b"\r\n"), b'id,label\n"1",2\n'],
        "archive": [_zip(good, zipfile.ZIP_STORED), _zip(good, zipfile.ZIP_DEFLATED), _zip(inner, zipfile.ZIP_STORED),
                    _zip({"a/../train.csv": b"", **good}, zipfile.ZIP_STORED)],
        "keras-npz": [_npz(**images)],
        "artifact-npz": [_npz(row=np.arange(4), probs=np.zeros((4, 10), "float32"))],
        "folds": [b"row,label,writer,fold\n0,0,-1,0\n1,1,-1,1\n", b"row,label,writer,fold\n0,0,0,0\n1,1,1,1\n"],
        "config": [json.dumps(RunConfig().to_dict()).encode()],
        "manifest": [b'{"competition": "tiny", "source": "kaggle", "sha256": {"train.csv": "0"}, "writer_block": 20}'],
    }[target]


def _short(cases: dict[str, Any]) -> list[Any]:
    """The cases that do not make files of many MB."""
    return [case for name, case in cases.items() if "MB" not in name]


def check(target: str, data: bytes, folder: Path) -> None:
    """Raises whatever is not as promised."""
    path = folder / "in" / "file"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    began = time.process_time()  # on a busy machine the clock on the wall says nothing
    try:
        TARGETS[target](path)
    except KitError as error:
        for text in (error.message, error.fix):
            if not text or re.search(r"[\x00-\x1f\x7f]", text):
                raise AssertionError(f"not one printable line: {text!r}") from error
    if time.process_time() - began > SLOWEST:
        raise AssertionError(f"{time.process_time() - began:.1f} s")


# -- blind mutations ------------------------------------------------------------------------------------------------


def mutated(rng: random.Random, pool: list[bytes]) -> bytes:
    data = bytearray(rng.choice(pool))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 64)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        elif kind == 3:
            data[at:at] = rng.choice(WORDS)
        elif kind == 4:
            data[at:end] = rng.randbytes(end - at)
        else:
            other = rng.choice(pool)
            data[at:] = other[rng.randrange(len(other) + 1):]
    return bytes(data[:MOST_BYTES])


def blind(target: str, seconds: float, folder: Path, seed: int) -> int:
    """Check mutations of the seeds for so long; how many. Saves what fails, and raises."""
    rng, pool, n, began = random.Random(seed), seeds(target), 0, time.monotonic()
    signal.signal(signal.SIGALRM, _hangs)
    while time.monotonic() - began < seconds:
        data = pool[n] if n < len(pool) else mutated(rng, pool)
        signal.setitimer(signal.ITIMER_REAL, 5 * SLOWEST)
        try:
            check(target, data, folder)
        except Exception:
            Path(f"fuzz-{target}.bin").write_bytes(data)
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        n += 1
    return n


def _hangs(number: int, frame: Any) -> None:
    raise AssertionError(f"no end within {5 * SLOWEST} s")


# -- with atheris ---------------------------------------------------------------------------------------------------


def guided(target: str, seconds: float, folder: Path) -> int:
    """The same in a process of its own, led by the kit's branches; how many inputs. Raises where one failed."""
    corpus = folder / f"corpus-{target}"
    corpus.mkdir()
    for i, data in enumerate(seeds(target)):
        (corpus / str(i)).write_bytes(data)
    limits = {"max_total_time": round(seconds), "max_len": MOST_BYTES, "timeout": round(5 * SLOWEST),
              "rss_limit_mb": 1024, "print_final_stats": 1, "artifact_prefix": f"fuzz-{target}-"}
    done = subprocess.run([sys.executable, __file__, "--with-atheris", "--only", target,
                           *[f"-{name}={value}" for name, value in limits.items()], str(corpus)],
                          capture_output=True, text=True)
    units = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode or not units:
        raise AssertionError(f"{target}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return int(units[1])


def child() -> None:
    """What libFuzzer calls, in the process that `guided` starts."""
    target = sys.argv[sys.argv.index("--only") + 1]
    arguments = [word for word in sys.argv if word not in ("--with-atheris", "--only", target)]
    folder = Path(tempfile.mkdtemp())
    atheris.Setup(arguments, lambda data: check(target, data, folder))
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="for all readers together")
    parser.add_argument("--only", choices=TARGETS, help="one reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-atheris", action="store_true", help="blind mutations")
    asked = parser.parse_args()
    targets = [asked.only] if asked.only else list(TARGETS)
    lead = not asked.without_atheris and importlib.util.find_spec("atheris") is not None
    print(f"{'led by atheris' if lead else 'blind mutations'}, {asked.seconds:.0f} s for {len(targets)} readers")
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for target in targets:
            seconds = asked.seconds / len(targets)
            try:
                n = guided(target, seconds, Path(name)) if lead else blind(target, seconds, Path(name), asked.seed)
                print(f"{target + ':':<14} {n:>10,} inputs, each read or refused as it should be", flush=True)
            except Exception:
                traceback.print_exc()
                failed.append(target)
    sys.exit(f"failed: {', '.join(failed)}; the inputs are in fuzz-*" if failed else 0)


if __name__ == "__main__":
    child() if WITH_ATHERIS else main()
