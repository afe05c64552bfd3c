import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from fidlib.runs import keys, machine, store


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path))
    return tmp_path


def build(folder):
    (folder / "result.txt").write_text("whole")


def fail(folder):
    raise AssertionError("built again")


def test_make_builds_once_and_reads_back(root):
    folder = store.make("kind", {"a": 1}, build)
    assert folder.parent == root / "kind"
    assert json.loads((folder / "config.json").read_text())["a"] == 1
    assert "torch" in json.loads((folder / "done.json").read_text())["versions"]
    assert store.make("kind", {"a": 1}, fail) == folder
    assert store.make("kind", {"a": 2}, build) != folder


def test_digest_ignores_order_and_notices_values():
    assert keys.digest({"a": 1, "b": [1, 2]}) == keys.digest({"b": [1, 2], "a": 1})
    assert keys.digest({"a": 1}) != keys.digest({"a": 2})
    with pytest.raises(TypeError, match="no JSON value"):
        keys.digest({"a": object()})


def test_make_leaves_nothing_of_a_failed_build(root):
    def half(folder):
        build(folder)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        store.make("kind", {}, half)
    assert not [p for p in root.rglob("*") if p.name == "result.txt"]
    assert (store.make("kind", {}, build) / "result.txt").read_text() == "whole"


def _build_and_hang(folder):
    build(folder)
    (folder.parent / "started").touch()
    time.sleep(60)


def _hang(root):
    os.environ["FIDLIB_RUNS"] = str(root)
    store.make("kind", {}, _build_and_hang)


def test_make_does_not_take_a_killed_build_for_finished(root):
    process = multiprocessing.get_context("spawn").Process(target=_hang, args=(root,))
    process.start()
    while not (root / "kind" / "started").exists():
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [p for p in (root / "kind").rglob("result.txt")]
    assert not list((root / "kind").rglob("done.json"))
    folder = store.make("kind", {}, build)
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "done.json",
        "result.txt",
    ]
    assert [p.name for p in (root / "kind").rglob("result.txt")] == ["result.txt"]


def test_make_adds_what_a_stopped_process_took_and_deletes_its_state(root):
    key = {"name": "a run"}
    state = store.state("kind", key, {"precision": "float32"})
    other = store.state("kind", key, {"precision": "bfloat16"})
    unlike = store.state("kind", {"name": "another"}, {"precision": "float32"})
    assert len({state, other, unlike}) == 3
    state.parent.mkdir(parents=True)
    half = state.with_name(f".{state.stem}.1.state")
    for path in (state, other, unlike, half):
        path.touch()

    def goes_on(folder):
        assert state.exists()
        assert not half.exists()
        build(folder)
        return 100.0

    folder = store.make("kind", key, goes_on)
    assert 100 <= json.loads((folder / "done.json").read_text())["seconds"] < 110
    assert not state.exists()
    assert not other.exists()
    assert unlike.exists()


def test_state_is_of_one_machine_and_one_text_of_fidlib(root, monkeypatch):
    here = store.state("kind", {}, {})
    assert store.state("kind", {}, {}) == here
    monkeypatch.setattr(machine, "name", lambda: "another, 64 threads")
    there = store.state("kind", {}, {})
    monkeypatch.setattr(machine, "library", lambda: "another text")
    assert len({here, there, store.state("kind", {}, {})}) == 3


def _count(folder):
    with (folder.parent / "builds").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    build(folder)


def _ask(root, together):
    os.environ["FIDLIB_RUNS"] = str(root)
    together.wait(60)
    assert (store.make("kind", {}, _count) / "result.txt").read_text() == "whole"


