"""Models of normal samples against scikit-learn, formulas and by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_wine
from sklearn.ensemble import IsolationForest as Forest
from sklearn.neighbors import LocalOutlierFactor

from dlframe.data.digits import digits
from dlframe.models.anomaly_references import IsolationForest, NearestNeighbors
from dlframe.models.autoencoders import Autoencoder, AutoencoderScore, DeepSVDD, VariationalAutoencoder
from dlframe.models.memory_bank import MemoryBank
from dlframe.models.nearest import coreset, nearest
from dlframe.types import DataSpec, Field


def wines() -> tuple[DataSpec, torch.Tensor]:
    values = load_wine().data
    values = (values - values.mean(0)) / values.std(0)
    fields = {"numbers": Field(kind="number", dtype="float64", shape=(values.shape[1],))}
    target = {"y": Field(kind="class", dtype="int64", names=("normal", "anomaly"))}
    return DataSpec("wines", fields, target, {"cardinalities": []}), torch.from_numpy(values).float()


def fitted(model, rows):
    for part in rows.split(50):
        model.partial_fit(part)
    return model


def test_isolation_forest_follows_the_trees_of_scikit_learn():
    spec, values = wines()
    torch.manual_seed(0)
    model = fitted(IsolationForest(spec, num_trees=30, max_samples=64), values[:100])
    twin = Forest(n_estimators=30, max_samples=64, random_state=model.seed).fit(values[:100].numpy())
    np.testing.assert_allclose(model(values).numpy(), -twin.score_samples(values.numpy()), rtol=1e-9)


def test_local_outlier_factor_is_scikit_learns():
    spec, values = wines()
    model = fitted(NearestNeighbors(spec, k=10), values[:100])
    twin = LocalOutlierFactor(n_neighbors=10, novelty=True).fit(values[:100].numpy())
    np.testing.assert_allclose(model(values[100:]).numpy(), -twin.score_samples(values[100:].numpy()), rtol=1e-5)


def test_distance_to_the_kth_neighbor_by_hand():
    spec, values = wines()
    model = fitted(NearestNeighbors(spec, k=3, score="distance"), values[:100])
    by_hand = np.sort(cdist(values[100:].numpy().astype(float), values[:100].numpy().astype(float)), 1)[:, 2]
    np.testing.assert_allclose(model(values[100:]).numpy(), by_hand, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_nearest_rows_are_exact_far_from_the_origin_too(offset, monkeypatch):
    monkeypatch.setattr("dlframe.models.nearest.PRODUCTS", 700)  # in several parts
    random = np.random.default_rng(0)
    rows, queries = (torch.from_numpy(random.normal(size=(n, 6)) + offset).float() for n in (200, 31))
    distance, index = nearest(queries, rows, 4)
    whole = cdist(queries.double(), rows.double())
    np.testing.assert_allclose(distance, np.sort(whole, 1)[:, :4], rtol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(whole, index.numpy(), 1), distance, rtol=1e-12)
    assert nearest(rows, rows, 1)[0].max() == 0


def test_the_coreset_is_that_of_the_greedy_algorithm():
    rows = torch.from_numpy(np.random.default_rng(1).normal(size=(120, 5))).double()
    chosen = coreset(rows, 12, seed=3).tolist()
    whole = cdist(rows, rows)
    greedy = chosen[:1]
    while len(greedy) < 12:
        greedy.append(int(whole[greedy].min(0).argmax()))
    assert chosen == greedy
    assert coreset(rows, 500).tolist() == list(range(120))


def test_deep_svdd_has_no_bias_and_a_center_that_stays_away_from_zero():
    spec, values = wines()
    torch.manual_seed(0)
    model = DeepSVDD(spec, latent_dim=8)
    assert not any("bias" in name for name, _ in model.named_parameters())
    model.prepare([values[:90], values[90:]])
    with torch.no_grad():
        mean = model.encoder(values).double().mean(0)
    center = model.center.double()
    near = mean.abs() < 0.1
    assert near.any()
    assert not near.all()
    torch.testing.assert_close(center[~near], mean[~near], rtol=1e-5, atol=1e-6)
    assert center[near].abs().min() == pytest.approx(0.1)
    with torch.no_grad():
        expected = (model.encoder(values).double() - center).square().sum(1)
        torch.testing.assert_close(model(values).double(), expected, rtol=1e-5, atol=1e-6)


def test_the_bound_of_the_vae_is_reconstruction_and_divergence():
    spec, values = wines()
    torch.manual_seed(0)
    model = VariationalAutoencoder(spec, beta=2.0).eval()
    with torch.no_grad():
        mean, log_variance = model.code(values)
        normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
        divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
        likelihood = torch.distributions.Normal(model.decoder(mean), 1.0).log_prob(values).sum(1)
        constant = 0.5 * np.log(2 * np.pi) * values.shape[1]
        expected = (2 * divergence - likelihood - constant) / values.shape[1]
        torch.testing.assert_close(model(values), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.losses(values), model(values)), "no noise in evaluation"
        model.train()
        assert not torch.equal(model.losses(values), model.losses(values)), "noise in training"


def test_the_noise_of_the_vae_leaves_room_for_the_code():
    """With a variance of 1, that of the data, coordinates of the code are not worth their divergence."""
    spec, values = wines()
    used = {}
    for beta in (0.01, 1.0):
        torch.manual_seed(0)
        model = VariationalAutoencoder(spec, beta=beta)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(200):
            optimizer.zero_grad()
            model.losses(values).mean().backward()
            optimizer.step()
        used[beta] = int((model.code(values)[0].var(0) > 0.1).sum())
    assert used[0.01] == model.latent_dim > used[1.0]
    assert VariationalAutoencoder(spec).beta == 0.01


def test_the_classifier_by_errors_begins_with_the_frequencies_of_the_classes():
    """More unusual rows are likelier of the rarest class, and the error is that of an autoencoder."""
    spec, values = wines()
    spec = replace(spec, fitted={**spec.fitted, "counts": [170, 8]})
    torch.manual_seed(0)
    model = AutoencoderScore(spec)
    torch.manual_seed(0)
    errors = Autoencoder(spec)(values)
    assert torch.equal(model.losses(values), errors)
    odds = (model(values)[:, 1] - model(values)[:, 0]).exp()
    torch.testing.assert_close(odds, errors * 8 / 170)
    model(values).logsumexp(1).sum().backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == {
        "calibration.weight",
        "calibration.bias",
    }


def test_a_missing_number_has_no_error():
    spec, values = wines()
    model = VariationalAutoencoder(spec).eval()
    values[0, 3] = torch.nan
    with torch.no_grad():
        assert model(values).isfinite().all()
        assert model.errors(values)[0, 3] == 0


def test_the_memory_bank_knows_its_own_images_and_scores_pixels(capsys):
    data = digits()
    images = (
        torch.from_numpy(data.train["image"][:40].astype(np.float32)) / 255 - data.spec.input.mean[0]
    ) / data.spec.input.std[0]
    torch.manual_seed(0)
    model = MemoryBank(data.spec, size=10_000, image_size=32).eval()
    assert model(images[:2]).tolist() == [0, 0]
    with torch.no_grad():
        model.prepare([images[:20]])
        assert "random weights" in capsys.readouterr().err
        model.partial_fit(images[:20])
        model.begin_scoring()
        model.partial_fit(images[20:])  # after the bank is closed
        assert model(images[:20]).max() < 1e-6
        assert model(images[20:]).min() > 1e-3
        features = model.features(images[20:21]).permute(0, 2, 3, 1).reshape(-1, 128)
        by_hand = cdist(features.double(), model.bank.double()).min(1)
        np.testing.assert_allclose(model.distances(images[20:21])[1][0], by_hand, rtol=1e-5)
        assert model.maps(images[:3]).shape == (3, 8, 8)
