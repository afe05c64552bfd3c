import dataclasses
import json
import math
import multiprocessing
import os
import shutil
import signal
import time

import pandas as pd
import pytest
import torch
from torch import nn

import fidlib as fl
from tests.conftest import SMALL


def test_a_study_makes_a_model_once_and_reads_it_back(study, monkeypatch):
    folder = study.folder("FixLL+PFL")
    marked = study.marked("FixLL+PFL")
    assert marked is study.marked(fl.METHODS["FixLL+PFL"])

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(fl.training, "fit", fail)
    monkeypatch.setattr(fl.training, "embed", fail)
    again = fl.Study(SMALL)
    assert again.folder("FixLL+PFL") == folder
    images = study.test.images[:20]
    assert torch.equal(again.marked("FixLL+PFL")(images), marked(images))
    with pytest.raises(AssertionError, match="trained again"):
        again.marked("FixLL+SPL")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"feature_dim": 3},
        {"train_images": 300},
        {"epochs": 5},
        {"chains": 2},
        {"links": 5},
        {"scale": "minutes"},
        {"precision": "auto"},
        {"model": "wrn28_10"},
    ],
)
def test_another_configuration_has_other_results(study, change):
    other = fl.Study(fl.Config(**vars(SMALL) | change))
    method = fl.METHODS["FTAL"]
    assert fl.runs.digest(other._marked_key(method)) != fl.runs.digest(
        study._marked_key(method)
    )


def test_the_same_seed_gives_the_same_bytes_in_another_store(
    study, tmp_path, monkeypatch
):
    first = (study.folder("FTAL") / "model.safetensors").read_bytes()
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    again = fl.Study(SMALL)
    assert (again.folder("FTAL") / "model.safetensors").read_bytes() == first


def test_a_copied_store_goes_on_where_another_precision_is_fast(tmp_path, monkeypatch):
    auto = dataclasses.replace(SMALL, precision="auto", epochs=1, train_images=100)
    monkeypatch.setattr(fl.runs, "pick_precision", lambda *_: torch.float32)
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "there"))
    fl.Study(auto).folder("FTAL")
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    monkeypatch.setattr(fl.runs, "pick_precision", lambda *_: torch.bfloat16)
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "here"))
    here, made = fl.Study(auto), []
    monkeypatch.setattr(here, "_make_host", made.append)
    whole = here._make_marked
    monkeypatch.setattr(
        here, "_make_marked", lambda *a: made.append(a[0].name) or whole(*a)
    )
    models = here.record(["FTAL", "FTLL"])["models"]
    assert made == ["FTLL"]
    precisions = [row["precision"] for row in models.values()]
    assert precisions == ["float32", "float32", "bfloat16"]
    assert here.record(["FTAL", "FTLL"])["precision"] == "bfloat16, float32"
    assert here.record(["FTAL"])["precision"] == "float32"


def test_a_marked_run_is_not_read_back_beside_another_host(tmp_path, monkeypatch):
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    auto = fl.Config(scale="smoke", epochs=1, train_images=100, chains=1)
    for precision in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(fl.runs, "pick_precision", lambda *_, p=precision: p)
        shutil.rmtree(tmp_path / "host", ignore_errors=True)
        study = fl.Study(auto)
        if precision == torch.float32:
            study.marked("FTLL")
    with pytest.raises(ValueError, match="was made of another host"):
        study.marked("FTLL")


def _train(store):
    os.environ["FIDLIB_RUNS"] = str(store)
    fl.Study(SMALL).folder("host")


def test_a_killed_training_ends_as_an_undisturbed_one(study, tmp_path, monkeypatch):
    process = multiprocessing.get_context("spawn").Process(
        target=_train, args=(tmp_path,)
    )
    process.start()
    while not list(tmp_path.glob("host/.*.making-*")):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list(tmp_path.rglob("done.json"))
    assert list(tmp_path.glob("host/.*.making-*"))
    expected = (study.folder("host") / "model.safetensors").read_bytes()
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    again = fl.Study(SMALL).folder("host")
    assert again.is_relative_to(tmp_path)
    assert (again / "model.safetensors").read_bytes() == expected
    assert not list(tmp_path.glob("host/.*.making-*"))


