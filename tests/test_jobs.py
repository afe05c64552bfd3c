import dataclasses
import pickle
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

import fidlib as fl
from fidlib.runs import store
from fidlib.study import jobs
from fidlib.study.lineage import Lineage
from tests.conftest import BARE

cloudpickle = pytest.importorskip("cloudpickle")
pytestmark = pytest.mark.usefixtures("root")


@dataclass
class Maker:
    """Makes nothing, and says what it was asked for."""

    key: str = "a study"
    host_key: str = "a host"
    there: set = field(default_factory=set)
    calls: list = field(default_factory=list)
    fails: str = ""

    def is_missing(self, lineage, parts):
        return str(lineage) not in self.there

    def complete(self, lineage, parts):
        self.calls.append((str(lineage), sorted(parts), store.runs_root()))
        if str(lineage) == self.fails:
            raise ValueError(f"{lineage} fails")

    def describe(self, of):
        return f"{of} is there"


def asked(maker, *names, parts=()):
    return [(maker, Lineage.read(name), parts) for name in names]


def test_a_model_is_made_after_what_it_is_made_of(root, capsys):
    maker = Maker()
    jobs.make([(maker, ["FTAL/prune:0.4/flip", "FTLL"])], jobs=1)
    assert capsys.readouterr().out.splitlines() == [
        "host is there",
        "FTAL/prune:0.4/flip is there",
        "FTLL is there",
    ]
    names = [name for name, *_ in maker.calls]
    assert names == ["host", "FTAL", "FTAL/prune:0.4", "FTAL/prune:0.4/flip", "FTLL"]
    assert {root for *_, root in maker.calls} == {root}


def test_a_model_that_is_asked_for_twice_is_one_task_with_all_parts():
    maker = Maker()
    groups = [
        asked(maker, "FTAL", parts=("test",)),
        asked(Maker(), "FTAL", "host", parts=("sample", "test")),
    ]
    tasks = [task.call for task in jobs.tasks(groups)[0]]
    assert [(str(job.lineage), sorted(job.parts)) for job in tasks] == [
        ("host", ["sample", "test"]),
        ("FTAL", ["sample", "test"]),
    ]
    other = Maker(key="another study", calls=maker.calls)
    jobs.make([(maker, ["FTAL"]), (other, ["FTAL"])], jobs=1)
    assert [name for name, *_ in maker.calls] == ["host", "FTAL"] * 2


def test_what_is_there_needs_no_task():
    maker = Maker(there={"host", "FTAL"})
    jobs.make([(maker, ["FTAL/prune", "FTLL"])], jobs=1)
    assert [name for name, *_ in maker.calls] == ["FTAL/prune", "FTLL"]

    maker.calls.clear()
    assert jobs.tasks([asked(maker, "host", "FTAL")]) == ([], [()])
    jobs.make([(maker, ["host", "FTAL"])], jobs=1)
    assert not maker.calls


def test_what_is_made_of_something_new_is_looked_at_again():
    maker = Maker(there={"FTAL"})  # its host is gone
    jobs.make([(maker, ["FTAL"])], jobs=1)
    assert [name for name, *_ in maker.calls] == ["host", "FTAL"]


def test_what_goes_wrong_is_told_and_spares_the_rest():
    maker = Maker(fails="FTAL")
    with pytest.raises(ValueError, match="FTAL fails"):
        jobs.make([(maker, ["FTAL/prune", "FTLL"])], jobs=1)
    assert [name for name, *_ in maker.calls] == ["host", "FTAL", "FTLL"]


def test_groups_wait_for_what_they_ask_for():
    maker = Maker(there={"host"})
    tasks, waits = jobs.tasks(
        [asked(maker, "FTAL", "FTLL"), asked(maker, "FTLL"), asked(maker, "host")]
    )
    keys = {task.title: task.key for task in tasks}
    assert list(keys) == ["FTAL", "FTLL"]
    assert [set(group) for group in waits] == [
        set(keys.values()),
        {keys["FTLL"]},
        set(),
    ]


def test_studies_that_share_a_host_make_it_once():
    first, second = Maker(), Maker(key="of other triggers")
    tasks, _ = jobs.tasks([asked(first, "FTAL"), asked(second, "FTAL")])
    titles = [task.title for task in tasks]
    assert titles == ["host", "FTAL", "host", "FTAL"]
    assert tasks[2].after == (tasks[0].key,)  # finds it there, and reports on it
    alone = Maker(key="of another host", host_key="another")
    tasks, _ = jobs.tasks([asked(first, "host"), asked(alone, "host")])
    assert [task.after for task in tasks] == [(), ()]


def test_options_that_make_no_sense_are_refused_before_anything_is_looked_at():
    maker = Maker()
    with pytest.raises(ValueError, match="jobs is 0"):
        jobs.make([(maker, ["FTAL"])], jobs=0)
    assert not maker.calls


