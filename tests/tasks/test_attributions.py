"""Words that decide, against differences of the log odds."""

import pytest
import torch

from dlframe.contracts.samples import batch_of, sentences
from dlframe.registry import models, plugins, tasks
from dlframe.tasks.attributions import deciding_words, integrated_gradients
from dlframe.types import Ragged

plugins.discover()


def build(name: str, **options):
    data = sentences()
    torch.manual_seed(0)
    model = models.build({"name": name, **options}, spec=data.spec).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return data, model


@pytest.mark.parametrize("name", ["text_cnn", "bilstm", "text_transformer"])
def test_contributions_add_up_to_the_difference(name):
    """Of the log odds at the text and at embeddings of zeros (completeness; Sundararajan et al. 2017)."""
    data, model = build(name)
    tokens = torch.from_numpy(data.train["text"][3].copy())
    found = integrated_gradients(model, model.token_embedding, tokens, 1, steps=300)

    def odds() -> float:
        with torch.no_grad():
            logits = model(Ragged(tokens, torch.tensor([0, len(tokens)])))[0].log_softmax(0)
        return (logits[1] - torch.log1p(-logits[1].exp())).item()

    own = odds()
    hook = model.token_embedding.register_forward_hook(lambda module, inputs, output: output * 0)
    none = odds()
    hook.remove()
    assert found.shape == tokens.shape
    assert found.sum().item() == pytest.approx(own - none, abs=0.02 * max(1, abs(own - none)))
    assert odds() == own  # nothing is left behind


def test_contributions_of_a_bag_of_ngrams_are_exact():
    data, model = build("fasttext", embedding_dim=4, buckets=50, ngrams=3)
    tokens = torch.from_numpy(data.train["text"][3].copy())
    with torch.no_grad():
        found = model.contributions(tokens, 1)
        logits = model(Ragged(tokens, torch.tensor([0, len(tokens)])))[0] - model.head.bias
    assert found.sum().item() == pytest.approx((logits[1] - logits[0]).item(), abs=1e-4)


@pytest.mark.parametrize("name", ["fasttext", "text_cnn"])
def test_texts_are_drawn_with_their_words(name):
    data, model = build(name)
    task = tasks.build({"name": "classification"}, spec=data.spec, model=model).eval()
    with torch.no_grad():
        scores = task.score(task.features(batch_of(data.test, data.spec)))
        drawn = task.figures(scores, data)
    assert {"words", "operating_points"} <= set(drawn)
    drawn["words"].draw_without_rendering()
    found = deciding_words(task, scores, data)
    assert [text.prediction == text.target for text in found] == sorted([t.prediction == t.target for t in found], reverse=True)
    for text in found:
        assert len(text.words) == len(text.weights)
