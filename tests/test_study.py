import copy
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
from torch.nn.utils import prune

import fidlib as fl
from fidlib.measures import catalogue
from fidlib.measures.catalogue import MEASURES
from fidlib.measures.curve import OF_MARKED
from fidlib.runs import machine, store
from fidlib.study import images as parts
from fidlib.study import premise, reports
from fidlib.study.lineage import Lineage
from tests.conftest import BARE, SMALL


def bare_with(**changes):
    return fl.Study(dataclasses.replace(BARE, **changes))


def same_weights(a, b):
    return fl.models.fingerprint(a) == fl.models.fingerprint(b)


# Made once, then read back


def test_a_study_makes_a_model_once_and_reads_it_back(bare, monkeypatch):
    folder, marked = bare.folder("FixLL+PFL"), bare.model("FixLL+PFL")
    assert same_weights(marked, bare.model(fl.METHODS["FixLL+PFL"]))

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(fl.training, "train", fail)
    again = fl.Study(BARE)
    assert again.folder("FixLL+PFL") == folder
    images = bare.test.images[:20]
    assert torch.equal(again.model("FixLL+PFL")(images), marked(images))
    assert not again.model("FixLL+PFL").training
    with pytest.raises(AssertionError, match="trained again"):
        again.model("FixLL+SPL")


SAME_HOST = [
    *({"embed_epochs": 2}, {"trigger_count": 20}, {"triggers": "patch"}),
    *({"trigger_options": {"links": 5}}, {"embed_rate": 1e-3}),
]
OTHER_HOST = [
    *({"seed": 1}, {"feature_dim": 3}, {"train_images": 40}, {"epochs": 2}),
    *({"scale": "minutes"}, {"precision": "auto"}, {"model": "resnet18"}),
]


def test_another_configuration_has_other_models(bare):
    """And the host has nothing to do with the watermark."""
    marked, hosts = [bare.folder("FTAL")], []
    for change in (*SAME_HOST, *OTHER_HOST):
        other = bare_with(**change)
        marked.append(other.folder("FTAL"))
        if change in SAME_HOST:
            assert other.folder("host") == bare.folder("host"), change
        else:
            hosts.append(other.folder("host"))
    assert len(set(marked)) == 13
    assert len({*hosts, bare.folder("host")}) == 8


def test_floors_have_nothing_to_do_with_the_watermark(bare):
    other = bare_with(triggers="patch", trigger_count=20)
    for name in fl.FLOORS:
        assert other.folder(name) == bare.folder(name)
    assert bare_with(seed=1).folder("retrained") != bare.folder("retrained")
    assert bare_with(embed_epochs=2).folder("retrained") != bare.folder("retrained")


def test_the_same_seed_gives_the_same_bytes_in_another_store(
    bare, tmp_path, monkeypatch
):
    def contents(study):
        return [
            (study.folder(name) / file).read_bytes()
            for name in ("host", "FTAL", "FTAL/prune:0.4", "retrained")
            for file in ("model.safetensors",)
        ]

    first = contents(bare)
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "other"))
    torch.manual_seed(5)  # other randomness is no part of it
    again = fl.Study(BARE)
    assert contents(again) == first
    assert again.folder("FTAL").is_relative_to(tmp_path / "other")
    assert contents(bare_with(seed=1))[0] != first[0]


def test_a_builder_that_reads_its_surroundings_has_hosts_of_their_own(
    root, monkeypatch
):
    def mine(num_classes, feature_dim):
        act = getattr(nn, os.environ["FIDLIB_TEST_ACTIVATION"])()
        layers = [nn.Flatten(), nn.Linear(64, feature_dim), act]
        return nn.Sequential(*layers, nn.Linear(feature_dim, num_classes))

    monkeypatch.setitem(fl.NETWORKS, "mine", mine)
    monkeypatch.setenv("FIDLIB_TEST_ACTIVATION", "ReLU")
    relu = bare_with(model="mine")
    first = relu.folder("host")
    assert bare_with(model="mine").folder("host") == first
    monkeypatch.setenv("FIDLIB_TEST_ACTIVATION", "Tanh")
    tanh = bare_with(model="mine")
    assert tanh.folder("host") != first
    assert isinstance(tanh.model("host").body[2], nn.Tanh)


class Flat(nn.Sequential):
    """A network that fixes the size of its images and has no convolution."""

    def __init__(self, num_classes, feature_dim):
        super().__init__(
            nn.Flatten(),
            nn.Linear(64, feature_dim),
            nn.ReLU(),
            nn.Linear(feature_dim, num_classes),
        )


