import copy
import dataclasses
import math

import pytest
import torch

import fidlib as fl
from fidlib import training
from fidlib.training import COMPILE, Recipe, Schedule, embed, fit, recipe

QUICK = Recipe(
    batch_size=32,
    trigger_batch_size=10,
    augment=False,
    quiet=0.02,
    weights={"default": {"TWL": 0.01, "PGR": 0.1, "PFL": 0.02, "SPL": 2.0}},
    schedules={
        "random": Schedule(2, 2e-3, "cosine"),
        "host": Schedule(2, 2e-3, "cosine"),
    },
)


@pytest.fixture
def few(digits):
    return digits.train.first(128)


@pytest.fixture
def secret(digits):
    return fl.triggers.noise_chain(
        digits.image_shape,
        num_classes=10,
        mean=digits.mean,
        std=digits.std,
        chains=1,
        seed=0,
    )


@pytest.fixture
def host(network, digits, few):
    model = fl.models.wrap(network, mean=digits.mean, std=digits.std, image_size=8)
    return fit(model, few, QUICK, seed=0).model


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
        ("scratch", BODY | NORM | STATISTICS | HEAD),
        ("scratch+FixLL", BODY | NORM | STATISTICS),
        ("scratch+FixLL+PFL", BODY | NORM | STATISTICS),
        ("scratch+FixLL+SPL", BODY | NORM | STATISTICS),
    ],
)
def test_embed_trains_its_part_and_leaves_the_host(host, few, secret, method, expected):
    before = copy.deepcopy(host)
    marked = embed(host, fl.METHODS[method], few, secret, QUICK, seed=0).model
    assert changed(before, host) == set()
    assert changed(host, marked) == expected
    assert not marked.training


def test_fit_learns(host, few, digits):
    start = fl.models.fresh(host, fl.runs.stream(3))
    longer = QUICK.with_epochs(60)
    before = fl.metrics.accuracy(
        fl.features.outputs(start, few.images).logits, few.labels
    )
    after = fit(start, few, longer, seed=0).model
    logits = fl.features.outputs(after, few.images).logits
    assert fl.metrics.accuracy(logits, few.labels) > before + 0.2


def test_embed_teaches_the_triggers_to_the_marked_model_alone(study):
    report = study.fidelity("FTAL")
    assert report.trigger_accuracy >= 0.9
    assert report.host_trigger_accuracy <= 0.25


def test_embed_follows_its_seed_to_the_byte(host, few, secret):
    def marked(seed):
        torch.manual_seed(seed + 5)  # other randomness is no part of it
        return embed(host, fl.METHODS["scratch"], few, secret, QUICK, seed=seed).model

    assert changed(marked(0), marked(0)) == set()
    assert changed(marked(0), marked(1)) >= BODY


def plain_loop(host, few, secret, terms):
    """FixLL+PFL as anyone would write it: two epochs, Adam, float32."""
    model = copy.deepcopy(host).eval()
    body = [p for n, p in model.named_parameters() if n in BODY]
    optimizer = torch.optim.Adam(body)
    order, draws = (fl.runs.stream(0, "FixLL+PFL", n) for n in ("order", "triggers"))
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


def test_embed_equals_a_plain_loop(host, few, secret):
    expected = plain_loop(host, few, secret, QUICK)
    found = embed(host, fl.METHODS["FixLL+PFL"], few, secret, QUICK, seed=0).model
    moved = (expected.body[0].weight - host.body[0].weight).abs().max()
    error = (expected.body[0].weight - found.body[0].weight).abs().max()
    assert error < 1e-3 * moved


def test_augmentation_asks_the_host_about_the_augmented_images(host, few, secret):
    seen = []

    def term(step):
        again = host.head(host.features(step.images))
        seen.append((step.host_logits - again).abs().max().item())
        plain = (step.images[:, None] == few.images[None]).flatten(2).all(2)
        seen.append(plain.any(1).float().mean().item())
        return step.logits.sum() * 0

    method = fl.Method("mine", preserves={term: 1.0})
    augmented = Recipe(**vars(QUICK) | {"augment": True})
    embed(host, method, few, secret, augmented, seed=0)
    assert max(seen[::2]) < 1e-5
    assert max(seen[1::2]) < 0.5  # few images come through as they are


