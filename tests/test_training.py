import copy
import dataclasses
import math

import pytest
import torch

from fidlib import data, models, training
from fidlib.methods import METHODS, Method, find
from fidlib.networks import NETWORKS
from fidlib.runs import keys
from fidlib.training import HOST, Diverged, Plan, Recipe, Schedule, recipe
from fidlib.training.loop import Objective

QUICK = Recipe(
    batch_size=32,
    trigger_batch_size=10,
    augment=False,
    quiet=0.02,
    weights={"default": {"TWL": 0.01, "PGR": 0.1, "PFL": 0.02, "SPL": 2.0}},
    schedules={
        "from random": Schedule(2, 2e-3, "cosine"),
        "from host": Schedule(2, 2e-3, "cosine"),
    },
)


SGD = Schedule(2, 0.05, "linear", optimizer="sgd", weight_decay=0.02)


@pytest.fixture
def few(digits):
    return data.Split(digits.train.images[:128], digits.train.labels[:128])


@pytest.fixture
def secret():
    generator = torch.Generator().manual_seed(0)
    return data.Split(torch.rand(10, 1, 8, 8, generator=generator), torch.arange(10))


@pytest.fixture
def built(digits, monkeypatch):
    """Makes a network a classifier that can be built anew, with other weights."""

    def build(network):
        def anew(num_classes, feature_dim):
            twin = copy.deepcopy(network)
            for layer in twin.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
            return twin

        monkeypatch.setitem(NETWORKS, "mine", anew)
        shown = {"image_size": 8, "mean": digits.mean, "std": digits.std}
        model = models.build("mine", num_classes=10, feature_dim=16, **shown)
        model.load_state_dict(models.wrap(network, **shown).state_dict())
        return model

    return build


def fit(model, images, recipe=QUICK, *, seed=0, **options):
    """A host, trained in place from the given model."""
    return training.train(model, Plan.of(HOST, recipe, seed=seed), images, **options)


def by_sgd(schedule=SGD):
    return dataclasses.replace(QUICK, schedules={"from random": schedule})


def embed(host, method, few, secret, recipe=QUICK, *, seed=0, **options):
    """A marked model, with the method's start."""
    method = find(method)
    precision = options.pop("precision", torch.float32)
    plan = Plan.of(method, recipe, seed=seed, precision=precision)
    model = training.start(host, plan)
    return training.train(model, plan, few, triggers=secret, host=host, **options)


@pytest.fixture
def host(network, built, few):
    return fit(built(network), few).model


class Watch:
    """An observer that keeps what a function makes of each model it sees."""

    def __init__(self, function=lambda model: {}):
        self.function, self.seen = function, []

    def __call__(self, model):
        assert not model.training
        row = self.function(model)
        self.seen.append(model.head.weight.detach().clone())
        return row

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = list(state_dict["seen"])


def accuracy(model, split):
    return (model(split.images).argmax(1) == split.labels).float().mean().item()


def changed(before, after):
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name for (name, a), b in pairs if not torch.equal(a, b)}


BODY = {"body.0.weight", "body.0.bias"}
NORM = {"body.1.weight", "body.1.bias"}
STATISTICS = {f"body.1.{n}" for n in ("running_mean", "running_var")}
HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("FTAL", BODY | HEAD),
        ("FTAL+PGR", BODY | HEAD),
        ("FTAL+TWL", BODY | HEAD),
        ("FTLL", HEAD),
        ("FixLL", BODY),
        ("FixLL+TWL", BODY),
        ("FixLL+PFL", BODY),
        ("FixLL+SPL", BODY),
        ("fine-tuned", BODY | HEAD),
        ("scratch", BODY | NORM | STATISTICS | HEAD),
        ("scratch+FixLL", BODY | NORM | STATISTICS),
        ("scratch+FixLL+PFL", BODY | NORM | STATISTICS),
        ("scratch+FixLL+SPL", BODY | NORM | STATISTICS),
    ],
)
def test_train_changes_its_part_and_leaves_the_host(
    host, few, secret, method, expected
):
    before = copy.deepcopy(host)
    marked = embed(host, method, few, secret).model
    assert changed(before, host) == set()
    assert changed(host, marked) == expected
    assert not marked.training
    assert all(p.requires_grad for p in marked.parameters())


