import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from sklearn.manifold import trustworthiness

from fidlib.measures import maps

rng = np.random.default_rng(0)
CLUSTERS = np.repeat(rng.normal(size=(5, 16)) * 8, 30, axis=0)
POINTS = (CLUSTERS + rng.normal(size=CLUSTERS.shape)).astype(np.float32)


@pytest.mark.parametrize("projection", ["pca", "umap"])
def test_a_map_keeps_what_has_not_moved_and_shows_what_has(projection):
    models_features = {"host": POINTS, "same": POINTS.copy(), "far": POINTS + 40}
    threads = torch.get_num_threads()
    places = maps.common_map(models_features, fit="host", projection=projection)
    assert torch.get_num_threads() == threads
    assert {n: xy.shape for n, xy in places.items()} == dict.fromkeys(places, (150, 2))
    spread = np.linalg.norm(places["host"] - places["host"].mean(0), axis=1).max()
    distance = np.linalg.norm(places["same"] - places["host"], axis=1)
    # UMAP places again by a descent that amplifies rounding: .03 to .06 were seen.
    assert np.median(distance) < 0.1 * spread
    moved = np.linalg.norm(places["far"] - places["host"], axis=1)
    assert np.median(moved) > 0.3 * spread


def test_a_map_is_decided_by_its_first_rows_alone():
    def first(extra):
        stacked = {"host": np.concatenate([POINTS, extra])}
        return maps.common_map(stacked, fit="host", first=150, projection="pca")

    a, b = first(POINTS[:20] * 30)["host"], first(POINTS[:20])["host"]
    assert np.allclose(a[:150], b[:150])
    assert np.allclose(b[150:], b[:20], atol=1e-4)
    assert not np.allclose(a[150:], b[150:], atol=1)


def test_a_map_separates_what_is_apart():
    xy = maps.common_map({"host": POINTS}, fit="host")["host"]
    trust = maps.trustworthiness(POINTS, xy)
    assert trust == pytest.approx(trustworthiness(POINTS, xy, n_neighbors=15))
    assert trust > 0.85
    assert maps.trustworthiness(POINTS, rng.permutation(xy)) < 0.6


def test_pca_is_exact_in_two_dimensions():
    plane = (rng.normal(size=(80, 2)) * [5, 1] + 3).astype(np.float32)
    xy = maps.common_map({"host": plane}, fit="host", projection="pca")["host"]
    assert maps.trustworthiness(plane, xy) == 1
    before = np.linalg.norm(plane[0] - plane[1])
    assert np.linalg.norm(xy[0] - xy[1]) == pytest.approx(before, rel=1e-4)


def test_pca_needs_no_umap():
    code = (
        "import sys, numpy as np; from fidlib.measures import maps as f;"
        "f.common_map({'host': np.eye(40)}, fit='host', projection='pca');"
        "sys.exit('umap' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_map_is_reported_with_what_it_and_the_model_keep():
    spaces = {
        "host": POINTS,
        "turned": POINTS @ np.linalg.qr(rng.normal(size=(16, 16)))[0].astype("f4"),
        "shuffled": rng.permutation(POINTS),
    }
    places = maps.common_map(spaces, fit="host", first=140, projection="pca")
    report = maps.map_report(spaces, places, fit="host", first=140, neighbors=7)
    near = {}
    for name, rows in spaces.items():
        distances = np.linalg.norm(rows[:140, None] - rows[None, :140], axis=2)
        near[name] = [set(row[1:4]) for row in distances.argsort(1)]  # of 140, 2 %
    for name in spaces:
        pairs = zip(near["host"], near[name], strict=True)
        kept = np.mean([len(a & b) / 3 for a, b in pairs])
        kept = (kept - 3 / 139) / (1 - 3 / 139)
        laid = procrustes(places["host"][:140], places[name][:140])[2]
        trust = trustworthiness(spaces[name][:140], places[name][:140], n_neighbors=7)
        row = report.loc[name]
        assert row.neighbors_kept == pytest.approx(kept)
        assert row.map_procrustes == pytest.approx(laid, abs=1e-6)
        assert row.trustworthiness == pytest.approx(trust)
    assert report.neighbors_kept["turned"] > 0.99 > report.map_procrustes["turned"]
    assert report.neighbors_kept["shuffled"] < 0.2
    assert report.map_procrustes["shuffled"] > 0.9


def test_a_map_is_as_stable_as_its_projection():
    xy = maps.common_map({"host": POINTS}, fit="host", projection="pca")["host"]
    same = {"seeds": range(1, 3), "projection": "pca"}
    assert maps.seed_residual(POINTS, xy, **same) == pytest.approx(0, abs=1e-9)
    chance = maps.seed_residual(POINTS, rng.normal(size=xy.shape), **same)
    assert 0.9 < chance <= 1

    # One cloud: UMAP lays out several parts differently even with equal seeds.
    cloud = rng.normal(size=(150, 4)).astype(np.float32)
    drawn = [maps.common_map({"m": cloud}, fit="m", seed=s)["m"] for s in range(3)]
    residual = maps.seed_residual(cloud, drawn[0], seeds=[1, 2])
    by_hand = [procrustes(drawn[0], other)[2] for other in drawn[1:]]
    assert residual == pytest.approx(np.mean(by_hand), rel=1e-3)
    assert residual > 1e-3
    with pytest.raises(ValueError, match="at least one other seed"):
        maps.seed_residual(POINTS, xy, seeds=range(1, 1))


def test_most_moved_are_those_farthest_in_feature_space():
    far = POINTS.copy()
    far[[7, 80, 3]] += np.array([[3], [-9], [5]], np.float32)
    assert maps.most_moved(POINTS, far, 3).tolist() == [80, 3, 7]
    assert maps.most_moved(POINTS, far, 2).tolist() == [80, 3]
    assert len(maps.most_moved(POINTS, far, 1000)) == len(POINTS)


def test_a_map_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match="lower neighbors"):
        maps.common_map({"host": POINTS[:20]}, fit="host")
    with pytest.raises(ValueError, match="use umap or pca"):
        maps.common_map({"host": POINTS}, fit="host", projection="tsne")
    with pytest.raises(ValueError, match="takes one shape"):
        maps.common_map({"host": POINTS, "x": POINTS[:, :3]}, fit="host")


def test_a_map_leaves_the_threads_of_training_alone(monkeypatch):
    before = torch.get_num_threads()

    class Greedy:  # as numba is, under UMAP
        def fit_transform(self, rows):
            torch.set_num_threads(before + 3)
            return rows[:, :2]

    monkeypatch.setattr(maps, "_umap", lambda *_: Greedy())
    maps.common_map({"host": POINTS}, fit="host")
    assert torch.get_num_threads() == before
