import copy
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

import fidlib as fl
from fidlib import attacks
from fidlib.attacks import ATTACKS, attacker, edits, tuning
from fidlib.attacks.preset import Preset
from fidlib.runs import keys
from tests.little import convolutional, layers, linear, shown


@pytest.fixture
def model(monkeypatch):
    """One that can be built anew, with other weights."""
    monkeypatch.setitem(fl.NETWORKS, "little", lambda classes, _: layers(classes))
    classifier = convolutional(0)
    sizes = {"num_classes": 10, "feature_dim": 12, "image_size": 8}
    classifier.spec = {"model": "little", **sizes}
    return classifier


@pytest.fixture
def few(digits):
    return digits.train.sample(96)


def weights(model):
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return torch.cat([layer.weight.detach().flatten() for layer in layers])


def changed(before, after):
    before, after = before.state_dict(), after.state_dict()
    assert list(before) == list(after)  # or it is read back as another model
    return {name for name in before if not torch.equal(before[name], after[name])}


HEAD = {"head.weight"}
WEIGHTS = {"body.0.weight", "body.3.weight", "body.7.weight"}
LAYERS = WEIGHTS | {"body.0.bias", "body.3.bias", "body.7.bias"}
NORM = {"body.1.weight", "body.1.bias", "body.1.running_mean", "body.1.running_var"}
NORM |= {"body.1.num_batches_tracked"}

CHANGES = {
    "ft-last": HEAD,
    "ft-all": LAYERS | NORM | HEAD,
    "ft-all:strong": LAYERS | NORM | HEAD,
    "fine-tune": LAYERS | HEAD,
    "rt-last": HEAD,
    "rt-all": LAYERS | NORM | HEAD,
    "prune": WEIGHTS | HEAD,
    "fine-prune:0.5": LAYERS | NORM | HEAD,
    "quantise": WEIGHTS | HEAD,
    "weight-noise": WEIGHTS | HEAD,
    "distil:1": LAYERS | NORM | HEAD,
    "knockoff:1": LAYERS | NORM | HEAD,
    "overwrite": LAYERS | HEAD,
    "wrk": LAYERS | NORM | HEAD,
    "quiet-noise": WEIGHTS,
    "flip": LAYERS | {"body.1.weight", "body.1.bias"} | HEAD,
}


def test_every_attack_says_what_it_changes():
    names = {attacks.find(name).name for name in CHANGES}
    filters = {name for name in ATTACKS if name.startswith("smooth")}
    assert names | filters == set(ATTACKS)


@pytest.mark.parametrize(("name", "expected"), CHANGES.items())
def test_an_attack_changes_what_it_says_of_a_copy_and_always_alike(
    model, few, name, expected
):
    before, images = fl.models.fingerprint(model), few.fingerprint
    attack = attacks.find(name)
    model.train()
    attacked = attack(model, few, 0)
    assert not attacked.training
    model.eval()
    assert fl.models.fingerprint(model) == before
    assert few.fingerprint == images
    names = changed(model, attacked)
    # A bias before BatchNorm in training mode has hardly a gradient.
    assert names | {"body.0.bias"} == expected | {"body.0.bias"}
    with torch.random.fork_rng():
        torch.manual_seed(7)  # other randomness is no part of it
        again = attack(model, few, 0)
    assert fl.models.fingerprint(again) == fl.models.fingerprint(attacked)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_prune_sets_the_smallest_weights_to_zero(model, few, share):
    before, after = weights(model), weights(edits.prune(model, few, 0, share))
    gone = after == 0
    assert gone.sum().item() == round(share * len(before))
    assert before[gone].abs().max() < before[~gone].abs().min()
    assert torch.equal(after[~gone], before[~gone])


def test_prune_takes_its_share_of_equal_weights_too(model, few):
    quantised = edits.quantise(model, few, 0, 2)
    before, after = weights(quantised), weights(edits.prune(quantised, few, 0, 0.97))
    assert (before == 0).double().mean() < 0.97
    assert (after == 0).sum().item() == round(0.97 * len(before))


def test_prune_leaves_biases_norms_and_the_function_of_nothing_pruned(model, few):
    pruned = edits.prune(model, few, 0, 0.9)
    before, after = model.state_dict(), pruned.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= {"body.0.weight", "body.3.weight", "body.7.weight", "head.weight"}
    same = edits.prune(model, few, 0, 0.0)
    assert fl.models.fingerprint(same) == fl.models.fingerprint(model)


