"""State dicts of strangers are read into the networks that they are of."""

import argparse
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import fidlib as fl
from fidlib import checkpoints, models
from fidlib.__main__ import main

NETS = """
from torch import nn
import fidlib as fl


def lenet():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def wrapped():
    return fl.models.wrap(lenet(), image_size=8, mean=0.25, std=0.5)


def nothing():
    return 3


def leaves():
    raise SystemExit  # as argparse does, in a script that is imported


def needs(number):
    return lenet()
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with nets.py, from which fidlib is used."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("nets", None)


def lenet(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


class Ema(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.ema_model = network


AROUND = {
    "plain": lambda n: n,
    "DataParallel": nn.DataParallel,
    "compile": torch.compile,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "Ema": Ema,
    "both": lambda n: torch.compile(nn.DataParallel(n)),
    "inside": lambda n: compiled_inside(n),
}


def compiled_inside(network):
    """With one layer compiled, whose mark is in the middle of names."""
    return nn.Sequential(network[0], torch.compile(network[1]), *network[2:])


INSIDE = {
    "alone": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {}}},
    "net": lambda s: {"net": s, "acc": 0.9, "args": argparse.Namespace(lr=0.1)},
    "model": lambda s: {"model": s, "epoch": torch.tensor(3)},
    "deep": lambda s: {"state": 1, "model": {"state_dict": s}},
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("inside", INSIDE)
def test_a_state_dict_is_read_whatever_was_around_it(around, inside, nets):
    network = lenet()
    torch.save(INSIDE[inside](AROUND[around](network).state_dict()), "model.pth")
    shown = torch.rand(3, 1, 8, 8)
    model = models.load("model.pth", like=models.wrap(lenet(1), image_size=8))
    assert torch.allclose(model(shown), network(shown), atol=1e-6)
    model = models.load("model.pth", like="nets:wrapped")
    assert torch.allclose(model(shown), network((shown - 0.25) / 0.5), atol=1e-6)


def test_a_pruned_state_dict_is_read_as_the_weights_that_were_used(nets):
    network = lenet()
    for layer in (network[1], network[3]):
        prune.l1_unstructured(layer, "weight", 0.5)
    torch.save(network.state_dict(), "model.pt")
    model = models.load("model.pt", like=models.wrap(lenet(1), image_size=8))
    assert torch.equal(model.head.weight, network[3].weight)


def test_logits_inside_an_answer_are_no_hindrance(nets):
    class Answer(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.layers = network

        def forward(self, images):
            return {"logits": self.layers(images)}

    torch.save(Answer(lenet()).state_dict(), "model.pt")
    model = models.load("model.pt", like=models.wrap(Answer(lenet(1)), image_size=8))
    assert torch.equal(model.head.weight, lenet()[3].weight)


class Versioned(nn.Linear):
    """A layer that asks which version wrote its weights, as MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *others):
        if metadata.get("version") != 2:
            raise ValueError("version should be 2")
        super()._load_from_state_dict(state, prefix, metadata, *others)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_layers_are_told_their_own_version(ending, nets):
    network = lenet()
    network[1] = Versioned(64, 12)
    model = models.wrap(network, image_size=8)
    if ending == "pt":
        torch.save(network.state_dict(), "model.pt")
    else:
        models.save(model, "model.safetensors")
    loaded = models.load(f"model.{ending}", like=model)
    assert models.fingerprint(loaded) == models.fingerprint(model)


def changed(function):
    return {name: function(value) for name, value in lenet().state_dict().items()}


def test_floats_of_any_length_are_read(nets):
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        torch.save(changed(lambda t, kind=kind: t.to(kind)), "model.pt")
        model = models.load("model.pt", like=models.wrap(lenet(1), image_size=8))
        expected = lenet()[3].weight.to(kind).float()
        assert torch.equal(model.head.weight, expected)


def test_layers_that_share_a_weight_are_not_given_two(nets):
    def tied():
        network = nn.Sequential(lenet(), nn.Linear(10, 10), nn.Linear(10, 10))
        network[2].weight = network[1].weight
        return nn.Sequential(*network, nn.Linear(10, 10))

    network, shown = tied(), torch.rand(3, 1, 8, 8)
    torch.save(network.state_dict(), "model.pt")
    model = models.load("model.pt", like=models.wrap(tied(), image_size=8))
    assert torch.allclose(model(shown), network(shown), atol=1e-6)
    state = network.state_dict()
    torch.save(state | {"1.weight": state["1.weight"] + 1}, "model.pt")
    with pytest.raises(ValueError, match="is shared with another layer"):
        models.load("model.pt", like=models.wrap(tied(), image_size=8))


@pytest.mark.parametrize("ending", [".th", ".PTH", ".model", ""])
def test_what_is_no_safetensors_is_read_by_torch(ending, nets):
    torch.save(lenet().state_dict(), f"model{ending}")
    model = models.load(f"model{ending}", like=models.wrap(lenet(1), image_size=8))
    assert torch.equal(model.head.weight, lenet()[3].weight)


