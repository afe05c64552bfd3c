"""The script that times steps reaches into the training loop: it must still fit."""

import importlib
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture
def what_moved(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield importlib.import_module("what_moved")
    for name in ("what_moved", "embed_speed"):
        del sys.modules[name]


def test_an_epoch_is_timed_without_each_part(what_moved):
    given = what_moved.setting("mnist", 8)
    for name, without in what_moved.WITHOUT.items():
        with without():
            assert what_moved._epoch("FixLL+PFL", given, torch.float32) > 0, name
