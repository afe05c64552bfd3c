import dataclasses

import pytest

import fidlib as fl
from fidlib.claims import check

ACCURACY, WEIGHTS, BOUNDARY, FEATURES, COST = range(5)


@pytest.fixture(scope="module")
def blank(study):
    """A report of the host against itself, all of whose triggers are answered."""
    report = study.fidelity("host")
    return dataclasses.replace(report, trigger_accuracy=1.0, images=10_000)


@pytest.fixture
def reports(blank):
    """As the paper has it: six methods, every claim true."""

    def report(twl, pfl, spl, **others):
        planes = others.get("plane_disagreement", 0.1)
        usual = {
            "lp": 0.0,
            "host_accuracy": 0.99,
            "marked_accuracy": 0.99,
            "churn_lost": 0.002,
            "churn_gained": 0.002,
            "plane_disagreement": planes,
            "intervals": {"plane_disagreement": [planes - 0.02, planes + 0.02]},
        }
        measured = usual | others | {"twl": twl, "pfl": pfl, "spl": spl}
        return dataclasses.replace(blank, **measured)

    return {
        "FTAL": report(20.0, 900.0, 0.5, lp=0.1, plane_disagreement=0.3),
        "FTAL+TWL": report(1.0, 500.0, 0.3, lp=0.1),
        "FixLL": report(19.0, 800.0, 0.4),
        "FixLL+TWL": report(2.0, 400.0, 0.2),
        "FixLL+PFL": report(30.0, 4.0, 0.02, marked_accuracy=0.985),
        "FixLL+SPL": report(10.0, 40.0, 0.01),
    }


def verdicts(reports):
    return list(check(reports).borne_out)


def test_all_claims_hold_where_they_do(reports):
    assert verdicts(reports) == ["yes"] * 5


@pytest.mark.parametrize(
    ("method", "change", "claim", "expected"),
    [
        ("FixLL+PFL", {"marked_accuracy": 0.979}, ACCURACY, "no"),
        ("FixLL+PFL", {"lp": 1e-9}, BOUNDARY, "partly"),
        ("FTAL", {"plane_disagreement": 0.11}, BOUNDARY, "partly"),
        ("FTAL", {"plane_disagreement": None}, BOUNDARY, "yes"),
        ("FixLL+SPL", {"pfl": 81.0}, FEATURES, "partly"),
        ("FixLL", {"pfl": 39.0}, FEATURES, "no"),
        # 40 lost and 20 gained of 10,000: .2 points, standard error .077
        ("FixLL+SPL", {"churn_lost": 0.004, "churn_gained": 0.002}, COST, "partly"),
        ("FixLL+SPL", {"churn_lost": 0.003, "churn_gained": 0.002}, COST, "yes"),
    ],
)
def test_each_claim_falls_by_its_own_number(reports, method, change, claim, expected):
    reports[method] = dataclasses.replace(reports[method], **change)
    others = ["yes"] * 5
    others[claim] = expected
    assert verdicts(reports) == others


def test_weights_that_order_as_the_features_do_refute_the_claim(reports):
    for name, report in reports.items():
        reports[name] = dataclasses.replace(report, twl=report.pfl)
    assert verdicts(reports)[WEIGHTS] == "no"
    for name, report in reports.items():
        reports[name] = dataclasses.replace(report, spl=1 / report.pfl)
    table = check(reports)
    assert table.borne_out.iloc[WEIGHTS] == "partly"
    assert "PFL 1.00, with SPL -1.00" in table.measured.iloc[WEIGHTS]


def test_methods_without_a_watermark_count_for_nothing(reports, blank):
    before = check(reports)
    bad = dataclasses.replace(blank, marked_accuracy=0.1, pfl=1e9, lp=1.0)
    unlearned = dataclasses.replace(bad, trigger_accuracy=0.94)
    names = ["host", "ref", *fl.FLOORS, "mine"]
    worse = reports | dict.fromkeys(names, bad) | {"FixLL+PFL+SPL": unlearned}
    assert check(worse).equals(before)


def test_what_is_missing_is_not_tested(reports):
    assert verdicts({}) == ["not tested"] * 5
    table = check({"FTAL": reports["FTAL"]})
    assert list(table.borne_out) == ["not tested"] * 5
    assert table.measured.iloc[BOUNDARY].startswith("needs FixLL and FTAL")


def test_the_cost_has_mcnemars_standard_error(reports):
    reports["FixLL+PFL"] = dataclasses.replace(
        reports["FixLL+PFL"], churn_lost=0.004, churn_gained=0.002
    )
    # 40 and 20 of 10,000: the variance of a difference that is -1, 0 or 1.
    changes = [-1.0] * 40 + [1.0] * 20 + [0.0] * 9_940
    mean = sum(changes) / 10_000
    deviation = (sum((c - mean) ** 2 for c in changes) / 10_000) ** 0.5
    half = 1.96 * deviation / 10_000**0.5
    assert (
        f"FixLL+PFL -0.20 ± {100 * half:.2f} points"
        in check(reports).measured.iloc[COST]
    )