def test_a_network_of_your_own_is_trained(root, monkeypatch):
    monkeypatch.setitem(fl.NETWORKS, "flat", Flat)
    study = fl.Study(dataclasses.replace(SMALL, model="flat", feature_dim=32))
    assert study.fidelity("host").accuracy > 0.5
    assert study.fidelity("scratch").twl > 0
    again = fl.models.load(study.folder("host"))
    assert same_weights(again, study.model("host"))


# What is handed out


def vandalise(study):
    for name in ("host", "FTAL"):
        model = study.model(name)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                keep = torch.zeros_like(module.weight)
                prune.custom_from_mask(module, "weight", keep)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.fill_(0.5)
        history = study.history(name)
        history.iloc[:, :] = 0
        for tensor in (*study.outputs(name), *study.curve(name)):
            tensor.zero_()
    for part in ("train", "test", "triggers", "sample"):
        split = study.images(part)
        split.images.zero_()
        split.labels.zero_()
    for split in (study.train, study.test, study.triggers):
        split.images.fill_(1)
        split.labels.fill_(1)
    table = study.table(["FTAL"])
    table.iloc[:, :] = 0
    study.fidelity("FTAL").measured.clear()


def numbers(study):
    table = study.table(["FTAL", "FTAL/prune:0.4"])
    report = study.fidelity("FTAL").table(by_class=True)
    return table, report, study.history("FTAL").drop(columns="seconds")


def test_nothing_done_to_what_is_handed_out_changes_a_number(
    root, tmp_path, monkeypatch
):
    expected = numbers(fl.Study(BARE))
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "other"))
    study = fl.Study(BARE)
    study.model("FTAL")
    for _ in range(2):  # before anything is measured, and after
        vandalise(study)
    for frames in (numbers(study), numbers(fl.Study(BARE))):
        for a, b in zip(frames, expected, strict=True):
            pd.testing.assert_frame_equal(a, b)


def test_families_and_attacks_get_copies(bare, monkeypatch):
    def family(pool, seed, *, host, count):
        split = pool.sample(count).copy()
        pool.images.zero_()
        pool.labels.zero_()
        host.head.weight.data.zero_()
        return split

    def attack(model, split, seed):
        split.images.zero_()
        model.head.weight.data.mul_(2)
        return model

    monkeypatch.setitem(fl.TRIGGERS, "rude", family)
    monkeypatch.setitem(fl.ATTACKS, "rude", attack)
    rude = bare_with(triggers="rude")
    assert rude.triggers.images.any()
    assert torch.equal(rude.train.images, bare.train.images)
    assert same_weights(rude.model("host"), bare.model("host"))
    before = rude.model("FTAL").head.weight
    after = rude.model("FTAL/rude").head.weight
    assert torch.equal(after, 2 * before)
    assert torch.equal(rude.model("FTAL").head.weight, before)
    assert torch.equal(rude.train.images, bare.train.images)


def rude(pair):
    """Changes all that it looks at, for good."""
    for tensor in (*pair.features, *pair.logits, *pair.host.parameters()):
        tensor.data.zero_()
    for split in (pair.split, pair.triggers):
        split.images.zero_()
        split.labels.zero_()
    return 1.0


def test_a_measure_that_changes_what_it_sees_changes_no_other(
    bare, tmp_path, monkeypatch
):
    asked = ["pfl", "accuracy", "trigger_accuracy", "twl"]
    expected = bare.fidelity("FTAL", measures=asked)
    row = dataclasses.replace(MEASURES["pfl"], name="rude", of=rude, parts=None)
    monkeypatch.setitem(MEASURES, "rude", row)
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "other"))
    study = fl.Study(BARE)
    report = study.fidelity("FTAL", measures=["rude", *asked])
    for name in asked:
        assert report[name] == expected[name]
        assert report.by_class(name) == expected.by_class(name)
    assert torch.equal(study.test.images, bare.test.images)
    assert torch.equal(study.triggers.images, bare.triggers.images)
    other = study.fidelity("FTLL", measures=asked)
    assert other == bare.fidelity("FTLL", measures=asked)


def test_a_classifier_that_is_handed_in_is_left_alone(bare):
    model = bare.model("FTAL").train()
    report = bare.fidelity(model)
    assert report.values() == bare.fidelity("FTAL").values()
    assert model.training
    with torch.no_grad():
        model.head.weight.mul_(-1)
    other = bare.fidelity(model)
    assert other.twl > report.twl  # it is known by its weights
    expected = fl.models.outputs(model, bare.test.images)
    assert torch.equal(bare.outputs(model).logits, expected.logits)


# Training that is killed, stopped, or damaged


def _train(root):
    os.environ["FIDLIB_RUNS"] = str(root)
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


