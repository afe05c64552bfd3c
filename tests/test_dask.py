"""A Dask cluster of processes makes models, and a worker that is killed is survived."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

import fidlib as fl
from fidlib.runs import pool, store
from tests.conftest import SMALL
from tests.test_pool import fails, run

pytest.importorskip("distributed")

ROOT = Path(__file__).parents[1]

LONGER = dataclasses.replace(SMALL, epochs=6)
"""102 steps a model."""

PRELOAD = """
import json, os, time
from fidlib.training import checkpoint

checkpoint.STATE_SECONDS = 0.1

def tells(name):
    whole = getattr(checkpoint.Checkpoint, name)

    def method(self, *arguments):
        value = whole(self, *arguments)
        step = (arguments[0] if arguments else value).step
        kind = self.path.parent.name
        row = {"what": name, "pid": os.getpid(), "kind": kind, "step": step}
        with open(os.environ["FIDLIB_TEST_LOG"], "a") as file:
            file.write(json.dumps(row | {"state": self.path.name}) + "\\n")
        if name == "write" and kind == "marked":
            time.sleep(0.01)  # so that there is time to kill it
        return value

    setattr(checkpoint.Checkpoint, name, method)

if not hasattr(checkpoint, "noted"):  # a preload may be run more than once
    checkpoint.noted = True
    tells("write")
    tells("read")
"""


def start(*arguments, **environment):
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    # The same threads as here: sums in another order are other weights.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
                            str(torch.get_num_threads()))  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | threads | environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def until(search, going, seconds=90):
    """What a function finds, once it is something."""
    for _ in range(seconds * 100):
        if value := search():
            return value
        assert going(), "it has ended"
        time.sleep(0.01)
    raise AssertionError("it takes too long")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Address of a scheduler with two workers, and what those say."""
    folder = tmp_path_factory.mktemp("dask")
    file, log, preload = (folder / n for n in ("scheduler", "log", "preload.py"))
    preload.write_text(PRELOAD)
    log.touch()
    given = ("scheduler", "--port", 0, "--no-dashboard", "--scheduler-file", file)
    processes = [start(*given)]

    def address():
        try:
            return json.loads(file.read_text())["address"]
        except (OSError, ValueError):
            return ""

    try:
        place = until(address, lambda: processes[0].poll() is None)
        options = ("--nthreads", 1, "--no-nanny", "--no-dashboard")
        options += ("--preload", preload, "--local-directory", folder)
        for _ in range(2):
            processes.append(start("worker", place, *options, FIDLIB_TEST_LOG=str(log)))
        yield place, lambda: [json.loads(x) for x in log.read_text().splitlines()]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_task_that_fails_is_not_tried_again(cluster, tmp_path):
    log = tmp_path / "log"
    task = pool.Task("a", "a", partial(fails, log, "a"))
    results = run([task], backend="dask", scheduler=cluster[0])
    assert str(results["a"]) == "a cannot be made"
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_worker_is_survived(cluster, root, tmp_path):
    address, log = cluster
    names, expected = ["host", "FTAL", "FTLL"], {}
    with store.stored_in(tmp_path / "undisturbed"):
        undisturbed = fl.Study(LONGER)
        for name in names:
            path = undisturbed.folder(name) / "model.safetensors"
            expected[name] = path.read_bytes()

    def midway():
        states = [r for r in log() if r["what"] == "write" and r["kind"] == "marked"]
        return next((row for row in states if row["step"] >= 5), None)

    with ThreadPoolExecutor() as threads:
        future = threads.submit(
            fl.Study(LONGER).make, names[1:], backend="dask", scheduler=address
        )
        victim = until(midway, lambda: not future.done())
        os.kill(victim["pid"], signal.SIGKILL)
        future.result(120)

    for name in names:
        path = fl.Study(LONGER).folder(name) / "model.safetensors"
        assert path.is_relative_to(root)
        assert path.read_bytes() == expected[name]
    # The other worker went on from the state of the killed one.
    of_it = [row for row in log() if row["state"] == victim["state"]]
    (resumed,) = [row for row in of_it if row["what"] == "read" and row["step"]]
    assert resumed["pid"] != victim["pid"]
    assert victim["step"] <= resumed["step"] < 102
    after = [row["step"] for row in of_it[of_it.index(resumed) + 1 :]]
    assert all(step >= resumed["step"] for step in after)
    assert not list(root.rglob("*.state"))


def test_workers_of_several_threads_are_refused(cluster, monkeypatch):
    import distributed

    class Client(distributed.Client):
        def nthreads(self, workers=None):
            return {"tcp://a:1": 4}

    monkeypatch.setattr(distributed, "Client", Client)
    with pytest.raises(ValueError, match="runs 4 tasks at once in one process"):
        run([], backend="dask", scheduler=cluster[0])
