'''Write the code file of a kernel, as a script or as a notebook.

Both have the same four parts in the same order: a description, `SETTINGS`, the kit's source with
its hash, and the call that runs it.
'''

import ast
import base64
import contextlib
import hashlib
import json
import textwrap
from typing import Any

LINE = 120

WORDS = """{title}: a submission kernel of the kit.

What it does    {does}
What it needs   {url} as its data; no network; Kaggle's own image; two GPUs, one or none
What it leaves  submission.csv; report.json and kernel.log, which say what was used and what happened
Where from      kit {version}, git commit {commit}
                sha256 of the packed source {sha256}
                built for accelerator {accelerator}; `kit kernel build` makes this file again
Its settings    are just below. The rest is the kit's source as a zip in base64; it is unpacked to a temporary
                folder, its hash is checked, and kit/runtime/main.py in it takes over."""

DOES = {"train": "trains {models} on {folds} folds, averages their votes, and labels the test file "
                 "that it finds, within {minutes:g} minutes",
        "predict": "labels the test file that it finds with the trained weights in the dataset "
                   "{weights}, within {minutes:g} minutes"}

NOTES = {
    "competition": "whose data this kernel reads",
    "mode": "train: learn here, then predict; predict: use the weights that came along",
    "models": "members of the ensemble (kit models); the baseline, mlp, is trained first",
    "folds": "models of each member, each with its own held-out part",
    "seeds": "trainings of each fold, from different random numbers",
    "epochs": "None: what the model's recipe says; fewer where the time is short",
    "seed": "of everything random",
    "class_prior": "how often each class is in the test file: auto (what is known of it), none or "
                   "equal",
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
        raise RuntimeError(f"the kit's source in this file is damaged: sha256 {found}, expected {SHA256}")
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


def render(kind: str, settings: dict[str, Any], packed: bytes, facts: dict[str, str]) -> bytes:
    """The code file. kind: `script` or `notebook`; packed: the zip of the kit's source; facts: for
    the description.
    """
    digest = hashlib.sha256(packed).hexdigest()
    does = DOES[settings["mode"]].format(**settings
                                         | {"models": ", ".join(settings.get("models", ()))})
    does = textwrap.fill(does, 100, subsequent_indent=" " * 16)
    words = WORDS.format(does=does, sha256=digest, **facts)
    text = base64.b64encode(packed).decode()
    lines = "\n".join(text[start:start + LINE] for start in range(0, len(text), LINE))
    source = f'SHA256 = "{digest}"\nSOURCE = """\n{lines}\n"""\n'
    parts = [words, _settings(settings), source + UNPACK, RUN.strip() + "\n"]
    return _script(*parts) if kind == "script" else _notebook(*parts)


def parse_settings(code: str) -> dict[str, Any]:
    """The `SETTINGS` in a code file, script or notebook, that `render` made; {} for any other code."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, KeyError, AttributeError,
                             RecursionError):
        if code.lstrip().startswith("{"):
            cells = [cell for cell in json.loads(code)["cells"] if cell["cell_type"] == "code"]
            code = "\n".join("".join(cell["source"]) for cell in cells)
        for statement in ast.parse(code).body:
            if isinstance(statement,
                          ast.Assign) and ast.unparse(statement.targets[0]) == "SETTINGS":
                settings = ast.literal_eval(statement.value)
                return settings if isinstance(settings, dict) else {}
    return {}


def _settings(settings: dict[str, Any]) -> str:
    cells = [(f"{name!r}: {value!r},".replace("'", '"'), NOTES[name])
             for name, value in settings.items()]
    width = max(len(cell) for cell, _ in cells)
    return "\n".join(["SETTINGS = {", *(f"    {cell:<{width}}  # {note}" for cell, note in cells),
                      "}"]) + "\n"


def _script(words: str, settings: str, source: str, run: str) -> bytes:
    return f'"""{words}\n"""\n\n{settings}\n{source}\n\n{run}'.encode()


def _notebook(words: str, settings: str, source: str, run: str) -> bytes:
    """A notebook of four cells. Kaggle needs the kernelspec."""
    title, rest = words.split("\n", 1)
    cells = [_cell("markdown", f"# {title}\n\n```text\n{rest.strip()}\n```\n"),
             _cell("code", settings),
             _cell("code", source, _kg_hide_input=True), _cell("code", run)]
    notebook = {"cells": [cell | {"id": f"kit-{i}"} for i, cell in enumerate(cells)],
                "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python",
                                            "name": "python3"},
                             "language_info": {"name": "python"}},
                "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def _cell(cell_type: str, source: str, **metadata: Any) -> dict[str, Any]:
    metadata = {name.replace("_kg_hide_input", "_kg_hide-input"): value
                for name, value in metadata.items()}
    cell: dict[str, Any] = {"cell_type": cell_type, "metadata": metadata,
                            "source": source.splitlines(keepends=True)}
    return cell | {"execution_count": None, "outputs": []} if cell_type == "code" else cell
