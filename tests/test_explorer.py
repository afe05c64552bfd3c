import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import fidlib as fl
from fidlib import explorer
from fidlib.explorer import gather, live, page, scene
from fidlib.measures.catalogue import usual
from fidlib.runs import store
from fidlib.suites import publish
from fidlib.suites.read import Job, Suite
from tests.explorer_scene import CLASSES, IMAGES, NAMES, example


@pytest.fixture(scope="module")
def packed():
    whole = example()
    return whole, *whole.pack()


def test_a_scene_is_unpacked_as_it_was(packed):
    whole, about, blob = packed
    arrays = page.unpack(about, blob)
    count = len(whole.labels)
    assert np.array_equal(arrays["labels"], whole.labels)
    assert np.array_equal(arrays["rows"], whole.rows)
    for m, model in enumerate(whole.models):
        assert np.array_equal(arrays[f"answers {m}"], model.logits.argmax(1))
        assert arrays[f"answers {m}"].dtype == np.uint8
        logits = arrays[f"logits {m}"].reshape(count, -1)
        shift = model.logits - logits
        assert np.ptp(shift, 1).max() < 2e-3  # one number for an image
        places = arrays[f"place 0 {m}"].reshape(count, 2)
        assert np.abs(places - model.features).max() < 1e-3
        assert np.allclose(arrays[f"head {m}"].reshape(-1, 3), model.head)
    film = whole.models[1].film
    assert np.array_equal(arrays["film answers 1"].reshape(-1, count), film.answers)
    frames = arrays["film place 0 1"].reshape(-1, count, 2)
    assert np.abs(frames - whole.maps[0].films["FTAL"]).max() < 1e-3
    for m, name in enumerate(NAMES):
        cells = whole.planes[0].cells[name]
        assert np.array_equal(arrays[f"plane 0 {m}"].reshape(cells.shape), cells)


def test_the_same_scene_gives_the_same_bytes_and_another_does_not(packed):
    _, about, blob = packed
    assert example().pack() == (about, blob)
    assert example(images=IMAGES + 1).pack()[1] != blob


def test_neighbours_and_distances_are_numpys(packed):
    whole, about, blob = packed
    arrays = page.unpack(about, blob)
    for m, model in enumerate(whole.models):
        x = model.features
        apart = np.linalg.norm(x[:, None] - x[None, :IMAGES], axis=2)
        apart[np.arange(IMAGES), np.arange(IMAGES)] = np.inf
        nearest = np.argsort(apart, 1, kind="stable")[:, : scene.NEIGHBORS]
        shown = arrays[f"neighbors {m}"].reshape(nearest.shape)
        assert np.array_equal(shown, nearest)
    for a, b in ((0, 1), (1, 3)):
        moved = np.linalg.norm(
            whole.models[a].features - whole.models[b].features, axis=1
        )
        assert np.abs(arrays[f"moved {a} {b}"] - moved).max() < 1e-3


def test_an_image_with_twins_is_not_its_own_neighbour():
    twins = np.repeat(np.arange(3.0)[:, None], 5, 0) @ np.ones((1, 2))
    near = scene.nearest(twins, len(twins))
    assert near.shape == (15, scene.NEIGHBORS)
    assert not (near == np.arange(15)[:, None]).any()


@pytest.mark.parametrize(("channels", "exact"), [(1, True), (3, False)])
def test_the_sheet_has_every_image_at_its_place(tmp_path, channels, exact):
    pixels = np.kron(example(channels=channels).pixels, np.ones((1, 1, 4, 4)))
    path = tmp_path / "sheet.webp"
    path.write_bytes(scene.sheet(pixels))
    picture = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) / 255
    height, width = pixels.shape[2:]
    for i in (0, 7, len(pixels) - 1):
        down, across = divmod(i, scene.columns(len(pixels)))
        tile = picture[:, down * height : (down + 1) * height]
        tile = tile[:, :, across * width : (across + 1) * width]
        error = (
            np.abs(tile - pixels[i]).max() if exact else np.abs(tile - pixels[i]).mean()
        )
        assert error < (0.003 if exact else 0.1)


