import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import fidlib as fl
from fidlib import models
from fidlib.methods import (
    FLOORS,
    METHODS,
    TERMS,
    Method,
    Step,
    find,
    overview,
    with_weights,
)
from fidlib.methods import PAPER as PAPERS_NAMES
from fidlib.runs import keys
from fidlib.training import HOST, Plan, recipe

PAPER = {  # start, trained, learns, preserves: of Hua & Teoh (2023)
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
    rows = {
        n: (m.start, m.trained, m.learns, list(m.preserves)) for n, m in METHODS.items()
    }
    assert rows == PAPER | BEYOND
    changed = {n for n, m in METHODS.items() if m.mixes or m.quiet}
    assert changed == {"FixLL+PFL+mix+quiet"}
    assert list(PAPERS_NAMES) == [name for name in PAPER if "scratch+" not in name]


def test_a_method_that_learns_nothing_has_a_term_and_needs_no_triggers():
    method = Method("copy", start="random", learns="nothing", preserves={"SPL": 1.0})
    assert method.in_words()[2:] == ("nothing", "probabilities (SPL)")
    needs = {
        learns: Method("a", learns=learns, preserves={"SPL": 1.0}).learns_triggers
        for learns in ("train", "train+triggers", "triggers", "nothing")
    }
    assert [name for name, wanted in needs.items() if wanted] == [
        "train+triggers",
        "triggers",
    ]
    with pytest.raises(ValueError, match="learns nothing and preserves nothing"):
        Method("copy", learns="nothing")


@pytest.mark.parametrize("name", ["", "FixLL+PFL/prune", "host"])
def test_names_that_lineages_need_are_refused(name):
    with pytest.raises(ValueError, match=r"a method is called .* name"):
        Method(name)


def test_floors_carry_no_watermark_and_take_as_long_as_they_should():
    assert FLOORS == ("retrained", "fine-tuned")
    for dataset in ("digits", "mnist", "cifar100"):
        methods = HOST, *(METHODS[n] for n in (*FLOORS, "FixLL+PFL"))
        host, again, on, embedded = (
            Plan.of(method, recipe(dataset), seed=0) for method in methods
        )
        for first, second in ((host, again), (embedded, on)):
            for name in ("epochs", "learning_rate", "decay", "coarse"):
                assert getattr(first, name) == getattr(second, name)


def test_weights_are_the_methods_or_the_recipes():
    def toy(step):
        return step.features.sum()

    method = Method("mine", preserves={"PFL": None, "SPL": 7.0, toy: 0.5})
    expected = (("PFL", 0.25), ("SPL", 7.0), ("toy", 0.5))
    assert method.weighted({"PFL": 0.25, "SPL": 1000.0}) == expected
    assert method.terms == [("PFL", TERMS["PFL"]), ("SPL", TERMS["SPL"]), ("toy", toy)]
    with pytest.raises(ValueError, match="gives no weight to PFL"):
        method.weighted({})


def test_definition_changes_with_anything_that_matters():
    def term(step):
        return step.logits.sum()

    def scaled(factor):
        return lambda step: factor * step.logits.sum()

    methods = [
        Method("a"),
        Method("b"),
        Method("a", start="random"),
        Method("a", trained="body"),
        Method("a", learns="triggers"),
        Method("a", learns="triggers", mixes=True),
        Method("a", quiet=0.1),
        Method("a", preserves={"PFL": None}),
        Method("a", preserves={"PFL": 1.0}),
        Method("a", preserves={term: 1.0}),
        Method("a", preserves={scaled(2): 1.0}),
        Method("a", preserves={scaled(3): 1.0}),
    ]
    digests = {keys.digest(m.definition()) for m in methods}
    assert len(digests) == len(methods)


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(
        ValueError, match="unknown method 'FTALL'; use one of scratch, F"
    ):
        find("FTALL")
    with pytest.raises(ValueError, match="unknown term 'PFLL'"):
        Method("x", preserves={"PFLL": 1.0})
    with pytest.raises(ValueError, match="unknown method 'host'"):
        find("host")
    for wrong in ({"start": "hosts"}, {"trained": "feet"}, {"learns": "all"}):
        with pytest.raises(ValueError, match="use"):
            Method("x", **wrong)


def step_of(model, host, images):
    features = model.features(images)
    return Step(
        model=model,
        host=host,
        host_parameters=dict(host.named_parameters()),
        images=images,
        features=features,
        logits=model.head(features),
        host_outputs=lambda: (host.features(images), host(images)),
    )


def moved(host):
    """A classifier of other weights."""
    model = copy.deepcopy(host)
    generator = keys.stream(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 4)
    return model


def test_terms_are_what_the_paper_defines(network):
    host = models.wrap(network).eval()
    model = moved(host)
    images = torch.rand(6, 1, 12, 12)
    step = step_of(model, host, images)
    with torch.no_grad():
        values = {name: term(step).item() for name, term in TERMS.items()}
        features, logits, weights = (
            [part.double().numpy() for part in pair]
            for pair in (
                (host.features(images), model.features(images)),
                (host(images).softmax(1), model(images).softmax(1)),
                (host.head.weight, model.head.weight),
            )
        )
        pairs = zip(host.parameters(), model.parameters(), strict=True)
        twl = sum(((a - b).numpy() ** 2).sum() for a, b in pairs)
    expected = {
        "TWL": twl,
        "PGR": np.sqrt(((weights[1] - weights[0]) ** 2).sum(1)).sum(),
        "PFL": ((features[1] - features[0]) ** 2).sum(1).mean(),
        "SPL": (logits[0] * np.log(logits[0] / logits[1])).sum(1).mean(),
    }
    assert values == pytest.approx(expected, rel=1e-3)


def test_the_twl_term_counts_what_is_trained(network):
    host = models.wrap(network).eval()
    model = moved(host)
    model.head.requires_grad_(False)
    step = step_of(model, host, torch.rand(2, 1, 12, 12))
    parts = zip(host.body.parameters(), model.body.parameters(), strict=True)
    expected = sum((a - b).square().sum().item() for a, b in parts)
    assert TERMS["TWL"](step).item() == pytest.approx(expected, rel=1e-5)


def test_an_overview_says_what_each_method_does():
    method = Method("mine", learns="triggers", preserves={"PFL": None, "SPL": 1.0})
    asked = ["host", "FTLL", "FTLL/prune:0.4", "host/fine-tune", method, "retrained"]
    table = overview([*asked, "FixLL+PFL+mix+quiet"])
    assert list(table.columns) == ["start", "trained part", "learned", "preserved"]
    assert table.index.name == "method"
    learned = "training images and triggers"
    both = "features (PFL) and probabilities (SPL)"
    quietly = "features (PFL) of mixtures, in quiet directions"
    assert table.T.to_dict("list") == {
        "FTLL": ["host", "head", learned, "nothing"],
        "mine": ["host", "all", "triggers", both],
        "retrained": ["random", "all", "training images", "nothing"],
        "FixLL+PFL+mix+quiet": ["host", "body", "triggers", quietly],
    }
    with pytest.raises(ValueError, match="unknown method 'FTALL'"):
        overview(["FTALL"])


def test_a_way_of_showing_triggers_changes_a_definition_and_its_lack_does_not():
    def mine(step, images, labels):
        return images

    plain = METHODS["FTAL"].definition()
    assert "shows" not in plain  # known as before there was a way
    ways = (fl.triggers.ascended, mine)
    shown = [replace(METHODS["FTAL"], shows=way).definition() for way in ways]
    assert shown[0] == plain | {"shows": ["ascended", None]}
    assert shown[1]["shows"][0] == "mine"
    assert "return images" in str(shown[1]["shows"][1])


def test_an_overview_tells_all_methods_apart():
    assert not overview(METHODS).duplicated().any()


def test_a_method_takes_other_weights_on_what_it_preserves_alone():
    def toy(step):
        return step.features.sum()

    method = with_weights("FixLL+PFL+SPL", {"TWL": 1.0, "PFL": 2.0, "SPL": 3.0})
    assert method.preserves == {"PFL": 2.0, "SPL": 3.0}
    assert METHODS["FixLL+PFL+SPL"].preserves == {"PFL": None, "SPL": None}
    mine = with_weights(Method("mine", preserves={toy: 1.0}), {"toy": 5.0})
    assert mine.preserves == {toy: 5.0}
    with pytest.raises(ValueError, match="FTAL preserves nothing"):
        with_weights("FTAL", {"PFL": 1.0})
    with pytest.raises(ValueError, match="no weight to SPL"):
        with_weights("FixLL+SPL", {"PFL": 1.0})
