"""Speech augmentations, drawn per utterance, of features: logarithms of mel powers (frames, mels)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlframe.readers.audio.mel import HOP, STRIDE
from dlframe.registry import Fraction, Natural, NonNegative, Positive, augmentations
from dlframe.types import Batch, ConfigError, DataSpec, Ragged


@augmentations.register("spec_augment", inputs=("audio",), sample={"name": "tones", "utterances": 60})
class SpecAugment:
    """Hide spans of time and of frequency.

    Park et al. 2019, arXiv 1904.08779, without its warp of time. What is hidden is replaced by the utterance's mean of each
    frequency. Masks lie within the utterance's own frames, also if it is shorter than the largest mask.

    Args:
        time_masks: Number of spans of time.
        time_width: Largest width in frames of 10 ms; each width from 0 on is as likely.
        time_fraction: Largest fraction of the utterance that one span hides.
        freq_masks: Number of spans of frequency.
        freq_width: Largest width in mel filters.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        time_masks: Natural = 2,
        time_width: Natural = 10,
        time_fraction: Fraction = 0.2,
        freq_masks: Natural = 2,
        freq_width: Natural = 12,
    ) -> None:
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        self.time = time_masks, time_width, time_fraction
        self.freq = freq_masks, freq_width

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        features: Ragged = batch[self.audio]
        values, sample, frame = features.values, *places(features)
        lengths, mels = features.lengths, values.shape[1]
        hidden = torch.zeros_like(values, dtype=torch.bool)
        masks, width, fraction = self.time
        for _ in range(masks):
            start, end = spans((lengths * fraction).long().clamp(max=width), lengths, generator)
            hidden |= ((frame >= start[sample]) & (frame < end[sample]))[:, None]
        mel = torch.arange(mels, device=values.device)
        for _ in range(self.freq[0]):
            start, end = spans(torch.full_like(lengths, min(mels, self.freq[1])), torch.full_like(lengths, mels), generator)
            hidden |= (mel >= start[sample, None]) & (mel < end[sample, None])
        padded, _ = features.padded()
        means = padded.sum(1) / lengths[:, None]
        return batch.replace(**{self.audio: features.like(torch.where(hidden, means[sample], values))})


