"""Arrays, settings and machines as strangers have them, at every door."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fidlib as fl
from fidlib import data, models
from fidlib.__main__ import main
from fidlib.data import Split
from fidlib.runs import store
from fidlib.study.lineage import several
from tests.conftest import BARE
from tests.little import linear

LABELS = torch.arange(6) % 3


def pixels(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# Images


@pytest.mark.parametrize(
    "images",
    [
        pixels(6, 1, 8, 8) * 16,
        pixels(6, 1, 8, 8) * 255,
        pixels(6, 1, 8, 8) * 64 - 32,
        (pixels(6, 1, 8, 8) * 16).numpy(),
    ],
)
def test_pixels_that_are_no_fractions_are_refused(images):
    with pytest.raises(ValueError, match="divide by 255"):
        Split(images, LABELS)
    Split(pixels(6, 1, 8, 8) * 1.4 - 0.2, LABELS)  # triggers leave [0, 1] by a little


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_pixels_that_are_no_numbers_are_refused(odd):
    images = pixels(6, 1, 8, 8)
    images[3, 0, 2, 2] = odd
    with pytest.raises(ValueError, match="NaN or infinity"):
        Split(images, LABELS)


def test_images_that_look_normalised_are_not_compared_on():
    images = (pixels(6, 1, 2, 2) - 0.13) / 0.31
    with pytest.raises(ValueError, match="as normalised ones do"):
        fl.compare(linear(0), linear(1), Split(images, LABELS))
    with pytest.raises(ValueError, match="as normalised ones do"):
        fl.compare(linear(0), linear(1), Split(pixels(6, 1, 2, 2) * 2 - 1, LABELS))


def test_arrays_and_tensors_are_taken_as_they_come():
    images = pixels(6, 1, 8, 8)
    expected = Split(images, LABELS).fingerprint
    read_only = images.numpy().copy()
    read_only.flags.writeable = False
    for source, labels in (
        (images.clone().requires_grad_() * 1, LABELS),
        (images.numpy(), LABELS.numpy()),
        (read_only, LABELS.tolist()),
        (images.numpy()[::-1][::-1], LABELS.numpy().astype(np.uint16)),
    ):
        split = Split(source, labels)
        assert split.fingerprint == expected
        assert not split.images.requires_grad
    assert Split(images.bfloat16(), LABELS).images.dtype == torch.float32
    assert Split(images.bfloat16(), LABELS).content


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("cat.png", LABELS, "images are a str"),
        (pixels(6, 1, 8, 8), np.array(["cat"] * 6), "labels are a ndarray of <U3"),
        (pixels(6, 1, 8, 8), np.zeros(6, "datetime64[s]"), "of datetime64"),
        (pixels(6, 1, 8, 8), None, "labels are a NoneType"),
        (np.zeros((6, 1, 8, 8), object), LABELS, "images are a ndarray of object"),
        (pixels(6, 1, 8, 8), torch.eye(6), r"shape \(6, 6\)"),
    ],
)
def test_split_says_in_one_sentence_what_it_takes(images, labels, message):
    with pytest.raises(ValueError, match=message):
        Split(images, labels)


def test_a_dataset_has_a_way_in_of_one_line():
    images = pixels(6, 1, 2, 2)
    expected = fl.compare(linear(0), linear(1), Split(images, LABELS)).values()
    dataset = TensorDataset(images, LABELS)
    pairs = [(image, int(label)) for image, label in zip(images, LABELS, strict=True)]
    for source in (
        *(dataset, DataLoader(dataset, batch_size=4), (images, LABELS)),
        *([images.numpy(), LABELS.numpy()], pairs),
    ):
        assert fl.compare(linear(0), linear(1), source).values() == expected


@pytest.mark.parametrize("source", [3, "digits", None, {"images": 1}, [1, 2, 3], [()]])
def test_what_gives_no_images_is_one_sentence(source):
    with pytest.raises(ValueError, match=r"pass fidlib.data.Split|are a "):
        fl.compare(linear(0), linear(1), source)


def test_a_study_takes_images_as_compare_does(bare):
    images, labels = pixels(12, 1, 8, 8), torch.arange(12) % 10
    expected = fl.Study(BARE, watermark=Split(images, labels)).key
    pairs = (images, labels), [images.numpy(), labels.numpy()]
    for source in (*pairs, TensorDataset(images, labels)):
        assert fl.Study(BARE, watermark=source).key == expected
        result = bare.fidelity("FTLL", split=source, measures="lp")
        assert result.images == 12
    logits = bare.outputs("host", images).logits
    for shown in (images.numpy(), images.clone().requires_grad_(), *pairs):
        assert torch.equal(bare.outputs("host", shown).logits, logits)
    result = bare.outputs("host", images.bfloat16()).logits
    assert torch.allclose(result, logits, atol=1e-2)
    for odd in (images * 255, images / 0, images[:, 0], None, 3):
        with pytest.raises(ValueError, match="images"):
            bare.outputs("host", odd)
    for odd in (images, "chain", 3):
        with pytest.raises(ValueError, match=r"data.Split|are a "):
            fl.Study(BARE, watermark=odd)
    for odd in ("digits", {"seed": 1}, 0):
        with pytest.raises(ValueError, match=r"pass fidlib.Config"):
            fl.Study(odd)


def test_images_of_another_size_are_refused_before_anything_is_run(bare):
    split = Split(pixels(6, 1, 3, 3), LABELS)
    with pytest.raises(ValueError, match=r"cannot take images of shape \(1, 3, 3\)"):
        fl.compare(linear(0), linear(1), split)
    with pytest.raises(ValueError, match=r"cannot take images of shape \(1, 8, 8\)"):
        fl.Study(BARE, host=linear(0, classes=10))
    with pytest.raises(ValueError, match="cannot take images"):
        bare.fidelity(linear(0, classes=10))


@pytest.mark.parametrize("value", [0.25, (0.25,), np.float32(0.25), torch.tensor(0.25)])
def test_one_number_is_a_mean_and_a_deviation(value):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    model = models.wrap(network, image_size=2, mean=value, std=value)
    assert model.mean.item() == model.std.item() == 0.25
    for odd in ("x", None, [[]], float("nan"), {"a": 1}):
        with pytest.raises(ValueError, match="mean"):
            models.wrap(network, image_size=2, mean=odd)


# Files


def keras(path, **changes):
    images, labels = np.zeros((6, 8, 8), np.uint8), np.arange(6) % 3
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(path, **arrays | changes)
    return path


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("classes", np.array(["a", "b", None], object)),
        ("y_train", np.array([1, None, 2, 0, 0, 0], object)),
        ("x_test", np.empty((6, 8), object)),
    ],
)
def test_an_array_of_objects_is_named_and_nothing_is_to_be_deleted(
    name, array, tmp_path
):
    path = keras(tmp_path / "own.npz", **{name: array})
    with pytest.raises(
        ValueError, match=f"its array {name} holds Python obj"
    ) as caught:
        data.load(path)
    assert "delete" not in str(caught.value)


def test_arrays_that_are_not_asked_for_may_hold_anything(tmp_path):
    path = keras(tmp_path / "own.npz", notes=np.array([{"made": "today"}], object))
    assert len(data.load(path).classes) == 3


@pytest.mark.parametrize("highest", [1_700_000_000, 2**62, 200])
def test_a_number_that_is_no_class_is_one_sentence(highest, tmp_path):
    labels = np.array([0, 1, 2, 0, 1, highest])
    path = keras(tmp_path / "own.npz", y_train=labels)
    with pytest.raises(ValueError, match=f"labels run from 0 to {highest}; number"):
        data.load(path)


@pytest.mark.parametrize(
    ("labels", "missing"),
    [([1, 2, 3] * 2, "0"), ([0, 2] * 3, "1"), ([3] * 6, "0, 1, 2")],
)
def test_a_class_without_images_is_said_when_it_is_loaded(labels, missing, tmp_path):
    path = keras(tmp_path / "o.npz", y_train=np.array(labels), y_test=np.array(labels))
    with pytest.warns(UserWarning, match=f"class {missing} has no image") as records:
        data.load(path)
    assert "\n" not in str(records[0].message)


@pytest.mark.parametrize("kind", ["S3", "U3", "S"])
def test_class_names_are_text(kind, tmp_path):
    names = np.array(["cat", "dog", "owl"], kind)
    path = keras(tmp_path / "own.npz", classes=names)
    assert data.load(path).classes == ("cat", "dog", "owl")


def run(code, folder, **environment):
    """What a fresh Python prints, in a folder."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    env = {name: value for name, value in env.items() if value is not None}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


