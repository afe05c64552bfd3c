import dataclasses

import pytest

import fidlib as fl
from fidlib.study.lineage import Lineage


@pytest.mark.parametrize(
    "name",
    [
        *("host", "FTAL", "FixLL+PFL", "FixLL+PFL+mix+quiet", "retrained"),
        *("host/fine-tune", "FTAL/prune:0.4", "FTAL/prune:0.4/fine-tune:0.01/flip"),
        *("FTAL/prune:0.1234567", "FTAL/flip:1e-09", "FTAL/quantise:4"),
        *("host/ft-all:strong", "FTAL/smooth:noise:0.1/smooth"),
    ],
)
def test_a_name_is_read_and_written_the_same(name):
    lineage = Lineage.read(name)
    assert str(lineage) == name
    assert Lineage.read(str(lineage)) == lineage
    assert Lineage.read(lineage) is lineage


def test_what_was_done_is_read_in_order():
    lineage = Lineage.read("FTAL/prune:0.4/fine-tune")
    assert lineage.method is fl.METHODS["FTAL"]
    assert [attack.name for attack in lineage.attacks] == ["prune", "fine-tune"]
    assert [attack.strength for attack in lineage.attacks] == [0.4, None]
    parents = [lineage := lineage.parent for _ in range(3)]
    assert [str(p) for p in parents] == ["FTAL/prune:0.4", "FTAL", "host"]
    assert Lineage.read("host").parent is None
    assert Lineage.read("host").method is None
    assert str(Lineage.read("host/prune").parent) == "host"


def test_a_lineage_is_attacked_by_division():
    assert str(Lineage.read("FTAL") / "prune:0.4" / "flip") == "FTAL/prune:0.4/flip"
    attack = fl.attacks.find("prune:0.4")
    assert Lineage.read("FTAL") / attack == Lineage.read("FTAL/prune:0.4")


def test_a_method_of_your_own_is_a_lineage_of_one_step():
    method = fl.Method("mine", trained="body")
    lineage = Lineage.read(method)
    assert lineage.method is method
    assert str(lineage / "prune") == "mine/prune"
    assert str(lineage.parent) == "host"
    with pytest.raises(ValueError, match="without /"):
        fl.Method("mine/yours")


def test_keys_change_with_the_method_and_the_attack(monkeypatch):
    def mine(model, split, seed, share=0.1):
        return model

    def yours(model, split, seed, share=0.2):
        return model

    names = ["host", "FTAL", "FTLL", "FTAL/prune", "FTAL/prune:0.4", "FTAL/flip:0.4"]
    keys = {Lineage.read(name).key for name in names}
    keys.add(Lineage.read("FTAL/prune/flip").key)
    keys.add(Lineage.read("FTAL/flip/prune").key)
    other = dataclasses.replace(fl.METHODS["FTAL"], preserves={"TWL": 0.5})
    keys.add(Lineage.read(other).key)
    for function in (mine, yours):
        monkeypatch.setitem(fl.ATTACKS, "mine", function)
        keys.add(Lineage.read("FTAL/mine").key)
    assert len(keys) == len(names) + 5
    assert Lineage.read("FTAL/prune:0.4").key == Lineage.read("FTAL/prune:0.40").key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FTAll", "unknown method 'FTAll'; use one of scratch, FTAL"),
        ("ref", "unknown method 'ref'"),
        ("", "unknown method ''"),
        ("FTAL/", "unknown attack ''; use one of ft-last, ft-all"),
        ("FTAL/distill", "unknown attack 'distill'"),
        ("FTAL/prune:x", "FTAL|prune:x: the strength 'x' is no number"),
        ("prune:0.4", "unknown method 'prune:0.4'"),
        (None, "a model is named by None; use a name such as 'host'"),
        (3, "a model is named by 3"),
    ],
)
def test_what_names_nothing_is_said_in_a_sentence(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        Lineage.read(name)
    assert "\n" not in str(caught.value)
