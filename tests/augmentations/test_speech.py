"""Speech augmentations: what they do to features, against sounds that were changed before their features were made."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from torch import nn

from dlframe.registry import augmentations, plugins, tasks
from dlframe.types import Batch, ConfigError, DataSpec, Field, Ragged

plugins.discover()
RATE = 16000
SPEC = DataSpec(
    "x",
    {"audio": Field(kind="audio", dtype="float32", shape=(None,))},
    {"text": Field(kind="tokens", dtype="int64", shape=(None,), names=tuple(" ab"))},
    {"sample_rate": RATE},
)
NAMES = ("spec_augment", "speech_noise", "reverberation", "time_stretch", "vocal_tract", "speed")


def batch(*sounds: np.ndarray) -> Batch:
    audio = Ragged.of([sound.astype(np.float32) for sound in sounds])
    columns: dict = {"audio": Ragged(torch.from_numpy(audio.values), torch.from_numpy(audio.offsets))}
    columns["text"] = Ragged(torch.tensor([1, 2] * len(sounds)), torch.arange(0, 2 * len(sounds) + 1, 2))
    return Batch(columns, torch.arange(len(sounds)), SPEC)


def features(*sounds: np.ndarray) -> Batch:
    return tasks.build({"name": "transcription"}, spec=SPEC, model=nn.Identity()).features(batch(*sounds))


def augmented(name: str, given: Batch, seed: int = 0, **options: Any) -> Ragged:
    return augmentations.build({"name": name, **options}, spec=SPEC)(given, torch.Generator().manual_seed(seed))["audio"]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))


def bursts() -> np.ndarray:
    """Noise of 100 ms, every 500 ms."""
    return noise(3.0) * (np.arange(3 * RATE) % (RATE // 2) < RATE // 10)


@pytest.mark.parametrize(("t60", "drr"), [(0.3, 0.0), (0.6, 6.0)])
def test_reverberation_is_that_of_a_decaying_response(t60, drr):
    """Beside the mean over 24 rooms, of noise that decays, by convolution of the sound."""
    sound, time = bursts(), np.arange(round(1.5 * t60 * RATE)) / RATE
    rooms = []
    for seed in range(24):
        tail = np.random.default_rng(seed).normal(size=len(time)) * 10 ** (-3 * time / t60)
        tail *= 10 ** (-drr / 20) / np.sqrt((tail**2).sum())
        rooms.append(sound + fftconvolve(sound, np.r_[0, tail])[: len(sound)])
    expected = np.mean([f.exp().mean(1).numpy() for f in features(*rooms)["audio"]], 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(*shape))  # the lowest ratio
        found = augmented("reverberation", features(sound), p=1.0, min_t60=t60, max_t60=t60, min_drr=drr)
    mean = found[0].exp().mean(1).numpy()
    heard = expected > 1e-6
    assert heard.mean() > 0.5
    assert np.abs(10 * np.log10(mean / expected))[heard].mean() < 1.2
    before = features(sound)["audio"][0].exp().mean(1).numpy()
    assert np.abs(10 * np.log10(before / expected))[heard].mean() > 10


def test_an_echo_falls_by_60_db_in_its_time():
    click = np.zeros(RATE)
    click[1600] = 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(*shape))
        found = augmented("reverberation", features(click), p=1.0, min_t60=0.4, max_t60=0.4)[0].exp().mean(1) - 1e-8
    assert (10 * torch.log10(found[20] / found[40])).item() == pytest.approx(30, abs=0.5)


def test_noise_has_its_ratio():
    """The power that is added, beside that of the speech."""
    given = features(*[noise(1.0, seed) for seed in range(20)])
    found = augmented("speech_noise", given, p=1.0, min_snr=6.0, max_snr=6.0)
    for new, old in zip(found, given["audio"], strict=True):
        ratio = old.exp().mean() / (new.exp() - old.exp()).mean()
        assert 10 * torch.log10(ratio).item() == pytest.approx(6, abs=0.6)


def test_masks_hide_what_is_drawn():
    given = features(noise(2.0))
    found = augmented("spec_augment", given, time_masks=1, time_width=10, freq_masks=1, freq_width=12)[0]
    changed = (found != given["audio"][0]).numpy()
    frames, mels = np.flatnonzero(changed.mean(1) > 0.95), np.flatnonzero(changed.mean(0) > 0.95)
    assert len(frames) <= 10
    assert len(mels) <= 12
    assert (np.diff(frames) == 1).all()
    assert (np.diff(mels) == 1).all()
    rest = np.delete(np.delete(changed, frames, 0), mels, 1)
    assert not rest.any()
    assert changed.any()
    mean = given["audio"][0].mean(0)
    torch.testing.assert_close(found[torch.from_numpy(changed)], mean.expand_as(found)[torch.from_numpy(changed)])


def test_a_stretch_keeps_the_pitch_and_changes_the_length():
    time = np.arange(RATE) / RATE
    given = features(*[0.3 * np.sin(2 * np.pi * (500 + 1000 * time) * time)] * 30)
    found = augmented("time_stretch", given, amount=0.2, p=1.0)
    lengths = found.lengths.numpy() / 100
    assert 0.8 <= lengths.min() < 0.95 < 1.05 < lengths.max() <= 1.25
    for new in found:
        for part in (0.25, 0.5, 0.75):  # at the same fraction of the utterance, the same filter is the loudest
            old = given["audio"][0]
            assert abs(new[round(part * (len(new) - 1))].argmax() - old[round(part * (len(old) - 1))].argmax()) <= 1


def test_a_stretch_leaves_the_steps_of_ctc():
    given = features(noise(0.03))
    assert augmented("time_stretch", given, amount=0.9, p=1.0).lengths.min() >= 3


def loudest(found: Ragged) -> np.ndarray:
    """Return the frequency of the loudest filter of each sound, in Hz."""
    top = torch.stack([sound[20:80].mean(0).argmax() for sound in found]).numpy()
    step = 2595 * np.log10(1 + RATE / 2 / 700) / 65
    return 700 * (10 ** ((top + 1) * step / 2595) - 1)


def tones(count: int, hertz: float = 1000) -> Batch:
    return features(*[0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)] * count)


def test_a_vocal_tract_scales_the_frequencies():
    """A tone moves as its frequency does."""
    hertz = loudest(augmented("vocal_tract", tones(40), amount=0.2, p=1.0))
    assert 800 < hertz.min() < 930
    assert 1080 < hertz.max() < 1270


def test_a_speed_changes_length_and_pitch_as_playing_faster_does():
    """Each sound is as one of the length and the frequency that it would have."""
    found = augmented("speed", tones(40), amount=0.2, p=1.0)
    speed = 100 / found.lengths.numpy()
    assert 0.79 <= speed.min() < 0.85 < 1.15 < speed.max() <= 1.22
    assert loudest(found) == pytest.approx(1000 * speed, rel=0.05)  # filters are 4 % apart
    assert augmented("speed", tones(40), p=0.0).lengths.eq(100).all()


def test_a_speed_that_is_held_back_for_ctc_keeps_the_pitch_with_it():
    given = features(np.sin(2 * np.pi * 1000 * np.arange(RATE // 25) / RATE))
    found = augmented("speed", given, seed=1, amount=0.9, p=1.0)
    assert len(found.values) == len(given["audio"].values) == 4, "two letters need four frames"
    torch.testing.assert_close(found.values, given["audio"].values)


@pytest.mark.parametrize("name", NAMES)
def test_the_shortest_sounds_are_kept(name):
    options: dict[str, Any] = {} if name == "spec_augment" else {"p": 1.0}
    found = augmented(name, features(np.zeros(1), noise(0.01), noise(0.5)), **options)
    assert found.values.isfinite().all()
    assert len(found) == 3


def test_a_wrong_range():
    with pytest.raises(ConfigError, match=r"min_snr: must be at most max_snr, 40. Received: 50"):
        augmented("speech_noise", features(noise(0.1)), min_snr=50.0)
    with pytest.raises(ConfigError, match=r"min_t60: must be at most max_t60, 0.2. Received: 0.5"):
        augmented("reverberation", features(noise(0.1)), min_t60=0.5, max_t60=0.2)