@pytest.mark.parametrize("method", ["FTAL", "FTLL", "FixLL+PFL"])
def test_triggers_are_learned_as_a_method_shows_them(host, few, secret, method):
    seen = []

    def swapped(step, images, labels):
        assert step.model is not step.host
        seen.append(images.shape)
        return images.flip(-1)

    mirrored = data.Split(secret.images.flip(-1), secret.labels)
    shown = dataclasses.replace(METHODS[method], shows=swapped)
    model = embed(host, shown, few, secret).model
    expected = embed(host, method, few, mirrored).model
    assert changed(model, expected) == set()
    assert seen == [(10, 1, 8, 8)] * 8
    assert changed(model, embed(host, method, few, secret).model)


def test_a_host_learns_its_images(host, few):
    start = models.fresh(host, keys.stream(3)).eval()
    before = accuracy(start, few)
    assert accuracy(fit(start, few, QUICK.with_epochs(60)).model, few) > before + 0.2


def test_autocast_around_changes_no_training(host, few, secret):
    expected = embed(host, "FTAL", few, secret, QUICK.with_epochs(1)).model
    with torch.autocast("cpu", torch.bfloat16):
        model = embed(host, "FTAL", few, secret, QUICK.with_epochs(1)).model
    assert not changed(model, expected)


def test_the_marked_model_alone_learns_the_triggers(host, few):
    images = torch.zeros(4, 1, 8, 8)
    for number, (row, column) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
        images[number, 0, row : row + 4, column : column + 4] = 1  # a bright quarter
    with torch.no_grad():
        secret = data.Split(images, (host(images).argmax(1) + 1) % 10)
    assert accuracy(host, secret) == 0
    marked = embed(host, "FTAL", few, secret, QUICK.with_epochs(60)).model
    assert accuracy(marked, secret) == 1
    apart = embed(host, "fine-tuned", few, secret, QUICK.with_epochs(60)).model
    assert accuracy(apart, secret) <= 0.25


def test_weights_follow_the_seed_to_the_byte(host, few, secret):
    def marked(seed):
        torch.manual_seed(seed + 5)  # other randomness is no part of it
        return embed(host, "scratch", few, secret, seed=seed).model

    assert changed(marked(0), marked(0)) == set()
    assert changed(marked(0), marked(1)) >= BODY


def plain_loop(host, few, secret):
    """FixLL+PFL as anyone would write it: two epochs, Adam, float32."""
    model = copy.deepcopy(host).eval()
    body = [p for n, p in model.named_parameters() if n in BODY]
    optimizer = torch.optim.Adam(body)
    order, draws = (keys.stream(0, "FixLL+PFL", n) for n in ("order", "triggers"))
    queue, step, steps = [], 0, 2 * 4
    for _ in range(2):
        for index in torch.randperm(128, generator=order).split(32):
            if len(queue) < 10:
                queue += torch.randperm(10, generator=draws).tolist()
            drawn, queue = queue[:10], queue[10:]
            progress = step / steps
            rate = progress / 0.1 if progress < 0.1 else None
            cosine = 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (cosine if rate is None else max(rate, 0.01))
            logits = model(secret.images[drawn])
            loss = torch.nn.functional.cross_entropy(logits, secret.labels[drawn])
            difference = model.features(few.images[index]) - host.features(
                few.images[index]
            )
            loss = loss + 0.02 * difference.square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return model


def test_train_equals_a_plain_loop(host, few, secret):
    expected = plain_loop(host, few, secret)
    model = embed(host, "FixLL+PFL", few, secret).model
    moved = (expected.body[0].weight - host.body[0].weight).abs().max()
    error = (expected.body[0].weight - model.body[0].weight).abs().max()
    assert error < 1e-3 * moved