LONGER = dataclasses.replace(BARE, epochs=9)
"""Eighteen steps a model."""


@pytest.fixture
def steps(root, monkeypatch):
    """Steps as they are taken; the eleventh ends the next training."""
    checkpoint, objective = fl.training.checkpoint, fl.training.objective.Objective
    monkeypatch.setattr(checkpoint, "STATE_SECONDS", 0)
    loss, taken = objective.__call__, []

    def counted(self, *arguments, **options):
        taken.append(1)
        if len(taken) == 11:
            monkeypatch.setattr(checkpoint, "STATE_SECONDS", 300)
            raise Stopped
        return loss(self, *arguments, **options)

    def start():
        monkeypatch.setattr(objective, "__call__", counted)
        return taken

    return start


def states(kind):
    return list((store.runs_root() / kind).glob(".*.state"))


@pytest.mark.parametrize("name", ["host", "FTAL"])
def test_a_stopped_training_goes_on(steps, tmp_path, monkeypatch, name):
    kind = "host" if name == "host" else "marked"
    if name != "host":
        fl.Study(LONGER).model("host")
    taken = steps()
    with pytest.raises(Stopped):
        fl.Study(LONGER).folder(name)
    assert len(states(kind)) == 1
    folder = fl.Study(LONGER).folder(name)
    assert len(taken) == 1 + 18
    assert not states(kind)
    history = pd.read_csv(folder / "history.csv")
    assert history.epoch.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    curve = fl.Study(LONGER).curve(name)
    assert len(curve.features) == 9
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "undisturbed"))
    other = fl.Study(LONGER).folder(name)
    for file in ("model.safetensors", "curve.safetensors"):
        assert (folder / file).read_bytes() == (other / file).read_bytes()


def test_a_stopped_training_begins_anew_from_another_host(steps):
    study = fl.Study(LONGER)
    study.model("host")
    taken = steps()
    with pytest.raises(Stopped):
        study.model("FTAL")
    assert len(states("marked")) == 1
    # As if made on a machine that rounds otherwise.
    folder = study.folder("host")
    model = study.model("host")
    model.head.weight.data.mul_(1.001)
    fl.models.save(model, folder / "model.safetensors")
    seal = json.loads((folder / "done.json").read_text())
    checksum = store.checksum(folder / "model.safetensors")
    seal["files"]["model.safetensors"] = checksum
    (folder / "done.json").write_text(json.dumps(seal))
    fl.Study(LONGER).model("FTAL")
    assert len(taken) == 11 + 18


def in_order(images, order, classes=None):
    """The set with its training images in another order."""
    train = fl.data.Split(images.train.images[order], images.train.labels[order])
    return dataclasses.replace(images, train=train, classes=classes or images.classes)


@pytest.fixture
def little(digits, monkeypatch):
    """A set of few images, which studies then load; and what loads another."""
    small = dataclasses.replace(digits, train=digits.train.sample(48))

    def load(images):
        monkeypatch.setattr(fl.data, "load", lambda name: images)

    load(small)
    return small, load


def test_a_stopped_training_begins_anew_on_images_in_another_order(steps, little):
    images, load = little
    config = dataclasses.replace(LONGER, train_images=0)
    taken = steps()
    with pytest.raises(Stopped):
        fl.Study(config).model("host")
    load(in_order(images, torch.arange(47, -1, -1)))
    fl.Study(config).model("host")
    assert len(taken) == 11 + 18
    assert not states("host")


def test_models_are_found_whatever_the_order_of_the_images(root, little):
    images, load = little
    config = dataclasses.replace(BARE, train_images=0)
    names = ("host", "FTAL", "retrained")
    folders = [fl.Study(config).folder(name) for name in names]
    words = tuple(f"{n} - in words" for n in images.classes)
    load(in_order(images, torch.arange(47, -1, -1), words))
    assert [fl.Study(config).folder(name) for name in names] == folders
    # Trained on a part of them, they are others, for the part is another.
    part = dataclasses.replace(BARE, train_images=30)
    other = fl.Study(part).folder("host")
    load(images)
    assert fl.Study(part).folder("host") != other


def test_a_diverged_run_keeps_its_last_good_state(study, monkeypatch):
    study.model("host")
    monkeypatch.setattr(fl.training.checkpoint, "STATE_SECONDS", 0)
    taken = []

    def explode(step):
        taken.append(1)
        return step.logits.sum() * (math.nan if len(taken) > 3 else 0)

    method = fl.Method("explodes", preserves={explode: 1.0})
    with pytest.raises(
        fl.training.Diverged, match="The last good state is in"
    ) as caught:
        study.model(method)
    folder = str(caught.value).rsplit(" is in ", 1)[1].rstrip(".")
    host = study.model("host")
    kept = fl.models.load(f"{folder}/model.safetensors", like=host)
    assert torch.equal(kept.head.weight, host.head.weight)
    assert len(pd.read_csv(f"{folder}/history.csv")) == 1
    assert not list(store.runs_root().glob("marked/.*.making-*"))
    assert not states("marked")