class Stopped(Exception):
    pass


@pytest.fixture
def steps(study, monkeypatch):
    """Steps as they are taken; the eleventh ends the next training."""
    study.host()
    monkeypatch.setattr(fl.training, "STATE_SECONDS", 0)
    loss, taken = fl.training._Loop._loss, []

    def counted(self, *arguments):
        taken.append(1)
        if len(taken) == 11:
            monkeypatch.setattr(fl.training, "STATE_SECONDS", 300)
            raise Stopped
        return loss(self, *arguments)

    monkeypatch.setattr(fl.training._Loop, "_loss", counted)
    return taken


def states(kind):
    return list((fl.runs.runs_root() / kind).glob(".*.state"))


@pytest.mark.parametrize("name", ["host", "FTAL"])
def test_a_stopped_training_goes_on(study, steps, tmp_path, monkeypatch, name):
    if name == "host":
        monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
        kind, method, epochs = "host", "host", 24
    else:
        kind, epochs = "marked", 12
        method = fl.Method("goes on", preserves={"TWL": 0.01})
    with pytest.raises(Stopped):
        fl.Study(SMALL).folder(method)
    assert len(states(kind)) == 1
    folder = fl.Study(SMALL).folder(method)
    assert len(steps) == 1 + epochs * 17  # of 24 of 400 images
    assert not states(kind)
    history = pd.read_csv(folder / "history.csv")
    assert history.epoch.tolist() == [epochs * i // 6 for i in range(7)]


def test_a_stopped_training_begins_anew_from_another_host(
    study, steps, tmp_path, monkeypatch
):
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    shutil.copytree(study.folder("host"), fl.runs.place("host", study._host_key()))
    with pytest.raises(Stopped):
        fl.Study(SMALL).marked("FTAL")
    assert len(states("marked")) == 1
    monkeypatch.setattr(fl.Study, "_host_seal", lambda self: "another host's")
    monkeypatch.setattr(fl.Study, "_check_origin", lambda *_: None)
    fl.Study(SMALL).marked("FTAL")
    assert len(steps) == 11 + 12 * 17


def test_a_stopped_training_begins_anew_on_images_in_another_order(
    study, steps, tmp_path, monkeypatch
):
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    with pytest.raises(Stopped):
        fl.Study(SMALL).host()
    train = study.data.train
    order = torch.cat([torch.arange(399, -1, -1), torch.arange(400, len(train))])
    back = fl.data.Split(train.images[order], train.labels[order])
    other = dataclasses.replace(study.data, train=back)
    monkeypatch.setattr(fl.data, "load", lambda name: other)
    again = fl.Study(SMALL)
    assert again._host_key() == study._host_key()
    again.host()
    assert len(steps) == 11 + 24 * 17


def test_fidelity_is_compare_of_the_stored_models(study):
    for split in ("train", "test"):
        part = getattr(study, split)
        expected = fl.fidelity.compare(
            study.host(), study.marked("FTAL"), part, study.triggers
        )
        found = study.fidelity("FTAL", split)
        tables = [r.table(by_class=True) for r in (found, expected)]
        boundary = tables[0].level == "boundary"
        assert boundary.sum() == 3
        assert tables[0][boundary].value.isna().all() == (split == "train")
        if split == "train":
            tables = [table[~boundary] for table in tables]
        pd.testing.assert_frame_equal(*tables, rtol=1e-5)
    assert study.fidelity("FTAL", "train").images == 400
    with pytest.raises(ValueError, match="use train or test"):
        study.fidelity("FTAL", "validation")


def test_fixll_keeps_the_head_exactly(study):
    assert study.fidelity("FixLL+PFL").lp == 0
    assert study.fidelity("FTAL").lp > 0


def test_preserving_features_preserves_features(study):
    kept, lost = (study.fidelity(m, "train").pfl for m in ("FixLL+PFL", "FTAL"))
    assert kept < 0.2 * lost


def test_table_has_a_row_a_method_after_the_hosts(study):
    own = fl.Method("mine", trained="body", preserves={"PFL": 1.0})
    table = study.table(["FTAL", own])
    assert list(table.index) == ["host", "FTAL", "mine"]
    assert table.loc["host", ["twl", "lp", "pfl_train", "spl_test"]].tolist() == [0] * 4
    assert table.loc["host", "agreement_test"] == 1
    for part in ("train", "test"):
        report = study.fidelity("FTAL", part)
        assert table.loc["FTAL", f"pfl_{part}"] == report.pfl
        assert table.loc["FTAL", f"accuracy_{part}"] == report.marked_accuracy
    assert table.loc["FTAL", "trigger_accuracy"] == report.trigger_accuracy


def test_over_seeds_is_the_table_of_each_seed(study):
    table = fl.over_seeds(SMALL, ["FTAL"], [1, 0, 1])
    assert table.index.tolist() == [
        (name, seed) for seed in (1, 0) for name in ("host", "FTAL")
    ]
    expected = study.table(["FTAL"])
    pd.testing.assert_frame_equal(table.xs(0, level="seed"), expected)
    assert table.loc[("FTAL", 1), "pfl_test"] != expected.pfl_test["FTAL"]
    with pytest.raises(ValueError, match="at least two"):
        fl.over_seeds(SMALL, ["FTAL"], [3, 3])


def test_a_record_says_what_the_numbers_were_made_with(study):
    record = study.record(["FTAL"])
    found = [record[n] for n in ("train_images", "test_images", "precision", "scale")]
    assert found == [400, 500, "float32", "smoke"]
    assert record["epochs"] == "the recipe's"
    models = record["models"]
    assert list(models) == ["host", "FTAL"]
    assert (models["host"]["epochs"], models["FTAL"]["epochs"]) == (24, 12)
    assert models["FTAL"]["seconds"] > 0


def test_ref_is_the_host(study):
    assert study.marked("ref") is study.host()
    assert study.folder("ref") == study.folder("host")


def test_history_ends_at_what_is_reported(study):
    history = study.history("FTAL")
    last, report = history.iloc[-1], study.fidelity("FTAL")
    assert last.epoch == 12
    for name in ("twl", "pfl", "spl", "agreement", "trigger_accuracy"):
        assert last[name] == pytest.approx(getattr(report, name), rel=1e-6)
    assert last.accuracy == pytest.approx(report.marked_accuracy)
    assert history.iloc[0].twl == 0
    assert study.history("host").iloc[-1].accuracy == report.host_accuracy


def test_outputs_are_of_the_named_images(study):
    found = study.outputs("FTAL", "triggers")
    expected = study.marked("FTAL")(study.triggers.images)
    assert torch.allclose(found.logits, expected, atol=1e-5)
    assert len(study.outputs("host", "train").features) == 400
    with pytest.raises(ValueError, match="use train, test, triggers"):
        study.outputs("host", "validation")


def test_the_manifest_records_disjoint_splits(study):
    record = json.loads((study.folder("FTAL") / "config.json").read_text())
    assert record["data"]["test_images_also_in_train"] == 0
    assert record["data"]["train"] == {
        "images": 1297,
        "sha256": study.data.train.content,
    }
    assert record["triggers"]["sha256"] == study.triggers.fingerprint
    assert record["train_images"]["images"] == 400


def test_runs_are_found_whatever_the_order_of_the_images(study, monkeypatch):
    folder, images = study.folder("FTAL"), study.data
    back = torch.arange(399, -1, -1)
    order = torch.cat([back, torch.arange(400, 1297)])

    def load(train_order, labels_names):
        train = fl.data.Split(
            images.train.images[train_order], images.train.labels[train_order]
        )
        other = dataclasses.replace(images, train=train, classes=labels_names)
        monkeypatch.setattr(fl.data, "load", lambda name: other)
        return fl.Study(SMALL)

    names = tuple(f"{n} - in words" for n in images.classes)
    assert load(order, names).folder("FTAL") == folder
    # Of these, the first 400 are others.
    assert load(order.flip(0), names)._host_key() != study._host_key()


def test_a_host_of_your_own_is_protected(study, network):
    host = fl.models.wrap(
        network, image_size=8, mean=study.data.mean, std=study.data.std
    )
    own = fl.Study(SMALL, host=host)
    table = own.table(["FTLL", "scratch"])
    assert torch.equal(own.host().head.weight, host.head.weight)
    assert table.loc["FTLL", "pfl_test"] == 0
    assert table.loc["FTLL", "twl"] > 0
    before = own.host().head.weight.clone()
    with torch.no_grad():
        host.head.weight += 1
    assert torch.equal(own.host().head.weight, before)
    assert fl.Study(SMALL, host=host).folder("host") != own.folder("host")
    assert list(own.history().columns) == list(study.history().columns)


def test_triggers_are_noise_as_a_host_of_your_own_sees_it(study, network):
    def norms(host):
        seen = host.normalise(fl.Study(SMALL, host=host).triggers.images)
        return torch.linalg.matrix_norm(seen).flatten()

    grey = fl.models.wrap(network, image_size=8, mean=(0.5,), std=(0.25,))
    assert norms(grey).tolist() == pytest.approx([8**0.5] * 10, rel=1e-4)
    own = fl.Study(SMALL, host=grey)
    assert not torch.allclose(own.triggers.images, study.triggers.images)
    record = own.record()
    assert record["model"] == "a host of your own"
    assert record["feature_dim"] == grey.feature_dim
    assert own.record(["ref"])["models"]["host"]["epochs"] == "given"


def test_hosts_of_equal_weights_and_other_layers_are_told_apart():
    def host(activation):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3), activation, nn.Flatten(), nn.Linear(288, 10)]
        return fl.models.wrap(nn.Sequential(*layers), image_size=8)

    relu, silu = (
        fl.Study(SMALL, host=host(a)).folder("host") for a in (nn.ReLU(), nn.SiLU())
    )
    assert relu != silu


