import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import fidlib as fl
from fidlib import robustness
from fidlib.attacks import attacker
from tests.conftest import BARE


def curve():
    """Two marked models and a host, as `attack_curve` might find them."""
    rows = []

    def add(model, path):
        for attack, strength, lost, tried, removed, spl in path:
            row = {"model": model, "attack": attack, "strength": strength}
            row |= {"lost": lost, "tried": tried, "removed": removed, "host_spl": spl}
            row["accuracy"] = {"host": 0.9, "A": 0.87, "B": 0.88}[model] - lost
            rows.append(row)

    add("host", [("none", math.nan, 0, 0, True, 0.0)])
    add("host", [("prune", 0.2, 0.01, 0.0, True, 0.1)])
    add("host", [("prune", 0.6, 0.07, 0.05, True, 0.2)])
    add("host", [("smooth", math.nan, 0.02, 0.0, True, 0.2)])
    add("A", [("none", math.nan, 0, 0, False, 0.5)])
    add("A", [("prune", 0.2, 0.0, 0.01, False, 0.6)])
    add("A", [("prune", 0.6, 0.05, 0.04, True, 0.7)])
    add("A", [("smooth", math.nan, 0.03, 0.02, True, 0.6)])
    add("B", [("none", math.nan, 0, 0, False, 0.1)])
    add("B", [("prune", 0.2, -0.01, -0.02, False, 0.1)])
    add("B", [("prune", 0.6, 0.04, 0.0, False, 0.2)])
    add("B", [("smooth", math.nan, 0.03, 0.03, False, 0.2)])
    return pd.DataFrame(rows)


def test_an_attacker_goes_as_far_as_his_validation_set_allows():
    picks = robustness.chosen(curve(), 0.02)
    settled = [tuple(row) for row in picks[["model", "attack", "strength"]].to_numpy()]
    assert settled[0] == ("host", "prune", 0.2)  # .6 would cost him .05 there
    assert [s[:2] for s in settled[1:]] == [
        *(("host", "smooth"), ("A", "prune"), ("A", "smooth")),
        ("B", "prune"),  # not smooth, which costs .03
    ]
    assert settled[2][2] == 0.2
    assert settled[4][2] == 0.6  # his set sees nothing of what the test set lost
    assert len(robustness.chosen(curve(), -1.0)) == 0


def test_the_cheapest_removal_is_what_a_claim_is_worth():
    prices = robustness.given_up(curve())
    assert list(prices.index) == ["A", "B"]  # the host claims nothing
    assert prices.attack["A"] == "smooth"  # .03, where prune:0.6 loses .05
    assert math.isnan(prices.strength["A"])
    assert (prices.lost["A"], prices.host_lost["A"]) == (0.03, 0.02)
    assert prices.attack["B"] == "none"
    assert math.isinf(prices.lost["B"])
    assert list(prices.distance) == [0.5, 0.1]
    assert prices.below_host["A"] == pytest.approx(0.9 - (0.87 - 0.03))
    assert math.isinf(prices.below_host["B"])


def test_a_removal_that_gains_accuracy_costs_nothing():
    better = curve()
    smooth = (better.model == "A") & (better.attack == "smooth")
    better.loc[smooth, ["lost", "accuracy"]] = -0.2, 0.87 + 0.2
    prices = robustness.given_up(better)
    assert prices.lost["A"] == 0
    assert prices.below_host["A"] == pytest.approx(0.9 - 0.87 - 0.2)
    better.loc[(better.model == "A") & (better.strength == 0.6), "lost"] = -0.1
    assert robustness.given_up(better).attack["A"] == "prune"  # the first of two
    untried = robustness.given_up(better[better.attack == "none"])
    assert untried.lost.isna().all()
    assert list(untried.attack.unique()) == ["none"]


def test_a_model_that_never_learned_its_mark_gives_up_nothing():
    lost = curve()
    lost.loc[lost.model == "A", "removed"] = True
    assert list(robustness.given_up(lost).index) == ["B"]