def test_a_damaged_run_says_what_to_do(bare):
    path = bare.folder("host") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"model\.safetensors\): delete that folder"):
        fl.Study(BARE).model("host")


def test_a_copied_store_goes_on_where_another_precision_is_fast(tmp_path, monkeypatch):
    auto = dataclasses.replace(BARE, precision="auto")
    monkeypatch.setattr(machine, "training_type", lambda *_: torch.float32)
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "there"))
    fl.Study(auto).folder("FTAL")
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    monkeypatch.setattr(machine, "training_type", lambda *_: torch.bfloat16)
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "here"))
    names, whole = [], fl.training.train

    def train(model, plan, *arguments, **options):
        names.append(plan.method.name)
        return whole(model, plan, *arguments, **options)

    monkeypatch.setattr(fl.training, "train", train)
    here = fl.Study(auto)
    models = here.record(["FTAL", "FTLL"])["models"]
    assert names == ["FTLL"]
    precisions = [row["precision"] for row in models.values()]
    assert precisions == ["float32", "float32", "bfloat16"]
    assert here.record(["FTAL", "FTLL"])["precision"] == "bfloat16, float32"
    assert here.record(["FTAL"])["precision"] == "float32"


@pytest.mark.parametrize("name", ["FTLL", "FTLL/prune"])
def test_a_model_is_not_read_back_beside_another_parent(root, monkeypatch, name):
    auto = dataclasses.replace(BARE, precision="auto")
    for precision in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(machine, "training_type", lambda *_, p=precision: p)
        shutil.rmtree(root / "host", ignore_errors=True)
        study = fl.Study(auto)
        if precision == torch.float32:
            study.model(name)
    with pytest.raises(ValueError, match="was made of another model than"):
        study.model(name)


# Numbers


def test_fidelity_is_compare_of_the_models(study):
    for split in ("train", "test"):
        part = getattr(study, split)
        expected = fl.compare(
            study.model("host"), study.model("FTAL"), part, study.triggers
        )
        report = study.fidelity("FTAL", split=split)
        tables = [r.table(by_class=True) for r in (report, expected)]
        boundary = tables[0].level == "boundary"
        assert boundary.sum() == 3
        assert tables[0][boundary].value.isna().all() == (split == "train")
        if split == "train":
            tables = [table[~boundary] for table in tables]
        pd.testing.assert_frame_equal(*tables, rtol=1e-5)
    assert study.fidelity("FTAL", split="train").images == 400
    few = study.test.sample(50)
    report = study.fidelity("FTAL", split=few)
    assert report.images == 50
    expected = fl.compare(study.model("host"), study.model("FTAL"), few, study.triggers)
    pd.testing.assert_frame_equal(report.table(), expected.table(), rtol=1e-5)
    with pytest.raises(ValueError, match="use train, test or a data"):
        study.fidelity("FTAL", split="validation")


def test_the_host_is_a_lineage(study):
    gaps = study.fidelity("host").distances()
    none = {"trigger_plane_disagreement"} & {n for n, v in gaps.items() if v is None}
    compared = {n for n in catalogue.usual() if MEASURES[n].same is not None}
    assert {n: v for n, v in gaps.items() if n not in none} == dict.fromkeys(
        compared - none, 0
    )
    assert study.folder() == study.folder("host") == study.folder(Lineage())
    assert same_weights(study.model(), study.model("host"))


def test_the_marked_model_answers_the_triggers_and_the_host_does_not(study):
    assert study.fidelity("host").trigger_accuracy <= 0.3
    assert study.fidelity("FTAL").trigger_accuracy == 1
    assert study.fidelity("FixLL+PFL").trigger_accuracy >= fl.methods.LEARNED
    assert study.fidelity("host").accuracy > 0.7


def test_fixll_keeps_the_head_exactly(study):
    assert study.fidelity("FixLL+PFL").lp == 0
    assert study.fidelity("FTAL").lp > 0


def test_preserving_features_preserves_features(study):
    reports = [study.fidelity(m, split="train") for m in ("FixLL+PFL", "FTAL")]
    assert reports[0].pfl < 0.2 * reports[1].pfl