def test_make_builds_once_for_two_processes(root):
    context = multiprocessing.get_context("spawn")
    options = {"target": _ask, "args": (root, context.Barrier(2))}
    processes = [context.Process(**options) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (root / "kind" / "builds").read_text() == "x"


def test_make_notices_a_changed_result(root):
    folder = store.make("kind", {}, build)
    (folder / "result.txt").write_text("whol")
    with pytest.raises(ValueError, match=r"damaged \(result.txt\): delete"):
        store.make("kind", {}, fail)
    for seal in ("null", "[]", '{"files": null}', '{"files": []}', '{"files": {}}'):
        (folder / "done.json").write_text(seal)
        with pytest.raises(ValueError, match=r"damaged \(.+\): delete"):
            store.make("kind", {}, fail)


def test_make_reads_what_is_released_and_prefers_it(root, tmp_path, monkeypatch):
    folder = store.make("kind", {}, build)
    monkeypatch.setattr(store, "RELEASED", tmp_path / "released")
    released = store.RELEASED / "kind" / folder.name
    shutil.copytree(folder, released)
    assert store.make("kind", {}, fail) == released
    (released / "result.txt").write_text("whol")
    with pytest.raises(ValueError, match="damaged"):
        store.make("kind", {}, fail)
    (released / "done.json").unlink()  # a copy that was interrupted
    assert store.make("kind", {}, fail) == folder


def test_written_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def half():
        with store.written(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert path.read_text() == "old"
    with store.written(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_stream_is_of_its_own_for_every_purpose():
    def draw(*names):
        return torch.rand(4, generator=keys.stream(*names)).tolist()

    assert draw(0, "a") == draw(0, "a")
    assert len({tuple(draw(*n)) for n in [(0, "a"), (0, "b"), (1, "a"), (0,)]}) == 4


def test_pick_precision_obeys_and_detects(monkeypatch):
    cpu = torch.device("cpu")
    assert machine.training_type("float32", cpu) == torch.float32
    assert machine.training_type("bfloat16", cpu) == torch.bfloat16
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        for flag in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, flag, lambda fast=fast: fast)
        assert machine.training_type("auto", cpu) == expected


def test_project_root_is_found_from_the_notebooks(monkeypatch):
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root / "notebooks")
    assert store.project_root() == root
    monkeypatch.delenv("FIDLIB_RUNS")
    assert store.runs_root() == root / "runs"


def test_commit_is_dirty_where_code_or_notebooks_changed_and_not_for_pictures(tmp_path):
    assert machine.commit(tmp_path) == "unknown"
    package = tmp_path / "package"
    for folder in (package, tmp_path / "notebooks", tmp_path / "figures"):
        folder.mkdir()
        (folder / "a").write_text("as committed")
    (package / "__init__.py").touch()
    author = ["-c", "user.name=A", "-c", "user.email=@", "-c", "commit.gpgsign=0"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    head = machine.commit(package)
    assert len(head) == 12

    (tmp_path / "figures" / "a").write_text("made again")
    assert machine.commit(package) == head
    for changed in (package / "a", tmp_path / "notebooks" / "a"):
        changed.write_text("edited")
        assert machine.commit(package) == f"{head}-dirty"
        changed.write_text("as committed")
    (tmp_path / "installed").mkdir()
    assert machine.commit(tmp_path / "installed") == "unknown"
    (package / "new").touch()
    assert machine.commit(package) == f"{head}-dirty"


def test_is_made_asks_and_makes_nothing(root):
    assert not store.is_made("kind", {"a": 1})
    assert not list(root.rglob("*"))
    folder = store.make("kind", {"a": 1}, build)
    assert store.is_made("kind", {"a": 1})
    assert not store.is_made("kind", {"a": 2})
    (folder / "result.txt").write_text("whol")
    with pytest.raises(ValueError, match="damaged"):
        store.is_made("kind", {"a": 1})


def test_stored_in_names_another_store_for_a_time(root, tmp_path, monkeypatch):
    def fails():
        with store.stored_in(tmp_path / "other"):
            assert store.runs_root() == tmp_path / "other"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert store.runs_root() == root
    monkeypatch.delenv("FIDLIB_RUNS")
    with store.stored_in(tmp_path / "other"):
        assert os.environ["FIDLIB_RUNS"] == str(tmp_path / "other")
    assert "FIDLIB_RUNS" not in os.environ