@pytest.mark.parametrize("side", [24, 96])
def test_cells_are_what_the_model_answers(side):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(48, 16),
        torch.nn.Tanh(),
        torch.nn.Linear(16, 5),
    )
    network[1].weight.data *= 8
    images = 3 * torch.rand(4, 1, 8, 6)
    asked = []

    def decide(points):
        asked.append(len(points))
        return network(points)

    planes = live.Planes({"mine": decide}, images)
    cells = planes.cells("mine", (2, 0, 3), side)
    wrong = total = 0
    for v in range(side):
        for u in range(side - v):
            b, c = (u + 0.5) / side, (v + 0.5) / side
            mix = (1 - b - c) * images[2] + b * images[0] + c * images[3]
            wrong += cells[v, u] != int(network(mix[None]).argmax())
            total += 1
    assert wrong <= 0.005 * total
    assert len(np.unique(cells)) > 1
    if side == 96:
        assert sum(asked) < 0.6 * total
    edges = planes.edges("mine", (2, 0, 3))
    ends = network(images[[2, 0, 3]]).softmax(1).detach().numpy()
    assert np.allclose(edges[:, 0], ends, atol=1e-6)
    assert np.allclose(edges[:, -1], np.roll(ends, -1, 0), atol=1e-6)


def test_what_neighbours_leave_open_is_asked_and_nothing_else():
    coarse = torch.zeros(12, 12, dtype=torch.long)
    coarse[3, 4] = 1
    coarse[11, 11] = 1  # outside the triangle: it says nothing
    known, asked = live.refined(coarse, 24)
    assert asked.sum() == 36  # the cell and the eight around it, four of each
    assert (known[6:8, 8:10] == 1).all()
    assert known.sum() == 4


def test_modules_are_joined_into_one():
    joined = page.script()
    assert joined.count("export default") == 1
    starts = {line.split(" ")[0] for line in joined.splitlines()}
    assert "import" not in starts
    for name in page.ORDER:
        text = (page.FOLDER / f"{name}.js").read_text()
        for there in re.findall(r'^(?:import|}).* from "\./(\w+)\.js"', text, re.M):
            assert page.ORDER.index(there) < page.ORDER.index(name)
        assert len(text.splitlines()) <= 400


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here to parse with")
@pytest.mark.parametrize("name", [*page.ORDER, "page", "all as one"])
def test_modules_parse(name):
    path = page.FOLDER / f"{name}.js"
    text = path.read_text() if path.exists() else page.script()
    command = ["node", "--check", "--input-type=module"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_exported_functions_say_what_they_are():
    for path in page.FOLDER.glob("*.js"):
        start = r"(.*)\nexport (?:function|class|const \w+ = \()"
        for above in re.findall(start, path.read_text()):
            assert above.endswith("*/")


def test_a_page_holds_its_data_and_no_markup_of_names(packed, tmp_path):
    _, about, blob = packed
    path = tmp_path / "page.html"
    path.write_text(page.page(about, blob))
    assert page.read(path) == (json.loads(json.dumps(about)), blob)
    text = path.read_text()
    assert "<b>three" not in text
    assert "<i>small" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert f"{IMAGES} images and 6 triggers" in text
    path.write_text("<html></html>")
    with pytest.raises(ValueError, match=r"no page of fidlib's explorer"):
        page.read(path)


@pytest.fixture(scope="module")
def study():
    config = fl.Config(
        model="smallnet", scale="smoke", train_images=400, trigger_count=10
    )
    return fl.Study(config)


def test_a_study_is_gathered_as_its_outputs_say(study, tmp_path):
    whole, planes = gather.of_study(study, ["FTAL", "FTAL/prune:0.4"], 60)
    rows = torch.from_numpy(whole.rows)
    outputs = study.outputs("FTAL", "test")
    ftal = whole.models[1]
    assert np.allclose(ftal.logits[:60], outputs.logits[rows].numpy(), atol=1e-5)
    assert np.array_equal(whole.labels[:60], study.test.labels[rows].numpy())
    assert ftal.values["agreement"] == pytest.approx(
        study.fidelity("FTAL").agreement, rel=1e-4
    )
    film, places = ftal.film, whole.maps[0].films["FTAL"]
    assert whole.maps[0].name == "exact"
    assert film.epochs[0] == 0
    start = whole.models[0]
    assert np.allclose(
        places[0], start.features, rtol=2e-3, atol=2e-3
    )  # from the host on
    assert np.mean(film.answers[-1] == ftal.logits.argmax(1)) > 0.98
    assert np.allclose(film.heads[-1], ftal.head, rtol=0.05, atol=0.05)
    model = study.model("FTAL")
    cells = planes.cells("FTAL", (0, 1, 2), 12)
    points = torch.from_numpy(whole.pixels[:3])
    mix = torch.einsum("c,c...->...", torch.tensor([0.875, 0.5 / 12, 1 / 12]), points)
    assert cells[1, 0] != -1
    b, c = 0.5 / 12, 1.5 / 12
    mix = (1 - b - c) * points[0] + b * points[1] + c * points[2]
    assert cells[1, 0] == int(model(mix[None]).argmax())
    shown = fl.explore(study, ["FTAL"], images=40)
    path = shown.page(tmp_path / "page.html", planes=2)
    assert len(page.read(path)[0]["planes"]) == 2


def test_two_classifiers_of_other_widths_have_maps_of_their_own(study):
    torch.manual_seed(0)
    body = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 7), torch.nn.ReLU()
    )
    network = torch.nn.Sequential(*body, torch.nn.Linear(7, 10))
    other = fl.models.wrap(network, image_size=8)
    split = study.test.sample(80)
    shown = fl.explore(study.model("host"), other, split, study.triggers, images=50)
    about = shown._packed.about
    assert about["maps"] == [
        {
            "name": "PCA of each",
            "common": False,
            "note": "The models differ in D: each has axes of its own.",
        }
    ]
    assert "moved 0 1" not in about["arrays"]
    assert [model["dim"] for model in about["models"]] == [2, 7]
    assert about["models"][0]["values"]["pfl"] == 0


