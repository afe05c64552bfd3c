import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from PIL import Image

from fidlib.runs import machine
from fidlib.study.config import Config
from fidlib.suites.read import check, read
from fidlib.suites.run import execute, run, wanted

ROOT = Path(__file__).parents[1]


def notebook(*sources):
    cells = [nbformat.v4.new_markdown_cell("# Does it run?")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata = {
        "kernelspec": {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
    }
    return book


PARAMETERS = """
number: int = 1
fraction: float = 0.5
scale: str = "default"
methods: list = []
attacks: list = []
other_seeds: list = []
output: str = "runs/x"
"""
WORK = """
from fidlib import Output
out = Output(output)
print("working on", number)
import pandas as pd
out.table(pd.DataFrame({"number": [number * 10]}), "numbers")
"""
LAST = "out.provenance({'number': number})"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two small notebooks and a suite, with its own run store."""
    folder = tmp_path / "project"
    (folder / "notebooks" / "suites").mkdir(parents=True)
    nbformat.write(
        notebook(PARAMETERS, WORK, LAST), folder / "notebooks" / "good.ipynb"
    )
    nbformat.write(
        notebook(PARAMETERS, WORK, "1 / 0"), folder / "notebooks" / "bad.ipynb"
    )
    write_suite(folder, "two", "[{notebook: bad}, {notebook: good, number: 4}]")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FIDLIB_RUNS", str(folder / "runs"))
    return folder


def write_suite(folder, name, listed, common="{}"):
    path = folder / "notebooks" / "suites" / f"{name}.yaml"
    path.write_text(f"about: some\nparameters: {common}\nnotebooks: {listed}\n")


def test_run_goes_on_after_a_failure_and_publishes_the_rest(project):
    bad, good = run(read("two"), jobs=1)
    assert (bad.status, good.status) == ("FAILED", "made")
    assert "ZeroDivisionError" in bad.traceback
    assert "\x1b" not in bad.traceback
    executed = nbformat.read(bad.folder / "notebook.ipynb", 4)
    assert any(c.get("outputs") for c in executed.cells if c.cell_type == "code")
    folder = project / "figures" / "two"
    assert (folder / "good-numbers.csv").read_text() == ",number\n0,40\n"
    page = (folder / "index.html").read_text()
    assert "ZeroDivisionError" in page
    assert "<td>40</td>" in page
    assert not list(folder.glob("bad-*"))


def test_run_skips_what_is_finished_and_restores_lost_pictures(project):
    write_suite(project, "one", "[{notebook: good, number: 4}]")
    (first,) = run(read("one"), jobs=1)
    shutil.rmtree(project / "figures")
    (second,) = run(read("one"), jobs=1)
    assert (first.status, second.status) == ("made", "read back")
    assert (project / "figures" / "one" / "good-numbers.csv").exists()
    write_suite(project, "one", "[{notebook: good, number: 5}]")
    (third,) = run(read("one"), jobs=1)
    assert third.status == "made"
    assert "50" in (project / "figures" / "one" / "good-numbers.csv").read_text()


def test_a_changed_notebook_runs_again(project):
    write_suite(project, "one", "[{notebook: good}]")
    run(read("one"), jobs=1)
    changed = notebook(PARAMETERS, WORK + "\nprint('more')", LAST)
    nbformat.write(changed, project / "notebooks" / "good.ipynb")
    (result,) = run(read("one"), jobs=1)
    assert result.status == "made"


def test_the_page_shows_the_parameters_a_picture_was_made_with(project):
    write_suite(project, "two", "[{notebook: good, name: a, number: 4}]")
    run(read("two"), jobs=1)
    both = "[{notebook: good, name: a, number: 5}, {notebook: good, name: b}]"
    write_suite(project, "two", both)
    run(read("two"), only=["b"], jobs=1)
    page = (project / "figures" / "two" / "index.html").read_text()
    assert "&quot;number&quot;: 4" in page
    assert "&quot;number&quot;: 5" not in page


def test_pictures_of_a_changed_library_are_not_kept(project, monkeypatch):
    monkeypatch.setattr(machine, "library", lambda: "the text before")
    job = read("two").jobs[1]
    result = execute(job, project, project / "runs")
    assert result.traceback.endswith("changed since the suite began: start it again.")
    assert not (project / "figures").exists()
    assert not list((project / "runs" / "notebook").glob("[!.]*"))


def test_a_run_leaves_the_run_store_that_was_set(project, monkeypatch):
    monkeypatch.delenv("FIDLIB_RUNS")
    run(read("two"), only=["good"], jobs=1)
    assert "FIDLIB_RUNS" not in os.environ


def test_a_notebook_without_pictures_keeps_nothing_from_the_page(project):
    plain = notebook(PARAMETERS, WORK)
    nbformat.write(plain, project / "notebooks" / "plain.ipynb")
    write_suite(project, "two", "[{notebook: plain}, {notebook: good, number: 4}]")
    assert [r.status for r in run(read("two"), jobs=1)] == [
        "made",
        "made",
    ]
    assert "<td>40</td>" in (project / "figures" / "two" / "index.html").read_text()


def test_the_bar_counts_models_and_notebooks_and_names_them(project, capsys):
    write_suite(
        project, "two", "[{notebook: good, name: a}, {notebook: good, name: b}]"
    )
    run(read("two"), jobs=1)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "100%" in last
    assert "2/2" in last
    assert re.search(r", [ab]\]", last)


MODELS = """
import fidlib as fl
from fidlib.runs import store
study = fl.Study(fl.Config(
    model="smallnet", scale=scale, epochs=1, train_images=48, trigger_count=10
))
print("nobody reads this")
study.make(methods, outputs=["test"])
"""
READ = """
assert store.is_made("marked", study._store._key(fl.Lineage.read("FTAL")))
fl.training.train = None
study.model("FTAL"), study.outputs("FTAL", "test")
"""


def write_models(project, cell=MODELS):
    book = notebook(PARAMETERS, WORK, cell, READ, LAST)
    book.cells[3].metadata["tags"] = ["models"]
    nbformat.write(book, project / "notebooks" / "good.ipynb")
    listed = "[{notebook: good, scale: smoke, methods: [FTAL, FTLL], number: 4}]"
    write_suite(project, "one", listed)


def test_what_a_notebook_asks_for_is_noted_and_nothing_made(project, capsys):
    write_models(project)
    (job,) = read("one").jobs
    asked = wanted(job)
    assert [(str(lineage), parts) for _, lineage, parts in asked] == [
        (name, ("test",)) for name in ("host", "FTAL", "FTLL")
    ]
    assert asked[0][0].config.scale == "smoke"
    assert not capsys.readouterr().out
    assert not (project / "runs").exists()
    nbformat.write(notebook(PARAMETERS, WORK), project / "notebooks" / "good.ipynb")
    assert wanted(read("two").jobs[1]) == []


def test_models_are_made_before_the_notebook_that_wants_them(project):
    write_models(project)
    (result,) = run(read("one"), jobs=1)
    assert result.traceback == ""
    assert len([*(project / "runs" / "marked").glob("[!.]*")]) == 2


def test_a_model_that_cannot_be_made_is_what_its_notebook_failed_of(project):
    lost = MODELS.replace("study.make(methods", "study.make(['host/prune:2']")
    write_models(project, lost)
    (result,) = run(read("one"), jobs=1)
    assert result.status == "FAILED"
    assert result.traceback.startswith("ValueError: prune:2: the share of weights")
    assert not (project / "runs" / "host").exists()  # it is said before it is made


def test_a_notebook_that_cannot_say_what_it_wants_fails_before_the_others(project):
    write_models(project, "raise ValueError('no such thing')")
    write_suite(project, "two", "[{notebook: good}, {notebook: plain}]")
    plain = notebook(PARAMETERS, WORK, LAST)
    nbformat.write(plain, project / "notebooks" / "plain.ipynb")
    good, other = run(read("two"), jobs=1)
    assert (good.status, good.traceback) == ("FAILED", "ValueError: no such thing")
    assert other.status == "made"
    page = (project / "figures" / "two" / "index.html").read_text()
    assert "no such thing" in page


def test_run_takes_only_the_named(project):
    (result,) = run(read("two"), only=["good"], jobs=1)
    assert result.name == "good"
    with pytest.raises(ValueError, match="no notebook worse; use one of bad, good"):
        run(read("two"), only=["worse"], jobs=1)


def test_run_takes_several_at_a_time(project):
    listed = ", ".join(f"{{notebook: good, name: n{i}, number: {i}}}" for i in range(4))
    write_suite(project, "many", f"[{listed}]")
    results = run(read("many"), jobs=2)
    assert [r.name for r in results] == ["n0", "n1", "n2", "n3"]
    assert {r.status for r in results} == {"made"}
    numbers = [
        (project / "figures" / "many" / f"n{i}-numbers.csv")
        .read_text()[-3:]
        .strip("\n,")
        for i in range(4)
    ]
    assert numbers == ["0", "10", "20", "30"]


def test_run_takes_a_dask_cluster(project):
    distributed = pytest.importorskip("distributed")
    write_suite(project, "one", "[{notebook: good, number: 4}]")
    worker = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**worker) as cluster:
        address = cluster.scheduler_address
        (result,) = run(read("one"), backend="dask", scheduler=address)
    worker["threads_per_worker"] = 2  # one process has one folder of runs
    with distributed.LocalCluster(**worker) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(ValueError, match="--nthreads 1"):
            run(read("one"), backend="dask", scheduler=address)
    assert (result.status, result.traceback) == ("made", "")
    with pytest.raises(ValueError, match="--scheduler"):
        run(read("one"), backend="dask")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (
            "[{notebook: good, nmber: 4}]",
            "unknown parameter 'nmber'; good.ipynb has numb",
        ),
        ("[{notebook: good, output: x}]", "unknown parameter 'output'"),
        ("[{notebook: good, number: four}]", "number is 'four'; good.ipynb wants int"),
        ("[{notebook: good, number: 1.5}]", "wants int"),
        ("[{notebook: good, scale: papr}]", "unknown scale 'papr' for digits; use"),
        ("[{notebook: good, methods: [FTALL]}]", "unknown method 'FTALL'; use one of"),
        ("[{notebook: good, methods: [2]}]", "a model is named by 2; use a name"),
        ("[{notebook: good, attacks: ['prune:2']}]", "the share of weights is 2"),
        ("[{notebook: good, other_seeds: [a]}]", "use whole numbers"),
        ("[]", "lists no notebook"),
        ("[{notebook: god}]", "no notebook 'god'; use one of bad, good"),
        ("[{notebook: good}, {notebook: good}]", "two jobs of one name"),
        ("[{notebook: good, name: a-b}]", "use letters, digits and _"),
        ("[{name: x}]", "cannot be read"),
        ("[good]", "cannot be read .* a list of notebooks, as in"),
        ("[", "cannot be read"),
    ],
)
def test_read_checks_a_suite_before_anything_runs(project, listed, message):
    write_suite(project, "wrong", listed)
    with pytest.raises(ValueError, match=message):
        run(read("wrong"))
    assert not (project / "runs").exists()


def test_files_that_cannot_be_read_are_named(project):
    suites = project / "notebooks" / "suites"
    (suites / "latin.yaml").write_bytes(b"about: \xe9")
    (suites / "folder.yaml").mkdir()
    for name in ("latin", "folder"):
        with pytest.raises(ValueError, match=rf"{name}.yaml cannot be read"):
            read(name)
    (project / "notebooks" / "cut.ipynb").write_text("{")
    write_suite(project, "cut", "[{notebook: cut}]")
    with pytest.raises(ValueError, match=r"cut.ipynb is damaged or no notebook"):
        run(read("cut"))


def test_read_takes_a_whole_number_for_a_fraction(project):
    write_suite(project, "one", "[{notebook: good, fraction: 1}]")
    assert read("one").jobs[0].parameters == {"fraction": 1}


def test_read_names_the_suites_there_are(project, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown suite 'digit'; use one of two"):
        read("digit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "PACKAGE", tmp_path / "fidlib")
    with pytest.raises(ValueError, match="run fidlib in a clone"):
        read("digits")


def test_a_killed_notebook_is_run_again(project):
    slow = (
        WORK
        + "\nimport time\nopen('started', 'w').close()\ntime.sleep(float(fraction))"
    )
    nbformat.write(
        notebook(PARAMETERS, slow, LAST), project / "notebooks" / "good.ipynb"
    )
    write_suite(project, "one", "[{notebook: good, fraction: 2}]")
    command = [sys.executable, "-m", "fidlib", "figures", "--suite", "one"]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (project / "started").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project / "figures").exists()
    assert not list((project / "runs").glob("notebook/*/done.json"))
    (result,) = run(read("one"), jobs=1)
    assert result.status == "made"
    assert "10" in (project / "figures" / "one" / "good-numbers.csv").read_text()


@pytest.mark.parametrize(
    "name", [p.stem for p in (ROOT / "notebooks/suites").glob("*")]
)
def test_every_suite_of_the_project_is_sound(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    suite = read(name)
    assert suite.about
    for job in suite.jobs:
        check(job)
    assert all(job.question().endswith("?") for job in suite.jobs)


def test_a_suite_is_about_what_its_first_notebook_is_about(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = read("ownership").config(seed=3)
    assert (config.dataset, config.seed) == ("digits", 3)
    assert (config.model, config.scale, config.feature_dim) == ("smallnet", "sweep", 16)
    assert read("digits").config() == Config()


def test_a_scale_replaces_the_suites_but_not_a_notebooks_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    suite = read("mnist", "hours")
    scales = {job.name: job.parameters["scale"] for job in suite.jobs}
    assert scales.pop("06_tradeoffs") == "sweep"
    assert set(scales.values()) == {"hours"}
    assert read("mnist").setting("scale", "") == "paper"
    assert suite.setting("resolution", 7) == 7
    with pytest.raises(ValueError, match="unknown scale 'days' for mnist"):
        check(read("mnist", "days").jobs[0])


def test_the_smoke_suite_runs_every_notebook(tmp_path, monkeypatch):
    for name in ("notebooks", "fidlib"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    suite = read("smoke")
    assert {j.notebook.stem for j in suite.jobs} == {
        p.stem for p in (ROOT / "notebooks").glob("*.ipynb")
    } - {"00_explore"}
    results = run(suite)
    assert {r.name: r.traceback for r in results if r.status == "FAILED"} == {}
    for result in results:
        paths = sorted((result.folder / "pictures").iterdir())
        pictures = [p.stem for p in paths if p.suffix == ".png"]
        assert pictures
        assert {f"{stem}.pdf" for stem in pictures} <= {p.name for p in paths}
        assert any(p.suffix == ".csv" for p in paths)
        record = json.loads((result.folder / "pictures/provenance.json").read_text())
        assert record["parameters"]["train_images"] == 400
        executed = papermill.inspect_notebook(result.folder / "notebook.ipynb")
        assert executed.keys() - {"output"} <= record["parameters"].keys()
    folder = tmp_path / "figures" / "smoke"
    for picture in folder.glob("*.png"):
        record = folder / f"{picture.name.split('-')[0]}-provenance.json"
        with Image.open(picture) as image:
            assert image.info["Comment"] == record.read_text()
    record = json.loads((folder / "06_tradeoffs-provenance.json").read_text())
    repeats, hosts = (record["parameters"][name] for name in ("repeats", "models"))
    assert list(hosts) == [f"host, seed {seed}" for seed in range(repeats)]
    assert {h["epochs"] for h in hosts.values()} == {record["parameters"]["epochs"]}
    assert {h["precision"] for h in hosts.values()} < {"float32", "bfloat16"}
    published = {p.name for p in folder.iterdir()}
    assert {
        "index.html",
        "01_embed-curves.png",
        "02_features_64-features.pdf",
    } <= published
    assert not (tmp_path / "runs" / "notebook").exists()  # but in FIDLIB_RUNS


def test_notebooks_run_in_fidlibs_own_python_whatever_jupyter_finds(
    project, monkeypatch
):
    kernel = project / "share" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    other = {"argv": ["false"], "display_name": "Another", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(project / "share"))
    long = project / ("long" * 20)  # no socket may have such a name
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    asks = "import sys\nopen('python.txt', 'w').write(sys.executable)"
    nbformat.write(
        notebook(PARAMETERS, WORK, asks, LAST), project / "notebooks" / "good.ipynb"
    )
    (good,) = run(read("two"), only=["good"], jobs=1)
    assert good.status == "made", good.traceback
    assert (project / "python.txt").read_text() == sys.executable


@pytest.mark.parametrize("taken", ["figures", "figures/two", "runs"])
def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(taken, project):
    place = project / taken
    place.parent.mkdir(exist_ok=True)
    place.write_text("")
    with pytest.raises(OSError, match="results cannot be written to"):
        run(read("two"), jobs=1)
    assert not list(project.glob("runs/notebook/*"))