def test_a_host_in_training_mode_is_not_changed(host, few, secret):
    modest = copy.deepcopy(host).train()
    before = copy.deepcopy(modest.state_dict())
    expected = embed(host, fl.METHODS["FTAL+TWL"], few, secret, QUICK, seed=0).model
    found = embed(modest, fl.METHODS["FTAL+TWL"], few, secret, QUICK, seed=0).model
    for name, value in before.items():
        assert torch.equal(modest.state_dict()[name], value), name
        assert torch.equal(found.state_dict()[name], expected.state_dict()[name]), name
    assert modest.training
    assert all(p.grad is None and p.requires_grad for p in modest.parameters())


def test_a_term_of_your_own_is_minimised(host, few, secret):
    def shrink(step):
        return step.features.square().mean()

    def size(model):
        return fl.features.outputs(model, few.images).features.square().mean().item()

    longer = QUICK.with_epochs(6)
    plain = fl.Method("plain", trained="body")
    small = fl.Method("small", trained="body", preserves={shrink: 10.0})
    sizes = [
        size(embed(host, m, few, secret, longer, seed=0).model) for m in (plain, small)
    ]
    assert sizes[1] < 0.7 * sizes[0]


def test_bfloat16_trains_to_nearly_the_same(host, few, secret):
    found = [
        embed(host, fl.METHODS["FTAL"], few, secret, QUICK, seed=0, precision=p).model
        for p in (torch.float32, torch.bfloat16)
    ]
    weights = [m.body[0].weight for m in found]
    moved = (weights[0] - host.body[0].weight).norm()
    assert 0 < (weights[0] - weights[1]).norm() < 0.5 * moved
    assert all(p.dtype == torch.float32 for p in found[1].parameters())


@pytest.mark.parametrize("name", ["FixLL+PFL+mix+quiet", "scratch"])
def test_compiled_bodies_train_to_the_same(secret, digits, monkeypatch, name):
    few = digits.train.first(131)  # batches of 27 and of 26
    host = fl.models.build(
        "resnet18", num_classes=10, feature_dim=8, mean=digits.mean, std=digits.std
    ).eval()
    recipe, graphs = QUICK.with_epochs(1), []

    def train():
        method = fl.METHODS[name]
        return embed(host, method, few, secret, recipe, seed=0).model.state_dict()

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    expected = train()
    monkeypatch.setitem(COMPILE, "cpu", {"backend": backend, "fullgraph": True})
    found = train()
    # The body, and the host's where it is asked about mixtures: a graph for the first
    # size of a batch and one for all others, which the two may share.
    bodies = 1 + (name == "FixLL+PFL+mix+quiet")
    assert bodies < len(graphs) <= 2 * bodies
    for weight, value in expected.items():
        torch.testing.assert_close(found[weight], value)


def test_quiet_directions_are_projected_in_the_training_precision(
    host, few, secret, monkeypatch
):
    seen = []

    class Watched(fl.quiet.QuietAdam):
        def step(self, closure=None):
            seen.extend(p.dtype for p in self.projections.values())
            super().step(closure)

    monkeypatch.setattr("fidlib.training.QuietAdam", Watched)
    method = fl.METHODS["FixLL+PFL+mix+quiet"]
    for precision in (torch.float32, torch.bfloat16):
        embed(host, method, few, secret, QUICK, seed=0, precision=precision)
        assert set(seen) == {precision}
        seen.clear()


def test_history_has_a_row_at_the_start_and_at_every_measured_epoch(host, few, secret):
    def measure(model):
        assert not model.training
        return {"norm": model.body[0].weight.norm().item()}

    method, long = fl.METHODS["FixLL"], QUICK.with_epochs(30)
    trained = embed(host, method, few, secret, long, seed=0, measure=measure)
    epochs = [row["epoch"] for row in trained.history]
    assert epochs[0] == 0
    assert epochs[-1] == 30
    assert len(epochs) == 7
    assert trained.history[0]["norm"] == host.body[0].weight.norm().item()
    assert trained.history[-1]["norm"] == trained.model.body[0].weight.norm().item()
    assert all(math.isfinite(row["loss"]) for row in trained.history[1:])