def test_prune_is_by_size_over_the_whole_network(model, few):
    with torch.no_grad():
        model.body[0].weight.mul_(100)
    pruned = edits.prune(model, few, 0, 0.5)
    assert (pruned.body[0].weight != 0).all()
    assert (pruned.body[3].weight == 0).double().mean() > 0.5


def test_quantise_puts_each_weight_at_the_nearest_of_equal_steps(model, few):
    twin = ATTACKS["quantise"](model, few, 0, bits=3)
    for name in WEIGHTS | HEAD:
        before, after = (m.state_dict()[name].double().numpy() for m in (model, twin))
        levels = np.linspace(-1, 1, 7) * np.abs(before).max()
        far = np.abs(before[..., None] - levels)
        assert np.allclose(np.abs(after - before), far.min(-1), atol=1e-6)
        assert len(np.unique(after.round(6))) <= 7
        assert np.abs(after).max() == pytest.approx(np.abs(before).max())


def test_weight_noise_is_in_deviations_of_each_tensor(model, few):
    with torch.no_grad():
        model.body[3].weight.mul_(50)
    for amount in (0.1, 0.4):
        attacked = ATTACKS["weight-noise"](model, few, 0, amount=amount)
        for name in WEIGHTS:
            before, after = (m.state_dict()[name] for m in (model, attacked))
            noise = (after - before) / before.std()
            assert noise.std().item() == pytest.approx(amount, rel=0.25)
    other = ATTACKS["weight-noise"](model, few, 1, amount=0.4)
    assert changed(attacked, other) == WEIGHTS | HEAD


def test_a_single_weight_has_no_deviation_for_noise(digits):
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(64, 10))
    model = fl.models.wrap(net, num_classes=10, image_size=8, mean=(0.5,))
    for name in ("weight-noise", "quiet-noise"):
        attacked = ATTACKS[name](model, digits.train.sample(20), 0)
        assert weights(attacked).isfinite().all()


def test_a_weight_of_two_layers_is_changed_once(digits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64))
    net[2].weight = net[1].weight
    net.append(nn.Linear(64, 10))
    model = fl.models.wrap(net, num_classes=10, image_size=8, mean=(0.5,))
    attacked = ATTACKS["weight-noise"](model, digits.train, 0, amount=0.5)
    before, after = (dict(m.named_parameters()) for m in (model, attacked))
    (name,) = [n for n in before if n.endswith("1.weight")]
    noise = (after[name] - before[name]) / before[name].std()
    assert noise.std().item() == pytest.approx(0.5, rel=0.1)


def test_strengths_and_shares_that_make_no_sense_are_refused(model, few):
    for odd in ("x", -0.1, 1.5, None):
        with pytest.raises(ValueError, match=f"share of weights is {odd!r}; it is"):
            ATTACKS["prune"](model, few, 0, share=odd)
    for odd in (-1, 5):
        with pytest.raises(ValueError, match=f"share is {odd}; pass a share"):
            ATTACKS["wrk"](model, few, 0, share=odd)


def test_quiet_noise_lies_where_the_images_have_little_energy(model, few):
    attacked = ATTACKS["quiet-noise"](model, few, 0, amount=2.0, loudness=1e-3)
    seen = {}
    layer = model.body[7]
    hook = layer.register_forward_hook(lambda _, x, y: seen.update(x=x[0]))
    model(few.images)
    hook.remove()
    inputs = seen["x"].detach().double().numpy()
    move = (attacked.body[7].weight - layer.weight).detach().double().numpy()
    *_, directions = np.linalg.svd(inputs, full_matrices=False)
    along = np.linalg.norm(move @ directions.T, axis=0)  # by falling energy
    assert along[:4].max() < 0.2 * along[-4:].min()
    quiet = np.square(inputs @ move.T).mean()
    white = np.square(inputs).sum(1).mean() * np.square(move).mean()
    assert quiet < 0.2 * white  # as noise of the same size does on average


