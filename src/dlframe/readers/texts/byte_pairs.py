"""Byte-pair encoding of GPT-2, which Whisper's English models read and write."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from dlframe.storage.fetch import Package, member
from dlframe.types import DataError, read_bytes

VOCABULARY = (
    Package(
        "pip",
        "openai-whisper",
        "20250625",
        "37a91a3921809d9f44748ffc73c0a55c9f366c85a3ef5c2ae0cc09540432eb96",
        0.8,
        "MIT",
        build="sdist",
    ),
    "whisper/assets/gpt2.tiktoken",
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
)
"""Vocabulary of GPT-2: package, path of the file in the package, SHA-256 of the file."""

SIZE, BYTES = 50_256, 320_814
"""Tokens of the vocabulary, and bytes of all of them."""

PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""Pieces of text that are encoded each by itself. Signs such as "½" are letters here, and numbers for GPT-2."""


class BytePairs:
    """Encoder and decoder of texts.

    Sennrich et al. 2015, arXiv 1508.07909, over bytes as by Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners".

    Args:
        tokens: Bytes of each token; the pairs of an earlier one are merged first.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = tokens
        self.ranks = {token: rank for rank, token in enumerate(tokens)}

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        found = []
        for piece in PIECES.findall(text):
            parts = [bytes([byte]) for byte in piece.encode()]
            while len(parts) > 1:
                ranks = [self.ranks.get(parts[i] + parts[i + 1], len(self.tokens)) for i in range(len(parts) - 1)]
                if (lowest := min(ranks)) == len(self.tokens):
                    break
                place = ranks.index(lowest)
                parts[place : place + 2] = [parts[place] + parts[place + 1]]
            found += [self.ranks[part] for part in parts]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; bytes that are no UTF-8 become the replacement character."""
        return b"".join(self.tokens[token] for token in tokens).decode(errors="replace")


def read_vocabulary() -> list[bytes]:
    """Return the bytes of each token of GPT-2, from the cache or a download.

    Raises:
        DataError: The package cannot be fetched, or its file is damaged.
    """
    file: Path = member(*VOCABULARY)
    try:
        rows = [line.split() for line in read_bytes(file, 2**24).splitlines()]
        return [base64.b64decode(token) for token, _ in sorted(rows, key=lambda row: int(row[1]))]
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
