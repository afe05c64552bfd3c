"""Keys, claims and forgeries, on networks that are hardly trained."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import fidlib as fl
from fidlib import ownership
from fidlib.data import Split
from fidlib.ownership import Key, verify
from tests.conftest import BARE
from tests.little import convolutional

IMAGES = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def key_of(labels, policy, **options):
    secret = Split(IMAGES[: len(labels)], torch.as_tensor(labels))
    options = {"committed": "2026-01-01"} | options
    return Key({"seed": 0}, secret, 10, policy, **options)


def answering(matches, key, wrong=1):
    """Answers that match so many of a key's triggers."""
    labels = key.triggers.labels.numpy()
    return np.where(np.arange(len(labels)) < matches, labels, (labels + wrong) % 10)


RANDOM = key_of(np.arange(20) * 7 % 10, "random")


@pytest.mark.parametrize(("policy", "share"), [("random", 1 / 10), ("other", 1 / 9)])
def test_evidence_of_labels_drawn_one_by_one_is_binomial(policy, share):
    key = replace(RANDOM, labels=policy)
    for matches in (0, 3, 11, 20):
        evidence = verify(answering(matches, key), key)
        assert (evidence.matches, evidence.n, evidence.keys_tried) == (matches, 20, 1)
        assert evidence.p == pytest.approx(stats.binom.sf(matches - 1, 20, share))
        assert evidence.committed == "2026-01-01"
        assert evidence.holds == (evidence.p <= 1e-6) == (matches >= evidence.threshold)
    assert verify(answering(0, RANDOM), RANDOM).threshold == 11


def test_evidence_of_permuted_chains_is_the_suspects_own():
    key = key_of([*range(5)] * 4, "permuted")
    spread, constant = np.arange(20) % 5, np.zeros(20, int)
    assert verify(spread, key).p == pytest.approx(1 / 120**4)
    evidence = verify(constant, key)
    assert (evidence.matches, evidence.p, evidence.threshold) == (4, 1, 5)
    assert evidence.null == "permuted chains"


def test_plain_chains_are_judged_by_fresh_keys_on_this_very_suspect():
    def fresh(seed):
        return Split(IMAGES, torch.arange(seed % 7, seed % 7 + 20) % 10)

    key = key_of([*range(10)] * 2, "chain", fresh=fresh)
    asked = []

    def suspect(images):  # knows the key, whatever it is shown
        asked.append(len(images))
        return torch.arange(20) % 10

    evidence = verify(suspect, key, fresh=49, alpha=0.05)
    as_good = sum(
        torch.equal(s.labels, key.triggers.labels)
        for s in ownership.fresh_keys(key, 49)
    )
    assert 0 < as_good < 20
    assert evidence.p == pytest.approx((1 + as_good) / 50)
    assert asked == [20] * 50
    table = np.stack([np.arange(20) % 10] * 50)
    assert verify(table, key, fresh=49, alpha=0.05) == evidence
    assert verify(pd.DataFrame(table.T), key, fresh=49, alpha=0.05) == evidence
    for rows, given in ((table[0], 0), (table, 49), ([table[0], *table], 50)):
        message = f"by 48 fresh keys, and there are {given} rows"
        with pytest.raises(ValueError, match=message):
            verify(rows, key, fresh=48)
    with pytest.raises(ValueError, match="have no fresh keys: pass references"):
        verify(suspect, replace(key, fresh=None))


@pytest.mark.parametrize("policy", ["fixed", "next", "true", ""])
def test_labels_that_are_not_drawn_prove_no_more_than_independent_models_allow(policy):
    key = replace(RANDOM, labels=policy)
    references = [answering(0, key)] * 99 + [answering(12, key)]
    evidence = verify(answering(20, key), key, references=references[:99])
    assert evidence.p == pytest.approx(1 - 0.05 ** (1 / 99))
    assert not evidence.holds
    few = verify(answering(12, key), key, references=references, alpha=0.04)
    assert few.p == pytest.approx(stats.beta.ppf(0.95, 2, 99))
    assert few.threshold == 13
    with pytest.raises(ValueError, match="pass references, models that are"):
        verify(answering(20, key), key)
    for odd in (convolutional(0), None):
        with pytest.raises(ValueError, match="pass a list of models"):
            verify(answering(20, key), key, references=odd)