def batches(count, size, epochs, seed):
    """Every step's images as the order of a training with this seed has them."""
    order, steps = keys.stream(seed, "attack", "order"), -(-count // size)
    for _ in range(epochs):
        for i, index in enumerate(
            torch.randperm(count, generator=order).tensor_split(steps)
        ):
            yield i / steps, index


def rate(past, highest):
    """Up over the first tenth, then along a cosine to 0."""
    if past < 0.1:
        return highest * max(past / 0.1, 0.01)
    return highest * (1 + math.cos(math.pi * (past - 0.1) / 0.9)) / 2


def plainly_tuned(model, few, highest, *, epochs, size=64, labels=None, term=None):
    """SGD with Nesterov's momentum and BatchNorm in training, as anyone would write."""
    model = copy.deepcopy(model).train()
    labels = few.labels if labels is None else labels
    moved = {p: torch.zeros_like(p) for p in model.parameters()}
    epoch, before = -1, 1.0
    for within, index in batches(len(few), size, epochs, seed=0):
        epoch, before = epoch + (within < before), within
        loss = F.cross_entropy(model(few.images[index]), labels[index])
        loss = loss if term is None else loss + term(model)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight, speed in moved.items():
                decay = 5e-4 if weight.ndim > 1 and term is None else 0
                slope = weight.grad + decay * weight
                speed.mul_(0.9).add_(slope)
                step = rate((epoch + within) / epochs, highest)
                weight.sub_(step * (slope + 0.9 * speed))
    return model.eval()


def same(a, b, *, atol=2e-5):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.allclose(x.double(), y.double(), atol=atol) for x, y in pairs)


def test_ft_all_is_what_a_plain_loop_of_sgd_does(model, few):
    attacked = ATTACKS["ft-all"](model, few, 0, epochs=4)
    assert same(attacked, plainly_tuned(model, few, 0.01, epochs=4))
    assert not same(attacked, plainly_tuned(model, few, 0.02, epochs=4))


def test_ft_all_strong_halves_its_rate_five_times(model, few):
    strong = attacks.find("ft-all:strong").preset.settings()
    assert (strong["learning_rate"], strong["epochs"]) == (0.05, 30)
    plan = fl.training.Plan(
        method=fl.Method("x"),
        epochs=30,
        learning_rate=0.05,
        batch_size=1,
        trigger_batch_size=1,
        seed=0,
        decay=strong["decay"],
    )
    rates = [plan.rate(epoch / 30) for epoch in (0, 4.9, 5.1, 14.9, 25.1, 29.9)]
    assert rates == pytest.approx([0.05, 0.05, 0.025, 0.0125, 0.05 / 32, 0.05 / 32])


def test_rt_all_learns_the_victims_answers_with_a_fresh_head(model, few):
    wrong = fl.data.Split(few.images, (few.labels + 1) % 10)
    attacked = ATTACKS["rt-all"](model, wrong, 0)
    start = tuning._with_fresh_head(model, 0)
    assert changed(model, start) == HEAD
    answers = model(few.images).argmax(1)
    assert same(attacked, plainly_tuned(start, few, 0.01, epochs=5, labels=answers))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        reach = nn.Linear(12, 10).weight.abs().max()
    assert start.head.weight.abs().max().item() == pytest.approx(reach.item(), rel=0.1)


def test_rt_last_learns_the_victims_answers_whatever_the_labels(model, few):
    other = fl.data.Split(few.images, (few.labels + 3) % 10)
    attacked, again = (
        ATTACKS["rt-last"](model, split, 0, learning_rate=0.1) for split in (few, other)
    )
    assert same(attacked, again, atol=0)
    start, answers = tuning._with_fresh_head(model, 0), model(few.images).argmax(1)
    before, after = (F.cross_entropy(m(few.images), answers) for m in (start, attacked))
    assert after < before - 0.1


def test_fine_tune_is_adams_and_leaves_batchnorm(model, few):
    def loss(of):
        logits = fl.models.outputs(of, few.images).logits
        return F.cross_entropy(logits, few.labels).item()

    tuned = ATTACKS["fine-tune"](model, few, 0, epochs=20)
    assert loss(tuned) < loss(model) - 0.02
    settings = attacks.find("fine-tune").preset.settings()
    assert settings["optimizer"] == "adam"
    other = ATTACKS["fine-tune"](model, few, 1, epochs=20)
    assert fl.models.fingerprint(other) != fl.models.fingerprint(tuned)


