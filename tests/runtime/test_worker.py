"""The child's side of the supervisor's contract, without training: its command, its heartbeat."""

import json

from kit.runtime.worker import HeartbeatProgress, WorkerArgs


def step(job):
    return {"event": "step", "job": job, "epoch": 1, "epochs": 2, "done": 0.5, "loss": 1.0, "accuracy": 0.5,
            "images_per_second": 10.0}


def done(job):
    return {"event": "done", "job": job, "val_accuracy": 0.9, "seconds": 1.0}


def test_the_heartbeat_names_the_first_fold_that_is_not_done(tmp_path):
    path = tmp_path / "heartbeat.json"
    beat = HeartbeatProgress(path)
    seen = []
    for act in (lambda: beat.say("planned"), lambda: beat.start({"mlp/0": 1.0, "cnn/0": 5.0, "cnn/1": 5.0}),
                lambda: beat.handle(step("mlp/0")), lambda: beat.handle(done("mlp/0")),
                lambda: beat.handle(done("cnn/1")), lambda: beat.handle(done("cnn/0"))):
        act()
        seen.append(json.loads(path.read_text())["jobs"])
    assert seen == [[], ["mlp/0"], ["mlp/0"], ["cnn/0"], ["cnn/0"], []]


def test_the_heartbeat_names_all_folds_that_are_under_way(tmp_path):
    path = tmp_path / "heartbeat.json"
    beat = HeartbeatProgress(path)
    beat.start({"mlp/0": 1.0, "cnn/0": 5.0, "cnn/1": 5.0}, at_once=2)
    assert json.loads(path.read_text())["jobs"] == ["mlp/0", "cnn/0"]
    beat.handle(done("cnn/0"))
    assert json.loads(path.read_text())["jobs"] == ["mlp/0", "cnn/1"]
    beat.handle(done("mlp/0"))
    assert json.loads(path.read_text())["jobs"] == ["cnn/1"]


def test_every_event_is_a_beat(tmp_path):
    path = tmp_path / "heartbeat.json"
    beat = HeartbeatProgress(path)
    beat.start({"cnn/0": 1.0})
    path.unlink()
    beat.handle(step("cnn/0"))
    assert path.exists()


def test_the_arguments_survive_their_way_to_the_child():
    args = WorkerArgs({"mode": "train", "models": ["cnn"]}, "/data", "/run", 12.5, ["cnn/seed_0/fold_1"], True)
    command = args.command()
    assert command[1:3] == ["-m", "kit.runtime.worker"]
    assert WorkerArgs(**json.loads(command[3])) == args