def prices(losses):
    """Models in the order of their distance, each with what its removal costs."""
    rows = {"distance": np.arange(len(losses), dtype=float), "lost": losses}
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


@pytest.mark.parametrize("losses", [(0.01, 0.02, 0.05, 0.03), (0.2, 0.3, 0.1, 0.5)])
def test_h1_is_spearmans_correlation(losses):
    expected = stats.spearmanr(range(4), losses).statistic
    assert robustness.fidelity_costs(prices(losses)) == pytest.approx(expected)


def test_h1_ranks_a_mark_that_nothing_removes_highest():
    assert robustness.fidelity_costs(prices((0.1, 0.2, math.inf))) == pytest.approx(1)
    assert robustness.fidelity_costs(prices((math.inf,) * 3)) == 0.0  # all alike
    assert math.isnan(robustness.fidelity_costs(prices((0.1, 0.2))))
    below = prices((0.1, 0.2, 0.3)).rename(columns={"lost": "below_host"})
    assert robustness.fidelity_costs(-below, "below_host") == pytest.approx(1)


def settled(quiet_sgd, plain_sgd, quiet_adam, plain_adam):
    rows = [
        ("ft-all", "quiet", quiet_sgd),
        ("ft-all", "plain", plain_sgd),
        ("fine-tune", "quiet", quiet_adam),
        ("fine-tune", "plain", plain_adam),
        ("prune", "quiet", 0.0),
        ("ft-all", "host", 0.1),
    ]
    table = pd.DataFrame(rows, columns=["attack", "model", "share"])
    return table.assign(matches=50 * table.share, triggers=50)


def test_h2_is_what_a_mark_keeps_more_under_sgd_than_under_adam():
    table = settled(0.9, 0.5, 0.4, 0.3)
    assert robustness.kept_under_sgd(table, "quiet") == pytest.approx(0.9 - 0.4)
    assert robustness.kept_under_sgd(table, "plain") == pytest.approx(0.5 - 0.3)
    for attack in ("ft-all", "fine-tune"):
        without = table[table.attack != attack]
        assert math.isnan(robustness.kept_under_sgd(without, "quiet"))


def removals(*rows):
    return pd.DataFrame(rows, columns=["attack", "spl", "removed"])


def test_h2_compares_the_cheapest_removals():
    curve = removals(
        ("none", 0.0, False),
        ("quiet-noise", 0.001, False),
        ("quiet-noise", 0.05, True),
        ("quiet-noise", 0.01, True),
        ("ft-all", 0.2, True),
    )
    assert robustness.times_cheaper(curve) == pytest.approx(math.log(0.05))
    assert math.isnan(robustness.times_cheaper(curve[curve.attack != "ft-all"]))
    assert math.isnan(robustness.times_cheaper(curve.assign(spl=0.0)))