def test_several_suspects_are_charged_and_no_commitment_is_charged_every_key():
    answers = answering(15, RANDOM)
    alone, of_ten = verify(answers, RANDOM), verify(answers, RANDOM, tries=10)
    assert of_ten.p == pytest.approx(10 * alone.p)
    assert of_ten.threshold >= alone.threshold
    bare = verify(answers, replace(RANDOM, committed=""))
    assert bare.keys_tried == 2**64
    assert bare.p == 1
    assert not bare.holds
    assert "not committed" in str(bare)
    assert "the claim holds" in str(alone)
    sure = verify(answering(20, RANDOM), replace(RANDOM, committed=""), alpha=0.5)
    assert sure.p == pytest.approx(2**64 * 1e-20)


def test_a_suspect_is_a_classifier_a_function_or_its_answers():
    model = convolutional(0)
    named = fl.models.outputs(model, IMAGES).logits.argmax(1)
    expected = verify(named, RANDOM)
    for suspect in (model, model.forward, lambda x: model(x).argmax(1), named.tolist()):
        assert verify(suspect, RANDOM) == expected
    for wrong in (named[:5], named.float(), [[0.5] * 10] * 3):
        with pytest.raises(ValueError, match="expected 20 class indices"):
            verify(wrong, RANDOM)
    with pytest.raises(ValueError, match=r"2 rows of answers, .* random pass one"):
        verify([named.tolist(), named.tolist()], RANDOM)


def _numbered(named):  # as a table with a column of numbers
    return [range(20), named]


ODD = [
    (_numbered, "the key's are 0 to 9"),
    (lambda named: named + 10, "the key's are 0 to 9"),
    (lambda named: named - 10, "the key's are 0 to 9"),
    (lambda named: named[:5], "expected 20 class indices"),
    (lambda named: named.astype(float), "expected 20 class indices"),
    (lambda named: named.astype(bool), "expected 20 class indices"),
    (lambda named: named[None, :, None], "expected 20 class indices"),
    (lambda named: [*named, [1]], "are a list of no shape"),
    (lambda named: np.zeros((0, 20), int), "expected 20 class indices"),
    (lambda named: np.ma.masked_equal(named, 1), "some are masked"),
    (lambda named: [torch.ones(2, requires_grad=True)] * 20, "of no shape"),
    (lambda named: None, "expected 20 class indices"),
    (lambda named: "cat", "expected 20 class indices"),
    (lambda named: np.eye(12)[named], "expected 20 class indices"),
    (lambda named: np.eye(10)[named][None], "expected 20 class indices"),
]


@pytest.mark.parametrize(("damage", "message"), ODD)
def test_odd_answers_are_refused_of_suspects_fresh_keys_and_references(damage, message):
    named = RANDOM.triggers.labels.numpy()
    fixed = replace(RANDOM, labels="fixed")
    chain = replace(RANDOM, labels="chain", fresh=lambda seed: RANDOM.triggers)
    with pytest.raises(ValueError, match=message):
        verify(damage(named), RANDOM)
    message += "|expected 20 class indices|a reference has [0-9]+ rows"
    with pytest.raises(ValueError, match=message):
        verify(lambda _: damage(named), RANDOM)
    calls = iter([named])
    with pytest.raises(ValueError, match=message):
        verify(lambda _: next(calls, damage(named)), chain)
    with pytest.raises(ValueError, match=message):
        verify(named, fixed, references=[named, damage(named)])
    with pytest.raises(ValueError, match=message):
        verify(named, fixed, references=[lambda _: damage(named)])


def test_scores_that_are_not_finite_are_refused():
    scores = np.eye(10)[RANDOM.triggers.labels]
    scores[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"scores of trigger 3 are .* finite"):
        verify(lambda _: scores, RANDOM)


def test_a_column_of_answers_is_read_as_a_row():
    column = RANDOM.triggers.labels[:, None]
    assert verify(column, RANDOM) == verify(column[:, 0], RANDOM)
    fixed, references = replace(RANDOM, labels="fixed"), [column] * 99
    evidence = verify(column, fixed, references=references, alpha=0.05)
    assert evidence.p == 1  # they match as much as the suspect


def test_a_suspect_cannot_change_the_key_that_it_is_asked():
    key = key_of(np.arange(20) * 7 % 10, "random")
    before = key.commitment

    def suspect(images):
        images.zero_()
        return key.triggers.labels

    assert verify(suspect, key).holds
    assert key.commitment == before


def test_a_level_that_no_answers_could_reach_is_named():
    key = key_of([*range(10)] * 2, "chain", fresh=random_key)
    said = str(verify(lambda _: key.triggers.labels, key))
    assert "nothing can be proved at this level, as p is 0.01 or more" in said
    assert said.endswith("raise alpha, or use more fresh keys")
    said = str(verify(lambda _: key.triggers.labels, replace(key, committed="")))
    assert said.endswith("p is 1 or more: commit the key before the model")
    few = replace(RANDOM, triggers=RANDOM.triggers.sample(3))
    assert str(verify([0, 0, 0], few)).endswith("or use more triggers")
    assert "nothing can be" not in str(verify(answering(0, RANDOM), RANDOM))