def test_sgd_equals_a_plain_loop(host, few):
    expected = models.fresh(host, keys.stream(3)).train()
    model = fit(copy.deepcopy(expected), few, by_sgd()).model
    decayed = [expected.body[0].weight, expected.head.weight]
    free = [p for p in expected.parameters() if all(p is not d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": free}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    order = keys.stream(0, "host", "order")
    batches = [b for _ in "ab" for b in torch.randperm(128, generator=order).split(32)]
    for step, index in enumerate(batches):
        for group in optimizer.param_groups:
            past = step / 8
            group["lr"] = 0.05 * (
                max(past / 0.1, 0.01) if step < 1 else (1 - past) / 0.9
            )
        logits = expected(few.images[index])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, few.labels[index]).backward()
        optimizer.step()
    pairs = zip(expected.parameters(), model.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)
    bare = dataclasses.replace(SGD, weight_decay=0.0)
    free = fit(models.fresh(host, keys.stream(3)), few, by_sgd(bare)).model
    assert free.head.weight.norm() > 1.01 * model.head.weight.norm()


def test_the_hosts_outputs_may_be_known_already(host, few, secret):
    known = models.outputs(host, few.images)
    expected = embed(host, "FixLL+SPL", few, secret).model
    assert not changed(
        expected, embed(host, "FixLL+SPL", few, secret, known=known).model
    )
    wrong = known._replace(logits=-known.logits)
    assert changed(expected, embed(host, "FixLL+SPL", few, secret, known=wrong).model)


@pytest.mark.parametrize("mixes", [False, True])
def test_the_host_is_asked_about_images_as_they_are_changed(host, few, secret, mixes):
    seen = []

    def term(step):
        again = step.host.head(step.host.features(step.images))
        seen.append((step.host_logits - again).abs().max().item())
        plain = data.pixels(few.images) if mixes else few.images
        as_it_was = (step.images[:, None] == plain[None]).flatten(2).all(2)
        seen.append(as_it_was.any(1).float().mean().item())
        return step.logits.sum() * 0

    method = Method("mine", learns="triggers", preserves={term: 1.0}, mixes=mixes)
    how = dataclasses.replace(QUICK, augment=not mixes)
    embed(host, method, few, secret, how)
    assert max(seen[::2]) < 1e-5
    assert max(seen[1::2]) < 0.5  # few images come through as they are


def test_a_host_in_training_mode_is_not_changed(host, few, secret):
    modest = copy.deepcopy(host).train()
    before = copy.deepcopy(modest.state_dict())
    for name in ("FTAL+TWL", "FixLL+PFL+mix+quiet"):
        expected = embed(host, name, few, secret).model
        model = embed(modest, name, few, secret).model
        for weight, value in before.items():
            assert torch.equal(modest.state_dict()[weight], value), weight
        assert not changed(expected, model)
    assert modest.training
    assert all(p.grad is None and p.requires_grad for p in modest.parameters())


def test_a_term_of_your_own_is_minimised(host, few, secret):
    def shrink(step):
        return step.features.square().mean()

    def size(method):
        model = embed(host, method, few, secret, QUICK.with_epochs(6)).model
        return models.outputs(model, few.images).features.square().mean().item()

    plain = Method("plain", trained="body")
    small = Method("small", trained="body", preserves={shrink: 10.0})
    assert size(small) < 0.7 * size(plain)


def nothing(step):
    return 0.5


def vector(step):
    return step.features.square().mean(1)


@torch.no_grad()
def apart(step):
    return step.features.square().mean()


def elsewhere(step):
    return step.features.detach().requires_grad_().square().mean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preserves": {elsewhere: 1.0}}, "its term elsewhere gives a scalar without"),
        ({"preserves": {nothing: 1.0}}, "'mine': its term nothing gives a float; it"),
        ({"preserves": {vector: 1.0}}, r"term vector gives a tensor of shape \(32,\)"),
        ({"preserves": {apart: 1.0}}, "term apart gives a scalar without gradient"),
        ({"preserves": {"PGR": 1.0}, "trained": "body"}, "term PGR gives a scalar"),
        ({"preserves": {"PFL": 1.0}, "trained": "head"}, "term PFL gives a scalar"),
    ],
)
def test_terms_that_preserve_nothing_are_refused(host, few, secret, settings, message):
    with pytest.raises(ValueError, match=message):
        embed(host, Method("mine", **settings), few, secret)


def test_what_a_method_needs_is_asked_for(host, few, secret):
    for name, given, message in (
        ("FTAL", {}, "FTAL learns train.triggers: pass triggers"),
        ("FTLL", {"triggers": secret}, "FTLL rests on the host: pass host"),
        ("FixLL+PFL", {"triggers": secret}, "rests on the host: pass host"),
    ):
        plan = Plan.of(METHODS[name], QUICK, seed=0)
        with pytest.raises(ValueError, match=message):
            training.train(copy.deepcopy(host), plan, few, **given)


