"""Whether published pictures are of today: a warning, or a release's failure."""

import os
import subprocess
import warnings
from pathlib import Path

import pytest

from fidlib.runs import machine, store
from fidlib.suites import freshness
from fidlib.suites.read import read

ROOT = Path(__file__).parents[1]
SUITES = sorted(
    path.stem
    for path in (ROOT / "notebooks" / "suites").glob("*.yaml")
    if (ROOT / "figures" / path.stem).is_dir()
)


def git(*command):
    return subprocess.check_output(["git", *command], cwd=ROOT, text=True).strip()


@pytest.mark.filterwarnings("default:suite")
@pytest.mark.parametrize("name", SUITES)
def test_published_pictures_are_of_todays_code(name):
    try:
        whole = git("rev-parse", "--is-shallow-repository") == "false"
    except (OSError, subprocess.CalledProcessError):
        whole = False
    if not whole:
        pytest.skip("the history is not here: clone the whole repository")
    reasons = freshness.stale(read(name))
    text = "; ".join(f"{job}: {reason}" for job, reason in reasons.items())
    if os.environ.get("FIDLIB_RELEASE"):
        assert not reasons, text
    elif reasons:
        warnings.warn(f"suite {name} is to be run again: {text}", stacklevel=1)


def _record(job):
    return {"commit": "0" * 12, "cells": job.code, "asked": job.parameters}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A suite's records as one made now by a clean commit would leave them."""
    suite = read("ownership")
    folder = tmp_path / "figures" / suite.name
    folder.mkdir(parents=True)
    monkeypatch.setattr(store, "shelf", lambda name: tmp_path / name)
    monkeypatch.setattr(machine, "is_behind", lambda commit: commit == "0" * 12)
    records = {job.name: _record(job) for job in suite.jobs}

    def stale(**changes):
        for name, record in records.items():
            path = folder / f"{name}-provenance.json"
            store.write_json(path, record | changes)
        return freshness.stale(suite)

    return stale


def test_a_record_of_today_is_fresh(published):
    assert published() == {}
    asked = {"dataset": "digits", "seed": 0, "scale": "hours"}
    assert published(asked=asked) == {}  # by `fidlib figures --scale hours`


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"commit": "0" * 12 + "-dirty"}, "no commit has"),
        ({"commit": "unknown"}, "no commit has"),
        ({"commit": "1" * 12}, "not in the history"),
        ({"cells": "other"}, "cells were changed"),
        ({"cells": None}, "cells were changed"),
        ({"asked": {"dataset": "digits", "seed": 1}}, "other parameters"),
    ],
)
def test_what_is_not_of_today_says_why(published, changes, reason):
    reasons = published(**changes)
    assert list(reasons) == ["07_robustness", "08_ownership"]
    assert all(reason in text for text in reasons.values())


def test_what_was_never_published_says_so(tmp_path, monkeypatch):
    suite = read("ownership")
    monkeypatch.setattr(store, "shelf", lambda name: tmp_path / name)
    assert set(freshness.stale(suite).values()) == {"nothing of it is published"}


def test_history_is_asked_of_git():
    head = machine.own_commit().removesuffix("-dirty")
    if head == "unknown":
        pytest.skip("no checkout")
    assert machine.is_behind(head)
    assert not machine.is_behind("0" * 40)