def test_triggers_that_cannot_be_shown_are_refused(study):
    images = study.test.images[:10]
    wide = fl.data.Split(torch.zeros(2, 1, 9, 9), torch.zeros(2).long())
    strange = fl.data.Split(images, torch.full((10,), 12))
    with pytest.raises(ValueError, match="make them alike"):
        fl.Study(SMALL, watermark=wide)
    none = fl.data.Split(images[:0], torch.zeros(0).long())
    for labels in (strange, none):
        with pytest.raises(ValueError, match="at least one trigger, and labels from 0"):
            fl.Study(SMALL, watermark=labels)


class Flat(torch.nn.Sequential):
    """A network that fixes the size of its images and has no convolution."""

    def __init__(self, num_classes, feature_dim):
        super().__init__(
            torch.nn.Flatten(),
            torch.nn.Linear(64, feature_dim),
            torch.nn.ReLU(),
            torch.nn.Linear(feature_dim, num_classes),
        )


def test_a_model_of_your_own_is_trained(monkeypatch):
    monkeypatch.setitem(fl.MODELS, "flat", Flat)
    config = fl.Config(**vars(SMALL) | {"model": "flat", "feature_dim": 32})
    own = fl.Study(config)
    assert own.fidelity("host").host_accuracy > 0.5
    assert own.fidelity("scratch").twl > 0
    again = fl.models.load(own.folder("host"))
    assert torch.equal(again.head.weight, own.host().head.weight)


