"""Classical references against scikit-learn itself."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from dlframe.contracts.samples import batch_of, lines, sentences
from dlframe.models.references import Boosting, NBLogistic, TabularLogistic
from dlframe.readers.texts.tokens import split_text
from dlframe.types import DataSpec, Field


def table(source, missing=False):
    data = source()
    values = (data.data - data.data.mean(0)) / data.data.std(0)
    if missing:
        values[::7, 2] = np.nan
    fields = {"numbers": Field(kind="number", dtype="float64", shape=(values.shape[1],))}
    names = tuple(map(str, data.target_names))
    spec = DataSpec("t", fields, {"y": Field(kind="class", dtype="int64", names=names)}, {"cardinalities": []})
    return spec, torch.from_numpy(values).float(), torch.from_numpy(data.target)


def fitted(model, values, targets):
    for rows in torch.arange(len(values)).split(50):
        model.partial_fit(values[rows], targets[rows])
    with torch.no_grad():
        return model(values)


@pytest.mark.parametrize("source", [load_breast_cancer, load_wine])
def test_boosting_follows_the_trees_of_scikit_learn(source):
    spec, values, targets = table(source, missing=True)
    model = Boosting(spec, num_trees=20, min_samples_leaf=5)
    logits = fitted(model, values, targets)
    twin = HistGradientBoostingClassifier(
        learning_rate=0.05, max_iter=20, max_leaf_nodes=15, min_samples_leaf=5, l2_regularization=1.0, early_stopping=False
    ).fit(values.double().numpy(), targets.numpy())
    np.testing.assert_allclose(logits.softmax(1), twin.predict_proba(values.double().numpy()), atol=1e-6)


@pytest.mark.parametrize("source", [load_breast_cancer, load_wine])
def test_logistic_regression_is_scikit_learns(source):
    spec, values, targets = table(source)
    logits = fitted(TabularLogistic(spec), values, targets)
    twin = LogisticRegression(max_iter=1000).fit(values.double().numpy(), targets.numpy())
    np.testing.assert_allclose(logits.softmax(1), twin.predict_proba(values.double().numpy()), atol=1e-4)


def test_naive_bayes_weights_are_those_of_the_paper():
    data = sentences()
    model = NBLogistic(data.spec, C=1.0, beta=0.25)
    batch = batch_of(data.train, data.spec)
    model.partial_fit(batch.inputs, batch["label"])
    with torch.no_grad():
        logits = model(batch.inputs)
    texts = [lines()[0][i] for i in data.train.ids[batch.index.numpy()]]
    labels = batch["label"].numpy()
    counts = CountVectorizer(
        analyzer=lambda text: [*(w := split_text(text, "word")), *map(" ".join, itertools.pairwise(w))], binary=True
    )
    f = counts.fit_transform(texts).toarray()
    p, q = 1 + f[labels == 1].sum(0), 1 + f[labels == 0].sum(0)
    r = np.log(p / p.sum() / (q / q.sum()))
    twin = LogisticRegression(max_iter=1000).fit(f * r, labels)
    w = 0.75 * np.abs(twin.coef_[0]).mean() + 0.25 * twin.coef_[0]
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], (f * r) @ w + 0.25 * twin.intercept_[0], atol=1e-3)


def test_the_state_holds_samples_before_the_fit_and_none_after():
    spec, values, targets = table(load_wine)
    model = TabularLogistic(spec)
    model.partial_fit(values, targets)
    assert len(model.get_extra_state()["samples"]["targets"]) == len(targets)
    copy = TabularLogistic(spec)
    copy.set_extra_state(model.get_extra_state())
    torch.testing.assert_close(copy(values), model(values))
    assert model.get_extra_state()["samples"] == {}
    model.partial_fit(values[:5], targets[:5])
    assert model.get_extra_state()["samples"] == {}
