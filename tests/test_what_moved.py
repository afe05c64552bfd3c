"""The script that times steps reaches into the training: it must still fit."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

PATCHES = {
    "the host's outputs kept": "_asked",
    "channels last": "_any_layout",
    "Adam fused": "_not_fused",
}


@pytest.fixture
def what_moved(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield importlib.import_module("what_moved")
    for name in ("what_moved", "embed_speed"):
        del sys.modules[name]


def test_an_epoch_is_timed_without_each_part(what_moved, monkeypatch):
    given, called = what_moved.setting("mnist", 8), []

    def noted(name, patch):
        def call(*arguments, **options):
            called.append(name)
            return patch(*arguments, **options)

        return call

    for name, patch in PATCHES.items():
        monkeypatch.setattr(what_moved, patch, noted(name, getattr(what_moved, patch)))
    for name, without in what_moved.WITHOUT.items():
        with without():
            assert what_moved._epoch("FixLL+PFL", given, torch.float32) > 0, name
        assert set(called) == {name} - {"nothing"}
        called.clear()
