import dataclasses
import os
import time
from functools import partial

import pytest

from fidlib.runs import pool
from fidlib.runs.pool import Task


def done(log, name):
    """A call that says so in a file, from whatever process."""
    with log.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    return f"made {name}"


def fails(log, name):
    done(log, name)
    raise ValueError(f"{name} cannot be made")


def dies_once(log, name):
    """The first process that calls it is killed, as for want of memory."""
    marker = log.with_name("died")
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return done(log, name)


def dies(log, name):
    done(log, name)
    os._exit(1)


def waits(log, name):
    """Ends once a second process has begun the same."""
    done(log, name)
    for _ in range(600):
        if len({line.split()[1] for line in log.read_text().splitlines()}) > 1:
            return name
        time.sleep(0.05)
    raise AssertionError("it is alone")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def tasks(log):
    """A host with two models of it and one of one of those, in a bad order."""

    def of(**calls):
        needs = {"attacked": ("marked",), "marked": ("host",), "other": ("host",)}
        needs["host"] = ()
        return [
            Task(name, f"the {name}", partial(calls.get(name, done), log, name), after)
            for name, after in needs.items()
        ]

    return of


def run(tasks, **options):
    """What became of each task, by its title, in the order in which they ended."""
    ends = {}
    pool.run(tasks, lambda task, result: ends.update({task.title: result}), **options)
    return ends


def called(log):
    return [line.split()[0] for line in log.read_text().splitlines()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_starts_after_those_it_waits_for(tasks, log, jobs):
    results = run(tasks(), jobs=jobs)
    assert results == {f"the {n}": f"made {n}" for n in found_names(tasks())}
    order = called(log)
    assert sorted(order) == ["attacked", "host", "marked", "other"]
    assert order[0] == "host"
    assert order.index("marked") < order.index("attacked")
    titles = list(results)
    assert titles[0] == "the host"
    assert titles.index("the marked") < titles.index("the attacked")
    here = {int(line.split()[1]) for line in log.read_text().splitlines()}
    assert (here == {os.getpid()}) == (jobs == 1)


def found_names(tasks):
    return [task.key for task in tasks]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_waits_for_a_failed_task_fails_and_nothing_else(tasks, log, jobs):
    results = run(tasks(marked=fails), jobs=jobs)
    assert results["the host"] == "made host"
    assert results["the other"] == "made other"
    assert isinstance(results["the marked"], ValueError)
    assert str(results["the marked"]) == "marked cannot be made"
    assert results["the attacked"] is results["the marked"]  # its cause
    assert sorted(called(log)) == ["host", "marked", "other"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_is_made_of_what_failed(tasks, log, jobs):
    results = run(tasks(host=fails), jobs=jobs)
    assert len(results) == 4
    assert {str(result) for result in results.values()} == {"host cannot be made"}
    assert called(log) == ["host"]


def test_two_run_at_a_time(log):
    both = [Task(name, name, partial(waits, log, name)) for name in ("a", "b")]
    assert run(both, jobs=2) == {"a": "a", "b": "b"}


def test_a_process_that_is_killed_is_survived(tasks, log):
    results = run(tasks(marked=dies_once), jobs=2)
    assert set(results.values()) == {f"made {n}" for n in found_names(tasks())}
    assert called(log).count("marked") == 1
    assert called(log).count("host") == 1  # what is done is not done again


def test_a_pool_that_is_killed_again_and_again_says_so(log):
    with pytest.raises(RuntimeError, match="ended 3 times: run fewer jobs at a time"):
        run([Task("a", "a", partial(dies, log, "a"))], jobs=2)
    assert called(log) == ["a"] * 3


def test_one_alone_runs_in_this_process(log):
    run([Task("a", "a", partial(done, log, "a"))])
    assert log.read_text().split() == ["a", str(os.getpid())]


def test_nothing_to_do_is_done():
    assert run([], jobs=1) == run([], jobs=2) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scheduler": "tcp://a:1"},
            "scheduler tcp://a:1 is for backend dask",
        ),
        ({"jobs": 0}, "jobs is 0; run at least one at a time"),
        ({"jobs": -2}, "jobs is -2; run at least one at a time"),
        ({"backend": "dask", "jobs": 2}, "jobs is 2, but a Dask cluster runs"),
        (
            {"backend": "dask"},
            "backend dask needs --scheduler, such as tcp://host:8786",
        ),
    ],
)
def test_options_that_make_no_sense_are_said_in_a_sentence(log, options, message):
    task = Task("a", "a", partial(done, log, "a"))
    with pytest.raises(ValueError, match=message):
        run([task, dataclasses.replace(task, key="b")], **options)
    assert not log.exists()