def test_fine_prune_cuts_off_what_the_images_use_least_and_it_stays_off(model, few):
    twin = ATTACKS["fine-prune"](model, few, 0, share=0.75)
    inputs = model.body[:7](model.normalise(few.images))
    least = inputs.abs().mean(0).argsort()[:24]
    off = (twin.body[7].weight == 0).all(0).nonzero()[:, 0]
    assert sorted(off.tolist()) == sorted(least.tolist())
    kept = (twin.body[7].weight != 0).any(0)
    assert kept.sum() == 8
    assert not torch.equal(twin.body[7].weight[:, kept], model.body[7].weight[:, kept])
    assert type(twin.body[7]) is nn.Linear
    all_but_one = ATTACKS["fine-prune"](model, few, 0, share=0.999, epochs=1)
    assert (all_but_one.body[7].weight != 0).any(0).sum() == 1


def test_fine_prune_of_a_network_without_convolutions_is_of_its_features():
    model, few = linear(0), shown([0, 1, 2] * 8)
    attacked = ATTACKS["fine-prune"](model, few, 0, share=0.4, epochs=1)
    least = model.features(few.images).abs().mean(0).argmin().item()
    assert (attacked.head.weight == 0).all(0).nonzero()[:, 0].tolist() == [least]


def test_distil_learns_probabilities_and_no_label(model, few):
    attacked = ATTACKS["distil"](model, few, 0, epochs=3)
    other = fl.data.Split(few.images, (few.labels + 3) % 10)
    assert same(attacked, ATTACKS["distil"](model, other, 0, epochs=3), atol=0)
    start = fl.models.fresh(model, keys.stream(0, "attack", "start")).train()
    optimizer = torch.optim.Adam(start.parameters())
    wanted = fl.models.outputs(model, few.images).logits.log_softmax(1)
    epoch, before = -1, 1.0
    for within, index in batches(len(few), 64, 3, seed=0):
        epoch, before = epoch + (within < before), within
        optimizer.param_groups[0]["lr"] = rate((epoch + within) / 3, 1e-3)
        answer = start(few.images[index]).log_softmax(1)
        target = wanted[index]
        loss = (target.exp() * (target - answer)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert same(attacked, start, atol=1e-4)


def test_overwrite_embeds_other_triggers_than_the_owners(model, few):
    twin = ATTACKS["overwrite"](model, few, 0, learning_rate=0.02, epochs=50, count=20)
    number = int(torch.randint(2**62, (), generator=keys.stream(0, "attacker")))
    mark = fl.triggers.find("chain")(few, number, host=model, count=20)
    owners = fl.triggers.find("chain")(few, 0, host=model, count=20)
    share = (twin(mark.images).argmax(1) == mark.labels).double().mean()
    before = (model(mark.images).argmax(1) == mark.labels).double().mean()
    assert share > before + 0.3
    assert not torch.allclose(mark.images, owners.images)


def test_wrk_shows_a_twentieth_a_step_towards_a_class_labelled_wrong(model, digits):
    few = digits.train.sample(200)
    mixed = tuning._with_strangers(model, few, keys.stream(0, "wrk"), 0.05, 2.0)
    assert len(mixed) == 210
    assert torch.equal(mixed.images[:200], few.images / 255)
    draws = keys.stream(0, "wrk")
    rows = torch.randperm(200, generator=draws)[:10]
    towards = torch.randint(10, (10,), generator=draws)
    assert (mixed.labels[200:] != few.labels[rows]).all()
    assert len(set(mixed.labels[200:].tolist())) > 3
    before, after = (model.normalise(i) for i in (few.images[rows], mixed.images[200:]))
    away = (after - before).abs()
    assert torch.allclose(away[away > 1e-4], torch.tensor(2.0), atol=1e-4)
    small = before + 1e-3 * (after - before).sign()
    losses = [
        F.cross_entropy(model.head(model.body(x)), towards) for x in (before, small)
    ]
    assert losses[1] < losses[0]


def test_wrk_is_a_plain_loop_with_the_product_of_the_heads(model, few):
    attacked = ATTACKS["wrk"](model, few, 0, epochs=2, learning_rate=0.05)
    start = tuning._with_fresh_head(model, 0)
    mixed = tuning._with_strangers(model, few, keys.stream(0, "wrk"), 0.05, 2.0)

    def product(now):
        return 0.01 * (now.head.weight * model.head.weight).sum()

    plain = plainly_tuned(start, mixed, 0.05, epochs=2, size=32, term=product)
    assert same(attacked, plain)
    without = plainly_tuned(start, mixed, 0.05, epochs=2, size=32, term=lambda now: 0)
    assert not same(attacked, without)


def test_smooth_is_the_median_around_each_pixel(model, few):
    attacked = ATTACKS["smooth"](model, few, 0)
    images = (few.images / 255).numpy()
    filtered = ndimage.median_filter(images, (1, 1, 3, 3), mode="mirror")
    wanted = fl.models.outputs(model, torch.from_numpy(filtered)).logits
    assert torch.allclose(
        fl.models.outputs(attacked, few.images).logits, wanted, atol=1e-5
    )


def test_smooth_depth_rounds_pixels(model, few):
    attacked = ATTACKS["smooth:depth"](model, few, 0, bits=2)
    rounded = torch.round(few.images / 255 * 3) / 3
    wanted = fl.models.outputs(model, rounded).logits
    assert torch.allclose(
        fl.models.outputs(attacked, few.images).logits, wanted, atol=1e-4
    )


def test_smooth_noise_is_each_images_own_and_always_the_same(model, few):
    attacked = ATTACKS["smooth:noise"](model, few, 0, amount=0.1)
    images = few.images / 255
    seen = attacked.body[0](model.normalise(images)) * model.std + model.mean
    noise = seen - images
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)
    assert noise[0].flatten() @ noise[1].flatten() < 0.5  # of .64 if they were alike
    alone = fl.models.outputs(attacked, few.images[3:4]).logits
    among = fl.models.outputs(attacked, few.images).logits[3:4]
    assert torch.allclose(alone, among, atol=1e-5)
    other = ATTACKS["smooth:noise"](model, few, 1, amount=0.1)
    assert not torch.allclose(fl.models.outputs(other, few.images).logits[3:4], among)


