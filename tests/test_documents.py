"""What the documents say is what the code and the published tables say."""

import functools
import re
import runpy
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binom

import fidlib as fl
from fidlib.methods import PAPER

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def fidelity(suite, name, index):
    return pd.read_csv(
        ROOT / "figures" / suite / f"04_fidelity-{name}.csv", index_col=index
    )


def answer():
    """Three lines on what was published."""
    cifar = fidelity("cifar10", "measures", "method")
    tuned = [n for n in PAPER if n != "scratch" and cifar.trigger_accuracy[n] >= 0.9]
    cifar, seven = cifar.loc[tuned], len(tuned)
    lost = 100 * cifar["lost accuracy"]
    assert cifar.TWL.idxmax() == cifar.PFL.idxmin() == cifar.SPL.idxmin() == "FixLL+PFL"
    hosts = fidelity("mnist", "seeds", ["seed", "method"]).unstack()
    changed = 1 - hosts.agreement_test
    worse = changed["FixLL+PFL"] > changed["FixLL"]
    (one,) = worse.index[worse]
    share = (hosts.pfl_test["FixLL+PFL"] / hosts.pfl_test["FixLL"])[one]
    few, many = changed.loc[one, ["FixLL", "FixLL+PFL"]]
    return (
        f"On CIFAR-10 {seven} of the paper's methods lose {lost.min():.1f} to "
        f"{lost.max():.1f} points of accuracy; FixLL+PFL is\nthe farthest of them from "
        "the host in weights and the nearest in features and probabilities. But on\n"
        f"one of MNIST's {len(worse)} hosts, with {share:.2%} of FixLL's PFL, it "
        f"changes more answers ({many:.2%} for {few:.2%};\non the others fewer): no "
        "one number tells all.\n"
    )


def trial():
    """Lines on fidlib's own method, of what was published."""
    lines = []
    for name, title in TRIALS.items():
        folder = ROOT / "figures" / "replicates"
        rows = pd.read_csv(folder / f"{name}-contrasts.csv", index_col="contrast")
        hosts = len(rows.hosts.iloc[0].split())
        for start, said, scale in QUOTED:
            part = rows[rows.claim.str.startswith(start)].loc[[*TRIED.values()]]
            each = [
                f"{half} {row.value * scale:.2f} "
                f"[{row.low * scale:.2f}, {row.high * scale:.2f}]"
                for half, row in zip(TRIED, part.itertuples(), strict=True)
            ]
            lines.append(f"- {title}, {hosts} hosts, {said}: {', '.join(each)}\n")
        if name == "11_trial_whole":  # of what was best, no grid
            continue
        best = pd.read_csv(folder / f"{name}-best.csv", index_col="method")
        ends = [f"{m} ({edge})" for m, edge in best.edge.dropna().items()]
        lines.append(f"- {title}, at the grid's edge: {', '.join(ends) or 'none'}\n")
    return "\n" + "".join(lines) + "\n"


TRIALS = {"11_trial_digits": "Digits", "11_trial": "MNIST"}
TRIALS |= {"11_trial_whole": "The whole of MNIST"}

QUOTED = (
    ("Jensen-Shannon, shifted images", "divergence on shifted images, times", 1),
    ("Jensen-Shannon, test images", "on test images, times", 1),
    ("Accuracy", "points of accuracy more", 100),
)
"""Start of a claim in the tables, what is said of it, and in what."""

TRIED = {
    "mix": "FixLL+PFL+mix",
    "quiet": "FixLL+PFL+quiet",
    "both": "FixLL+PFL+mix+quiet",
}


def attacks():
    """Lines on attacks over hosts, of what was published."""
    path = ROOT / "figures" / "replicates" / "07_robustness-hypotheses.csv"
    lines = []
    for row in pd.read_csv(path).itertuples():
        ends = f" {row.unit} [{row.low:.2f}, {row.high:.2f}]"
        said = f"{row.value:.2f}{ends}" if row.value == row.value else "not known"
        what = f"{row.claim} ({row.contrast})"
        lines.append(f"- {what}: **{row.verdict}**, {said}\n")
    return "\n" + "".join(lines) + "\n"