HOMELESS = """
import os, pwd
def nobody(*args): raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = nobody
from fidlib import data
"""


def test_a_user_without_a_home_loads_what_is_not_in_it(tmp_path):
    keras(tmp_path / "own.npz")
    code = HOMELESS + f"print(len(data.load({str(tmp_path / 'own.npz')!r}).train))"
    done = run(code, tmp_path, HOME=None, FIDLIB_DATA=None)
    assert done.stdout == "6\n", done.stderr
    code = HOMELESS + "data.load('own')"
    done = run(code, tmp_path, HOME=None, FIDLIB_DATA=None)
    assert "ValueError: ~/.cache/fidlib" in done.stderr
    done = run(
        code.replace("data.load('own')", "print(len(data.load('own').test))"),
        tmp_path,
        HOME=None,
        FIDLIB_DATA=str(tmp_path),
    )
    assert done.stdout == "6\n", done.stderr


# Settings


def test_config_takes_numpys_numbers_and_paths(tmp_path):
    config = fl.Config(
        dataset=tmp_path / "own.npz", seed=np.int64(3), epochs=np.uint8(2)
    )
    assert config == fl.Config(dataset=str(tmp_path / "own.npz"), seed=3, epochs=2)
    for name, odd in (("seed", 1.5), ("seed", True), ("epochs", "3"), ("dataset", 3)):
        with pytest.raises(ValueError, match=f"{name} is {odd!r}; expected"):
            fl.Config(**{name: odd}).check()


