"""What every notebook of the project must be like, without running it."""

import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

import fidlib as fl
from fidlib.study import jobs

FOLDER = Path(__file__).parents[1] / "notebooks"
# 00 explores, and measures nothing.
NOTEBOOKS = sorted({*FOLDER.glob("*.ipynb")} - {FOLDER / "00_explore.ipynb"})
OTHER_DEFAULTS = {
    ("05_yardsticks", "feature_dim"): 64,  # D = 2 leaves no null space
    ("06_tradeoffs", "model"): "smallnet",  # dozens of models are trained
    ("06_tradeoffs", "scale"): "sweep",
    ("06_tradeoffs", "epochs"): 8,
    ("06_tradeoffs", "feature_dim"): 16,
    ("06_tradeoffs", "train_images"): 600,
    ("07_robustness", "model"): "smallnet",  # over a hundred models are made
    ("07_robustness", "scale"): "sweep",
    ("07_robustness", "epochs"): 8,
    ("07_robustness", "feature_dim"): 16,
    ("07_robustness", "precision"): "float32",  # a small network is no slower
    ("07_robustness", "triggers"): "noise",  # its labels are random
    ("08_ownership", "model"): "smallnet",  # a dozen hosts are trained
    ("08_ownership", "scale"): "sweep",
    ("08_ownership", "epochs"): 8,
    ("08_ownership", "feature_dim"): 16,
    ("08_ownership", "train_images"): 600,
    ("08_ownership", "triggers"): "noise",  # its labels are random
}
for other in ("10_replicates", "11_trial"):
    for name in ("model", "scale", "epochs", "feature_dim", "train_images"):
        OTHER_DEFAULTS[other, name] = OTHER_DEFAULTS["06_tradeoffs", name]


def cells(path, kind):
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def tagged(path, tag):
    (cell,) = [c for c in cells(path, "code") if tag in c.metadata.get("tags", [])]
    return cell


@pytest.mark.parametrize("path", [*FOLDER.glob("*.ipynb")], ids=lambda p: p.stem)
def test_notebook_is_stripped(path):
    book = nbformat.read(path, 4)
    assert all(not c.outputs and c.execution_count is None for c in cells(path, "code"))
    assert set(book.metadata) == {"kernelspec", "language_info"}
    assert book.metadata.kernelspec.name == "python3"
    assert book.metadata.language_info == {"name": "python"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_has_the_same_cells_in_the_same_order(path):
    headings = [c.source.splitlines()[0] for c in cells(path, "markdown")]
    assert headings[0].startswith("# ")
    assert headings[0].endswith("?")
    assert headings[1:] == [
        "## Models",
        "## Is the premise true?",
        "## Measure",
        "## Figure",
        "## Reading it",
        "## Explore",
    ]
    code = cells(path, "code")
    assert code[1] == tagged(path, "parameters")
    assert code[-2:] == [tagged(path, "provenance"), tagged(path, "explore")]
    assert re.fullmatch(r"fl\.explore\(.+\)", code[-1].source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_short(path):
    code = [c.source for c in cells(path, "code")][:-1]  # but the explorer's
    lines = [line for source in code for line in source.splitlines() if line.strip()]
    words = [word for c in cells(path, "markdown") for word in c.source.split()]
    assert len(code) <= 12
    assert len(lines) <= 90
    assert len(words) <= 250
    assert not [line for line in lines if re.match(r"\s*(async def|def|class)\b", line)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_introduces_its_methods_where_it_asks_for_them(path):
    last = tagged(path, "models").source.splitlines()[-1]
    assert last.startswith("fl.methods.overview(")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_read_in_short_bullets_that_name_no_number(path):
    (text,) = [
        c.source
        for c in cells(path, "markdown")
        if c.source.startswith("## Reading it")
    ]
    bullets = [line for line in text.splitlines() if line.startswith("- ")]
    assert bullets
    for bullet in bullets:
        assert len(bullet.split()) <= 26  # the dash is no word
    # What is measured is said by the cell that measures it, for any parameters.
    assert not re.search(r"\.\d|\d %(?! interval)", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_asks_for_its_models_first_and_all_at_once(path):
    code = cells(path, "code")
    place = code.index(tagged(path, "models"))
    assert place == 3  # after imports, parameters and study
    assert re.search(r"^(study|fl)\.make\(", code[place].source, re.M)
    # Up to there, nothing is made or read but through make, which can be only noted.
    early = "\n".join(c.source for c in code[: place + 1])
    uses = r"\.(model|triggers|outputs|fidelity|table|history|describe|record|folder)\b"
    assert not re.search(uses, early)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_asks_for_its_models_without_making_one(path, tmp_path, monkeypatch):
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr(fl.plots, "use_style", lambda: None)  # not in other tests
    code = cells(path, "code")
    space = {}
    with jobs.noting() as asked:
        for cell in code[: 1 + code.index(tagged(path, "models"))]:
            exec(cell.source, space)
            if cell == tagged(path, "parameters"):
                space["output"] = str(tmp_path / "pictures")
    assert {str(lineage) for _, lineage, _ in asked} > {"host"}
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_parameters_are_typed_literals_with_help(path):
    known = papermill.inspect_notebook(str(path))
    lines = tagged(path, "parameters").source.splitlines()
    assert len(known) == len(lines)
    for parameter in known.values():
        assert parameter["inferred_type_name"] in {"int", "float", "str", "list"}
        assert parameter["help"]
        assert isinstance(
            yaml.safe_load(parameter["default"]),
            {"int": int, "float": float, "str": str, "list": list}[
                parameter["inferred_type_name"]
            ],
        )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_defaults_are_those_of_the_library(path):
    known = papermill.inspect_notebook(str(path))
    for name, value in vars(fl.Config()).items():
        if name in known:
            default = OTHER_DEFAULTS.get((path.stem, name), value)
            assert yaml.safe_load(known[name]["default"]) == default
