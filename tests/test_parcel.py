import dataclasses
import json
import shutil

import pytest
import torch

import fidlib as fl
from fidlib.runs import store
from fidlib.study import parcel
from fidlib.study.packing import pack
from fidlib.study.study import ON_TRAIN

CONFIG = fl.Config(
    model="smallnet",
    feature_dim=8,
    scale="smoke",
    epochs=1,
    train_images=48,
    trigger_count=10,
    precision="float32",
)
NAMES = ["host", "FTAL", "FixLL+PFL"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study of hardly trained models, and a parcel of them without their bodies."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("parcel")
    patch.setattr(parcel, "LARGEST", 1000)
    patch.setitem(parcel.KEPT, "test", 90)
    patch.setenv("FIDLIB_RUNS", str(folder / "runs"))
    study = fl.Study(CONFIG)
    for name in NAMES:
        pack(study, name, folder / "parcel" / "some.zip")
    yield study, folder / "parcel"
    patch.undo()


@pytest.fixture
def carried(whole, tmp_path, monkeypatch):
    """The study where there is nothing but the parcel."""
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    monkeypatch.setenv("FIDLIB_RUNS", str(parcel.unpacked(whole[1])))
    return fl.Study(CONFIG)


def test_a_parcel_holds_no_body_and_little_else(whole, carried):
    root = store.runs_root()
    assert not list(root.rglob("model.safetensors"))
    assert not list(root.rglob("curve.safetensors"))
    assert len(list(root.glob("*/*/head.safetensors"))) == 3
    assert carried.model("FTAL").head.weight.equal(whole[0].model("FTAL").head.weight)


def test_what_a_study_says_is_the_same_from_a_parcel(whole, carried, monkeypatch):
    for name in NAMES:
        expected, report = (study.fidelity(name) for study in (whole[0], carried))
        assert report.values() == expected.values()
        first = carried.images("test")
        outputs = carried.outputs(name, "test")
        assert len(first) == 90
        assert torch.equal(first.images, whole[0].test.sample(90).images)
        again = whole[0].outputs(name, first)
        for half, full in zip(outputs, again, strict=True):
            assert half.dtype == torch.float32
            assert torch.equal(half, full.half().float())
    assert carried.history("FTAL").equals(whole[0].history("FTAL"))
    sample = whole[0].train.sample(parcel.KEPT["train"])
    expected = whole[0].fidelity("FTAL", split=sample, measures=ON_TRAIN)
    assert carried.table(["FTAL"]).loc["FTAL", "pfl_train"] == expected.pfl
    assert "models" in carried.record(["FTAL"])


def test_regions_come_along(whole, carried):
    test, answers = carried.images("test"), carried.outputs("host", "test").logits
    three = fl.measures.boundary.three_right(test.labels, answers)
    corners = test.images[three]
    expected, regions = (s.regions("FTAL", corners) for s in (whole[0], carried))
    assert torch.equal(regions.labels, expected.labels)
    assert regions.extent == expected.extent
    plane = fl.measures.boundary.Plane.through(fl.data.pixels(corners))
    model = whole[0].model("FTAL")
    grid = {"resolution": 90, "triangle": True}
    again = plane.regions(model, plane.extent(border=0.03), **grid)
    assert torch.equal(regions.labels, again.labels)


def test_nothing_is_made_of_what_came_without_weights(carried):
    carried.make(["FTAL", "FixLL+PFL"], outputs=["sample", "triggers", "test"])
    with pytest.raises(ValueError, match=r"90 images .* came without its weights"):
        carried.model("FTAL")(carried.images("test").images)
    with pytest.raises(ValueError, match="FixLL did not come with the models"):
        carried.model("FixLL")


def test_small_models_come_whole(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(parcel, "LARGEST", 4_000_000)
    with store.stored_in(whole[1].parent / "runs"):
        pack(whole[0], "FTAL", tmp_path / "a.zip")
        pack(whole[0], "host", tmp_path / "a.zip")
    with store.stored_in(tmp_path):
        root = parcel.unpacked(tmp_path)
    monkeypatch.setenv("FIDLIB_RUNS", str(root))
    study = fl.Study(CONFIG)
    assert len(study.images("test")) == 500
    for name in ("host", "FTAL"):
        expected = whole[0].model(name).state_dict()
        for key, value in study.model(name).state_dict().items():
            assert torch.equal(value, expected[key])


def test_a_parcel_that_cannot_be_read_is_refused(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "runs"))
    with pytest.raises(ValueError, match="holds no zip file of models"):
        parcel.unpacked(tmp_path)
    (tmp_path / "half.zip").write_bytes(b"PK half a file")
    with pytest.raises(ValueError, match=r"half.zip is damaged: bring it again"):
        parcel.unpacked(tmp_path)
    assert not [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]


def test_a_model_that_was_changed_on_the_way_is_refused(whole, tmp_path, monkeypatch):
    root = tmp_path / "runs"
    with store.stored_in(tmp_path):
        shutil.copytree(parcel.unpacked(whole[1]), root)
    (head,) = root.glob("host/*/head.safetensors")
    done = json.loads((head.parent / "done.json").read_text("utf-8"))
    assert done["left_out"].keys() == {"model.safetensors"}
    head.write_bytes(head.read_bytes()[:-1] + b"x")
    monkeypatch.setenv("FIDLIB_RUNS", str(root))
    with pytest.raises(ValueError, match="is damaged"):
        fl.Study(CONFIG).model()


def test_another_configuration_finds_nothing_in_a_parcel(carried):
    other = fl.Study(dataclasses.replace(CONFIG, seed=5))
    assert not other._store.light
    assert len(other.images("test")) == 500