def released(suite):
    """A table of what attacks leave of released models: marks, and accuracy lost."""
    curve = pd.read_csv(ROOT / "figures" / suite / "07_robustness-curve.csv")
    at = curve.strength.map(":{:g}".format).where(curve.attack != "none", "")
    curve["attack"] += at
    lost = (100 * curve.lost).round(1).add(0.0).map("{:.1f}".format)
    curve["cell"] = curve.matches.astype(str) + "; " + lost
    table = curve.pivot(index="attack", columns="model", values="cell")
    table = table.loc[curve.attack.unique(), curve.model.unique()]
    rows = [["attack", *table], ["---"] * (1 + len(table.columns))]
    rows += [[name, *cells] for name, *cells in table.itertuples()]
    return "\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


PARTS = {"trial": trial, "attacks": attacks}
PARTS |= {suite: functools.partial(released, suite) for suite in ("cifar10", "mnist")}


@pytest.mark.parametrize("name", PARTS)
def test_what_is_said_of_quiet_directions_is_of_the_published_tables(name):
    page = (ROOT / "docs" / "quiet.md").read_text("utf-8")
    text = re.search(f"<!-- {name} -->\n(.*)<!-- /{name} -->", page, re.S)
    assert text
    assert text[1] == PARTS[name]()


def embedded():
    """A row per family of triggers, seed and method, after its longest training."""
    table = pd.read_csv(ROOT / "benchmarks" / "trigger_families.csv")
    last = table.groupby(["family", "method", "seed"], sort=False).tail(1)
    return table, last.set_index(["family", "method", "seed"]).sort_index()


def test_every_family_is_learned_and_unknown_to_its_host():
    _, last = embedded()
    for family in fl.TRIGGERS:
        for method in ("FTAL", "FixLL+PFL"):
            rows = last.loc[family, method]
            assert [*rows.index] == [0, 1, 2]
            assert (rows.trigger_accuracy >= 0.95).all(), (family, method)
            known = rows.host_trigger_accuracy * rows.triggers
            if rows["labels"].iloc[0] == "other":  # of images that the host knows
                assert (known <= binom.isf(1e-4, rows.triggers, 0.02)).all()
            else:
                assert (known <= binom.isf(1e-4, rows.triggers, 0.1)).all(), family


def test_what_is_said_of_families_is_of_their_table():
    page = (ROOT / "docs" / "triggers.md").read_text("utf-8")
    text = re.search("<!-- families -->\n(.*)<!-- /families -->", page, re.S)
    script = runpy.run_path(str(ROOT / "benchmarks" / "trigger_families.py"))
    table, _ = embedded()
    assert text[1] == f"\n{script['summary'](table)}\n\n"
    table["lost"] = table.host_accuracy - table.accuracy
    longer = table.epochs > table.epochs.min()
    assert "lose a tenth at most" in page
    assert table[longer].lost.max() < 0.1
    lost = table[~longer].groupby(["method", "family"]).lost.max()
    assert "cost little accuracy" in page
    plain, more = ["chain", "abstract", "unrelated"], ["noise", "patch"]
    for method in ("FTAL", "FixLL+PFL"):
        assert lost[method][plain].max() < lost[method][more].min() < 0.05
    most = table[longer & (table.family == "margin")].groupby("method").lost.max()
    assert most["FixLL+PFL"] <= most["FTAL"]
    assert "keeps their accuracy better" in page
    alike = [name for name in fl.TRIGGERS if name in page.split("contradict them")[1]]
    assert len(alike) == 7
    assert (lost["FTAL"][alike] < lost["FixLL+PFL"][alike]).all()


def test_the_answer_is_of_the_published_tables():
    match = re.search("<!-- answer -->\n(.*?)<!-- /answer -->", README, re.DOTALL)
    assert match[1] == answer()


def correlations(suite):
    path = ROOT / "figures" / suite / "05_yardsticks-correlations.csv"
    return pd.read_csv(path, index_col="measure")[["images, all", "shifted, all"]]