@pytest.mark.parametrize("name", ["FixLL", "scratch"])
def test_few_epochs_are_measured_within(host, few, secret, name):
    """Two epochs of four steps: after 1, 3, 4, 5, 7 and 8 steps."""
    recipe = dataclasses.replace(QUICK, batch_size=-(-len(few) // 4))
    modes = []

    def watched(step):
        modes.append(step.model.training)
        return step.logits.sum() * 0.0

    method = dataclasses.replace(fl.METHODS[name], preserves={watched: 1.0})
    trained = embed(
        host, method, few, secret, recipe, seed=0, measure=lambda m: {"at": len(modes)}
    )
    assert [row["epoch"] for row in trained.history] == [
        0,
        0.25,
        0.75,
        1,
        1.25,
        1.75,
        2,
    ]
    assert [row["at"] for row in trained.history] == [0, 1, 3, 4, 5, 7, 8]
    assert set(modes) == {name == "scratch"}  # measuring does not leave it evaluating


def test_measuring_changes_nothing(host, few, secret):
    method = fl.METHODS["scratch"]
    quiet = embed(host, method, few, secret, QUICK, seed=0)
    measured = embed(host, method, few, secret, QUICK, seed=0, measure=lambda m: {})
    assert changed(quiet.model, measured.model) == set()


def test_cifar100s_methods_train_wrn28_10_at_its_real_shape():
    torch.manual_seed(0)
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    train = fl.data.Split(images, torch.arange(4) * 12)
    mean, std = fl.data.NORMALISATION["cifar100"]
    model = fl.models.build(
        "wrn28_10", num_classes=100, feature_dim=640, mean=mean, std=std
    )
    once = recipe("cifar100", "paper").with_epochs(1)
    host = fit(model, train, once, seed=0).model
    secret = fl.data.Split(torch.randn(2, 3, 32, 32), torch.tensor([7, 99]))
    for name in ("FTAL", "FixLL", "FixLL+PFL", "FixLL+SPL"):
        marked = embed(host, fl.METHODS[name], train, secret, once, seed=0).model
        moved = changed(host, marked)
        convolutions = {n for n, v in host.state_dict().items() if v.dim() == 4}
        assert len(convolutions) == 28
        assert moved == convolutions | ({"head.weight"} if name == "FTAL" else set())
        with torch.inference_mode():
            features = marked.features(images)
            assert features.shape == (4, 640)
            assert torch.equal(marked.head(features), marked(images))
            assert marked(images).shape == (4, 100)
            assert not torch.allclose(marked(images), host(images), rtol=1e-4)


class Stopped(Exception):
    pass


def stop_after(monkeypatch, steps):
    """Stop the next training after so many steps; returns those begun, one too many."""
    loss, begun = training._Loop._loss, []

    def counted(self, *arguments):
        begun.append(1)
        if len(begun) > steps:
            raise Stopped
        return loss(self, *arguments)

    monkeypatch.setattr(training._Loop, "_loss", counted)
    return begun


@pytest.fixture
def dropping(network, digits, few):
    """A host, trained with dropout between its body's layers."""
    network = torch.nn.Sequential(network[:-1], torch.nn.Dropout(0.5), network[-1])
    model = fl.models.wrap(network, mean=digits.mean, std=digits.std, image_size=8)
    return fit(model, few, QUICK, seed=0).model


def test_dropout_is_drawn_from_the_seed_and_leaves_the_processs_draws(dropping, few):
    start, found = copy.deepcopy(dropping), []
    for process, seed in ((1, 0), (2, 0), (3, 4)):
        torch.manual_seed(process)
        found.append(fit(copy.deepcopy(start), few, QUICK, seed=seed).model)
        drawn = torch.rand(3)
        torch.manual_seed(process)
        assert torch.equal(drawn, torch.rand(3))
    assert not changed(found[0], found[1])
    assert changed(found[0], found[2])
    still = copy.deepcopy(start)
    still.body[1].p = 0.0
    assert changed(found[0], fit(still, few, QUICK, seed=0).model)


def test_a_schedule_may_have_its_own_number_of_triggers(host, few, secret):
    def weights(size, **schedule):
        own = {**QUICK.schedules, "FTAL": Schedule(1, 2e-3, **schedule)}
        how = dataclasses.replace(QUICK, trigger_batch_size=size, schedules=own)
        model = embed(host, fl.METHODS["FTAL"], few, secret, how, seed=0).model
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(10, triggers=7), weights(7))
    assert not torch.equal(weights(10, triggers=7), weights(10))
    with pytest.raises(ValueError, match="triggers is -1; use a number"):
        Schedule(1, 2e-3, triggers=-1)


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 7])
@pytest.mark.parametrize(
    "name", ["ref", "scratch", "FTAL", "FixLL+PFL", "FixLL+PFL+mix+quiet"]
)
def test_stopped_training_goes_on_to_the_same_end(
    dropping, few, secret, tmp_path, monkeypatch, name, steps
):
    host = dropping
    monkeypatch.setattr(training, "STATE_SECONDS", 0)
    # Two epochs of four steps; draws of triggers do not fill up a pass over them.
    how = dataclasses.replace(QUICK, augment=True, trigger_batch_size=7)
    start = fl.models.fresh(host, torch.Generator().manual_seed(1))

    def train(state):
        options = {"seed": 0, "state": state, "measure": probe}
        if name == "ref":
            return fit(copy.deepcopy(start), few, how, **options)
        return embed(host, fl.METHODS[name], few, secret, how, **options)

    def probe(model):
        return {"first": next(model.parameters()).detach().double().numpy().sum()}

    undisturbed = train(None)
    state = tmp_path / "state"
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Stopped):
            train(state)
    with monkeypatch.context() as patch:
        begun = stop_after(patch, 8)
        resumed = train(state)
    assert len(begun) == 8 - steps
    assert not changed(undisturbed.model, resumed.model)
    histories = [
        [{n: v for n, v in row.items() if n != "seconds"} for row in trained.history]
        for trained in (undisturbed, resumed)
    ]
    assert repr(histories[0]) == repr(histories[1])  # the first loss is nan
    assert len(histories[0]) == 7
    assert undisturbed.before == 0 < resumed.before <= resumed.history[-1]["seconds"]