@augmentations.register("speech_noise", inputs=("audio",), sample={"name": "tones", "utterances": 60})
class Noise:
    """Add noise of a random color, at a signal-to-noise ratio.

    Powers of sounds that are independent add up in each mel filter. The power of the noise in a filter and a frame is
    exponentially distributed, as that of one frequency of a Gaussian noise.

    Args:
        min_snr: Lowest ratio of signal to noise in dB.
        max_snr: Highest ratio.
        tilt: Largest slope of the noise over all filters, up or down, in dB.
        p: Probability of noise.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        min_snr: NonNegative = 10.0,
        max_snr: NonNegative = 40.0,
        tilt: NonNegative = 20.0,
        p: Fraction = 0.5,
    ) -> None:
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        if min_snr > max_snr:
            raise ConfigError(
                f"augmentation.speech_noise.min_snr: must be at most max_snr, {max_snr:g}. Received: {min_snr:g}.",
                "augmentation.speech_noise.min_snr",
            )
        self.low, self.high, self.tilt, self.p = min_snr, max_snr, tilt, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        features: Ragged = batch[self.audio]
        values, (sample, _) = features.values, places(features)
        snr, slope, chosen = torch.rand(3, len(features), generator=generator, device=values.device, dtype=values.dtype)
        padded, lengths = Ragged(values.exp(), features.offsets).padded()
        power = padded.sum((1, 2)) / (lengths * values.shape[1])
        level = power * 10 ** (-(self.low + snr * (self.high - self.low)) / 10)
        color = torch.linspace(-0.5, 0.5, values.shape[1], device=values.device, dtype=values.dtype)
        shape = 10 ** ((slope * 2 - 1)[:, None] * self.tilt * color / 10)
        shape = shape / shape.mean(1, keepdim=True)
        drawn = torch.empty_like(values).exponential_(generator=generator)
        noise = (level[:, None] * shape)[sample] * drawn
        noisy = torch.logaddexp(values, noise.clamp(min=torch.finfo(values.dtype).tiny).log())
        return batch.replace(**{self.audio: features.like(torch.where((chosen < self.p)[sample, None], noisy, values))})


@augmentations.register("reverberation", inputs=("audio",), sample={"name": "tones", "utterances": 60})
class Reverberation:
    """Add the echo of a room that is drawn.

    Polack's model of a room's response, Gaussian noise that decays exponentially (Polack 1988, "La transmission de l'energie
    sonore dans les salles"), in its mean over the noise: the power of a frame is followed by echoes in each mel filter, which
    fall by 60 dB in the reverberation time T60 (Lebart et al. 2001, "A new method based on spectral subtraction for speech
    dereverberation"). Echoes behind the end of the utterance are cut off.

    Args:
        min_t60: Shortest reverberation time in seconds.
        max_t60: Longest reverberation time.
        min_drr: Lowest ratio of the direct sound to all echoes in dB; a room is drawn between it and 20 dB.
        p: Probability of a room.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        min_t60: Positive = 0.15,
        max_t60: Positive = 0.8,
        min_drr: NonNegative = 0.0,
        p: Fraction = 0.5,
    ) -> None:
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        if min_t60 > max_t60:
            raise ConfigError(
                f"augmentation.reverberation.min_t60: must be at most max_t60, {max_t60:g}. Received: {min_t60:g}.",
                "augmentation.reverberation.min_t60",
            )
        self.low, self.high, self.drr, self.p = min_t60, max_t60, min_drr, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        features: Ragged = batch[self.audio]
        values = features.values
        t60, ratio, chosen = torch.rand(3, len(features), generator=generator, device=values.device, dtype=values.dtype)
        decay = 10 ** (-6 * HOP / (self.low + t60 * (self.high - self.low)))
        ratio = 10 ** (-(self.drr + ratio * (20 - self.drr)) / 10)
        padded, lengths = Ragged(values.exp(), features.offsets).padded()
        # The sum over k > 0 of decay^(k - 1) times the power k frames before, doubling the number of terms each time.
        echo, factor, shift = nn.functional.pad(padded, (0, 0, 1, 0))[:, :-1], decay[:, None, None], 1
        while shift < padded.shape[1]:
            echo = echo + factor * nn.functional.pad(echo, (0, 0, shift, 0))[:, :-shift]
            factor, shift = factor.square(), 2 * shift
        room = padded + echo * (ratio * (1 - decay))[:, None, None]
        inside = torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None]
        sample, _ = places(features)
        return batch.replace(
            **{self.audio: features.like(torch.where((chosen < self.p)[sample, None], room[inside].log(), values))}
        )


@augmentations.register("time_stretch", inputs=("audio",), sample={"name": "tones", "utterances": 60})
class TimeStretch:
    """Change the speed of speech, at the same pitch.

    Frames are interpolated linearly. An utterance keeps the steps that CTC needs for its letters.

    Args:
        amount: Largest change of the speed, as a fraction.
        p: Probability of a change.
    """

    def __init__(self, spec: DataSpec, *, amount: Fraction = 0.15, p: Fraction = 0.8) -> None:
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        (self.text,) = spec.of_kind("tokens", spec.targets)
        self.amount, self.p = amount, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        features: Ragged = batch[self.audio]
        speed = drawn(len(features), self.amount, self.p, features.values.device, generator)
        return batch.replace(**{self.audio: stretched(features, batch[self.text], speed)})


@augmentations.register("vocal_tract", inputs=("audio",), sample={"name": "tones", "utterances": 60})
class VocalTract:
    """Scale the frequencies of speech, as of a speaker with a shorter or longer vocal tract.

    Vocal tract length perturbation (Jaitly and Hinton 2013), of the mel filters instead of the spectrum: values between
    filters are interpolated, and those beyond the last one are repeated.

    Args:
        amount: Largest change of the frequencies, as a fraction.
        p: Probability of a change.
    """

    def __init__(self, spec: DataSpec, *, amount: Fraction = 0.15, p: Fraction = 0.8) -> None:
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        self.top = highest_mel(spec)
        self.amount, self.p = amount, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        features: Ragged = batch[self.audio]
        factor = drawn(len(features), self.amount, self.p, features.values.device, generator)
        return batch.replace(**{self.audio: scaled(features, factor, self.top)})


