"""The models in figures/models/ are what the present code would make, and read back."""

import dataclasses
import json
from pathlib import Path

import pytest

import fidlib as fl
from fidlib import runs, training

RELEASED = Path(__file__).parents[1] / "figures" / "models"
HOSTS = sorted((RELEASED / "host").glob("*"))
MARKED = sorted((RELEASED / "marked").glob("*"))


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("folder", HOSTS + MARKED, ids=lambda folder: folder.name)
def test_released_run_is_found_under_the_present_schema(folder):
    key = read(folder / "config.json")
    assert runs.digest(key) == folder.name
    assert key.pop("schema") == runs.SCHEMA
    assert runs.make(folder.parent.name, key, pytest.fail) == folder


@pytest.mark.parametrize("folder", HOSTS + MARKED, ids=lambda folder: folder.name)
def test_released_model_is_of_the_present_recipe(folder):
    key = read(folder / "config.json")
    recipe = training.recipe(key["data"]["dataset"], "hours")
    method = fl.METHODS[key["method"]["name"] if "method" in key else "ref"]
    assert key["batch_size"] == recipe.batch_size
    assert key["augment"] == recipe.augment
    assert key["schedule"] == dataclasses.asdict(recipe.schedule(method))
    if "method" in key:
        definition = json.loads(runs.canonical(method.definition()))
        terms = method.weighted(recipe.weights_of(method))
        assert key["method"] == definition
        assert key["weights"] == [weight for _, weight in terms]
        assert key["quiet"] == recipe.quiet_of(method)
        assert key["trigger_batch_size"] == recipe.trigger_batch_size


@pytest.mark.parametrize("folder", MARKED, ids=lambda folder: folder.name)
def test_released_marked_model_lies_beside_its_host(folder):
    key = read(folder / "config.json")
    (host,) = (h for h in HOSTS if runs.digest(_without_schema(h)) == key["host"])
    seal = read(host / "done.json")["files"]["model.safetensors"]
    assert read(folder / "metrics.json")["host"] == seal


@pytest.mark.parametrize("folder", HOSTS + MARKED, ids=lambda folder: folder.name)
def test_released_model_answers_triggers_as_its_report_says(folder):
    key, report = read(folder / "config.json"), read(folder / "metrics.json")["test"]
    model = fl.models.load(folder)
    data = key["data"]
    secret = fl.triggers.noise_chain(
        tuple(data["image_shape"]),
        num_classes=len(data["classes"]),
        mean=model.mean.flatten().tolist(),
        std=model.std.flatten().tolist(),
        chains=key["triggers"]["images"] // len(data["classes"]),
        links=len(data["classes"]),
        seed=key["seed"],
    )
    assert secret.fingerprint == key["triggers"]["sha256"]
    answers = fl.features.outputs(model, secret.images).logits.argmax(1)
    share = (answers == secret.labels).float().mean().item()
    assert share == pytest.approx(report["trigger_accuracy"], abs=0.011)


def _without_schema(host):
    return {n: v for n, v in read(host / "config.json").items() if n != "schema"}
