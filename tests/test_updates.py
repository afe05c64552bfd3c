"""What a GPU does by graphs, with a plain call in the place of a recorded one."""

import copy

import pytest
import torch
from torch.nn import functional as F

import fidlib as fl
from fidlib import data, measures, training, triggers
from fidlib.attacks import tuning
from fidlib.methods import METHODS, Method
from fidlib.runs import keys, machine
from fidlib.training import HOST, Plan, quiet, updates

STEPS = {"epochs": 2, "batch_size": 20, "learning_rate": 2e-3, "seed": 0}


@pytest.fixture(scope="module")
def host():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"num_classes": 10, "feature_dim": 8, "image_size": 8}
        return fl.models.build("smallnet", **sizes, mean=0.3, std=0.3).eval()


@pytest.fixture(scope="module")
def images(digits):
    return digits.train.sample(99)  # five steps of 19 or 20 images an epoch


@pytest.fixture(scope="module")
def secret():
    noise = torch.rand(10, 1, 8, 8, generator=keys.stream(0))
    return data.Split(noise, torch.arange(10))


def plan(name, **settings):
    method = HOST if name == "host" else METHODS[name]
    weights = method.weighted({"TWL": 0.01, "PFL": 0.02, "SPL": 2.0})
    defaults = {"method": method, "weights": weights, "trigger_batch_size": 5, **STEPS}
    return Plan(**defaults | {"quiet": 0.1 if method.quiet is None else 0.0} | settings)


@pytest.fixture
def recording(monkeypatch):
    """Steps are recorded here too: what is replayed is a call of the step itself."""
    recorded = []

    def record(step):
        recorded.append(step)
        return step

    class Recording(updates.Updates):
        def __init__(self, *parts):
            super().__init__(*parts)
            self.recorded = updates._known(self.objective)

    monkeypatch.setattr(updates, "record", record)
    monkeypatch.setattr(training.loop, "Updates", Recording)
    return recorded


def train(host, how, images, secret):
    model = training.start(host, how)
    options = {"triggers": secret, "host": host}
    return training.train(model, how, images, **options).model


@pytest.mark.parametrize(
    ("how", "shapes"),
    [
        (plan("host", augment=True, coarse=0.5), 4),
        (plan("host", optimizer="sgd", weight_decay=0.01, decay="linear"), 2),
        (plan("scratch", augment=True), 2),
        (plan("FTAL+TWL"), 2),
        (plan("FTLL"), 2),
        (plan("FixLL+SPL"), 2),
        (plan("FixLL+PFL", augment=True), 2),
        (plan("FixLL+PFL+mix+quiet"), 2),
    ],
    ids=lambda how: getattr(getattr(how, "method", None), "name", ""),
)
def test_ten_recorded_steps_end_where_plain_ones_do(
    host, images, secret, monkeypatch, request, how, shapes
):
    plain = train(host, how, images, secret)
    recorded = request.getfixturevalue("recording")
    model = train(host, how, images, secret)
    assert len(recorded) == shapes
    start = training.start(host, how)
    pairs = zip(start.parameters(), plain.parameters(), strict=True)
    moved = max((a - b).abs().max() for a, b in pairs)
    assert moved > 1e-3
    for (name, a), b in zip(
        plain.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.allclose(a.double(), b.double(), rtol=0, atol=1e-6), name


def test_what_a_graph_would_leave_out_is_not_recorded(host, images, secret, recording):
    def counted(step):
        return step.features.sum() * 0

    method = Method("mine", preserves={counted: 1.0})
    train(
        host, plan("FTAL", method=method, weights=(("counted", 1.0),)), images, secret
    )
    assert not recording
    wrapped = copy.deepcopy(host)
    wrapped.spec = None
    train(wrapped, plan("FTAL"), images, secret)
    assert not recording


def test_a_step_that_cannot_be_recorded_is_taken_plainly(
    host, images, secret, recording, monkeypatch
):
    plain = train(host, plan("FTAL"), images, secret)

    def fail(step):
        raise RuntimeError("operation not permitted\nwhen capturing")

    monkeypatch.setattr(updates, "record", fail)
    with pytest.warns(UserWarning, match=r"not recorded \(operation not permitted\)"):
        model = train(host, plan("FTAL"), images, secret)
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_recording_that_fails_late_leaves_no_step_behind(
    host, images, secret, recording, monkeypatch
):
    plain = train(host, plan("FTAL"), images, secret)
    step, calls = updates.Updates._step, []

    def fail(self, draw, coarse):
        calls.append(step(self, draw, coarse))
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return calls[-1]

    monkeypatch.setattr(updates.Updates, "_step", fail)
    with pytest.warns(UserWarning, match=r"not recorded \(out of memory\)"):
        model = train(host, plan("FTAL"), images, secret)
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_float32_is_ieee_for_a_time():
    def settings():
        backends = torch.backends
        return (
            backends.cudnn.conv.fp32_precision,
            backends.cuda.matmul.fp32_precision,
            backends.cudnn.benchmark,
        )

    before = settings()
    with machine.ieee(benchmark=True):
        assert settings() == ("ieee", "ieee", True)
        with machine.ieee():
            assert settings() == ("ieee", "ieee", False)
        assert settings() == ("ieee", "ieee", True)
    assert settings() == before != ("ieee", "ieee", True)


def test_models_are_trained_and_run_in_ieee(host, images, secret, monkeypatch):
    seen, forward = [], F.conv2d

    def watched(*arguments, **options):
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return forward(*arguments, **options)

    monkeypatch.setattr(F, "conv2d", watched)
    some = images.images[:4]
    calls = {
        "training": lambda: train(host, plan("FixLL+PFL+mix+quiet"), images, secret),
        "outputs": lambda: fl.models.outputs(host, some),
        "shifts": lambda: [*measures.conditions.shifted(some, host, strengths=[1])],
        "frontier": lambda: triggers.adversarial._moved(
            images, host, 2, 0.3, keys.stream(0)
        ),
        "wrk": lambda: tuning._with_strangers(host, images, keys.stream(0), 0.1, 0.1),
        "quiet noise": lambda: quiet.projections(host, some, 0.1),
    }
    for name, call in calls.items():
        seen.clear()
        call()
        assert set(seen) == {"ieee"}, name