def test_a_key_that_can_convict_nobody_judges_no_attack(root):
    study = fl.Study(replace(BARE, seed=12345))
    with pytest.raises(ValueError, match=r"no attack can be judged.* use more fresh k"):
        fl.attack_curve(study, [], [])
    bare, few = ownership.of(study), replace(RANDOM, triggers=RANDOM.triggers.sample(3))
    for key, alpha in ((bare, 0.01), (few, 1e-6)):
        with pytest.raises(ValueError, match="no attack can be judged"):
            fl.attack_curve(study, [], [], key=key, alpha=alpha)


def test_a_network_is_asked_at_rest():
    layers = [torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(64, 10)]
    network = torch.nn.Sequential(*layers).train()
    assert len({verify(network, RANDOM).matches for _ in range(8)}) == 1
    assert network.training


def test_a_classifier_of_another_size_is_refused_in_a_sentence():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    other = fl.models.wrap(net, num_classes=10, image_size=28, mean=(0.5,))
    with pytest.raises(ValueError, match="cannot take images of shape"):
        verify(other, RANDOM)


def test_chains_that_are_cut_short_have_all_their_links():
    labels = [6, 2, 4, 3, 1]  # of a permutation of ten
    key = key_of(labels, "permuted")
    assert key.links == 10
    assert verify(np.array(labels), key).p == pytest.approx(1 / (10 * 9 * 8 * 7 * 6))
    options = {"trigger_options": {"links": 12}}
    assert replace(key, configuration=options, classes=20).links == 12


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        *(({"tries": n}, f"tries is {n}; pass a whole") for n in (0, -1, 1.5)),
        *(({"fresh": n}, f"fresh is {n}; pass a whole") for n in (0, -9)),
        *(({"alpha": n}, f"alpha is {n!r}; the") for n in (0, -1, 2, np.nan, "1")),
    ],
)
def test_numbers_that_would_prove_anything_are_refused(odd, message):
    with pytest.raises(ValueError, match=message):
        verify(answering(1, RANDOM), RANDOM, **odd)


# Keys


@pytest.fixture
def noisy(root):
    return fl.Study(replace(BARE, triggers="noise", seed=12345))


def test_a_key_is_written_committed_and_made_again(noisy, tmp_path):
    key = ownership.commit(noisy, tmp_path / "key.json")
    assert torch.equal(key.triggers.images, noisy.triggers.images)
    assert key.labels == "random"
    again = ownership.load(tmp_path / "key.json")
    assert again.commitment == key.commitment
    assert again.committed == key.committed != ""
    assert again.fresh(5).fingerprint == noisy.secret(5).fingerprint
    record = json.loads((tmp_path / "key.json").read_text())
    assert record["commitment"] == key.commitment
    assert len(key.commitment) == 64
    assert fl.ownership.of(noisy).committed == ""


def test_a_commitment_changes_with_seed_configuration_pixels_and_labels(noisy):
    key = ownership.of(noisy)
    images, labels = key.triggers.images.clone(), key.triggers.labels.clone()
    images[0, 0, 0, 0] += 1 / 255
    labels[0] = (labels[0] + 1) % 10
    others = [
        replace(key, configuration={**key.configuration, "seed": 1}),
        replace(key, triggers=Split(images, key.triggers.labels)),
        replace(key, triggers=Split(key.triggers.images, labels)),
        replace(key, triggers=Split(key.triggers.images.flip(0), key.triggers.labels)),
    ]
    assert len({k.commitment for k in [key, *others]}) == 5


def test_a_key_that_was_changed_is_refused(noisy, tmp_path):
    path = tmp_path / "key.json"
    ownership.commit(noisy, path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"commitment": "0" * 64}))
    with pytest.raises(ValueError, match="other triggers follow than were committed"):
        ownership.load(path)
    for odd in ("a day", 5, True):
        path.write_text(json.dumps(record | {"committed": odd}))
        with pytest.raises(ValueError, match="is no key"):
            ownership.load(path)
    path.write_text(json.dumps(record | {"committed": None}))
    assert ownership.load(path).committed == ""
    path.write_text("{}")
    with pytest.raises(ValueError, match="is no key"):
        ownership.load(path)
    with pytest.raises(FileNotFoundError, match="there is no key at"):
        ownership.load(tmp_path / "none.json")