def test_an_attacked_model_is_compared_with_the_marked_one(study):
    attacked = "FTAL/prune:0.3"
    report = study.fidelity(attacked, against="FTAL")
    parts = study.model("FTAL"), study.model(attacked)
    expected = fl.compare(*parts, study.test, study.triggers)
    pd.testing.assert_frame_equal(report.table(), expected.table(), rtol=1e-5)
    assert report.host_accuracy == study.fidelity("FTAL").accuracy
    assert report.host_trigger_accuracy == 1
    assert 0 < report.twl < study.fidelity(attacked).twl
    weights = torch.cat([w.flatten() for w in parts[1].parameters() if w.ndim > 1])
    assert (weights == 0).double().mean().item() == pytest.approx(0.3, abs=1e-3)


def test_an_attacker_sees_a_part_of_the_training_images_alone(bare, monkeypatch):
    seen = []

    def look(model, split, seed, strength=1.0):
        seen.append((model, split, seed))
        return model

    monkeypatch.setitem(fl.ATTACKS, "look", look)
    bare.model("FTAL/prune:0.2/look")
    model, split, seed = seen[0]
    assert same_weights(model, bare.model("FTAL/prune:0.2"))
    assert seed == 0
    assert split.labels.bincount().tolist() == [1] * 10  # at most a quarter of 48
    pixels = {image.numpy().tobytes() for image in bare.train.images}
    assert all(image.numpy().tobytes() in pixels for image in split.images)


def test_reports_are_kept_apart_by_models_split_and_triggers(bare, monkeypatch):
    """What differs is measured anew, what does not is read."""
    measured, whole = [], reports.measure
    monkeypatch.setattr(reports, "measure", lambda *a: measured.append(1) or whole(*a))
    other = bare_with(trigger_count=20)
    for k, ask in enumerate(
        [
            lambda: bare.fidelity("retrained"),
            lambda: bare.fidelity("fine-tuned"),
            lambda: bare.fidelity("retrained", against="fine-tuned"),
            lambda: bare.fidelity("fine-tuned", against="retrained"),
            lambda: bare.fidelity("retrained", split="train"),
            lambda: bare.fidelity("retrained", split=bare.test.sample(30)),
            lambda: other.fidelity("retrained"),
        ]
    ):
        first = ask()
        assert len(measured) == k + 1
        assert ask() == first
        assert len(measured) == k + 1
    assert fl.Study(BARE).fidelity("retrained") == bare.fidelity("retrained")
    assert len(measured) == k + 1


def test_a_later_measure_runs_no_model(bare, monkeypatch):
    bare.table(["FTAL"])

    def fail(*_, **__):
        raise AssertionError("a model was run or trained")

    monkeypatch.setattr(fl.models, "outputs", fail)
    monkeypatch.setattr(fl.training, "train", fail)
    row = dataclasses.replace(
        MEASURES["accuracy"], name="mine", of=lambda pair: float(len(pair.logits[1]))
    )
    monkeypatch.setitem(MEASURES, "mine", row)
    again = fl.Study(BARE)
    report = again.fidelity("FTAL")
    assert report.mine == 500
    assert report.table().loc["mine", "value"] == 500
    assert report.pfl == fl.Study(BARE).fidelity("FTAL").pfl
    newer = dataclasses.replace(MEASURES["spl"], version=2, of=lambda pair: 7.0)
    monkeypatch.setitem(MEASURES, "spl", newer)
    assert fl.Study(BARE).fidelity("FTAL").spl == 7


def test_table_has_a_row_a_model_after_the_hosts(study):
    method = fl.Method("mine", trained="body", preserves={"PFL": 1.0})
    table = study.table(["FTAL", method, "FTAL/prune:0.3"])
    assert list(table.index) == ["host", "FTAL", "mine", "FTAL/prune:0.3"]
    assert table.index.name == "method"
    assert table.loc["host", ["twl", "lp", "pfl_train", "spl_test"]].tolist() == [0] * 4
    assert table.loc["host", "agreement_test"] == 1
    for part in ("train", "test"):
        report = study.fidelity("FTAL", split=part)
        assert table.loc["FTAL", f"pfl_{part}"] == report.pfl
        assert table.loc["FTAL", f"accuracy_{part}"] == report.accuracy
    for name in ("trigger_accuracy", "twl", "plane_disagreement"):
        assert table.loc["FTAL", name] == getattr(study.fidelity("FTAL"), name)


def test_an_attacked_model_is_measured_only_when_somebody_asks(bare, monkeypatch):
    name, pair, asked = "host/prune:0.4", bare._pair, []
    monkeypatch.setattr(
        bare, "_pair", lambda *pairs: (asked.append(str(pairs[0])), pair(*pairs))[1]
    )
    bare.make([name], jobs=1)
    lineage = fl.study.lineage.Lineage.read(name)
    assert not bare.is_missing(lineage, [])
    assert name not in asked
    assert "accuracy" not in bare.describe(name)
    assert name not in asked
    assert bare.is_missing(lineage, ["test"])
    bare.make([name], outputs=["test"], jobs=1)
    assert not bare.is_missing(lineage, ["test"])
    assert "accuracy" in bare.describe(name)
    assert bare.table([name]).loc[name, "pfl_train"] > 0