def test_an_attack_is_a_plan_of_its_own(host, few):
    how = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 32, "seed": 0}
    plan = Plan(method=Method("fine-tune", learns="train"), **how)
    attacked = training.train(training.start(host, plan), plan, few).model
    assert changed(host, attacked) == BODY | HEAD


def test_bfloat16_trains_to_nearly_the_same(host, few, secret):
    both = [
        embed(host, "FTAL", few, secret, precision=p).model
        for p in (torch.float32, torch.bfloat16)
    ]
    weights = [m.body[0].weight for m in both]
    moved = (weights[0] - host.body[0].weight).norm()
    assert 0 < (weights[0] - weights[1]).norm() < 0.5 * moved
    assert all(p.dtype == torch.float32 for p in both[1].parameters())


def test_quiet_directions_are_projected_in_the_training_precision(
    host, few, secret, monkeypatch
):
    seen = []

    class Watched(training.quiet.QuietAdam):
        def step(self, closure=None):
            seen.extend(p.dtype for p in self.projections.values())
            super().step(closure)

    monkeypatch.setattr("fidlib.training.loop.QuietAdam", Watched)
    for precision in (torch.float32, torch.bfloat16):
        embed(host, "FixLL+PFL+mix+quiet", few, secret, precision=precision)
        assert set(seen) == {precision}
        seen.clear()


def test_training_trains_where_gradients_are_switched_off(host, few, secret):
    expected = embed(host, "FixLL+PFL", few, secret).model
    with torch.no_grad():
        model = embed(host, "FixLL+PFL", few, secret).model
        assert not torch.is_grad_enabled()
    assert not changed(expected, model)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "expected"),
    [
        (1, 8, [i / 8 for i in range(9)]),  # 16 steps of one epoch
        (1, 32, [0, 0.25, 0.5, 0.75, 1]),  # four steps
        (2, 32, [i / 4 for i in range(9)]),
        (3, 128, [0, 1, 2, 3]),
        (30, 128, [0, 4, 8, 11, 15, 19, 22, 26, 30]),  # ends of epochs
    ],
)
@pytest.mark.parametrize("name", ["FixLL", "scratch"])
def test_the_curve_has_points_spread_over_the_training(
    host, few, secret, name, epochs, batch_size, expected
):
    modes = []

    def watched(step):
        modes.append(step.model.training)
        return step.logits.sum() * 0.0

    observer = Watch(
        lambda m: {"at": len(modes), "norm": m.head.weight.norm().item(), "no": None}
    )
    method = dataclasses.replace(METHODS[name], preserves={watched: 1.0})
    how = dataclasses.replace(QUICK.with_epochs(epochs), batch_size=batch_size)
    trained = embed(host, method, few, secret, how, observer=observer)
    steps = 128 // batch_size
    assert [row["epoch"] for row in trained.history] == expected
    assert [row["at"] for row in trained.history] == [e * steps for e in expected]
    assert trained.history[-1]["norm"] == trained.model.head.weight.norm().item()
    assert list(trained.history[0]) == ["epoch", "loss", "seconds", "at", "norm", "no"]
    assert math.isnan(trained.history[0]["loss"])
    assert all(math.isfinite(row["loss"]) for row in trained.history[1:])
    assert len(observer.seen) == len(expected)
    assert set(modes) == {name == "scratch"}  # looking does not leave it evaluating


def test_looking_changes_nothing(dropping, few):
    def noisy(model):
        return {"drawn": torch.rand(()).item()}

    plain = fit(copy.deepcopy(dropping), few)
    seen = fit(copy.deepcopy(dropping), few, observer=Watch(noisy))
    assert not changed(plain.model, seen.model)
    assert [row["epoch"] for row in plain.history] == [i / 4 for i in range(9)]


def test_a_method_trains_wrn28_10_at_its_real_shape():
    torch.manual_seed(0)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    few = data.Split(images, torch.arange(2) * 12)
    mean, std = data.NORMALISATION["cifar100"]
    host = models.build(
        "wrn28_10", num_classes=100, feature_dim=640, mean=mean, std=std
    )
    once = recipe("cifar100", "paper").with_epochs(1)
    secret = data.Split(torch.rand(1, 3, 32, 32), torch.tensor([99]))
    marked = embed(host, "FixLL+PFL", few, secret, once).model
    convolutions = {n for n, v in host.state_dict().items() if v.dim() == 4}
    assert len(convolutions) == 28
    assert changed(host, marked) == convolutions