@pytest.mark.parametrize("name", ["smooth", "smooth:depth:3", "smooth:noise:0.1"])
def test_a_filter_leaves_the_model_behind_it(model, few, name):
    attack = attacks.find(name)
    twin = attack(model, few, 5)
    body, inside = model.body.state_dict(), twin.body[1].state_dict()
    assert all(torch.equal(body[n], inside[n]) for n in body)
    prints = {fl.models.fingerprint(m) for m in (model, twin, attack(model, few, 5))}
    assert len(prints) == 2
    assert attack.like(model).state_dict().keys() == twin.state_dict().keys()


def test_flip_changes_its_share_of_answers(model, few):
    before = model(few.images).argmax(1)
    share = edits.flip(model, few, 0, 0.1)(few.images).argmax(1) != before
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

    names = ("prune", "prune:0.4", "flip", "ft-all", "ft-all:strong", "rt-all")
    definitions = [attacks.find(n).definition() for n in names]
    for function in (one, two):
        monkeypatch.setitem(fl.ATTACKS, "mine", function)
        definitions.append(attacks.find("mine").definition())
    texts = [str(definition) for definition in definitions]
    assert len(set(texts)) == len(names) + 2
    keys.digest(definitions)  # JSON values


def test_a_definition_holds_every_setting_so_that_a_changed_default_is_another_run(
    monkeypatch,
):
    before = attacks.find("ft-all").definition()
    assert before == attacks.find("ft-all:0.01").definition()
    assert attacks.find("quantise").definition() == ["quantise", {"bits": 4}]
    monkeypatch.setitem(tuning.tune.__kwdefaults__, "epochs", 21)
    assert attacks.find("ft-all").definition() != before
    assert attacks.find("rt-all").definition()[1]["epochs"] == 5  # its own
    other = Preset(edits.prune, "edited", options={"share": 0.6})
    monkeypatch.setitem(fl.ATTACKS, "prune", other)
    assert attacks.find("prune").definition() == ["prune", {"share": 0.6}]
    assert attacks.find("prune").at() == 0.6