def test_a_measure_of_your_own_has_a_column_of_the_table(bare, monkeypatch):
    bare.table([])
    row = fl.measures.catalogue.Measure(
        name="mine", level="outputs", unit="images", source="here", same=None,
        of=lambda pair: float(len(pair)),
    )  # fmt: skip
    monkeypatch.setitem(MEASURES, "mine", row)
    table = fl.Study(BARE).table([])
    assert 500 in table.filter(like="mine").loc["host"].tolist()


def test_over_seeds_is_the_table_of_each_seed(bare):
    table = fl.over_seeds(BARE, ["FTAL"], [1, 0, 1])
    assert table.index.tolist() == [
        (name, seed) for seed in (1, 0) for name in ("host", "FTAL")
    ]
    expected = bare.table(["FTAL"])
    pd.testing.assert_frame_equal(table.xs(0, level="seed"), expected)
    assert table.loc[("FTAL", 1), "pfl_test"] != expected.pfl_test["FTAL"]
    with pytest.raises(ValueError, match="at least two"):
        fl.over_seeds(BARE, ["FTAL"], [3, 3])


def test_a_record_says_what_the_numbers_were_made_with(study):
    record = study.record(["FTAL"])
    values = [record[n] for n in ("train_images", "test_images", "precision", "scale")]
    assert values == [400, 500, "float32", "smoke"]
    assert record["epochs"] == "the recipe's"
    models = record["models"]
    assert list(models) == ["host", "FTAL"]
    assert (models["host"]["epochs"], models["FTAL"]["epochs"]) == (24, 12)
    assert models["FTAL"]["seconds"] > 0
    assert study.record()["models"] == {}


def test_history_ends_at_what_is_reported(study):
    history = study.history("FTAL")
    last, report = history.iloc[-1], study.fidelity("FTAL")
    assert last.epoch == 12
    for name in OF_MARKED:
        assert last[name] == pytest.approx(report[name].value, rel=1e-6)
    assert last.twl == pytest.approx(report.twl, rel=1e-6)
    assert history.iloc[0].twl == 0
    host = study.history("host").iloc[-1]
    assert host.accuracy == pytest.approx(report.host_accuracy)


def test_a_curve_ends_at_the_models_own_outputs(study):
    curve = study.curve("FTAL")
    assert len(curve.features) == len(study.history("FTAL")) == 9
    ends = study.outputs("FTAL", study.test.images[curve.rows])
    assert torch.equal(curve.features[-1], ends.features.half())
    starts = study.outputs("host", "triggers")
    assert torch.equal(curve.trigger_logits[0], starts.logits.half())
    assert study.curve("host").trigger_logits.shape[1] == 0


def test_a_curve_of_one_epoch_has_nine_points_too(study):
    short = fl.Study(dataclasses.replace(SMALL, embed_epochs=1))
    assert short.folder("host") == study.folder("host")
    assert len(short.curve("FTLL").logits) == len(short.history("FTLL")) == 9


def test_the_rate_of_embedding_may_be_set(bare):
    fast = bare_with(embed_rate=0.5)
    assert fast.fidelity("FTLL").lp > 10 * bare.fidelity("FTLL").lp > 0


def test_what_has_no_curve_says_so(bare):
    for name in ("FTAL/prune", "host/prune"):
        with pytest.raises(ValueError, match=f"no outputs were kept while {name}"):
            bare.curve(name)


def test_outputs_are_of_the_named_images(study, monkeypatch):
    outputs = study.outputs("FTAL", "triggers")
    expected = study.model("FTAL")(study.triggers.images)
    assert torch.allclose(outputs.logits, expected, atol=1e-5)
    assert len(study.outputs("host", "train").features) == 400
    images = study.test.images[3:9]
    by_pixels = study.outputs("FTAL", images).logits
    assert torch.allclose(by_pixels, study.model("FTAL")(images), atol=1e-5)

    def fail(*_, **__):
        raise AssertionError("a model was run")

    monkeypatch.setattr(fl.models, "outputs", fail)
    again = fl.Study(SMALL)
    assert torch.equal(again.outputs("FTAL", "triggers").logits, outputs.logits)
    assert torch.equal(again.outputs("FTAL", images).logits, by_pixels)
    for asked in (again.outputs, lambda _, part: again.images(part)):
        with pytest.raises(ValueError, match="use train, test, triggers, sample"):
            asked("host", "none")