def test_triggers_of_your_own_are_embedded(study):
    images = study.test.images[:10]
    secret = fl.data.Split(images, (study.test.labels[:10] + 1) % 10)
    own = fl.Study(SMALL, watermark=secret)
    assert own.folder("host") != study.folder("host")
    report = own.fidelity("FTAL")
    logits = own.marked("FTAL")(images)
    expected = (logits.argmax(1) == secret.labels).double().mean().item()
    assert report.trigger_accuracy == pytest.approx(expected)
    assert report.trigger_accuracy > report.host_trigger_accuracy


def test_a_host_of_other_classes_is_refused(network):
    with pytest.raises(ValueError, match="the host has 4 classes, digits 10"):
        fl.Study(SMALL, host=fl.models.wrap(network, num_classes=4))
    with pytest.raises(ValueError, match=r"pass fidlib\.models\.wrap"):
        fl.Study(SMALL, host=network)


def test_a_diverged_run_keeps_its_last_good_state(study, monkeypatch):
    study.host()
    monkeypatch.setattr(fl.training, "STATE_SECONDS", 0)
    taken = []

    def explode(step):
        taken.append(1)
        return step.logits.sum() * (math.nan if len(taken) > 3 else 0)

    method = fl.Method("explodes", preserves={explode: 1.0})
    with pytest.raises(
        fl.training.Diverged, match="The last good state is in"
    ) as caught:
        study.marked(method)
    folder = str(caught.value).rsplit(" is in ", 1)[1].rstrip(".")
    kept = fl.models.load(f"{folder}/model.safetensors", like=study.host())
    assert torch.equal(kept.head.weight, study.host().head.weight)
    assert len(pd.read_csv(f"{folder}/history.csv")) == 1
    assert not list(fl.runs.runs_root().glob("marked/.*.making-*"))
    assert not states("marked")


