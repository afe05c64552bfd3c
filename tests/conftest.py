"""Shared fixtures: a run store of the tests' own, and small studies to look at."""

import dataclasses
import os

import pytest
import torch

import fidlib as fl

SMALL = fl.Config(
    model="smallnet",
    scale="smoke",
    train_images=400,
    trigger_count=10,
    precision="float32",
)
"""Its host is far better than a guess, and FTAL answers every trigger."""

BARE = dataclasses.replace(SMALL, epochs=1, train_images=48)
"""Two steps a model: for what asks of nothing learned."""


def pytest_collection_modifyitems(items):
    """The longest first: no worker is left with it while the others have nothing."""
    items.sort(key=lambda item: "smoke_suite_runs_every_notebook" not in item.name)


@pytest.fixture(scope="session", autouse=True)
def _run_store(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    # Shared by the workers of pytest-xdist: what one has trained the others read.
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    patch.setenv("FIDLIB_RUNS", str(shared / "runs"))
    # The same numbers on every machine, and in every process that a test starts: exact
    # comparisons are of the CPU and of one thread, which rounds in one way.
    patch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    patch.setattr(torch.cuda, "is_available", lambda: False)
    patch.delenv("COLUMNS", raising=False)  # pytest-xdist's, no terminal's
    yield
    patch.undo()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A run store for this test alone."""
    monkeypatch.setenv("FIDLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def digits():
    return fl.data.load("digits")


@pytest.fixture(scope="session")
def study():
    return fl.Study(SMALL)


@pytest.fixture
def bare(root):
    """A study whose models are hardly trained, in a store for this test alone."""
    return fl.Study(BARE)


@pytest.fixture
def network():
    """A little network that ends in a linear layer, the same in every test."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 10),
        )


@pytest.fixture
def plt():
    """pyplot without a screen; what was drawn is closed in the end."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    yield plt
    plt.close("all")


@pytest.fixture
def ax(plt):
    """Axes to draw on; in the end all of their figure is drawn, and must not warn."""
    figure, ax = plt.subplots()
    yield ax
    figure.canvas.draw()