def test_a_sample_is_of_training_images_spread_over_the_classes(bare, monkeypatch):
    assert bare.images("sample").fingerprint == bare.train.fingerprint  # no more
    monkeypatch.setattr(parts, "SAMPLE", 20)
    part = fl.Study(BARE).images("sample")
    assert part.fingerprint == bare.train.sample(20).fingerprint
    assert part.labels.unique().tolist() == list(range(10))


def test_the_manifest_records_disjoint_splits(study):
    record = json.loads((study.folder("FTAL") / "config.json").read_text())
    assert record["data"]["test_images_also_in_train"] == 0
    whole = fl.data.load("digits").train
    assert record["data"]["train"] == {"images": 1297, "sha256": whole.content}
    assert record["triggers"]["sha256"] == study.triggers.fingerprint
    assert record["train"] == {"images": 400, "sha256": study.train.content}


# Hosts and watermarks of one's own


def test_a_host_of_your_own_is_protected(bare, digits, network):
    host = fl.models.wrap(network, image_size=8, mean=digits.mean, std=digits.std)
    study = fl.Study(BARE, host=host)
    table = study.table(["FTLL"])
    with pytest.raises(ValueError, match="how its weights were drawn"):
        study.model("scratch")
    assert torch.equal(study.model("host").head.weight, host.head.weight)
    assert table.loc["FTLL", "pfl_test"] == 0
    assert table.loc["FTLL", "twl"] > 0
    before = study.model("host").head.weight.clone()
    with torch.no_grad():
        host.head.weight += 1
    assert torch.equal(study.model("host").head.weight, before)
    assert fl.Study(BARE, host=host).folder("host") != study.folder("host")
    assert list(study.history().columns) == list(bare.history().columns)
    with pytest.raises(ValueError, match="no outputs were kept while host"):
        study.curve("host")


def test_triggers_are_noise_as_a_host_of_your_own_sees_it(bare, network):
    def norms(host):
        seen = host.normalise(fl.Study(BARE, host=host).triggers.images)
        return torch.linalg.matrix_norm(seen).flatten()

    grey = fl.models.wrap(network, image_size=8, mean=(0.5,), std=(0.25,))
    assert norms(grey).tolist() == pytest.approx([8**0.5] * 10, rel=1e-4)
    study = fl.Study(BARE, host=grey)
    assert not torch.allclose(study.triggers.images, bare.triggers.images)
    record = study.record()
    assert record["model"] == "a host of your own"
    assert record["feature_dim"] == grey.feature_dim
    assert study.record(["FTLL"])["models"]["host"]["epochs"] == "given"