def test_a_damaged_run_says_what_to_do(study, tmp_path, monkeypatch):
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    config = fl.Config(**vars(SMALL) | {"epochs": 1})
    path = fl.Study(config).folder("host") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"model\.safetensors\): delete that folder"):
        fl.Study(config).host()


def test_premise_holds_for_this_study_and_fails_for_others(study, monkeypatch):
    assert "FTAL" in study.check_premise(["FTAL", "FTLL"])
    table = study.table(["FTAL"])
    cases = [
        ("host", "accuracy_test", 0.1, "hardly more than a guess"),
        ("host", "trigger_accuracy", 0.4, "prove no watermark"),
        ("FTAL", "trigger_accuracy", 0.5, "no method answers the triggers"),
    ]
    for row, column, value, message in cases:
        changed = table.copy()
        changed.loc[row, column] = value
        monkeypatch.setattr(study, "table", lambda methods, c=changed: c)
        with pytest.raises(ValueError, match=message):
            study.check_premise(["FTAL"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_dim": 1}, "feature_dim is 1; it must be at least 2"),
        ({"feature_dim": "2"}, "expected int, such as 2"),
        ({"dataset": 3}, "expected str, such as 'digits'"),
        ({"epochs": -1}, "at least 0"),
        ({"precision": "float16"}, "use auto, float32 or bfloat16"),
        ({"seed": True}, "expected int"),
    ],
)
def test_config_refuses_what_makes_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        fl.Study(fl.Config(**change))


def test_study_names_what_is_unknown():
    with pytest.raises(ValueError, match="unknown model 'resnet'; use one of"):
        fl.Study(fl.Config(model="resnet"))
    with pytest.raises(ValueError, match="unknown scale 'hour'"):
        fl.Study(fl.Config(scale="hour"))
    with pytest.raises(FileNotFoundError, match="no image set 'digit'"):
        fl.Study(fl.Config(dataset="digit"))
    with pytest.raises(ValueError, match="unknown method 'FTAll'"):
        fl.Study(SMALL).marked("FTAll")