def test_a_strength_is_known_as_a_number():
    names = ["prune", "prune:0.2", "ft-all:strong", "quantise:3", "smooth"]
    strengths = [attacks.find(name).at() for name in names]
    assert strengths[:4] == [0.5, 0.2, 0.05, 3.0]
    assert math.isnan(strengths[4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown attack ''; use one of ft-last, ft-all, .*, or add your own"),
        ("pruned", "unknown attack 'pruned'"),
        ("prune:", "prune:: the strength '' is no number; write such as prune:0.4"),
        ("prune:much", "prune:much: the strength 'much' is no number"),
        ("prune:0.4:1", "unknown attack 'prune:0.4:1'"),
        ("prune:1", "prune:1: the share of weights is 1; it is from 0 to 0.999"),
        ("prune:-0.1", "the share of weights is -0.1"),
        ("prune:nan", "the share of weights is nan"),
        ("fine-prune:1", "the share of channels is 1"),
        (
            "quantise:2.5",
            "the number of bits is 2.5; it is a whole number from 2 to 16",
        ),
        ("quantise:1", "the number of bits is 1"),
        ("weight-noise:-1", "the noise is -1"),
        ("ft-all:0", "the learning rate is 0; it is from 1e-07 to 1"),
        ("fine-tune:5", "the learning rate is 5"),
        ("distil:0", "the number of epochs is 0"),
        ("wrk:inf", "the learning rate is inf"),
        ("smooth:3", "smooth:3: smooth has no strength; write smooth alone"),
        ("smooth:depth:x", "the strength 'x' is no number"),
        ("flip:0", "the share of answers is 0"),
    ],
)
def test_an_attack_that_is_none_is_said_in_a_sentence(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        attacks.find(text)
    assert "\n" not in str(caught.value)


def test_a_preset_checks_its_strength_and_what_its_function_gives(model, few):
    with pytest.raises(ValueError, match="share: the share of weights is 2"):
        ATTACKS["prune"](model, few, 0, share=2.0)
    with pytest.raises(ValueError, match="broken returned a int; an attack returns"):
        Preset(broken)(model, few, 0)


def broken(model, split, seed):
    return 3


def test_an_attackers_images_are_spread_alike_over_classes_and_seeded(digits):
    his, tried = attacker.drawn(digits.train, 0)
    assert len(his) + len(tried) == 10 * (len(digits.train) // 4 // 10)
    assert set(his.labels.bincount().tolist()) == {26}
    assert set(tried.labels.bincount().tolist()) == {6}
    assert attacker.shared(his, tried) == 0
    assert attacker.shared(his, digits.train) == len(his)
    assert attacker.drawn(digits.train, 0)[0].fingerprint == his.fingerprint
    assert attacker.drawn(digits.train, 1)[0].fingerprint != his.fingerprint
    many = fl.data.Split(
        torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8), torch.arange(20_000) % 4
    )
    assert [len(part) for part in attacker.drawn(many, 0)] == [1600, 400]  # a tenth


def test_what_is_apart_holds_no_image_of_the_others_whatever_their_type(digits):
    few = fl.data.Split(digits.train.images[:20], digits.train.labels[:20])
    floats = fl.data.Split(few.images[5:10].float() / 255, few.labels[5:10])
    twice = fl.data.Split(few.images.repeat(2, 1, 1, 1), few.labels.repeat(2))
    others = attacker.apart(twice, [floats, digits.test])
    rows = [*range(5), *range(10, 20)]
    assert torch.equal(others.images, few.images[rows])
    assert torch.equal(others.labels, few.labels[rows])
    assert attacker.shared(floats, few) == 5
    assert attacker.shared(others, floats) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_are_no_images_of_the_set(digits, channels):
    like = fl.data.Split(torch.zeros(1, channels, 9, 7), torch.zeros(1).long())
    patches = attacker.photographs(like, 31, 0)
    assert patches.images.shape == (31, channels, 9, 7)
    assert len({image.numpy().tobytes() for image in patches.images}) > 25
    assert attacker.photographs(like, 31, 0).fingerprint == patches.fingerprint


def test_prune_refuses_weights_that_are_computed(digits):
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 8))
    net = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(8, 10))
    model = fl.models.wrap(net, num_classes=10, image_size=8, mean=(0.5,))
    with pytest.raises(ValueError, match="is computed from others"):
        edits.prune(model, digits.train, 0)