def test_what_is_said_of_yardsticks_is_of_the_published_tables():
    assert "Changed answers and planes tell; weight distance and PFL do not" in README
    for suite in ("mnist", "cifar10", "digits"):
        table = correlations(suite)
        assert table.loc[["answers", "planes"]].min(axis=None) > 0.5
        assert table.loc[["TWL", "PFL"]].max(axis=None) < 0.5
        least = table.loc[["answers", "planes"]].min()
        assert (least > table.loc[["TWL", "PFL"]].max()).all()


def test_what_is_said_of_shifts_is_of_the_published_tables():
    assert "fine-tuning changes fewer answers than the paper's marks" in README
    for suite in ("mnist", "cifar10"):
        path = ROOT / "figures" / suite / "09_shift-groups.csv"
        table = pd.read_csv(path, index_col=["measure", "method"])
        changed = table.loc["changed answers"].corrupted
        marks = changed[[name for name in PAPER if name in changed]]
        assert changed["fine-tuned"] < marks.min()
    assert changed["FixLL+PFL+mix+quiet"] < changed["fine-tuned"]


def test_what_is_said_of_the_trial_is_of_the_published_tables():
    assert "Yes, on shifted images and on the whole of MNIST too; quiet" in README
    for name in TRIALS:
        path = ROOT / "figures" / "replicates" / f"{name}-contrasts.csv"
        rows = pd.read_csv(path, index_col="contrast")
        rows = rows[rows.claim.str.startswith("Jensen-Shannon")]
        assert (rows.loc[[TRIED["quiet"], TRIED["both"]]].high < 1).all()


def test_what_is_said_of_claims_is_of_the_published_tables():
    assert "none of the six does: three are refuted, three stay open." in README
    path = ROOT / "figures" / "replicates" / "10_replicates-claims.csv"
    assert pd.read_csv(path).borne_out.value_counts().to_dict() == {"no": 3, "open": 3}


def test_what_is_said_of_removal_is_of_the_published_tables():
    assert "Not that eight hosts show." in README
    path = ROOT / "figures" / "replicates" / "07_robustness-hypotheses.csv"
    rows = pd.read_csv(path, index_col="claim").loc[["Fidelity costs robustness"]]
    assert (rows.low < 0).all()
    assert not (rows.verdict == "yes").any()
    words = "On CIFAR-10 the two marks nearest to their host outlive all seven attacks"
    assert words in README
    folder = ROOT / "figures" / "cifar10"
    given = pd.read_csv(folder / "07_robustness-given-up.csv").sort_values("distance")
    assert given.lost.head(2).eq(float("inf")).all()
    curve = pd.read_csv(folder / "07_robustness-curve.csv")
    tried = curve[curve.attack != "none"].groupby(["attack", "strength"])
    assert tried.ngroups == 7
    assert "on digits a copy sheds every mark for a point at most." in README
    copied = pd.read_csv(
        ROOT / "figures" / "ownership" / "07_robustness-given-up-by-a-copy.csv"
    )
    assert (len(copied), copied.lost.max() <= 0.01) == (4, True)


def test_the_readme_is_a_page():
    assert len(README.splitlines()) <= 130
    assert len(README.encode()) <= 8000


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "docs"])
def test_links_lead_somewhere(path):
    pages = [ROOT / path] if path.endswith("md") else [*(ROOT / path).glob("*.md")]
    for page in pages:
        text = page.read_text("utf-8")
        for link in re.findall(r"\]\(([^)#]+)", text) + re.findall(
            r'src="([^"]+)', text
        ):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), link


def test_every_notebook_and_method_is_named():
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"`{notebook.stem}`" in README
    for name in PAPER:
        assert name.split("+")[0] in README


def test_the_page_of_measures_is_of_the_catalogue():
    page = (ROOT / "docs" / "measures.md").read_text("utf-8")
    assert page == fl.measures.catalogue.page(), "write it anew: make docs"


def test_every_measure_says_what_it_cannot_see():
    texts = {name: row.of.__doc__ or "" for name, row in fl.MEASURES.items()}
    assert [name for name, text in texts.items() if "\n    Blind to " not in text] == []