def cell_names(**given):
    """Globals of a notebook whose cell of parameters papermill has overridden."""
    names = {}
    cell = "methods: list = []\nresolution: int = 90\nnoise: float = 0.5\nseed: int = 0"
    exec(cell, names)
    return names | given


def test_parameters_of_a_notebook_are_checked_before_training():
    names = cell_names(methods="FTAL", noise=1, seed=3)
    assert fl.Config.of(names) == fl.Config(seed=3)
    assert names["methods"] == ["FTAL"]
    assert isinstance(names["noise"], float)
    for name, odd in (
        *(("resolution", 20.0), ("resolution", "20"), ("methods", {"a": 1})),
        *(("noise", "much"), ("seed", 1.0), ("seed", True)),
    ):
        with pytest.raises(ValueError, match=f"{name} is {odd!r}; expected"):
            fl.Config.of(cell_names(**{name: odd}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (3, "trigger_options are 3, which chain does not take"),
        ({"links": "5"}, "links is '5'; expected int, such as 0"),
        ({"links": True}, "links is True; expected int"),
        ({"labels": "odd"}, "labels is 'odd'; expected 'chain', 'permuted'"),
        ({"labels": ["chain"]}, r"labels is \['chain'\]; expected"),
        ({"link": 5}, "which chain does not take"),
    ],
)
def test_options_of_triggers_are_checked_before_a_host_is_trained(options, message):
    with pytest.raises(ValueError, match=message):
        fl.Config(trigger_options=options).check()