def host_curve(seed, farther_is_dearer, share):
    """A curve of one host, whose models' prices rise with their distance or fall."""
    draw = np.random.default_rng(seed)
    order = [1, 2, 3, 4, 0] if farther_is_dearer else [4, 3, 2, 1, 0]
    rows = []
    for n, name in enumerate(["quiet", "plain", "C", "D", "host"]):
        base = {"model": name, "triggers": 100, "host_spl": n + 1.0}
        base |= {"tried": 0.0, "strength": 1.0}
        cost = order[n] / 10
        for attack, kind, matches, spl, removed in [
            ("none", "none", 100, 0.0, name == "host"),
            ("quiet-noise", "edited", 9, share * (1 + draw.random() / 10), True),
            ("ft-all", "tuned", 80 if name == "quiet" else 40, 1.0, True),
            ("fine-tune", "tuned", 50 + 2 * draw.random(), 1.0, True),
        ]:
            row = {"attack": attack, "kind": kind, "matches": matches, "spl": spl}
            lost = cost * removed
            rows.append(
                base | row | {"removed": removed, "lost": lost, "accuracy": 0.9 - lost}
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("dearer", "share", "verdicts"),
    [(True, 0.02, ["yes"] * 5), (False, 0.5, ["no", "no", "yes", "yes", "no"])],
)
def test_hypotheses_are_judged_over_hosts(dearer, share, verdicts):
    curves = {n: host_curve(n, dearer, share) for n in range(6)}
    last = curves[5].model == "D"  # or no host differs
    curves[5].loc[last, ["lost", "accuracy"]] = 0.25, 0.65
    rows = robustness.hypotheses(curves, "quiet", "plain", points=0.02)
    assert list(rows.verdict) == verdicts
    assert rows.hosts.iloc[0] == "0 1 2 3 4 5"
    each = [math.log(share * (1 + np.random.default_rng(n).random() / 10))
            for n in range(6)]  # fmt: skip
    interval = stats.ttest_1samp(each, 0.0).confidence_interval(0.95)
    last = rows.iloc[4]
    assert (last.low, last.high) == pytest.approx(np.exp([interval.low, interval.high]))
    kept = [0.8 - curve.matches[curve.attack == "fine-tune"].iloc[0] / 100
            for curve in curves.values()]  # fmt: skip
    assert rows.value.iloc[2] == pytest.approx(np.mean(kept))
    fallen = {n: one.copy() for n, one in curves.items()}  # a mark that never stood
    quiet = fallen[0].model == "quiet"
    fallen[0].loc[quiet & (fallen[0].attack == "none"), "removed"] = True
    lost = robustness.hypotheses(fallen, "quiet", "plain", points=0.02)
    assert list(lost.verdict[2:]) == ["open"] * 3
    assert list(lost.hosts[2:]) == ["1 2 3 4 5"] * 3
    few = robustness.hypotheses({0: curves[0]}, "quiet", "plain", points=0.02)
    assert list(few.verdict) == ["open"] * 5


def test_a_curve_says_what_each_attack_took_and_left(root):
    study = fl.Study(fl.Config(**vars(BARE) | {"triggers": "patch"}))
    key = fl.ownership.commit(study)
    listed = ["prune:0.2", "prune:0.9", "smooth"]
    rows = fl.attack_curve(study, ["FTAL"], listed, key=key, alpha=0.01)
    assert list(rows.model) == ["host"] * 4 + ["FTAL"] * 4
    assert list(rows.attack) == ["none", "prune", "prune", "smooth"] * 2
    assert list(rows.strength.fillna(-1)) == [-1, 0.2, 0.9, -1] * 2
    test, secret = study.test, study.triggers
    held = study.images("validation")

    def answers(name, images):
        return study.model(name)(images).argmax(1)

    def kl(a, b):
        p, q = (
            study.model(m)(test.images).detach().softmax(1).double() for m in (a, b)
        )
        return stats.entropy(p.numpy(), q.numpy(), axis=1).mean()

    ends = ["", *(f"/{attack}" for attack in listed)]
    names = [f"{model}{end}" for model in ("host", "FTAL") for end in ends]
    for name, row in zip(names, rows.itertuples(), strict=True):
        of = row.model
        assert row.triggers == len(secret)
        assert row.matches == (answers(name, secret.images) == secret.labels).sum()
        right, before = (answers(m, test.images) == test.labels for m in (name, of))
        assert row.accuracy == pytest.approx(right.double().mean().item())
        assert row.lost == pytest.approx(
            (before.double() - right.double()).mean().item()
        )
        assert row.low <= row.lost <= row.high
        tried = [(answers(m, held.images) == held.labels).double() for m in (of, name)]
        assert row.tried == pytest.approx((tried[0] - tried[1]).mean().item())
        assert row.spl == pytest.approx(kl(of, name), abs=1e-6)
        assert row.host_spl == pytest.approx(kl("host", name), abs=1e-6)
        restored = kl("host", of) - kl("host", name)
        assert row.restored == pytest.approx(restored, abs=1e-6)
        assert row.removed == (row.threshold is None or row.matches < row.threshold)