def test_training_whose_state_cannot_be_read_begins_anew(host, few, secret, tmp_path):
    given = host, fl.METHODS["FTAL"], few, secret, QUICK
    state = tmp_path / "state"
    for damaged in (b"", b"PK half a file"):
        state.write_bytes(damaged)
        with pytest.warns(UserWarning, match="state cannot be read .* begins anew"):
            trained = embed(*given, seed=0, state=state)
        assert not changed(embed(*given, seed=0).model, trained.model)
        assert trained.before == 0


def test_training_whose_state_cannot_be_written_ends_all_the_same(
    host, few, secret, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "STATE_SECONDS", 0)
    given = host, fl.METHODS["FTAL"], few, secret, QUICK
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="was not written"):
        trained = embed(*given, seed=0, state=tmp_path / "file" / "state")
    assert not changed(embed(*given, seed=0).model, trained.model)


def test_short_training_writes_no_state(host, few, secret, tmp_path):
    embed(
        host, fl.METHODS["FTAL"], few, secret, QUICK, seed=0, state=tmp_path / "state"
    )
    assert not list(tmp_path.iterdir())


def test_divergence_stops_with_the_epoch_and_the_last_good_state(host, few, secret):
    calls = []

    def explode(step):
        calls.append(1)
        return step.logits.sum() * (math.nan if len(calls) > 4 else 0.0)

    method = fl.Method("mine", preserves={explode: 1.0})
    with pytest.raises(
        fl.training.Diverged, match=r"in epoch 2 \(mean loss nan\): lower"
    ) as caught:
        embed(host, method, few, secret, QUICK, seed=0, measure=lambda m: {})
    good = caught.value.trained
    assert all(p.isfinite().all() for p in good.model.state_dict().values())
    assert changed(host, good.model) == BODY | HEAD
    assert [row["epoch"] for row in good.history] == [0, 0.25, 0.75, 1]


