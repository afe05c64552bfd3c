"""The models in figures/models/ are what the present code would make, and read back."""

import json

import pytest

import fidlib as fl
from fidlib import runs, training

HOSTS = sorted((runs.RELEASED / "host").glob("[!.]*"))
MARKED = sorted((runs.RELEASED / "marked").glob("[!.]*"))


def fail(folder):
    raise AssertionError(f"{folder} is made, not read")


def read(path):
    return json.loads(path.read_text())


def test_there_are_released_models():
    assert HOSTS
    assert MARKED


def test_the_list_says_which_folder_is_which_model():
    rows = (runs.RELEASED / "README.md").read_text().splitlines()
    listed = {row for row in rows if row.endswith("` |")}
    held = set()
    for folder in HOSTS + MARKED:
        key = read(folder / "config.json")
        held.add(
            f"| {key['data']['dataset']} | {key['seed']} | "
            f"{key.get('method', {'name': 'host'})['name']} | "
            f"`{folder.parent.name}/{folder.name}` |"
        )
    assert listed == held


@pytest.mark.parametrize("folder", HOSTS + MARKED, ids=lambda folder: folder.name)
def test_released_run_is_found_from_any_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = read(folder / "config.json")
    assert runs.digest(key) == folder.name
    assert key.pop("schema") == runs.SCHEMA
    assert runs.make(folder.parent.name, key, fail) == folder


@pytest.mark.parametrize(("mine", "folders"), [("host", HOSTS), ("FTAL", MARKED)])
def test_released_run_was_asked_for_as_a_run_is_now(mine, folders, study):
    now = read(study.folder(mine) / "config.json")
    for folder in folders:
        then = read(folder / "config.json")
        assert then.keys() == now.keys()
        assert then["data"].keys() == now["data"].keys()


@pytest.mark.parametrize("folder", HOSTS + MARKED, ids=lambda folder: folder.name)
def test_released_model_is_of_the_present_recipe(folder):
    key = read(folder / "config.json")
    recipe = training.recipe(key["data"]["dataset"], "hours")
    method = fl.METHODS[key["method"]["name"] if "method" in key else "ref"]
    assert key["batch_size"] == recipe.batch_size
    assert key["augment"] == recipe.augment
    assert key["schedule"] == recipe.schedule(method).key()
    if "method" in key:
        definition = json.loads(runs.canonical(method.definition()))
        terms = method.weighted(recipe.weights_of(method))
        assert key["method"] == definition
        assert key["weights"] == [weight for _, weight in terms]
        assert key["quiet"] == recipe.quiet_of(method)
        assert key["trigger_batch_size"] == recipe.triggers_of(method)


@pytest.mark.parametrize("folder", MARKED, ids=lambda folder: folder.name)
def test_released_marked_model_lies_beside_its_host(folder):
    key = read(folder / "config.json")
    hosts = {runs.digest(_without_schema(host)): host for host in HOSTS}
    assert key["host"] in hosts
    host = hosts[key["host"]]
    seal = read(host / "done.json")["files"]["model.safetensors"]
    assert read(folder / "metrics.json")["host"] == seal


@pytest.mark.parametrize("folder", HOSTS + MARKED, ids=lambda folder: folder.name)
def test_released_model_answers_triggers_as_its_report_says(folder):
    key, report = read(folder / "config.json"), read(folder / "metrics.json")["test"]
    model = fl.models.load(folder)
    data, links = key["data"], min(10, key["data"]["classes"])
    mean, std = fl.data.NORMALISATION[data["dataset"]]
    secret = fl.triggers.noise_chain(
        tuple(data["image_shape"]),
        num_classes=data["classes"],
        mean=mean,
        std=std,
        chains=key["triggers"]["images"] // links,
        links=links,
        seed=key["seed"],
    )
    assert secret.fingerprint == key["triggers"]["sha256"]
    answers = fl.features.outputs(model, secret.images).logits.argmax(1)
    planes = report["planes"]
    assert sum(planes) / len(planes) == pytest.approx(report["plane_disagreement"])
    share = (answers == secret.labels).float().mean().item()
    assert share == pytest.approx(report["trigger_accuracy"], abs=0.011)


def _without_schema(host):
    return {n: v for n, v in read(host / "config.json").items() if n != "schema"}