def test_fresh_keys_are_made_once_for_all_suspects(bare, monkeypatch):
    made = []

    def secret(seed):
        made.append(seed)
        return bare.secret(seed)

    key = dataclasses.replace(fl.ownership.commit(bare), fresh=secret)
    assert key.labels == "chain"
    rows = fl.attack_curve(bare, [], ["prune:0.2", "prune:0.9"], key=key, alpha=0.01)
    assert len(rows) == 3
    assert len(made) == len(set(made)) == 99
    assert rows.p[0] == fl.ownership.verify(bare.model(), key, alpha=0.01).p


def test_an_attacker_holds_nothing_that_his_model_is_judged_on(root):
    digits = fl.data.load("digits")
    kept = digits.train.sample(48)
    secret = fl.data.Split(kept.images[:9], (kept.labels[:9] + 1) % 10)
    study = fl.Study(BARE, watermark=secret)
    others = [study.images(part) for part in ("validation", "triggers", "test")]
    his = study.images("attacker")
    assert [attacker.shared(his, other) for other in others] == [0, 0, 0]
    assert attacker.shared(his, study.train) == len(his) > 0
    free = study.images("unlabelled")
    assert [attacker.shared(free, other) for other in others] == [0, 0, 0]
    assert len(free) == 39 - len(others[0]) > len(his)
    assert not free.labels.any()
    for attack, part in (("ft-last", "attacker"), ("distil:1", "unlabelled")):
        folder = study.folder(f"host/{attack}")
        record = json.loads((folder / "training.json").read_text())["attacker"]
        assert (record["part"], record["images"]) == (part, len(study.images(part)))
        assert record["sha256"] == study.images(part).content
        assert record["shared"] == {"test": 0, "triggers": 0, "validation": 0}
        assert study.record([f"host/{attack}"])["models"][f"host/{attack}"][
            "attacker"
        ] == (record)


def test_an_attacker_without_images_is_said_in_a_sentence(root):
    train = fl.data.load("digits").train.sample(48)
    study = fl.Study(BARE, watermark=train)
    with pytest.raises(ValueError, match="0 are left to an attacker"):
        study.images("attacker")
    with pytest.raises(ValueError, match="raise train_images"):
        fl.Study(fl.Config(**vars(BARE) | {"train_images": 10})).images("validation")


def test_a_reserved_pool_is_not_the_attackers(root):
    study = fl.Study(fl.Config(**vars(BARE) | {"triggers": "mislabelled"}))
    his, pool = study.images("attacker"), study.images("pool")
    assert attacker.shared(his, pool) == 0
    record = json.loads((study.folder("host/ft-last") / "training.json").read_text())
    assert record["attacker"]["shared"] == {
        "test": 0,
        "triggers": 0,
        "validation": 0,
        "pool": 0,
    }


def test_an_attacker_with_a_trigger_is_caught(bare, monkeypatch):
    monkeypatch.setattr(attacker, "apart", lambda split, others: others[0])
    with pytest.raises(AssertionError, match="'test': "):
        bare.model("host/ft-last")


def test_a_filter_is_read_back_as_it_was_made(bare):
    images = bare.test.images[:20]
    logits = bare.model("host/smooth:noise:0.2")(images)
    again = fl.Study(BARE).model("host/smooth:noise:0.2")
    assert torch.equal(again(images), logits)
    assert not torch.equal(bare.model("host")(images), logits)
    assert bare.fidelity("host/smooth").twl is None  # of other parameters
    report = bare.fidelity("host/smooth:noise:0.2/prune:0.1")  # and is attacked again
    assert report.spl > 0


def test_a_changed_default_makes_another_run(bare, monkeypatch):
    before = bare.folder("host/quantise")
    assert bare.folder("host/quantise:4") == before
    quantise = fl.attacks.edits.quantise.__wrapped__  # without torch.no_grad
    monkeypatch.setattr(quantise, "__defaults__", (3,))
    assert bare.folder("host/quantise") != before
    assert bare.folder("host/quantise") == bare.folder("host/quantise:3")
