import pytest
import torch

import fidlib as fl
from fidlib.methods import find

PAPER = {  # start, trained, learns, preserves: reference of [1] and [2]
    "ref": ("random", "all", "train", []),
    "scratch": ("random", "all", "train+triggers", []),
    "FTAL": ("host", "all", "train+triggers", []),
    "FTLL": ("host", "head", "train+triggers", []),
    "FTAL+PGR": ("host", "all", "train+triggers", ["PGR"]),
    "FTAL+TWL": ("host", "all", "train+triggers", ["TWL"]),
    "FixLL": ("host", "body", "train+triggers", []),
    "FixLL+TWL": ("host", "body", "train+triggers", ["TWL"]),
    "FixLL+PFL": ("host", "body", "triggers", ["PFL"]),
    "FixLL+SPL": ("host", "body", "triggers", ["SPL"]),
    "scratch+FixLL": ("random", "body", "train+triggers", []),
    "scratch+FixLL+PFL": ("random", "body", "triggers", ["PFL"]),
    "scratch+FixLL+SPL": ("random", "body", "triggers", ["SPL"]),
}


BEYOND = {
    "FixLL+PFL+SPL": ("host", "body", "triggers", ["PFL", "SPL"]),
    "FixLL+PFL+mix+quiet": ("host", "body", "triggers", ["PFL"]),
    "retrained": ("random", "all", "train", []),
    "fine-tuned": ("host", "all", "train", []),
}


def test_methods_are_the_papers_and_more():
    found = {
        n: (m.start, m.trained, m.learns, list(m.preserves))
        for n, m in fl.METHODS.items()
    }
    assert found == PAPER | BEYOND
    changed = {n for n, m in fl.METHODS.items() if m.mixes or m.quiet}
    assert changed == {"FixLL+PFL+mix+quiet"}


def test_floors_carry_no_watermark_and_take_as_long_as_they_should():
    assert fl.FLOORS == ("retrained", "fine-tuned")
    for dataset in ("digits", "mnist", "cifar100"):
        recipe = fl.training.recipe(dataset)
        names = ("ref", *fl.FLOORS, "FixLL+PFL")
        host, again, on, embedded = (recipe.schedule(fl.METHODS[n]) for n in names)
        assert again == host
        assert on == embedded


def test_weights_are_the_methods_or_the_recipes():
    def own(step):
        return step.features.sum()

    method = fl.Method("mine", preserves={"PFL": None, "SPL": 7.0, own: 0.5})
    weighted = method.weighted({"PFL": 0.25, "SPL": 1000.0})
    assert [(t.__name__, w) for t, w in weighted] == [
        ("pfl", 0.25),
        ("spl", 7.0),
        ("own", 0.5),
    ]
    with pytest.raises(ValueError, match="gives no weight to PFL"):
        method.weighted({})


def test_definition_changes_with_anything_that_matters():
    def term(step):
        return step.logits.sum()

    def scaled(factor):
        return lambda step: factor * step.logits.sum()

    methods = [
        fl.Method("a"),
        fl.Method("b"),
        fl.Method("a", start="random"),
        fl.Method("a", trained="body"),
        fl.Method("a", learns="triggers"),
        fl.Method("a", learns="triggers", mixes=True),
        fl.Method("a", quiet=0.1),
        fl.Method("a", preserves={"PFL": None}),
        fl.Method("a", preserves={"PFL": 1.0}),
        fl.Method("a", preserves={term: 1.0}),
        fl.Method("a", preserves={scaled(2): 1.0}),
        fl.Method("a", preserves={scaled(3): 1.0}),
    ]
    digests = {fl.runs.digest(m.definition()) for m in methods}
    assert len(digests) == len(methods)


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(ValueError, match="unknown method 'FTALL'; use one of ref, scr"):
        find("FTALL")
    with pytest.raises(ValueError, match="unknown term 'PFLL'"):
        fl.Method("x", preserves={"PFLL": 1.0})
    for wrong in ({"start": "hosts"}, {"trained": "feet"}, {"learns": "all"}):
        with pytest.raises(ValueError, match="use"):
            fl.Method("x", **wrong)


def step_of(model, host, images):
    features = model.features(images)
    return fl.Step(
        model=model,
        host=host,
        host_parameters=dict(host.named_parameters()),
        images=images,
        features=features,
        logits=model.head(features),
        host_outputs=lambda: (host.features(images), host(images)),
    )


def test_terms_are_the_metrics_of_the_batch(network):
    host = fl.models.wrap(network).eval()
    model = fl.models.fresh(host, fl.runs.stream(0)).eval()
    images = torch.rand(6, 1, 12, 12)
    step = step_of(model, host, images)
    expected = fl.fidelity.compare(
        host, model, fl.data.Split(images, torch.zeros(6).long())
    )
    assert fl.TERMS["PFL"](step).item() == pytest.approx(expected.pfl, rel=1e-4)
    assert fl.TERMS["SPL"](step).item() == pytest.approx(expected.spl, rel=1e-3)
    assert fl.TERMS["TWL"](step).item() == pytest.approx(expected.twl, rel=1e-5)
    difference = model.head.weight - host.head.weight
    norms = difference.detach().numpy() ** 2
    assert fl.TERMS["PGR"](step).item() == pytest.approx((norms.sum(1) ** 0.5).sum())


def test_the_twl_term_counts_what_is_trained(network):
    host = fl.models.wrap(network).eval()
    model = fl.models.fresh(host, fl.runs.stream(0)).eval()
    model.head.requires_grad_(False)
    step = step_of(model, host, torch.rand(2, 1, 12, 12))
    parts = zip(host.body.parameters(), model.body.parameters(), strict=True)
    expected = sum((a - b).square().sum().item() for a, b in parts)
    assert fl.TERMS["TWL"](step).item() == pytest.approx(expected, rel=1e-5)