def test_schedules_decay_as_they_say():
    assert Schedule(10, 1.0, "constant").factor(0.99) == 1
    half = Schedule(10, 1.0, "half")
    assert (half.factor(0.49), half.factor(0.5)) == (1, 0.1)
    cosine = Schedule(10, 1.0, "cosine")
    assert 0 < cosine.factor(0) < cosine.factor(0.05) < cosine.factor(0.1) == 1
    assert cosine.factor(0.55) == pytest.approx(0.5)
    assert cosine.factor(0.999) < 1e-4


@pytest.mark.parametrize("name", ["ref", "scratch+FixLL+PFL"])
def test_the_first_share_of_a_training_is_coarse(host, few, secret, monkeypatch, name):
    schedule = Schedule(2, 2e-3, "cosine", coarse=0.4)
    how = dataclasses.replace(QUICK, schedules={"random": schedule, "host": schedule})
    forward, seen, asked = torch.nn.Conv2d.forward, [], []

    def watched(conv, x):
        (seen if conv.training else asked).append(x.clone())
        return forward(conv, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    if name == "ref":
        fit(host, few, how, seed=0)
    else:
        embed(host, fl.METHODS[name], few, secret, how, seed=0)
        assert {x.shape[-1] for x in asked} == {8}  # the host sees all there is
    assert [x.shape[-1] for x in seen] == [4] * 4 + [8] * 4  # .4 of 8 steps, rounded up
    # Four pixels become their mean: the epoch's images keep theirs.
    if name == "ref":
        means = [torch.cat(seen[i : i + 4]).mean() for i in (0, 4)]
        assert means[0] == pytest.approx(means[1].item(), abs=1e-5)


def test_a_schedule_is_known_by_coarse_only_where_it_is_used():
    plain = {"epochs": 3, "learning_rate": 0.1, "decay": "constant"}
    assert Schedule(3, 0.1).key() == plain
    assert Schedule(3, 0.1, coarse=0.5).key() == plain | {"coarse": 0.5}


PUBLISHED = [  # paper: data set, method, epochs, learning rate, decay
    ("mnist", "ref", 20, 1e-3, "half"),
    ("mnist", "scratch", 20, 1e-3, "half"),
    ("mnist", "FTAL", 20, 1e-4, "constant"),
    ("mnist", "FTLL", 20, 1e-4, "constant"),
    ("mnist", "FTAL+PGR", 20, 1e-4, "constant"),
    ("mnist", "FTAL+TWL", 50, 1e-4, "half"),
    ("mnist", "FixLL+PFL", 50, 1e-4, "half"),
    ("cifar10", "ref", 50, 1e-3, "half"),
    ("cifar10", "FTAL", 50, 1e-4, "constant"),
    ("cifar10", "FixLL+SPL", 50, 1e-4, "half"),
    ("cifar100", "scratch", 100, 1e-3, "half"),
    ("cifar100", "FTLL", 50, 1e-4, "constant"),
    ("cifar100", "FixLL", 50, 1e-4, "half"),
]


@pytest.mark.parametrize(("dataset", "method", "epochs", "rate", "decay"), PUBLISHED)
def test_the_papers_recipes_are_published(dataset, method, epochs, rate, decay):
    found = recipe(dataset)
    assert found == recipe(dataset, "paper")
    assert found.schedule(fl.METHODS[method]) == Schedule(epochs, rate, decay)
    assert (found.batch_size, found.trigger_batch_size) == (32, 4)
    weights = found.weights_of(fl.METHODS[method])
    assert weights == {"TWL": 0.01, "PGR": 0.1, "PFL": 0.01, "SPL": 1000}
    assert found.quiet_of(fl.METHODS[method]) == 0
    assert found.augment == (dataset != "mnist")


def test_recipe_names_the_scales_there_are():
    assert recipe("own.npz") == recipe("digits", "minutes")
    with pytest.raises(ValueError, match="minutes, sweep, smoke, proof, paper, hours"):
        recipe("mnist", "huge")


def test_a_decay_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="use constant, half or cosine"):
        Schedule(1, 1e-3, "cosin")


@pytest.mark.parametrize("coarse", [-0.1, 1])
def test_a_coarse_share_that_leaves_nothing_is_refused(coarse):
    with pytest.raises(ValueError, match=r"use a share in \[0, 1\)"):
        Schedule(1, 1e-3, coarse=coarse)
