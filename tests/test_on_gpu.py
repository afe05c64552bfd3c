"""The script for one visit to a GPU: what is not made is said, what is made is kept."""

import importlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield importlib.import_module("on_gpu")
    for name in ("on_gpu", "on_gpu_models", "embed_speed"):
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


@pytest.mark.parametrize(("together", "most"), [(10_000, 14), (500, 12)])
def test_what_parcels_cannot_carry_is_not_trained(
    script, visit, monkeypatch, together, most
):
    def pack(study, name, path):
        path.write_bytes(b"x" * 40 + (path.read_bytes() if path.exists() else b""))

    monkeypatch.setattr(script, "pack", pack)
    monkeypatch.setattr(script, "study", lambda config: None)
    monkeypatch.setattr(script, "outcome", lambda *_: {"accuracy": 0.5})
    monkeypatch.setattr(script, "FILE", 100)
    monkeypatch.setattr(script, "MODEL", {"e": 40})
    monkeypatch.setattr(script, "TOGETHER", together)
    names = ["host", *(f"model {n}" for n in range(1, 20))]
    monkeypatch.setattr(script, "SMALL", {"e": [(script._SMALL, names)]})
    script.studies(visit, "e")
    said = kept(visit)["e"]
    assert len(said) == 20
    assert sum(isinstance(value, dict) for value in said.values()) == most
    sizes = [file.stat().st_size for file in visit.out.glob("*.zip")]
    assert sum(sizes) == 40 * most <= together
    assert max(sizes) <= 100
    assert len(sizes) <= script.FILES
    assert {value for value in said.values() if isinstance(value, str)} == {
        "left out: no room for it; visit once more"
    }


def test_a_visit_makes_models_in_processes_of_their_own(tmp_path):
    folder = Path(__file__).parents[1] / "benchmarks"
    command = [sys.executable, folder / "on_gpu.py", "--small", "--budget", "200"]
    command += ["--stages", "d", "--jobs", "2", "--out", tmp_path / "out"]
    env = os.environ | {"FIDLIB_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=env, check=True, capture_output=True)
    made = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["d"]
    assert {row["parcel"] for row in made.values()} == {"d-1-host.zip"}
    assert list(made) == ["FixLL+PFL, seed 1", "host, seed 1"]  # by name
    assert made["FixLL+PFL, seed 1"]["twl"] > made["host, seed 1"]["twl"] == 0
    names = zipfile.ZipFile(tmp_path / "out" / "d-1-host.zip").namelist()
    assert {name.split("/")[0] for name in names} >= {"host", "marked", "outputs"}


def test_every_stage_names_methods_and_scales_there_are(script):
    from fidlib.methods import METHODS
    from fidlib.training import HOST, Plan, recipe

    for config, names in (pair for stage in script.STUDIES.values() for pair in stage):
        config.check()
        assert names[0] == "host"
        for name in names:
            method = HOST if name == "host" else METHODS[name]
            assert Plan.of(method, recipe(config.dataset, config.scale), seed=0).epochs
