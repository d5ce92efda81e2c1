"""A stand-in for the training child: fills fold folders at once, and fails where it is told to.

`python child.py BEHAVIOUR WISH`: behaviour is `{"fold key": "die" | "raise" | "hang" | "wrong" | "garbage"}`, `"slow"`
for the seconds of a fold, `"lanes"` for so many folds under way at a time where the wish is not for one; with it there
are also `"die in company"` and `"hang alone"`. The baseline's votes are all for 1, a model's all for 2. It imports
nothing of the kit: that takes seconds where the machine is busy.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np


def main(behaviour: dict, wish: dict) -> None:
    settings, run = wish["settings"], Path(wish["run"])
    ids = np.loadtxt(Path(wish["data"]) / "test.csv", int, delimiter=",", skiprows=1, usecols=0)
    keys = [f"{model}/seed_0/fold_{k}" for model in ["mlp", *settings["models"]] for k in range(settings["folds"])]
    todo = [key for key in keys if key not in wish["left_out"] and not (run / key / "done.json").exists()]
    lanes = 1 if wish["one_at_a_time"] else behaviour.get("lanes", 1)
    while todo:
        (run / "heartbeat.json").write_text(json.dumps({"jobs": todo[:lanes]}))
        time.sleep(behaviour.get("slow", 0))
        if time.time() > wish["deadline"]:
            return
        for key in todo[:lanes]:
            misbehave(behaviour.get(key), lanes)
        finish(run, todo.pop(0), ids, behaviour)


def finish(run: Path, key: str, ids: np.ndarray, behaviour: dict) -> None:
    folder = run / key
    folder.mkdir(parents=True, exist_ok=True)
    probs = np.zeros((len(ids), 10), "float32")
    probs[:, 1 if key.startswith("mlp/") else 2] = 1
    if behaviour.get(key) == "garbage":
        (folder / "test.npz").write_bytes(b"PK nothing")
    else:
        np.savez(folder / "test.npz", id=ids, probs=probs)
    accuracy = 0.9 if key.startswith("mlp/") else 0.1 if behaviour.get(key) == "wrong" else 0.95
    (folder / "done.json").write_text(json.dumps({"val_accuracy": accuracy}))


def misbehave(how: str | None, lanes: int) -> None:
    if how == "die" or (how == "die in company" and lanes > 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise RuntimeError("this fold cannot be trained")
    if how == "hang" or (how == "hang alone" and lanes == 1):
        time.sleep(600)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
