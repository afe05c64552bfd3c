"""The script for one visit to a GPU: what is not made is said, what is made is kept."""

import importlib
import json
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield importlib.import_module("on_gpu")
    for name in ("on_gpu", "embed_speed"):
        del sys.modules[name]


@pytest.fixture
def visit(script, tmp_path, root, monkeypatch):
    """One of a hundred seconds, whose models are only said to be made."""
    monkeypatch.setattr(script, "STARTED", time.time())
    tmp_path.joinpath("out").mkdir()
    return script.Visit(100.0, tmp_path / "out", small=True, jobs=1)


def kept(visit):
    return json.loads((visit.out / "report.json").read_text("utf-8"))


def test_what_does_not_fit_is_left_out_in_words(script, visit):
    assert visit.time_for("b", "all", 90)
    assert not visit.time_for("b", "all", 130)
    words = kept(visit)["b"]["all"]
    assert words.startswith("left out: it takes about 130 s, and ")
    visit.budget = 1.0
    script.smoke(visit)
    script.speed(visit)
    script.studies(visit, "c")
    report = kept(visit)
    assert report["a"]["all"].startswith("left out: it takes about 15 s")
    assert report["c"]["host, seed 0"].startswith("left out: it takes about ")
    assert report["c"]["FixLL+PFL, seed 0"] == "left out: its host is not there"
    assert not list(visit.out.glob("*.zip"))


def test_what_is_made_goes_into_a_parcel_and_is_not_made_again(
    script, visit, monkeypatch
):
    asked = []

    def outcome(config, name, until, with_graphs):
        asked.append(name)
        if name == "FixLL+PFL" and len(asked) < 3:
            raise ArithmeticError("it\ndiverged")
        return {"accuracy": 0.5}

    monkeypatch.setattr(script, "outcome", outcome)
    monkeypatch.setattr(script, "packed", lambda *_: "c-1.zip")
    script.studies(visit, "c")
    row = {"accuracy": 0.5, "parcel": "c-1.zip"}
    failed = "failed: it diverged"
    assert kept(visit)["c"] == {"host, seed 0": row, "FixLL+PFL, seed 0": failed}
    script.studies(visit, "c")
    assert asked == ["host", "FixLL+PFL", "FixLL+PFL"]
    assert kept(visit)["c"]["FixLL+PFL, seed 0"] == row


def test_parcels_stay_below_their_size_and_number(script, visit, monkeypatch):
    def pack(study, name, path):
        path.write_bytes(b"x" * 40 + (path.read_bytes() if path.exists() else b""))

    monkeypatch.setattr(script, "pack", pack)
    monkeypatch.setattr(script, "study", lambda config: None)
    monkeypatch.setattr(script, "FILE", 100)
    names = [script.packed(visit, "c", None, "x") for _ in range(21)]
    assert names == [f"c-{1 + n // 3}.zip" for n in range(21)]
    assert max(file.stat().st_size for file in visit.out.glob("*.zip")) == 120
    assert script.packed(visit, "d", None, "x").startswith("none: there are as many")


def test_every_stage_names_methods_and_scales_there_are(script):
    from fidlib.methods import METHODS
    from fidlib.training import HOST, Plan, recipe

    for config, names in (pair for stage in script.STUDIES.values() for pair in stage):
        config.check()
        assert names[0] == "host"
        for name in names:
            method = HOST if name == "host" else METHODS[name]
            assert Plan.of(method, recipe(config.dataset, config.scale), seed=0).epochs