def test_a_whole_number_is_an_option_where_a_broken_one_is_wanted():
    fl.Config(triggers="noise", trigger_options={"deviation": 1}).check()
    fl.Config(triggers="patch", trigger_options={"word": True}).check()
    with pytest.raises(ValueError, match="word is 1; expected bool"):
        fl.Config(triggers="patch", trigger_options={"word": 1}).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": "2"}, "jobs is '2'; expected a whole number"),
        ({"jobs": 2.0}, "jobs is 2.0; expected"),
        ({"jobs": True}, "jobs is True; expected"),
        ({"backend": "threads"}, "backend is 'threads', .* use one of loky, dask"),
        ({"backend": "dask", "scheduler": 8786}, "scheduler 8786; use"),
        ({"outputs": 3}, "outputs is 3; name images"),
    ],
)
def test_what_models_are_made_with_is_checked_first(bare, options, message):
    with pytest.raises(ValueError, match=message):
        bare.make(["FTAL"], **options)


def test_what_names_no_models_is_one_sentence(bare):
    for odd in (3, 2.5, object()):
        for asked in (bare.table, bare.make, bare.check_premise, bare.record):
            with pytest.raises(ValueError, match="a model is named by"):
                asked(odd)
        with pytest.raises(ValueError, match="a model is named by"):
            fl.explore(bare, odd)


@pytest.mark.parametrize(
    "odd", [3, [3], {"Mine": 3}, {"Mine": pd.DataFrame({"a": []})}]
)
def test_tables_of_the_explorer_are_checked_first(bare, odd):
    with pytest.raises(ValueError, match=r"tables is .*; pass tables by title"):
        fl.explore(bare, ["FTAL"], tables=odd)
    for images in ("100", 100.0):
        with pytest.raises(ValueError, match="images is"):
            fl.explore(bare, ["FTAL"], images=images)


def test_one_name_where_a_list_is_wanted_is_a_list_of_one(bare):
    assert [str(one) for one in several("FixLL+PFL")] == ["FixLL+PFL"]
    assert [str(one) for one in several(fl.METHODS["FTAL"])] == ["FTAL"]
    assert [str(one) for one in several(("FTAL", "host"))] == ["FTAL", "host"]
    assert list(bare.table("FTAL").index) == ["host", "FTAL"]
    assert [*bare.record("FTAL")["models"]] == ["host", "FTAL"]
    assert bare.fidelity("FTAL", measures="twl").twl > 0


@pytest.mark.parametrize(
    "odd", ["5", "", True, [1.0], {"a": 1}, float("nan"), float("inf"), 1j]
)
def test_a_weight_is_a_number(odd):
    with pytest.raises(ValueError, match="the weight of PFL is"):
        fl.Method("mine", preserves={"PFL": odd})
    method = fl.Method("mine", preserves={"PFL": np.float32(0.5)})
    assert method == fl.Method("mine", preserves={"PFL": 0.5})
    assert type(method.preserves["PFL"]) is float


# Machines


def test_numbers_are_printed_in_any_locale(tmp_path):
    for seed in (0, 1):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        torch.save(network.state_dict(), tmp_path / f"{seed}.pt")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def flat(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    code = (
        "import sys\nfrom fidlib.__main__ import main\n"
        "sys.exit(main(['compare', '0.pt', '1.pt', '--network', 'nets:flat', "
        "'--data', 'digits']))"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(code, tmp_path, **plain)
    assert done.returncode == 0, done.stderr
    assert "agreement" in done.stdout


def test_an_unforeseen_error_is_one_line_and_its_traceback_a_file(monkeypatch, capsys):
    def broken(name):
        return {}["nothing"]

    monkeypatch.setattr(data, "load", broken)
    assert main(["make", "FTAL"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    kept = Path(printed.split("traceback is in ")[1].rstrip(".\n"))
    assert "KeyError: 'nothing'" in kept.read_text()
    kept.unlink()


def test_a_store_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "file"))
    with pytest.raises(OSError, match="another run store in FIDLIB_RUNS"):
        store.make("host", {"a": 1}, lambda folder: None)


def test_what_cannot_be_written_is_said_first(tmp_path):
    store.check_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(OSError, match="results cannot be written to"):
            store.check_writable(folder)