def test_hosts_of_equal_weights_and_other_layers_are_told_apart(root):
    def host(activation):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3), activation, nn.Flatten(), nn.Linear(288, 10)]
        return fl.models.wrap(nn.Sequential(*layers), image_size=8)

    relu, silu = (
        fl.Study(BARE, host=host(a)).folder("host") for a in (nn.ReLU(), nn.SiLU())
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


def test_triggers_of_your_own_are_embedded(study):
    images = study.test.images[:10]
    secret = fl.data.Split(images, (study.test.labels[:10] + 1) % 10)
    marked = fl.Study(SMALL, watermark=secret)
    assert marked.folder("host") == study.folder("host")
    assert marked.folder("FTAL") != study.folder("FTAL")
    report = marked.fidelity("FTAL")
    logits = marked.model("FTAL")(images)
    expected = (logits.argmax(1) == secret.labels).double().mean().item()
    assert report.trigger_accuracy == pytest.approx(expected)
    assert report.trigger_accuracy > report.host_trigger_accuracy
    secret.labels.zero_()
    assert marked.triggers.labels.any()


def test_a_host_of_other_classes_is_refused(network):
    with pytest.raises(ValueError, match="the host has 4 classes, digits 10"):
        fl.Study(SMALL, host=fl.models.wrap(network, num_classes=4))
    with pytest.raises(ValueError, match=r"pass fidlib\.models\.wrap"):
        fl.Study(SMALL, host=network)


# What makes no sense


def test_a_family_that_reserves_its_pool_keeps_it_from_marked_and_attacked(root):
    plain = fl.Study(BARE)
    study = fl.Study(dataclasses.replace(BARE, triggers="mislabelled"))
    assert study.host_key == plain.host_key  # a host's key knows no triggers
    train, pool, rest = (study.images(n) for n in ("train", "pool", "rest"))
    assert len(pool) == BARE.trigger_count
    parts = torch.cat([pool.images, rest.images])
    both = fl.data.Split(parts, torch.cat([pool.labels, rest.labels]))
    assert both.content == train.content
    images = (study.triggers.images * 255).round().byte()
    secret = {image.numpy().tobytes() for image in images}
    assert secret == {image.numpy().tobytes() for image in pool.images}
    for lineage in ("FTAL", "FTAL/fine-tune:1"):
        key = json.loads((study.folder(lineage) / "config.json").read_text())
        assert key["train"]["images"] <= len(rest) < len(train)
    assert plain.images("rest").content == plain.images("pool").content == train.content


def test_margin_is_learned_by_its_own_way_of_showing_and_known_by_it(root):
    study = fl.Study(dataclasses.replace(BARE, triggers="margin"))
    key = json.loads((study.folder("FTAL") / "config.json").read_text())
    assert key["plan"]["method"]["shows"] == ["ascended", None]
    for lineage in ("host", "fine-tuned"):
        key = json.loads((study.folder(lineage) / "config.json").read_text())
        assert "shows" not in key["plan"]["method"]


def test_true_labels_are_asked_the_hosts_rate_not_chance(study):
    table = study.table(["FTAL"])
    table.loc["host", "trigger_accuracy"] = 0.5
    with pytest.raises(ValueError, match="prove no watermark"):
        premise.check(table, 10, 10, "random")
    assert premise.check(table, 10, 10, "true") == ["FTAL"]
    table.loc["host", "trigger_accuracy"] = 0.95
    with pytest.raises(ValueError, match="prove no watermark"):
        premise.check(table, 10, 10, "true")


def test_a_study_says_how_its_triggers_are_labelled(root):
    def mine(pool, seed, *, host, count):
        return pool.sample(count)

    assert fl.Study(BARE).labels == "chain"
    fixed = {"triggers": "noise", "trigger_options": {"labels": "fixed"}}
    assert fl.Study(dataclasses.replace(BARE, **fixed)).labels == "fixed"
    secret = fl.data.Split(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
    assert fl.Study(BARE, watermark=secret).labels == ""


def test_premise_holds_for_this_study_and_fails_for_others(study, monkeypatch):
    assert "FTAL" in study.check_premise(["FTAL", "FTLL"])
    table = study.table(["FTAL"])
    cases = [
        ("host", "accuracy_test", 0.1, "hardly more than a guess"),
        ("host", "trigger_accuracy", 0.4, "prove no watermark"),
        ("FTAL", "trigger_accuracy", 0.5, "no model answers the triggers"),
    ]
    for row, column, value, message in cases:
        changed = table.copy()
        changed.loc[row, column] = value
        monkeypatch.setattr(study, "table", lambda models, c=changed: c)
        with pytest.raises(ValueError, match=message):
            study.check_premise(["FTAL"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_dim": 1}, "feature_dim is 1; it must be at least 2"),
        ({"feature_dim": "2"}, "expected int, such as 2"),
        ({"dataset": 3}, "expected str, such as 'digits'"),
        ({"epochs": -1}, "at least 0"),
        ({"embed_epochs": -1}, "at least 0"),
        ({"embed_rate": -0.1}, "embed_rate is -0.1; it must be at least 0"),
        ({"trigger_count": 0}, "trigger_count is 0; it must be at least 1"),
        ({"precision": "float16"}, "use auto, float32 or bfloat16"),
        ({"seed": True}, "expected int"),
        ({"triggers": "nois"}, "unknown triggers 'nois'; use one of chain"),
        ({"triggers": "margin", "trigger_count": 700}, "more than half: lower"),
        ({"model": "resnet"}, "unknown network 'resnet'; use one of"),
        ({"scale": "hour"}, "unknown scale 'hour'"),
    ],
)
def test_config_refuses_what_makes_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        fl.Study(fl.Config(**change))


def test_study_names_what_is_unknown():
    with pytest.raises(FileNotFoundError, match="no image set 'digit'"):
        fl.Study(fl.Config(dataset="digit"))
    with pytest.raises(ValueError, match="unknown method 'FTAll'"):
        fl.Study(SMALL).model("FTAll")
    with pytest.raises(ValueError, match="unknown attack 'x'"):
        fl.Study(SMALL).model("FTAL/x")


def test_a_study_says_what_it_is(study):
    text = repr(study)
    for part in ("digits: 400 train and 500 test images, 1x8x8, 10", "smallnet, D = 2",
                 "10 triggers (chain)", "float32"):  # fmt: skip
        assert part in text
    line = study.describe("FTAL")
    assert line.startswith("FTAL ")
    assert f"test accuracy {study.fidelity('FTAL').accuracy:.3f}, triggers 1.00" in line
    assert copy.deepcopy(study.config) == SMALL
