import math

import pytest
import torch
from torch import nn

import fidlib as fl
from fidlib import attacks
from fidlib.runs import keys
from tests.little import convolutional


@pytest.fixture
def model():
    return convolutional(0)


@pytest.fixture
def few(digits):
    return digits.train.sample(96)


def weights(model):
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return torch.cat([layer.weight.detach().flatten() for layer in layers])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_prune_sets_the_smallest_weights_to_zero(model, few, share):
    before, after = weights(model), weights(attacks.prune(model, few, 0, share))
    gone = after == 0
    assert gone.sum().item() == round(share * len(before))
    assert before[gone].abs().max() < before[~gone].abs().min()
    assert torch.equal(after[~gone], before[~gone])


def test_prune_leaves_biases_norms_and_the_function_of_nothing_pruned(model, few):
    pruned = attacks.prune(model, few, 0, 0.9)
    before, after = model.state_dict(), pruned.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= {"body.0.weight", "body.3.weight", "body.7.weight", "head.weight"}
    same = attacks.prune(model, few, 0, 0.0)
    assert fl.models.fingerprint(same) == fl.models.fingerprint(model)


def test_prune_is_by_size_over_the_whole_network(model, few):
    with torch.no_grad():
        model.body[0].weight.mul_(100)
    pruned = attacks.prune(model, few, 0, 0.5)
    assert (pruned.body[0].weight != 0).all()
    assert (pruned.body[3].weight == 0).double().mean() > 0.5


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, math.nan])
def test_prune_refuses_what_is_no_share(model, few, share):
    with pytest.raises(ValueError, match=r"prune:.*: the share .* in \[0, 1\)"):
        attacks.prune(model, few, 0, share)


@pytest.mark.parametrize("name", ["fine-tune:1", "flip:0.1", "prune:0.4"])
def test_an_attack_changes_a_copy_alone(model, few, name):
    before, images = fl.models.fingerprint(model), few.fingerprint
    attack = attacks.find(name)
    model.train()
    attacked = attack(model, few, 0)
    assert not attacked.training
    model.eval()
    assert fl.models.fingerprint(model) == before
    assert fl.models.fingerprint(attacked) != before
    assert few.fingerprint == images
    again = attack(model, few, 0)
    assert fl.models.fingerprint(again) == fl.models.fingerprint(attacked)


def test_fine_tune_learns_the_attackers_labels_and_leaves_batchnorm(model, few):
    def loss(of):
        logits = fl.models.outputs(of, few.images).logits
        return nn.functional.cross_entropy(logits, few.labels).item()

    tuned = attacks.fine_tune(model, few, 0, 20)
    assert loss(tuned) < loss(model) - 0.02
    before, after = model.state_dict(), tuned.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    own = {name for name in before if name.startswith("body.1.")}
    assert same == own | {"mean", "std"}  # all layers but the BatchNorm
    longer = attacks.fine_tune(model, few, 0, 30)
    assert loss(longer) < loss(tuned)
    other = attacks.fine_tune(model, few, 1, 20)
    assert fl.models.fingerprint(other) != fl.models.fingerprint(tuned)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, math.inf, math.nan])
def test_fine_tune_refuses_what_are_no_epochs(model, few, epochs):
    with pytest.raises(ValueError, match=r"fine-tune:.*: name a whole number"):
        attacks.fine_tune(model, few, 0, epochs)


def test_flip_changes_its_share_of_answers(model, few):
    before = model(few.images).argmax(1)
    share = attacks.flip(model, few, 0, 0.1)(few.images).argmax(1) != before
    assert 0.1 <= share.double().mean() < 0.5


def test_a_strength_is_given_to_the_function_and_a_default_is_not(monkeypatch, model):
    given = []

    def mine(model, split, seed, strength="its own"):
        given.append((seed, strength))
        return model

    monkeypatch.setitem(fl.ATTACKS, "mine", mine)
    attacks.find("mine")(model, None, 7)
    attacks.find("mine:0.25")(model, None, 8)
    assert given == [(7, "its own"), (8, 0.25)]
    assert str(attacks.find("mine:0.25")) == "mine:0.25"
    assert str(attacks.find("mine")) == "mine"
    assert attacks.find("mine:1e-3").strength == 0.001


def test_a_definition_changes_with_name_strength_and_text(monkeypatch):
    def one(model, split, seed):
        return model

    def two(model, split, seed):
        return model.eval()

    found = [attacks.find(n).definition() for n in ("prune", "prune:0.5", "flip")]
    for function in (one, two):
        monkeypatch.setitem(fl.ATTACKS, "mine", function)
        found.append(attacks.find("mine").definition())
    texts = [str(definition) for definition in found]
    assert len(set(texts)) == 5
    keys.digest(found)  # JSON values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown attack ''; use one of fine-tune, flip, prune, or add your own"),
        ("pruned", "unknown attack 'pruned'"),
        ("prune:", "prune:: the strength '' is no number; write such as prune:0.4"),
        ("prune:much", "prune:much: the strength 'much' is no number"),
        ("prune:0.4:1", "the strength '0.4:1' is no number"),
    ],
)
def test_an_attack_that_is_none_is_said_in_a_sentence(text, message):
    with pytest.raises(ValueError, match=message):
        attacks.find(text)


def test_prune_refuses_weights_that_are_computed(digits):
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 8))
    net = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(8, 10))
    model = fl.models.wrap(net, num_classes=10, image_size=8, mean=(0.5,))
    with pytest.raises(ValueError, match="is computed from others"):
        attacks.prune(model, digits.train, 0)
