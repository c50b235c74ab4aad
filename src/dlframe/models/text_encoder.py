"""Encoder of BERT's kind, with the weights of a folder of transformers."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from dlframe.models.transformer import TransformerLayer, TransformerLayers
from dlframe.models.weight_files import read
from dlframe.readers.texts.subwords import Architecture, files_of
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError


class TextEncoder(nn.Module):
    """Transformer over sub-words: BERT (Devlin et al. 2018, arXiv 1810.04805), RoBERTa and DistilBERT.

    Layer normalization comes after attention and feed-forward layers; positions are learned. Unlike in
    the papers, attention weights are not dropped in training.

    Args:
        architecture: Sizes of the encoder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.words = nn.Embedding(a.vocabulary, a.width)
        self.positions = nn.Embedding(a.first_position + a.positions, a.width)
        self.types = nn.Embedding(a.types, a.width) if a.types else None
        for table in filter(None, (self.words, self.positions, self.types)):
            nn.init.normal_(table.weight, std=0.02)
        self.norm = nn.LayerNorm(a.width, a.epsilon)
        self.dropout = nn.Dropout(a.dropout)
        self.layers = TransformerLayers(
            TransformerLayer(
                a.width, a.num_heads, a.hidden_dim, a.dropout, activation=a.activation, norm_first=False, epsilon=a.epsilon
            )
            for _ in range(a.depth)
        )

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (batch, time, width) of texts, and which are beyond their ends (batch, time).

        Args:
            ids: (batch, time) numbers of sub-words.
            lengths: (batch,) lengths of the texts.
        """
        time = torch.arange(ids.shape[1], device=ids.device)
        states = self.words(ids) + self.positions(time + self.architecture.first_position)
        if self.types is not None:
            states = states + self.types.weight[0]
        outside = time >= lengths.to(ids.device).unsqueeze(1)
        inside = ~outside[:, None, None, :] if len(ids) > 1 else None  # one text has no end within its batch
        return self.layers(self.dropout(self.norm(states)), inside), outside


RENAMED = (
    (r"^(?:bert|roberta|distilbert|model)\.", ""),
    (r"\bgamma$", "weight"),
    (r"\bbeta$", "bias"),
    (r"^embeddings\.word_embeddings\.", "words."),
    (r"^embeddings\.position_embeddings\.", "positions."),
    (r"^embeddings\.token_type_embeddings\.", "types."),
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"^(?:encoder\.layer|transformer\.layer)\.", "layers.layers."),
    (r"\.attention\.self\.(query|key|value)\.", r".\1."),
    (r"\.attention\.([qkv])_lin\.", r".\1."),
    (r"\.attention\.(?:output\.dense|out_lin)\.", ".self_attn.out_proj."),
    (r"\.(?:attention\.output\.LayerNorm|sa_layer_norm)\.", ".norm1."),
    (r"\.(?:intermediate\.dense|ffn\.lin1)\.", ".linear1."),
    (r"\.(?:output\.LayerNorm|output_layer_norm)\.", ".norm2."),
    (r"\.(?:output\.dense|ffn\.lin2)\.", ".linear2."),
)
"""Names of tensors in transformers -> here, in this order."""

UNUSED = re.compile(r"^(?:pooler|cls|lm_head|classifier|pre_classifier|vocab_\w+)\.|position_ids$")
"""Tensors of heads, and of numbers that are counted here."""

PARTS = (("query", "q"), ("key", "k"), ("value", "v"))


def pretrained(encoder: TextEncoder, source: str) -> None:
    """Load the weights of `source` into an encoder; see `subwords.files_of`.

    Raises:
        CheckpointError: They are damaged, not finite, or of another architecture.
        DataError: There is no such file.
    """
    path = files_of(source, ("model.safetensors",), "model.weights")["model.safetensors"]
    found: dict[str, Tensor] = {}
    for name, tensor in read(path).items():
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        if not UNUSED.search(name):
            found[name] = tensor
    for layer in range(encoder.architecture.depth):
        place = f"layers.layers.{layer}."
        for kind in ("weight", "bias"):
            parts = [found.pop(f"{place}{n}.{kind}", found.pop(f"{place}{short}.{kind}", None)) for n, short in PARTS]
            kept = [part for part in parts if part is not None]
            if len(kept) == len(PARTS) and len({part.shape[1:] for part in kept}) == 1:
                found[f"{place}self_attn.in_proj_{kind}"] = torch.cat(kept)
    if bad := next((name for name, tensor in found.items() if not tensor.isfinite().all()), None):
        raise CheckpointError(f"{path}: must hold finite numbers. Received: NaN or infinity in '{bad}'.")
    checkpoint.restore(encoder, found, path)
