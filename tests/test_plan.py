import dataclasses
import json

import pytest
import torch

from fidlib.methods import METHODS, Method
from fidlib.training import HOST, Plan, Recipe, Schedule, recipe

RECIPE = Recipe(
    batch_size=32,
    trigger_batch_size=10,
    augment=True,
    quiet=0.02,
    weights={"default": {"PFL": 0.02, "SPL": 2.0}, "FixLL+SPL": {"SPL": 3.0}},
    schedules={
        "host": Schedule(9, 1e-3, "half", coarse=0.5),
        "from random": Schedule(4, 1e-3),
        "from host": Schedule(2, 2e-3, "cosine", triggers=7),
        "FTLL": Schedule(3, 3e-3),
    },
)


def plan(**settings):
    method = Method("mine", preserves={"PFL": 0.5}, quiet=None)
    defaults = {"method": method, "epochs": 2, "learning_rate": 1e-3, "batch_size": 8}
    defaults |= {"seed": 0, "trigger_batch_size": 4, "weights": (("PFL", 0.5),)}
    return Plan(**defaults | settings)


def test_a_plan_is_the_method_on_the_recipes_data():
    result = Plan.of(METHODS["FixLL+PFL+mix+quiet"], RECIPE, seed=3)
    assert result == Plan(
        method=METHODS["FixLL+PFL+mix+quiet"],
        epochs=2,
        learning_rate=2e-3,
        batch_size=32,
        seed=3,
        decay="cosine",
        trigger_batch_size=7,
        augment=True,
        weights=(("PFL", 0.02),),
        quiet=0.02,
    )


@pytest.mark.parametrize(
    ("method", "epochs", "triggers", "weights"),
    [
        (HOST, 9, 0, ()),
        (METHODS["scratch"], 4, 10, ()),
        (METHODS["retrained"], 4, 0, ()),
        (METHODS["FTLL"], 3, 10, ()),
        (METHODS["FixLL+SPL"], 2, 7, (("SPL", 3.0),)),
        (Method("mine", preserves={"SPL": 5.0}), 2, 7, (("SPL", 5.0),)),
    ],
)
def test_a_methods_own_settings_go_before_the_recipes(
    method, epochs, triggers, weights
):
    result = Plan.of(method, RECIPE, seed=0)
    assert result.epochs == epochs
    assert result.trigger_batch_size == triggers
    assert result.weights == weights


def test_terms_are_functions_with_their_weights():
    def total(step):
        return step.features.sum()

    method = Method("mine", preserves={"PFL": None, total: 0.5, (lambda s: s): 2.0})
    result = Plan.of(method, RECIPE, seed=0)
    names = [(term.__name__, weight) for term, weight in result.terms]
    assert names == [("pfl", 0.02), ("total", 0.5), ("<lambda>", 2.0)]


def test_the_key_changes_with_whatever_decides_the_weights():
    different = {
        "method": Method("other", preserves={"PFL": 0.5}, quiet=None),
        "epochs": 3,
        "learning_rate": 2e-3,
        "batch_size": 9,
        "seed": 1,
        "decay": "half",
        "coarse": 0.5,
        "trigger_batch_size": 5,
        "augment": True,
        "weights": (("PFL", 0.6),),
        "quiet": 0.1,
        "optimizer": "sgd",
        "trains_norm": True,
    }
    fields = {field.name for field in dataclasses.fields(Plan)}
    assert fields == different.keys() | {"weight_decay", "precision"}
    keys = [plan(**{name: value}).key() for name, value in different.items()]
    keys.append(plan(optimizer="sgd", weight_decay=1e-4).key())
    texts = {json.dumps(key, sort_keys=True) for key in [plan().key(), *keys]}
    assert len(texts) == len(keys) + 1
    assert plan(precision=torch.bfloat16).key() == plan().key()
    assert json.loads(json.dumps(plan().key())) == plan().key()


def test_the_key_is_silent_on_what_came_after_models_were_released():
    assert plan().key().keys() == {
        *("method", "epochs", "learning_rate", "batch_size", "seed", "decay"),
        *("coarse", "trigger_batch_size", "augment", "weights", "quiet"),
    }