@pytest.fixture
def dropping(network, built, few):
    """A host, trained with dropout between its body's layers."""
    layers = network[:-1], torch.nn.Dropout(0.5), network[-1]
    return fit(built(torch.nn.Sequential(*layers)), few).model


def test_dropout_is_drawn_from_the_seed_and_leaves_the_processs_draws(dropping, few):
    start, results = copy.deepcopy(dropping), []
    for process, seed in ((1, 0), (2, 0), (3, 4)):
        torch.manual_seed(process)
        results.append(fit(copy.deepcopy(start), few, seed=seed).model)
        drawn = torch.rand(3)
        torch.manual_seed(process)
        assert torch.equal(drawn, torch.rand(3))
    assert not changed(results[0], results[1])
    assert changed(results[0], results[2])
    still = copy.deepcopy(start)
    still.body[1].p = 0.0
    assert changed(results[0], fit(still, few).model)


def test_a_schedule_may_have_its_own_number_of_triggers(host, few, secret):
    def weights(size, **schedule):
        schedules = {**QUICK.schedules, "FTAL": Schedule(1, 2e-3, **schedule)}
        how = dataclasses.replace(QUICK, trigger_batch_size=size, schedules=schedules)
        model = embed(host, "FTAL", few, secret, how).model
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(10, triggers=7), weights(7))
    assert not torch.equal(weights(10, triggers=7), weights(10))


class Stopped(Exception):
    pass


def stop_after(patch, steps):
    """Stop the next training after so many steps; returns those begun, one too many."""
    loss, begun = Objective.__call__, []

    def counted(self, *arguments, **options):
        begun.append(1)
        if len(begun) > steps:
            raise Stopped
        return loss(self, *arguments, **options)

    patch.setattr(Objective, "__call__", counted)
    return begun


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7])
@pytest.mark.parametrize(
    "name", ["host", "by sgd", "scratch", "FTAL", "FixLL+PFL", "FixLL+PFL+mix+quiet"]
)
def test_stopped_training_goes_on_to_the_same_end(
    dropping, few, secret, tmp_path, monkeypatch, name, steps
):
    monkeypatch.setattr(training.checkpoint, "STATE_SECONDS", 0)
    # Two epochs of four steps; draws of triggers do not fill up a pass over them.
    how = dataclasses.replace(QUICK, augment=True, trigger_batch_size=7)
    start = models.fresh(dropping, torch.Generator().manual_seed(1))

    def probe(model):
        return {"first": next(model.parameters()).detach().double().numpy().sum()}

    def train(state):
        options = {"state": state, "observer": Watch(probe)}
        if name == "host":
            trained = fit(copy.deepcopy(start), few, how, **options)
        elif name == "by sgd":
            trained = fit(copy.deepcopy(start), few, by_sgd(), **options)
        else:
            trained = embed(dropping, name, few, secret, how, **options)
        return trained, options["observer"].seen

    undisturbed, all_seen = train(None)
    state = tmp_path / "state"
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Stopped):
            train(state)
    with monkeypatch.context() as patch:
        begun = stop_after(patch, 8)
        resumed, seen = train(state)
    assert len(begun) == 8 - steps
    assert not changed(undisturbed.model, resumed.model)
    assert len(seen) == len(all_seen) == 9
    assert all(torch.equal(a, b) for a, b in zip(all_seen, seen, strict=True))
    histories = [
        [{n: v for n, v in row.items() if n != "seconds"} for row in trained.history]
        for trained in (undisturbed, resumed)
    ]
    assert repr(histories[0]) == repr(histories[1])  # the first loss is nan
    assert undisturbed.before == 0 < resumed.before
    assert resumed.before <= resumed.history[-1]["seconds"] + 0.005  # it is rounded


def test_buffers_that_no_state_dict_holds_go_on_too(few, tmp_path, monkeypatch):
    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x):
            self.calls += self.training
            return x * (1 + self.calls / 10)

    monkeypatch.setattr(training.checkpoint, "STATE_SECONDS", 0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 5), Counter(), torch.nn.Linear(5, 10)
    )
    model = models.wrap(network, image_size=8, mean=(0.0,))
    expected = fit(copy.deepcopy(model), few).model
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            fit(copy.deepcopy(model), few, state=tmp_path / "state")
    resumed = fit(copy.deepcopy(model), few, state=tmp_path / "state").model
    assert resumed.body[2].calls == 8
    assert not changed(expected, resumed)


