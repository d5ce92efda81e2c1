"""A competition of 2×3 pixels, whose files are short enough to be read by eye, and a way to write them."""

from pathlib import Path

import numpy as np

from kit.data.competition import Competition

TINY = Competition(slug="tiny", title="Tiny", url="https://example.org/tiny", class_names=tuple("0123456789"),
                   items="digits", shape=(2, 3), extra="extra.csv", writer_block=20, writer_rows=200,
                   official_rows={"train.csv": 200, "test.csv": 5})


def table_text(first: str, names, pixels) -> str:
    """A file of the tiny competition's kind as text, rows ending in \\n."""
    lines = [",".join([first, *(f"pixel{i}" for i in range(6))])]
    lines += [",".join(map(str, [name, *row])) for name, row in zip(names, pixels.tolist(), strict=True)]
    return "\n".join(lines) + "\n"


def write_folder(folder: Path, n_train: int = 200, n_test: int = 5, seed: int = 0, extra: bool = True) -> Path:
    """All files of the tiny competition."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name, n in (("train.csv", n_train), ("extra.csv", 20)) if extra else (("train.csv", n_train),):
        text = table_text("label", np.arange(n) % 10, random.integers(0, 256, (n, 6)))
        (folder / name).write_text(text)
    (folder / "test.csv").write_text(table_text("id", range(n_test), random.integers(0, 256, (n_test, 6))))
    rows = "".join(f"{i},0\n" for i in range(n_test))
    (folder / "sample_submission.csv").write_text("id,label\n" + rows)
    return folder