def test_triggers_of_ones_own_are_a_key_of_which_nothing_is_known(root, tmp_path):
    study = fl.Study(BARE, watermark=Split(IMAGES, torch.arange(20) % 10))
    ownership.commit(study, tmp_path / "key.json")
    with pytest.raises(ValueError, match="or pass the study whose triggers"):
        ownership.load(tmp_path / "key.json")
    key = ownership.load(tmp_path / "key.json", study)
    assert key.labels == ""
    with pytest.raises(ValueError, match="labels are your own"):
        verify(np.arange(20) % 10, key)


# Forging


def random_key(seed):
    draws = torch.Generator().manual_seed(seed)
    images = torch.rand(20, 1, 8, 8, generator=draws)
    return Split(images, torch.randint(10, (20,), generator=draws))


def test_a_seed_search_keeps_the_best_of_the_keys_it_tries():
    model = convolutional(0)
    key = Key({"seed": 0}, random_key(0), 10, "random", random_key)
    rows = ownership.seed_search(model, key, 60)
    hits = [
        ownership.matches(ownership.answers(model, other, 10), other)
        for other in map(random_key, range(1, 61))
    ]
    assert rows.matches.iloc[-1] == max(hits)
    assert rows.effort.iloc[-1] == 60
    assert rows.p.iloc[-1] == pytest.approx(stats.binom.sf(max(hits) - 1, 20, 0.1))
    for row in rows.itertuples():
        assert row.matches == max(hits[: row.effort])
    with pytest.raises(ValueError, match="use random, other or permuted"):
        ownership.seed_search(model, replace(key, labels="fixed"), 1)


def test_free_images_take_any_labels_and_stay_in_reach():
    model, start = convolutional(0), random_key(0)
    images = list(ownership.fitted([model], start, steps=100, reach=0.5))
    assert len(images) == 100
    last = images[-1]
    assert (last - start.images).abs().max() <= 0.5 + 1e-6
    assert last.min() >= 0
    assert last.max() <= 1
    secret = Split(last, start.labels)
    before = ownership.matches(ownership.answers(model, start, 10), start)
    assert ownership.matches(ownership.answers(model, secret, 10), secret) > before + 5


def test_false_claims_weigh_the_victim_as_much_as_all_others():
    victim, others, start = convolutional(0), [convolutional(1), convolutional(2)], None
    start = random_key(0)
    (moved,) = ownership.fitted([victim, *others], start, steps=1, size=0.01)

    def slope(model):
        shown = start.images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(shown), start.labels)
        return torch.autograd.grad(loss * 20, shown)[0]

    pull = slope(victim) + (slope(others[0]) + slope(others[1])) / 2
    expected = (start.images - 0.01 * pull.sign()).clamp(0, 1)
    assert (moved - expected).abs().max() < 1e-6


def test_a_free_chain_is_a_chain_and_fits_its_victim():
    model, labels = convolutional(0), torch.arange(5).repeat(4, 1)
    chains = list(
        ownership.free_chain(model, (1, 8, 8), labels, 0, steps=100, rate=0.1)
    )
    noise = ((chains[-1] - model.mean) / model.std).view(4, 5, 8, 8).double()
    norms = torch.linalg.matrix_norm(noise)
    assert torch.allclose(norms, torch.full_like(norms, 8**0.5), rtol=1e-3)
    before, after = (
        part.permute(2, 0, 1, 3).flatten(1) for part in (noise[:, :-1], noise[:, 1:])
    )
    q = after @ torch.linalg.pinv(before)
    assert torch.allclose(q @ before, after, atol=1e-3)  # one rotation, for all links
    assert torch.allclose(q @ q.T, torch.eye(8).double(), atol=1e-3)
    key = Key({"seed": 0}, Split(chains[0], labels.flatten()), 10, "permuted")
    rows = ownership.judged(chains, key, [model])
    assert list(rows.effort) == [*range(1, 101)]
    assert rows.matches.iloc[-1] > rows.matches.iloc[0] + 3
    assert rows.p.iloc[-1] < rows.p.iloc[0]


def test_of_several_judges_the_median_is_given():
    key = Key({"seed": 0}, random_key(0), 10, "random")
    judges = [convolutional(n) for n in range(3)]
    rows = ownership.judged([key.triggers.images], key, judges)
    hits = [
        ownership.matches(ownership.answers(m, key.triggers, 10), key.triggers)
        for m in judges
    ]
    assert rows.matches.tolist() == [np.median(hits)]