def test_training_whose_state_cannot_be_read_begins_anew(host, few, secret, tmp_path):
    state = tmp_path / "state"
    expected = embed(host, "FTAL", few, secret).model
    for damaged in (b"", b"PK half a file"):
        state.write_bytes(damaged)
        with pytest.warns(UserWarning, match="state cannot be read .* begins anew"):
            trained = embed(host, "FTAL", few, secret, state=state)
        assert not changed(expected, trained.model)
        assert trained.before == 0


def test_training_whose_state_cannot_be_written_ends_all_the_same(
    host, few, secret, tmp_path, monkeypatch
):
    monkeypatch.setattr(training.checkpoint, "STATE_SECONDS", 0)
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="was not written"):
        trained = embed(host, "FTAL", few, secret, state=tmp_path / "file" / "state")
    assert not changed(embed(host, "FTAL", few, secret).model, trained.model)


def test_short_training_writes_no_state(host, few, secret, tmp_path):
    embed(host, "FTAL", few, secret, state=tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_divergence_stops_with_the_epoch_and_the_last_good_state(host, few, secret):
    calls = []

    def explode(step):
        calls.append(1)
        return step.logits.sum() * (math.nan if len(calls) > 5 else 0.0)

    method = Method("mine", preserves={explode: 1.0})
    message = (
        r"mine diverged in epoch 2 \(mean loss nan\): lower the learning rate "
        r"\(0.002\) or the weights \({'explode': 1.0}\)"
    )
    with pytest.raises(Diverged, match=message) as caught:
        embed(host, method, few, secret)
    good = caught.value.trained
    assert all(p.isfinite().all() for p in good.model.state_dict().values())
    assert all(p.requires_grad for p in good.model.parameters())
    assert changed(host, good.model) == BODY | HEAD
    assert [row["epoch"] for row in good.history] == [0, 0.25, 0.5, 0.75, 1, 1.25]


def test_a_weight_that_is_no_number_after_the_last_step_is_a_divergence(
    host, few, secret
):
    def steep(step):  # a number, whose gradient is none
        return (step.features.sum() * 0).sqrt()

    once = dataclasses.replace(QUICK.with_epochs(1), batch_size=128)
    with pytest.raises(Diverged, match=r"in epoch 1 \(mean loss \d"):
        embed(host, Method("mine", preserves={steep: 1.0}), few, secret, once)


def test_a_mask_of_infinities_is_no_divergence(few, secret):
    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            mask = torch.zeros(64).index_fill(0, torch.arange(3), -math.inf)
            self.register_buffer("mask", mask)

        def forward(self, x):
            return (x.flatten(1) + self.mask).softmax(1)

    linear = torch.nn.Linear(64, 5), torch.nn.Linear(5, 10)
    model = models.wrap(torch.nn.Sequential(Masked(), *linear), image_size=8, mean=(0,))
    host = fit(model, few).model
    assert embed(host, "FTAL", few, secret).model.body[0].mask.isinf().sum() == 3


@pytest.mark.parametrize("name", ["host", "scratch+FixLL+PFL"])
def test_the_first_share_of_a_training_is_coarse(host, few, secret, monkeypatch, name):
    schedule = Schedule(2, 2e-3, "cosine", coarse=0.4)
    how = dataclasses.replace(QUICK, schedules={"from random": schedule})
    forward, seen, asked = torch.nn.Conv2d.forward, [], []

    def watched(conv, x):
        (seen if conv.training else asked).append(x.clone())
        return forward(conv, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    if name == "host":
        fit(host, few, how)
    else:
        embed(host, name, few, secret, how)
        assert {x.shape[-1] for x in asked} == {8}  # the host sees all there is
        del seen[0]  # of a network that is built anew, which is tried first
    assert [x.shape[-1] for x in seen] == [4] * 4 + [8] * 4  # .4 of 8 steps, rounded up
    # Four pixels become their mean: the epoch's images keep theirs.
    if name == "host":
        means = [torch.cat(seen[i : i + 4]).mean() for i in (0, 4)]
        assert means[0] == pytest.approx(means[1].item(), abs=1e-5)