def test_noting_notes_and_makes_nothing(bare, root):
    with jobs.noting() as noted:
        bare.make(["FTAL"])
        fl.make([(bare, ["FTLL/prune"])], outputs=["test"])
        with jobs.noting() as inner:
            bare.make([])
        assert [str(lineage) for _, lineage, _ in inner] == ["host"]
    names = [(str(lineage), parts) for _, lineage, parts in noted]
    assert names[:2] == [("host", ()), ("FTAL", ())]
    assert names[2:] == [("host", ("test",)), ("FTLL/prune", ("test",))]
    assert {maker.key for maker, *_ in noted} == {bare.key}
    assert not list(root.rglob("done.json"))


def test_noting_ends_when_something_fails():
    def fails():
        with jobs.noting():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()


def test_a_study_makes_models_reports_and_outputs(bare, monkeypatch, capsys):
    bare.make(["FTAL", "host/prune:0.2"], outputs=["test"], jobs=1)
    printed = capsys.readouterr().out.splitlines()
    described = [line for line in printed if not line.startswith("made ")]
    names = ("host", "FTAL", "host/prune:0.2")
    assert [line.split()[0] for line in described] == [*names]

    def fail(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(fl.training, "train", fail)
    monkeypatch.setattr(fl.models, "outputs", fail)
    again = fl.Study(BARE)
    again.make(["FTAL", "host/prune:0.2"], jobs=1)
    again.table(["FTAL"])
    again.fidelity("host/prune:0.2", measures=["pfl", "agreement"])
    for part in ("test", "triggers", "sample"):
        again.outputs("FTAL", part)
    method = fl.Method("diverges", preserves={explodes: 1.0})
    monkeypatch.undo()
    with pytest.raises(fl.training.Diverged, match="The last good state"):
        fl.Study(BARE).make([method, "FTLL"], jobs=1)


def explodes(step):
    return step.logits.sum() * float("nan")


def test_entries_of_ones_own_reach_another_process(monkeypatch):
    def network(num_classes, feature_dim):
        layers = [nn.Flatten(), nn.Linear(64, feature_dim), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(feature_dim, num_classes))

    def family(pool, seed, *, host, count):
        return pool.sample(count)

    def attack(model, split, seed):
        return model

    def term(step):
        return step.logits.square().mean()

    entries = {
        "NETWORKS": network,
        "TRIGGERS": family,
        "ATTACKS": attack,
        "TERMS": term,
        "MEASURES": dataclasses.replace(
            fl.MEASURES["accuracy"], name="mine", of=lambda pair: float(len(pair))
        ),
    }
    try:
        for name, entry in entries.items():
            getattr(fl, name)["mine"] = entry
        fl.METHODS["mine"] = fl.Method("mine", preserves={"mine": 0.1})
        study = fl.Study(dataclasses.replace(BARE, model="mine", triggers="mine"))
        folder = study.folder("mine/mine")
        text = cloudpickle.dumps(study)
        wanted = study.fidelity("mine/mine").values()
    finally:
        for name in (*entries, "METHODS"):
            del getattr(fl, name)["mine"]
    try:
        again = pickle.loads(text)
        assert again.key == study.key
        assert again.folder("mine/mine") == folder
        assert again.fidelity("mine/mine").values() == wanted
        assert wanted["mine"] == 500
    finally:
        for name in (*entries, "METHODS"):
            getattr(fl, name).pop("mine", None)


def test_a_host_and_triggers_of_ones_own_reach_another_process(digits, network):
    host = fl.models.wrap(network, image_size=8)
    study = fl.Study(BARE, host=host, watermark=digits.test.sample(7))
    again = pickle.loads(cloudpickle.dumps(study))
    assert again.key == study.key != fl.Study(BARE).key
    assert torch.equal(again.triggers.images, study.triggers.images)
    assert again.folder("FTLL") == study.folder("FTLL")
    assert study.key != fl.Study(BARE, host=host).key
    other = fl.Study(BARE, host=host, watermark=digits.test.sample(8))
    assert other.key != study.key


def test_two_processes_make_what_one_does(bare, tmp_path, monkeypatch):
    def mine(model, split, seed, share=0.1):  # only this process knows of it
        model.head.weight.data.mul_(share)
        return model

    monkeypatch.setitem(fl.ATTACKS, "mine", mine)
    names = ["FTAL", "FTAL/mine:0.5"]
    bare.make(names, jobs=1)
    expected = [(bare.folder(n) / "model.safetensors").read_bytes() for n in names]
    table = bare.table(names)
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "other"))
    there = fl.Study(BARE)
    there.make(names, jobs=2)
    folders = [there.folder(name) for name in names]
    assert all(folder.is_relative_to(tmp_path / "other") for folder in folders)
    assert [(f / "model.safetensors").read_bytes() for f in folders] == expected
    assert there.table(names).equals(table)
