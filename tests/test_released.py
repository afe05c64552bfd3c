"""The models in figures/models/ are what the present code would make, and read back."""

import json

import pytest
import torch

import fidlib as fl
from fidlib import training
from fidlib.measures.catalogue import usual
from fidlib.runs import keys, store
from fidlib.study import reports

HOSTS = sorted((store.RELEASED / "host").glob("[!.]*"))
MARKED = sorted((store.RELEASED / "marked").glob("[!.]*"))
REPORTS = sorted((store.RELEASED / "report").glob("[!.]*/[!.]*"))


def fail(folder):
    raise AssertionError(f"{folder} is made, not read")


def read(path):
    return json.loads(path.read_text())


def test_there_are_released_models():
    assert HOSTS
    assert MARKED


def test_the_list_says_which_folder_is_which_model():
    rows = (store.RELEASED / "README.md").read_text().splitlines()
    listed = {row for row in rows if row.endswith("` |")}
    held = set()
    for folder in HOSTS + MARKED:
        key = read(folder / "config.json")
        held.add(
            f"| {key['data']['dataset']} | {key['plan']['seed']} | "
            f"{key['plan']['method']['name']} | "
            f"`{folder.parent.name}/{folder.name}` |"
        )
    assert listed == held


@pytest.mark.parametrize(
    "folder", HOSTS + MARKED + REPORTS, ids=lambda folder: folder.name
)
def test_released_run_is_found_from_any_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = read(folder / "config.json")
    assert keys.digest(key) == folder.name
    assert key.pop("schema") == store.SCHEMA
    kind = str(folder.parent.relative_to(store.RELEASED))
    assert store.make(kind, key, fail) == folder


@pytest.mark.parametrize(("mine", "folders"), [("host", HOSTS), ("FTAL", MARKED)])
def test_released_run_was_asked_for_as_a_run_is_now(mine, folders, study):
    now = read(study.folder(mine) / "config.json")
    for folder in folders:
        then = read(folder / "config.json")
        assert then["data"].keys() == now["data"].keys()
        learns = then["plan"]["method"]["learns"] != "train"
        missing = set() if mine == "host" or learns else {"triggers"}
        assert then.keys() == now.keys() - missing


@pytest.mark.parametrize("folder", HOSTS + MARKED, ids=lambda folder: folder.name)
def test_released_model_is_of_the_present_recipe(folder):
    key = read(folder / "config.json")
    recipe = training.recipe(key["data"]["dataset"], "hours")
    name = key["plan"]["method"]["name"]
    method = training.HOST if name == "host" else fl.METHODS[name]
    plan = training.Plan.of(method, recipe, seed=key["plan"]["seed"])
    assert key["plan"] == json.loads(keys.canonical(plan.key()))


@pytest.mark.parametrize("folder", MARKED, ids=lambda folder: folder.name)
def test_released_marked_model_lies_beside_its_host(folder):
    key = read(folder / "config.json")
    hosts = {keys.digest(_without_schema(host)): host for host in HOSTS}
    assert key["parent"] in hosts
    seal = read(hosts[key["parent"]] / "done.json")["files"]["model.safetensors"]
    assert read(folder / "training.json")["parent"] == seal


@pytest.mark.parametrize("folder", MARKED, ids=lambda folder: folder.name)
def test_released_model_answers_triggers_as_its_report_says(folder):
    """The report of the test images, found by the models' own weights."""
    key = read(folder / "config.json")
    by_key = {keys.digest(_without_schema(host)): host for host in HOSTS}
    host, marked = (fl.models.load(f) for f in (by_key[key["parent"]], folder))
    prints = [fl.models.fingerprint(model) for model in (host, marked)]
    asked = (read(report / "config.json") for report in REPORTS)
    config = next(
        c
        for c in asked
        if [c["host"], c["marked"]] == prints
        and c["images"] == key["data"]["test"]["sha256"]
    )
    pair = {n: config[n] for n in ("host", "marked", "images", "triggers")}
    report = reports.fidelity(pair, usual(), fail, 10_000)
    shape = key["data"]["image_shape"]
    pool = fl.data.Split(torch.zeros(1, *shape), torch.zeros(1).long())
    secret = fl.triggers.chain(pool, key["plan"]["seed"], host=host)
    assert secret.content == config["triggers"]
    answers = fl.models.outputs(marked, secret.images).logits.argmax(1)
    share = (answers == secret.labels).float().mean().item()
    assert share == pytest.approx(report.trigger_accuracy, abs=0.011)
    planes = report.parts("plane_disagreement").values()
    assert sum(planes) / len(planes) == pytest.approx(report.plane_disagreement)
    layers = report.parts("twl").values()
    assert sum(layers) == pytest.approx(report.twl)


def _without_schema(host):
    return {n: v for n, v in read(host / "config.json").items() if n != "schema"}
