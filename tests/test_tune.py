"""The script that finds schedules: it must not see the test set."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from fidlib import training

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tune.py"


@pytest.fixture(scope="module")
def tune():
    spec = importlib.util.spec_from_file_location("tune", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tune"] = module  # its dataclass is looked up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["tune"]


@pytest.fixture
def recipe():
    return training.recipe("mnist", "hours")


def pixels(images):
    return {image.tobytes() for image in images}


def test_measured_images_are_the_last_of_the_training_set(
    tune, digits, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    arrays = np.load(tune.without_test_set("digits", 200))
    train = digits.train.images.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(arrays["x_test"], train[-200:])
    np.testing.assert_array_equal(arrays["x_train"], train[:-200])
    np.testing.assert_array_equal(arrays["y_test"], digits.train.labels[-200:])
    np.testing.assert_array_equal(arrays["y_train"], digits.train.labels[:-200])
    test = pixels(digits.test.images.permute(0, 2, 3, 1).numpy())
    assert not test & pixels(np.concatenate([arrays["x_train"], arrays["x_test"]]))


@pytest.mark.parametrize("held_out", [0, -1, 1297, 5000])
def test_part_that_cannot_be_held_out_is_refused(tune, held_out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="hold out 1 to 1296 of the 1297"):
        tune.without_test_set("digits", held_out)


def test_lines_change_what_they_name_and_nothing_else(tune, recipe):
    lines = ("schedules.host.epochs=9", "weights.default.SPL=8", "batch_size=64")
    changed = tune.changed(recipe, lines)
    schedule = dataclasses.replace(recipe.schedules["host"], epochs=9)
    assert changed.schedules == {**recipe.schedules, "host": schedule}
    assert changed.weights["default"] == {**recipe.weights["default"], "SPL": 8.0}
    assert changed.batch_size == 64
    undone = ("schedules.host.epochs=4", "weights.default.SPL=5", "batch_size=32")
    assert tune.changed(changed, undone) == recipe


def test_host_gets_values_of_its_own_too(tune):
    paper = training.recipe("mnist", "paper")
    changed = tune.changed(paper, ("schedules.host.epochs=3",))
    schedule = dataclasses.replace(paper.schedules["from random"], epochs=3)
    assert changed.schedules == {**paper.schedules, "host": schedule}


def test_method_gets_values_of_its_own(tune, recipe):
    lines = ('schedules."FixLL+SPL".learning_rate=1e-3', 'weights."FixLL+SPL".SPL=2')
    changed = tune.changed(recipe, lines)
    host = recipe.schedules["from host"]
    assert changed.schedules["FixLL+SPL"].learning_rate == 1e-3
    assert changed.schedules["FixLL+SPL"].epochs == host.epochs
    assert changed.schedules["from host"] == host
    assert changed.weights["FixLL+SPL"] == {"SPL": 2.0}
    assert changed.weights["default"] == recipe.weights["default"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("weights.default.PFK=1", "PFK"),
        ("bach_size=64", "bach_size"),
        ("batch_size=0.5", "batch_size"),
        ("schedules.host.epochs=true", "epochs"),
        ('schedules."FixLL+PFK".epochs=2', "FixLL\\+PFK"),
        ("batch_size", "Expected"),
    ],
)
def test_line_that_means_nothing_is_refused(tune, recipe, line, complaint):
    with pytest.raises(ValueError, match=complaint):
        tune.changed(recipe, (line,))


def test_a_trial_measures_host_and_method(tune, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ("schedules.host.epochs=1", 'schedules."from host".epochs=1')
    options = tune.Options("digits", ("FixLL+PFL",), "smoke", lines, held_out=1000)
    tune.main(options)
    host, marked = capsys.readouterr().out.splitlines()
    assert host.startswith("host ")
    assert "TWL 0, PFL 0, SPL 0" in host
    assert marked.startswith("FixLL+PFL ")
    assert "TWL 0," not in marked
