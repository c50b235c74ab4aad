"""Bags of n-grams, by hand."""

import itertools

import numpy as np
import torch

from dlframe.contracts.samples import batch_of, sentences
from dlframe.models.fasttext import FACTOR, FastText, hashed_ngrams
from dlframe.types import Ragged


def test_ngrams_end_with_their_text():
    samples = [np.array(s, np.int32) for s in ([5, 6, 7, 8], [9], [1, 2])]
    tokens = Ragged.of(samples)
    both, three = hashed_ngrams(Ragged(torch.from_numpy(tokens.values), torch.from_numpy(tokens.offsets)), 3)

    def hashed(words):
        total = int(words[0])
        for word in words[1:]:
            total = (total * FACTOR + int(word)) & (2**62 - 1)
        return total

    for n, found in ((2, both), (3, three)):
        expected = [[hashed(s[i : i + n]) for i in range(len(s) - n + 1)] for s in samples]
        assert [grams.tolist() for grams in found] == expected


def test_logits_are_of_the_mean_of_words_and_ngrams():
    data = sentences()
    torch.manual_seed(0)
    model = FastText(data.spec, embedding_dim=4, buckets=50, ngrams=2).eval()
    torch.nn.init.normal_(model.head.weight)
    tokens = batch_of(data.train, data.spec).inputs
    expected = []
    for text in tokens:
        pairs = [(int(a) * FACTOR + int(b)) % 2**62 % 50 for a, b in itertools.pairwise(text.tolist())]
        rows = torch.cat([model.words[text.long()], model.ngrams[pairs]])
        expected.append(model.head(rows.mean(0)))
    torch.testing.assert_close(model(tokens), torch.stack(expected))
