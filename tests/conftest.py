"""Shared fixtures: a run store of the tests' own, and one small study to look at."""

import pytest
import torch

import fidlib as fl

SMALL = fl.Config(scale="smoke", train_images=400, chains=1, precision="float32")


@pytest.fixture(scope="session", autouse=True)
def _run_store(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("FIDLIB_RUNS", str(tmp_path_factory.mktemp("runs")))
    # The same numbers on every machine: exact comparisons are of the CPU.
    patch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def digits():
    return fl.data.load("digits")


@pytest.fixture(scope="session")
def study():
    return fl.Study(SMALL)


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