@augmentations.register("speed", inputs=("audio",), sample={"name": "tones", "utterances": 60})
class Speed:
    """Change the speed of a recording and its pitch with it, as resampling does.

    Speed perturbation (Ko et al. 2015, "Audio augmentation for speech recognition"), of the features: frames are interpolated
    as by time_stretch, and filters as by vocal_tract, by the same factor. An utterance keeps the steps that CTC needs.

    Args:
        amount: Largest change of the speed, as a fraction.
        p: Probability of a change.
    """

    def __init__(self, spec: DataSpec, *, amount: Fraction = 0.1, p: Fraction = 0.67) -> None:
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        (self.text,) = spec.of_kind("tokens", spec.targets)
        self.top = highest_mel(spec)
        self.amount, self.p = amount, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        features: Ragged = batch[self.audio]
        speed = drawn(len(features), self.amount, self.p, features.values.device, generator)
        faster = stretched(features, batch[self.text], speed)
        # What CTC needs may have kept it slower than drawn.
        return batch.replace(**{self.audio: scaled(faster, faster.lengths / features.lengths, self.top)})


def drawn(samples: int, amount: float, p: float, device: torch.device, generator: torch.Generator) -> Tensor:
    """Draw a factor for each sample, (samples,): between 1 - amount and 1 + amount with the probability p, else 1."""
    factor, chosen = torch.rand(2, samples, generator=generator, device=device)
    return torch.where(chosen < p, 1 + (2 * factor - 1) * amount, 1.0)


def stretched(features: Ragged, text: Ragged, speed: Tensor) -> Ragged:
    """Return features of speech that is faster by `speed` (samples,), with the steps that CTC needs for the text."""
    values, lengths = features.values, features.lengths
    letters = text.values
    repeats = torch.zeros_like(letters)
    repeats[1:] = (letters[1:] == letters[:-1]).to(letters.dtype)
    counts = nn.functional.pad((1 + repeats).cumsum(0), (1, 0))
    needed = STRIDE * (counts[text.offsets[1:]] - counts[text.offsets[:-1]])
    frames = torch.maximum((lengths / speed.clamp(min=0.1)).round().long(), torch.minimum(needed, lengths)).clamp(min=1)
    faster = Ragged(values[:0], nn.functional.pad(frames.cumsum(0), (1, 0)))
    sample, frame = places(faster)
    place = frame * ((lengths - 1) / (frames - 1).clamp(min=1))[sample]
    below = place.floor().long()
    above = torch.minimum(below + 1, lengths[sample] - 1)
    fraction = (place - below).to(values.dtype)[:, None]
    start = features.offsets[:-1][sample]
    return faster.like(torch.lerp(values[start + below], values[start + above], fraction))


def highest_mel(spec: DataSpec) -> float:
    """Return the mel of half the sample rate."""
    return 2595 * math.log10(1 + spec.fitted["sample_rate"] / 2 / 700)


def scaled(features: Ragged, factor: Tensor, top: float) -> Ragged:
    """Return features whose filters are those of `factor` (samples,) times their frequencies; `top` is the highest mel."""
    values, (sample, _) = features.values, places(features)
    last = values.shape[1] - 1
    step = top / (last + 2)
    mel = (torch.arange(last + 1, device=values.device) + 1) * step
    hertz = (10 ** (mel / 2595) - 1) * factor[:, None]
    place = ((2595 * (1 + hertz).log10() / step) - 1).clamp(0, last)
    below = place.floor().long().clamp(max=max(0, last - 1))
    fraction = (place - below).to(values.dtype)[sample]
    below = below[sample]
    return features.like(torch.lerp(values.gather(1, below), values.gather(1, (below + 1).clamp(max=last)), fraction))


def places(features: Ragged) -> tuple[Tensor, Tensor]:
    """Return the sample of each frame, and its place in it, (frames,)."""
    lengths = features.lengths
    sample = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    return sample, torch.arange(len(sample), device=lengths.device) - features.offsets[:-1][sample]


def spans(widest: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw spans of 0 to `widest` within `lengths`; return their starts and ends (samples,)."""
    width, start = torch.rand(2, len(lengths), generator=generator, device=lengths.device)
    width = (width * (widest + 1)).long()
    start = (start * (lengths - width + 1)).long()
    return start, start + width