def test_the_old_format_is_read_and_runs_nothing(nets):
    old = {"_use_new_zipfile_serialization": False}
    like = models.wrap(lenet(1), image_size=8)
    torch.save(lenet().state_dict(), "model.pt", **old)
    assert torch.equal(
        models.load("model.pt", like=like).head.weight, lenet()[3].weight
    )
    torch.save(lenet(), "model.pt", **old)
    with pytest.raises(ValueError, match="holds Python objects beside tensors"):
        models.load("model.pt", like=like)


class Opened:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return open, ("it_was_run", "w")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda: lenet(), "holds Python objects beside tensors, .* save network"),
        (lambda: {"state_dict": lenet().state_dict(), "x": Opened()}, "would run them"),
        (lambda: {}, "holds nothing, of which none may be the network"),
        (lambda: {"epoch": 3, "lr": 0.1}, "holds epoch, lr, of which none"),
        (lambda: [1, 2], "holds a list: save network.state_dict"),
        (
            lambda: {"state_dict": lenet().state_dict(), "ema": lenet().state_dict()},
            "of which state_dict and ema may be the network",
        ),
        (lambda: nn.Linear(3, 4).state_dict(), "another architecture"),
        (lambda: {n: t[:3] for n, t in lenet().state_dict().items()}, "another arch"),
        (
            lambda: lenet().state_dict() | nn.DataParallel(lenet(1)).state_dict(),
            "holds 1.weight of two networks",
        ),
        (lambda: changed(lambda t: (100 * t).to(torch.int8)), "weight is torch.int8"),
        (lambda: changed(lambda t: t * (1 + 1j)), "is torch.complex64"),
        (
            lambda: changed(lambda t: t) | {"epoch": 3},
            r"holds 1.weight, .*epoch, of which none",
        ),
        (lambda: {f"layer{n}": 1 for n in range(300)}, r"layer8, \.\.\., of which"),
    ],
)
def test_load_says_what_a_file_holds_and_runs_nothing_of_it(saved, message, nets):
    torch.save(saved(), "model.pt")
    with pytest.raises(ValueError, match=message):
        models.load("model.pt", like=models.wrap(lenet(), image_size=8))
    assert not (nets / "it_was_run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nets", "write module:function"),
        ("nets:", "write module:function"),
        (":lenet", "write module:function"),
        ("nots:lenet", "No module named 'nots'"),
        ("nets:lenets", "has no attribute 'lenets'"),
        ("nets:needs", "missing 1 required"),
        ("nets:nothing", "returns a int; it must return a network"),
        ("nets:leaves", "gives no network .SystemExit"),
    ],
)
def test_a_network_is_named_by_module_and_function(text, message, nets):
    with pytest.raises(ValueError, match=message):
        checkpoints.network(text)
    assert isinstance(checkpoints.network("nets:lenet"), nn.Module)


def test_compare_reads_state_dicts_into_a_named_network(nets, capsys, digits):
    torch.save({"net": nn.DataParallel(lenet(0)).state_dict()}, "host.pth")
    torch.save({"state_dict": torch.compile(lenet(1)).state_dict()}, "marked.pt")
    options = ["--network", "nets:lenet", "--data", "digits"]
    assert main(["compare", "host.pth", "marked.pt", *options]) == 0
    printed = capsys.readouterr().out
    wrapped = [
        models.wrap(lenet(s), image_size=8, mean=digits.mean, std=digits.std)
        for s in (0, 1)
    ]
    report = fl.compare(*wrapped, digits.test)
    assert f"{report.twl:.4g}" in printed
    assert f"{report.agreement:.4g}" in printed
    assert "less" in printed.splitlines()[0]  # how pixels are normalised
    options[1] = "nets:wrapped"
    assert main(["compare", "host.pth", "marked.pt", *options]) == 0
    assert "nets:wrapped" not in capsys.readouterr().out


@pytest.fixture
def small(nets, monkeypatch):
    """What stands for MNIST, so that nothing is fetched."""
    monkeypatch.setenv("FIDLIB_DATA", str(nets))
    images, labels = np.zeros((4, 28, 28), np.uint8), np.arange(4)
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(nets / "mnist.npz", **arrays)
    return "mnist"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["host.pt", "host.pt", "--network", "nets:nothing"], "returns a int"),
        (["host.pt", "host.pt", "--network", "lenet"], "write module:function"),
        (["host.pt", "host.pt"], "holds no ResNet18 of the paper"),
        (["nets.py", "host.pt", "--network", "nets:lenet"], "is damaged"),
        (["list.pt", "host.pt", "--network", "nets:lenet"], "holds a list"),
    ],
)
def test_compare_says_in_one_sentence_what_it_cannot_read(
    arguments, message, nets, capsys, small
):
    torch.save(lenet().state_dict(), "host.pt")
    torch.save([1], "list.pt")
    data = "digits" if "--network" in arguments else str(small)
    assert main(["compare", *arguments, "--data", data]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("fidlib: ")
    assert message in printed
    assert printed.count("\n") == 1
