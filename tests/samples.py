"""Small specs and batches that several tests build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from dlframe.types import Batch, DataSpec, Field, Ragged, Split


def image_spec(
    name: str, shape: tuple[int, ...], classes: tuple[str, ...], mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> DataSpec:
    """Images ("image") of one class each ("label"); without statistics they are taken as they are, in [0, 1]."""
    channels = shape[0]
    image = Field(kind="image", dtype="uint8", shape=shape, mean=mean or (0.0,) * channels, std=std or (1.0,) * channels)
    return DataSpec(name, {"image": image}, {"label": Field(kind="class", dtype="int64", names=classes)})


def series_spec(name: str, shape: tuple[int, ...], horizon: int) -> DataSpec:
    """Windows of a series ("window") and the values that follow ("future")."""
    window = Field(kind="series", dtype="float64", shape=shape)
    return DataSpec(name, {"window": window}, {"future": Field(kind="value", dtype="float64", shape=(horizon,))})


def batch_of(split: Split, spec: DataSpec, count: int | None = None) -> Batch:
    """The first samples of a split, as a task gets them from the loader."""
    part = split.take(np.arange(len(split) if count is None else count))
    columns = {name: _tensors(part[name]) for name in spec.fields}
    labelled = None if part.labelled is None else torch.from_numpy(part.labelled)
    return Batch(columns, torch.arange(len(part)), spec, labelled)


def _tensors(column: np.ndarray | Ragged) -> torch.Tensor | Ragged:
    if isinstance(column, Ragged):
        return Ragged(torch.from_numpy(column.values), torch.from_numpy(column.offsets))
    return torch.from_numpy(column)


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "wine", "cell", "data", "##s", "of", "is", ".", "=", "a", "to", "in")


def encoder_folder(folder: Path, *, seed: int = 0, **config: object) -> Path:
    """A tiny BERT in the layout of transformers: 16 sub-words, 2 layers of 8 numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    more = {"max_position_embeddings": 32, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    described = {"model_type": "bert", **sizes, **more, **config}
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    sequence = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    last = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    tokenizer = {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [{"id": i, "content": WORDS[i], **special} for i in range(4)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*sequence, last],
            "pair": [*sequence, last, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {w: {"id": w, "ids": [WORDS.index(w)], "tokens": [w]} for w in ("[CLS]", "[SEP]")},
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: i for i, word in enumerate(WORDS)},
        },
    }
    tokenizer["normalizer"]["strip_accents"] = None  # type: ignore[index]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    save_file(encoder_weights(seed), folder / "model.safetensors")
    return folder


def encoder_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights by the names of transformers' BERT."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (16, 8),
        "embeddings.position_embeddings.weight": (32, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "pooler.dense.weight": (8, 8),
    }
    for layer in range(2):
        place = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            shapes |= {f"{place}attention.self.{name}.weight": (8, 8), f"{place}attention.self.{name}.bias": (8,)}
        for name, rows, columns in (("attention.output", 8, 8), ("intermediate", 12, 8), ("output", 8, 12)):
            shapes |= {f"{place}{name}.dense.weight": (rows, columns), f"{place}{name}.dense.bias": (rows,)}
    for name in ("embeddings", *(f"encoder.layer.{i}.{part}" for i in range(2) for part in ("attention.output", "output"))):
        shapes |= {f"{name}.LayerNorm.weight": (8,), f"{name}.LayerNorm.bias": (8,)}
    return {name: torch.randn(shape, generator=generator) * 0.5 for name, shape in shapes.items()}
