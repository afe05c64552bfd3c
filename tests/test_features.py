import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness

from fidlib import features, models

rng = np.random.default_rng(0)
CLUSTERS = np.repeat(rng.normal(size=(5, 16)) * 8, 30, axis=0)
POINTS = (CLUSTERS + rng.normal(size=CLUSTERS.shape)).astype(np.float32)


def test_outputs_do_not_depend_on_the_batch_size(network):
    model = models.wrap(network)
    images = torch.rand(23, 1, 12, 12)
    whole = features.outputs(model, images)
    parts = features.outputs(model, images, batch_size=5)
    assert torch.allclose(whole.features, parts.features, atol=1e-6)
    assert torch.allclose(whole.logits, model.head(whole.features), atol=1e-6)


def test_outputs_are_of_the_model_at_rest_and_leave_it_training(network):
    model = models.wrap(network).train()
    images = torch.rand(23, 1, 12, 12)
    found = features.outputs(model, images).logits
    assert model.training
    assert model.body[1].num_batches_tracked == 0
    assert torch.allclose(found, model.eval()(images), atol=1e-6)


@pytest.mark.parametrize("projection", ["pca", "umap"])
def test_a_map_keeps_what_has_not_moved_and_shows_what_has(projection):
    models_features = {"host": POINTS, "same": POINTS.copy(), "far": POINTS + 40}
    found = features.common_map(models_features, fit="host", projection=projection)
    assert {n: xy.shape for n, xy in found.items()} == dict.fromkeys(found, (150, 2))
    spread = np.linalg.norm(found["host"] - found["host"].mean(0), axis=1).max()
    distance = np.linalg.norm(found["same"] - found["host"], axis=1)
    assert np.median(distance) < 0.05 * spread
    moved = np.linalg.norm(found["far"] - found["host"], axis=1)
    assert np.median(moved) > 0.3 * spread


def test_a_map_is_decided_by_its_first_rows_alone():
    def first(extra):
        stacked = {"host": np.concatenate([POINTS, extra])}
        return features.common_map(stacked, fit="host", first=150, projection="pca")

    a, b = first(POINTS[:20] * 30)["host"], first(POINTS[:20])["host"]
    assert np.allclose(a[:150], b[:150])
    assert np.allclose(b[150:], b[:20], atol=1e-4)
    assert not np.allclose(a[150:], b[150:], atol=1)


def test_a_map_separates_what_is_apart():
    xy = features.common_map({"host": POINTS}, fit="host")["host"]
    found = features.trustworthiness(POINTS, xy)
    assert found == pytest.approx(trustworthiness(POINTS, xy, n_neighbors=15))
    assert found > 0.85
    assert features.trustworthiness(POINTS, rng.permutation(xy)) < 0.6


def test_pca_is_exact_in_two_dimensions():
    plane = (rng.normal(size=(80, 2)) * [5, 1] + 3).astype(np.float32)
    xy = features.common_map({"host": plane}, fit="host", projection="pca")["host"]
    assert features.trustworthiness(plane, xy) == 1
    before = np.linalg.norm(plane[0] - plane[1])
    assert np.linalg.norm(xy[0] - xy[1]) == pytest.approx(before, rel=1e-4)


def test_a_map_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match="lower neighbors"):
        features.common_map({"host": POINTS[:20]}, fit="host")
    with pytest.raises(ValueError, match="use umap or pca"):
        features.common_map({"host": POINTS}, fit="host", projection="tsne")
    with pytest.raises(ValueError, match="takes one shape"):
        features.common_map({"host": POINTS, "x": POINTS[:, :3]}, fit="host")
