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
def test_a_map_keeps_what_has_not_moved(projection):
    space = features.FeatureMap(POINTS, projection=projection)
    assert space.xy.shape == (150, 2)
    again = space.transform(POINTS)
    spread = np.linalg.norm(space.xy - space.xy.mean(0), axis=1).max()
    assert np.linalg.norm(again - space.xy, axis=1).max() < 1e-4 * spread
    far = space.transform(POINTS[:30] + 40)
    assert np.linalg.norm(far - space.xy[:30], axis=1).mean() > 0.1 * spread


def test_a_map_separates_what_is_apart():
    space = features.FeatureMap(POINTS)
    found = space.trustworthiness()
    assert found == pytest.approx(trustworthiness(POINTS, space.xy, n_neighbors=15))
    assert found > 0.85
    shuffled = rng.permutation(space.xy)
    assert space.trustworthiness(POINTS, shuffled) < 0.6


def test_pca_is_exact_in_two_dimensions():
    plane = rng.normal(size=(80, 2)) * [5, 1] + 3
    space = features.FeatureMap(plane, projection="pca")
    assert space.trustworthiness() == 1
    before = np.linalg.norm(plane[0].astype(np.float32) - plane[1].astype(np.float32))
    assert np.linalg.norm(space.xy[0] - space.xy[1]) == pytest.approx(before, rel=1e-4)


def test_a_map_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match="lower neighbors"):
        features.FeatureMap(POINTS[:20])
    with pytest.raises(ValueError, match="use umap or pca"):
        features.FeatureMap(POINTS, projection="tsne")
    with pytest.raises(ValueError, match=r"fitted on \(N, 16\)"):
        features.FeatureMap(POINTS, projection="pca").transform(POINTS[:, :3])
