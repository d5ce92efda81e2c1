'''Write the code file of a kernel, as a script or as a notebook.

Both have the same four parts in the same order: a description, `SETTINGS`, the kit's source with
its hash, and the call that runs it.
'''

import ast
import base64
import contextlib
import hashlib
import io
import json
import textwrap
import zipfile
from typing import Any

LINE = 120  # characters of the packed source

DESCRIPTION = """{title}: a submission kernel of the kit.

What it does    {does}
What it needs   {url} as its data; no network; Kaggle's own image; two GPUs, one or none
What it leaves  submission.csv; report.json and kernel.log, which say what was used and what
                happened
Where from      kit {version}, git commit {commit}
                sha256 of the packed source {sha256}
                built for accelerator {accelerator}; `kit kernel build` makes this file again
Its settings    are just below. The rest is the kit's source as a zip in base64; its hash is
                checked, it is unpacked to a temporary folder, and its kit/runtime/main.py takes
                over."""

DOES = {"train": "trains {models} on {folds} folds{further}, averages their votes, and labels the "
                 "test file that it finds, within {minutes:g} minutes",
        "predict": "labels the test file that it finds with the trained weights in the dataset "
                   "{weights}, within {minutes:g} minutes"}

NOTES = {
    "competition": "whose data this kernel reads",
    "competition_file": "the user's file that describes it; it is packed beside the kit",
    "mode": "train: learn here, then predict; predict: use the weights that came along",
    "models": "members of the ensemble (kit models); the baseline, mlp, is trained first",
    "folds": "models of each member, each with its own held-out part",
    "seeds": "trainings of each fold, from different random numbers",
    "epochs": "None: what the model's recipe says; fewer where the time is short",
    "self_train": "rounds of learning from the test rows, too, as far as the time allows",
    "train_extra": "learn from the competition's labelled file of other origin, too",
    "seed": "of everything random",
    "class_prior": "how often each class is in the test file: auto (what is known of it), none or "
                   "equal",
    "augment": "of your own, in the file that came along, instead of the models' own",
    "weights": "the dataset that holds them",
    "manifest_sha256": "of the weights' manifest.json, which has the hash of each file",
    "backend": "of Keras",
    "minutes": "everything ends by then, whatever is finished; Kaggle's limit lies above",
}

UNPACK = '''
def unpack() -> str:
    """Check the packed source and lay it out in a temporary folder."""
    import base64, hashlib, io, tempfile, zipfile  # noqa: E401

    packed = base64.b64decode(SOURCE)
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"the kit's source in this file is damaged: sha256 {found}, "
                           f"expected {SHA256}")
    folder = tempfile.mkdtemp(prefix="kit-")
    zipfile.ZipFile(io.BytesIO(packed)).extractall(folder)
    return folder
'''

RUN = '''
if __name__ == "__main__":
    import sys

    sys.path.insert(0, unpack())
    from kit.runtime.main import main

    main(SETTINGS)
'''


def render(kind: str, settings: dict[str, Any], packed: bytes,
           description_fields: dict[str, str]) -> bytes:
    """The code file. kind: `script` or `notebook`; packed: the zip of the kit's source;
    description_fields: the values for `DESCRIPTION`.
    """
    digest = hashlib.sha256(packed).hexdigest()
    rounds = settings.get("self_train", 0)
    does = DOES[settings["mode"]].format(**settings | {
        "models": ", ".join(settings.get("models", ())),
        "further": f", then further on the test rows ({rounds}x)" if rounds else ""})
    does = textwrap.fill(does, 100, subsequent_indent=" " * 16)
    description = DESCRIPTION.format(does=does, sha256=digest, **description_fields)
    # The settings, each with its note beside it
    entries = [(f"{name!r}: {value!r},".replace("'", '"'), NOTES[name])
               for name, value in settings.items()]
    width = max(len(entry) for entry, _ in entries)
    table = "\n".join(["SETTINGS = {",
                       *(f"    {entry:<{width}}  # {note}" for entry, note in entries), "}\n"])
    # The kit itself
    text = base64.b64encode(packed).decode()
    lines = "\n".join(text[start:start + LINE] for start in range(0, len(text), LINE))
    source = f'SHA256 = "{digest}"\nSOURCE = """\n{lines}\n"""\n{UNPACK}'
    run = RUN.lstrip()
    if kind == "script":
        return f'"""{description}\n"""\n\n{table}\n{source}\n\n{run}'.encode()
    title, rest = description.split("\n", 1)
    text = f"# {title}\n\n```text\n{rest.strip()}\n```\n"
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "metadata": {}, "source": text},
        *({"cell_type": "code", "metadata": metadata, "source": code, "execution_count": None,
           "outputs": []}
          for code, metadata in ((table, {}), (source, {"_kg_hide-input": True}), (run, {})))]
    notebook = {"cells": [cell | {"id": f"kit-{number}",
                                  "source": cell["source"].splitlines(keepends=True)}
                          for number, cell in enumerate(cells)],
                # Kaggle does not run a notebook without a kernelspec
                "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python",
                                            "name": "python3"},
                             "language_info": {"name": "python"}},
                "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def parse_settings(code: str) -> dict[str, Any]:
    """The `SETTINGS` in a code file that `render` made; {} for any other code."""
    settings = _assigned(code, "SETTINGS")
    return settings if isinstance(settings, dict) else {}


def read_packed(code: str, name: str) -> bytes | None:
    """A file of the packed source in a code file that `render` made; None if it has none."""
    with contextlib.suppress(ValueError, TypeError, KeyError, zipfile.BadZipFile):
        packed = base64.b64decode(_assigned(code, "SOURCE"))
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            return archive.read(name)
    return None


def _assigned(code: str, name: str) -> Any:
    """The value that a code file assigns to `name` at its top level; None if it does not."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, KeyError, AttributeError,
                             RecursionError):
        if code.lstrip().startswith("{"):
            cells = [cell for cell in json.loads(code)["cells"] if cell["cell_type"] == "code"]
            code = "\n".join("".join(cell["source"]) for cell in cells)
        for statement in ast.parse(code).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
                return ast.literal_eval(statement.value)
    return None