def test_the_key_has_the_text_of_terms_of_ones_own():
    def scaled(factor):
        return lambda step: factor * step.logits.sum()

    keys = [
        plan(
            method=Method("mine", preserves={scaled(factor): 1.0}),
            weights=(("<lambda>", 1.0),),
        ).key()
        for factor in (2, 2, 3)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_hosts_key_knows_of_no_triggers():
    key = Plan.of(HOST, RECIPE, seed=0).key()
    other = dataclasses.replace(RECIPE, trigger_batch_size=99)
    assert key == Plan.of(HOST, other, seed=0).key()
    assert "trigger" not in json.dumps(key)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0; use 1 or more"),
        ({"batch_size": 0}, "batch_size is 0; use 1 or more"),
        ({"trigger_batch_size": 0}, "trigger_batch_size is 0; use 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"decay": "cosin"}, "use one of constant, half, steps, cosine, linear"),
        ({"optimizer": "SGD"}, "optimizer is 'SGD'; use one of adam, sgd"),
        ({"weight_decay": 1e-4}, "weight_decay is 0.0001 with adam; it is 0 or more"),
        ({"optimizer": "sgd", "weight_decay": -1.0}, "weight_decay is -1 with sgd"),
        ({"optimizer": "sgd", "quiet": 0.1}, "quiet is 0.1 with sgd"),
        ({"coarse": -0.1}, r"use a share in \[0, 1\)"),
        ({"coarse": 1.0}, r"use a share in \[0, 1\)"),
        ({"weights": ()}, r"weights are \(\), but mine preserves PFL"),
        ({"method": Method("mine")}, "but mine preserves nothing"),
        (
            {"method": Method("mine", preserves={"PFL": 1.0}, quiet=0.1)},
            "quiet is 0.0, the method's 0.1",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        plan(**settings)


def test_a_schedule_may_have_steps_and_an_optimizer_of_its_own():
    schedule = Schedule(2, 0.1, "linear", images=64, optimizer="sgd", weight_decay=5e-4)
    how = dataclasses.replace(RECIPE, schedules=RECIPE.schedules | {"host": schedule})
    setup = Plan.of(HOST, how, seed=0)
    assert (setup.batch_size, setup.optimizer, setup.weight_decay) == (64, "sgd", 5e-4)
    assert Plan.of(METHODS["FTAL"], how, seed=0).batch_size == 32


def test_a_schedule_that_makes_no_sense_is_refused():
    wrong = dataclasses.replace(
        RECIPE, schedules={"from host": Schedule(1, 1e-3, triggers=-1)}
    )
    with pytest.raises(ValueError, match="trigger_batch_size is -1; use 1 or more"):
        Plan.of(METHODS["FTAL"], wrong, seed=0)


def test_rates_decay_as_they_say():
    assert plan(decay="constant").rate(0.99) == 1e-3
    half = plan(decay="half", learning_rate=1.0)
    assert (half.rate(0.49), half.rate(0.5)) == (1, 0.1)
    cosine = plan(learning_rate=1.0).rate
    assert 0 < cosine(0) < cosine(0.05) < cosine(0.1) == 1
    assert cosine(0.55) == pytest.approx(0.5)
    assert cosine(0.999) < 1e-4
    linear = plan(decay="linear", learning_rate=1.0).rate
    assert [linear(x) for x in (0.05, 0.1, 0.55)] == pytest.approx([0.5, 1, 0.5])
    assert 0 < linear(0) < linear(0.999) * 10 < 0.1


PUBLISHED = [  # paper: data set, method, epochs, learning rate, decay
    ("mnist", "host", 20, 1e-3, "half"),
    ("mnist", "scratch", 20, 1e-3, "half"),
    ("mnist", "FTAL", 20, 1e-4, "constant"),
    ("mnist", "FTLL", 20, 1e-4, "constant"),
    ("mnist", "FTAL+PGR", 20, 1e-4, "constant"),
    ("mnist", "FTAL+TWL", 50, 1e-4, "half"),
    ("mnist", "FixLL+PFL", 50, 1e-4, "half"),
    ("cifar10", "host", 50, 1e-3, "half"),
    ("cifar10", "FTAL", 50, 1e-4, "constant"),
    ("cifar10", "FixLL+SPL", 50, 1e-4, "half"),
    ("cifar100", "scratch", 100, 1e-3, "half"),
    ("cifar100", "FTLL", 50, 1e-4, "constant"),
    ("cifar100", "FixLL", 50, 1e-4, "half"),
]


@pytest.mark.parametrize(("dataset", "name", "epochs", "rate", "decay"), PUBLISHED)
def test_the_papers_recipes_are_published(dataset, name, epochs, rate, decay):
    method = HOST if name == "host" else METHODS[name]
    assert recipe(dataset) == recipe(dataset, "paper")
    result = Plan.of(method, recipe(dataset), seed=0)
    assert (result.epochs, result.learning_rate, result.decay) == (epochs, rate, decay)
    assert result.batch_size == 32
    assert result.trigger_batch_size == (0 if name == "host" else 4)
    published = {"TWL": 0.01, "PGR": 0.1, "PFL": 0.01, "SPL": 1000}
    assert result.weights == tuple((n, published[n]) for n in method.preserves)
    assert (result.quiet, result.coarse) == (0, 0)
    assert result.augment == (dataset != "mnist")


@pytest.mark.parametrize("scale", ["minutes", "sweep", "smoke", "proof", "hours"])
@pytest.mark.parametrize("name", [*METHODS, "host"])
def test_every_scale_has_a_plan_for_every_method(scale, name):
    method = HOST if name == "host" else METHODS[name]
    assert Plan.of(method, recipe("mnist", scale), seed=0).epochs >= 1
    assert Plan.of(method, recipe("mnist", scale).with_epochs(5), seed=0).epochs == 5


@pytest.mark.parametrize("scale", ["gpu", "hours"])
@pytest.mark.parametrize("name", [*METHODS, "host"])
def test_cifar100_has_a_plan_for_every_method(scale, name):
    method = HOST if name == "host" else METHODS[name]
    result = Plan.of(method, recipe("cifar100", scale), seed=0)
    assert (result.optimizer == "sgd") == (result.learning_rate > 0.01)
    assert 50_000 % result.batch_size == 0 or scale == "hours"


def test_recipe_names_the_scales_there_are():
    assert recipe("own.npz") == recipe("digits", "minutes")
    with pytest.raises(ValueError, match="minutes, sweep, smoke, proof, paper, hours"):
        recipe("mnist", "huge")
