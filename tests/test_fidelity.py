import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

import fidlib as fl

SHARED = Path(__file__).parents[2] / "shared"
"""Real data and an authors' model that may lie beside a checkout."""


@pytest.fixture(scope="module")
def pair(study):
    return study.host(), study.marked("FTAL")


def plainly(host, marked, split, triggers):
    """Every number of the report, by numpy in float64, image by image."""
    found = []
    for model in (host, marked):
        double = fl.models.fresh(model, fl.runs.stream(9)).double()
        double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
        rows = {}
        for name, part in (("split", split), ("triggers", triggers)):
            images = part.images
            pixels = images.double() / 255 if images.dtype == torch.uint8 else images
            with torch.no_grad():
                seen = double.eval().features(pixels.double()).numpy()
            rows[name] = seen, seen @ double.head.weight.detach().numpy().T
        rows["weights"] = [p.detach().numpy() for p in double.parameters()]
        rows["head"] = double.head.weight.detach().numpy()
        found.append(rows)
    h, m = found
    probabilities = [softmax(r["split"][1], axis=1) for r in (h, m)]
    answers = [r["split"][1].argmax(1) for r in (h, m)]
    secrets = [r["triggers"][1].argmax(1) for r in (h, m)]
    labels, keys = split.labels.numpy(), triggers.labels.numpy()
    pairs = zip(h["weights"], m["weights"], strict=True)
    return {
        "twl": sum(np.sum((a - b) ** 2) for a, b in pairs),
        "lp": np.linalg.norm(h["head"] - m["head"]) ** 2,
        "pfl": np.mean(np.linalg.norm(h["split"][0] - m["split"][0], axis=1) ** 2),
        "spl": np.mean(rel_entr(*probabilities).sum(1)),
        "agreement": np.mean(answers[0] == answers[1]),
        "host_accuracy": np.mean(answers[0] == labels),
        "marked_accuracy": np.mean(answers[1] == labels),
        "host_trigger_accuracy": np.mean(secrets[0] == keys),
        "trigger_accuracy": np.mean(secrets[1] == keys),
        "images": len(labels),
    }


def test_compare_equals_an_independent_computation(pair, digits, study):
    expected = plainly(*pair, digits.test, study.triggers)
    found = vars(fl.fidelity.compare(*pair, digits.test, study.triggers))
    assert found == pytest.approx(expected, rel=1e-5)
    assert 0.1 < found["agreement"] < 1  # else the numbers above say little
    assert found["pfl"] > 0.01


def test_compare_with_itself_is_perfect(pair, digits):
    host, _ = pair
    report = fl.fidelity.compare(host, host, digits.test)
    assert (report.twl, report.lp, report.pfl, report.spl) == (0, 0, 0, 0)
    assert report.agreement == 1
    assert report.host_accuracy == report.marked_accuracy
    assert report.trigger_accuracy is None


def test_compare_works_between_architectures(pair, digits, network):
    host, _ = pair
    other = fl.models.wrap(network, image_size=8)
    report = fl.fidelity.compare(host, other, digits.test)
    assert (report.twl, report.lp, report.pfl) == (None, None, None)
    assert report.spl > 0
    assert 0 <= report.agreement <= 1


def test_compare_refuses_other_classes(pair, digits, network):
    other = fl.models.wrap(network, num_classes=4, image_size=8)
    with pytest.raises(ValueError, match="the host has 10 classes, the marked model 4"):
        fl.fidelity.compare(pair[0], other, digits.test)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """The real set: from $FIDLIB_DATA, the cache, or packed beside the checkout."""
    if (SHARED / "data" / "unpack.py").exists():
        import subprocess
        import sys

        folder = tmp_path_factory.mktemp("data")
        command = [sys.executable, SHARED / "data" / "unpack.py", folder, "mnist"]
        subprocess.run(command, check=True, capture_output=True)
        return fl.data.load("mnist", root=folder)
    folder = Path(os.environ.get("FIDLIB_DATA", "~/.cache/fidlib")).expanduser()
    if not (folder / "mnist.npz").exists():
        pytest.skip("needs mnist.npz in FIDLIB_DATA")
    return fl.data.load("mnist", root=folder)


def test_the_authors_host_gets_9946_of_10000(mnist):
    path = SHARED / "reference" / "authors-host-mnist-2d.pt"
    if not path.exists():
        pytest.skip("needs the authors' published MNIST host")
    model = fl.models.load_authors(path)
    logits = fl.features.outputs(model, mnist.test.images).logits
    assert (logits.argmax(1) == mnist.test.labels).sum().item() == 9946
