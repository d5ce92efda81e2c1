"""A stand-in for the training child: fills fold folders at once, and fails where it is told to.

`python child.py BEHAVIOUR ARGS`: behaviour is `{"fold key": "die" | "raise" | "hang" | "wrong" |
"garbage"}`, `"slow"` for the seconds of a fold, `"n_parallel"` for the number of folds under way at
a time where the arguments don't say one; with it there are also `"die in company"` and `"hang
alone"`. The baseline predicts 1 for all rows, a model 2, after its n-th round of self-training 2 + n.
It imports nothing of the kit: that takes
seconds where the machine is busy.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np


def main(behaviour: dict, args: dict) -> None:
    settings, run = args["settings"], Path(args["run"])
    ids = np.loadtxt(Path(args["data"]) / "test.csv", int, delimiter=",", skiprows=1, usecols=0)
    keys = [f"{model}/seed_0/fold_{k}" for model in ["mlp", *settings["models"]] for k in range(settings["folds"])]
    own, left_out = keys[settings["folds"]:], set(args["left_out"])
    for n in range(1, settings["self_train"] + 1):
        again = [f"{key}/guesses_{n}" for key in own]
        if left_out & {*keys, *again}:
            break
        keys += again
    todo = [key for key in keys if key not in args["left_out"] and not (run / key / "done.json").exists()]
    n_parallel = 1 if args["one_at_a_time"] else behaviour.get("n_parallel", 1)
    while todo:
        (run / "heartbeat.json").write_text(json.dumps({"jobs": todo[:n_parallel]}))
        time.sleep(behaviour.get("slow", 0))
        if time.time() > args["deadline"]:
            return
        for key in todo[:n_parallel]:
            misbehave(behaviour.get(key), n_parallel)
        finish(run, todo.pop(0), ids, behaviour)


def finish(run: Path, key: str, ids: np.ndarray, behaviour: dict) -> None:
    folder = run / key
    folder.mkdir(parents=True, exist_ok=True)
    probs = np.zeros((len(ids), 10), "float32")
    probs[:, 1 if key.startswith("mlp/") else 2 + int(key.partition("/guesses_")[2] or 0)] = 1
    if behaviour.get(key) == "garbage":
        (folder / "test.npz").write_bytes(b"PK nothing")
    else:
        np.savez(folder / "test.npz", id=ids, probs=probs)
    accuracy = 0.9 if key.startswith("mlp/") else 0.1 if behaviour.get(key) == "wrong" else 0.95
    (folder / "done.json").write_text(json.dumps({"val_accuracy": accuracy}))


def misbehave(how: str | None, n_parallel: int) -> None:
    if how == "die" or (how == "die in company" and n_parallel > 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise RuntimeError("this fold cannot be trained")
    if how == "hang" or (how == "hang alone" and n_parallel == 1):
        time.sleep(600)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