def test_what_cannot_be_explored_is_said(study):
    with pytest.raises(
        ValueError, match=r"nothing is published of 'nothing'; use one of"
    ):
        fl.explore("nothing")
    with pytest.raises(ValueError, match=r"explore got int, NoneType, NoneType; pass"):
        fl.explore(3)
    with pytest.raises(ValueError, match=r"images is 3; show at least 12"):
        fl.explore(study, images=3)
    with pytest.raises(ValueError, match=r"a study has images and triggers of its own"):
        fl.explore(study, ["FTAL"], study.test)
    with pytest.raises(ValueError, match=r"unknown method 'nothing'"):
        fl.explore(study, ["nothing"])


LIGHT = """
import sys
import fidlib as fl
shown = fl.explore({name!r})
bundle = shown._repr_mimebundle_()
assert "application/vnd.jupyter.widget-view+json" in str(bundle)
shown.state = {{"selected": [3, 5]}}
assert len(shown.selected) == 2
heavy = {{"torch", "matplotlib", "umap", "sklearn", "pandas"}} & sys.modules.keys()
assert not heavy, heavy
"""


def test_what_is_published_needs_no_heavy_package(packed, tmp_path):
    pytest.importorskip("anywidget")
    names = [
        path.parent.name for path in store.shelf("figures").glob("*/explorer.html")
    ]
    assert {"mnist", "cifar10", "digits"} <= set(names)
    code = LIGHT.format(name="mnist")
    root = str(Path(fl.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_selected_images_have_their_numbers(packed):
    pytest.importorskip("anywidget")
    _, about, blob = packed
    shown = explorer.Explorer(lambda: explorer.Packed(about, blob))
    shown.state = {"selected": [1, 5, IMAGES + 2]}
    assert shown.selected.tolist() == [3, 15]
    assert shown.selected_triggers.tolist() == [2]
    assert shown.state["selected"] == [1, 5, IMAGES + 2]


def test_a_kernel_answers_one_level_at_a_time(packed):
    widget = pytest.importorskip("fidlib.explorer.widget", exc_type=ImportError)
    whole, about, blob = packed
    weights = torch.randn(48, len(CLASSES), generator=torch.manual_seed(0))
    decide = {name: lambda x: x.flatten(1) @ weights for name in NAMES}
    planes = live.Planes(decide, torch.from_numpy(whole.pixels).float())
    view = widget.View.of(explorer.Packed(about, blob, whole, planes))
    for side in live.SIDES:
        wanted = {"corners": [1, 2, 3], "models": ["host", "FTAL"], "side": side}
        view.wanted = wanted
        assert {n: view.plane[n] for n in wanted} == wanted
        cells = np.reshape(view.plane["cells"][1], (side, side))
        assert np.array_equal(cells, planes.cells("FTAL", [1, 2, 3], side))
    view.wanted = {"corners": [1, 2, 999], "models": ["host"], "side": 12}
    assert view.plane["error"].startswith("The kernel could not compute it: ")


@pytest.mark.parametrize("asks", [True, False])
def test_nothing_is_gathered_where_nobody_looks(packed, monkeypatch, asks):
    pytest.importorskip("anywidget")
    gathered = []

    class Kernel:
        def get_parent(self):
            return {"content": {"allow_stdin": asks}}

    class Shell:
        kernel = Kernel()

    def gather_it():
        gathered.append(True)
        return explorer.Packed(*packed[1:])

    monkeypatch.setattr("IPython.get_ipython", Shell)
    bundle = explorer.Explorer(gather_it)._repr_mimebundle_()
    assert gathered == [True] * asks
    assert ("run this cell in JupyterLab" in str(bundle)) != asks


def test_a_page_of_two_classifiers_has_the_whole_report(study, tmp_path):
    path, split = tmp_path / "page.html", study.test.sample(60)
    pair = (study.model("host"), study.model("FTAL"))
    report = fl.compare(*pair, split)
    names = ("mine", "theirs")
    written = gather.compared(path, pair, split, report, names, study.classes)
    about, _ = page.read(written)
    assert [model["name"] for model in about["models"]] == ["mine", "theirs"]
    assert about["classes"] == list(study.classes)
    assert len(about["planes"]) == 3
    text = path.read_text()
    assert all(f"<td>{name}</td>" in text for name in usual())
    assert f"{report.agreement:.4g}" in text


def test_a_suites_explorer_shows_the_models_that_are_there(bare, tmp_path, monkeypatch):
    study = bare  # in a store of its own: in the others' there is more
    study.make(["FTAL", "FTAL/prune:0.4"], jobs=1)
    names = ("model", "scale", "train_images", "trigger_count", "epochs", "precision")
    settings = {name: getattr(study.config, name) for name in names}
    notebook = Path(__file__).parents[1] / "notebooks" / "01_embed.ipynb"
    job = Job("one", notebook, {"number": 4, **settings})
    publish.explorer(Suite("mine", "about", (job,)), tmp_path)
    about, _ = page.read(tmp_path / "explorer.html")
    assert [model["name"] for model in about["models"]] == [
        *("host", "FTAL", "FTAL/prune:0.4")
    ]
    assert len(about["planes"]) == publish.PLANES
    assert (tmp_path / "explorer.html").stat().st_size < 4e6
    kept = (tmp_path / "explorer.html").read_bytes()
    with monkeypatch.context() as patch:  # of the same models nothing is gathered
        patch.setattr(gather, "of_study", None)
        publish.explorer(Suite("mine", "about", (job,)), tmp_path)
    assert (tmp_path / "explorer.html").read_bytes() == kept
    study.make(["FixLL"], jobs=1)
    hosts = [(s, "FTAL", m, s + v) for s in (0, 1) for m, v in (("pfl", 2), ("spl", 3))]
    table = pd.DataFrame(hosts, columns=["seed", "method", "measure", "value"])
    table.to_csv(tmp_path / "10_replicates-hosts.csv")
    publish.explorer(Suite("mine", "about", (job,)), tmp_path)
    about, _ = page.read(tmp_path / "explorer.html")
    assert "FixLL" in [model["name"] for model in about["models"]]
    (every,) = about["tables"]
    assert [(row["name"], row["values"]) for row in every["rows"]] == [
        (f"FTAL, seed {s}", {"pfl": s + 2, "spl": s + 3}) for s in (0, 1)
    ]
    other = Job("one", notebook, {**settings, "seed": 9})
    publish.explorer(Suite("mine", "about", (other,)), tmp_path / "none")
    assert not (tmp_path / "none").exists()  # nothing was trained for it


def test_models_are_shown_when_they_and_their_host_are_there(bare, monkeypatch):
    assert gather.trained(bare) == []
    bare.make(["FTAL"], jobs=1)
    assert gather.trained(bare) == ["FTAL"]
    bare.make(["FTAL/prune:0.4"], jobs=1)
    assert gather.trained(bare) == ["FTAL", "FTAL/prune:0.4"]
    missing = type(bare).is_missing

    def without_host(study, lineage, parts):
        return str(lineage) == "host" or missing(study, lineage, parts)

    monkeypatch.setattr(type(bare), "is_missing", without_host)
    assert gather.trained(bare) == []
