"""Whisper: against OpenAI's own code where it is at hand; padding, long recordings, letters, and the wrong options."""

import itertools

import numpy as np
import pytest
import torch

from dlframe.models.whisper import MOST_FRAMES, Whisper
from dlframe.readers.audio.mel import Filterbank
from dlframe.registry import models, plugins, tasks
from dlframe.storage import fetch
from dlframe.types import Batch, ConfigError, DataError, DataSpec, Field, Ragged, Split

plugins.discover()


def spec(rate: int = 16000, letters: str = " abc") -> DataSpec:
    audio = {"audio": Field(kind="audio", dtype="float32", shape=(None,))}
    return DataSpec(
        "x", audio, {"text": Field(kind="tokens", dtype="int64", shape=(None,), names=tuple(letters))}, {"sample_rate": rate}
    )


def task_of(rate: int = 16000, **options):
    torch.manual_seed(0)
    model = models.build({"name": "whisper", **options}, spec=spec(rate))
    return tasks.build({"name": "transcription"}, spec=spec(rate), model=model).eval()


def batch(*sounds: np.ndarray, rate: int = 16000) -> Batch:
    def column(samples: list[np.ndarray]) -> Ragged:
        found = Ragged.of(samples)
        return Ragged(torch.from_numpy(found.values), torch.from_numpy(found.offsets))

    audio, text = column([s.astype(np.float32) for s in sounds]), column([np.array([1, 0, 2])] * len(sounds))
    return Batch({"audio": audio, "text": text}, torch.arange(len(sounds)), spec(rate))


def sound(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    voices = np.random.default_rng(seed).uniform(100, 3500, 12)
    return 0.05 * np.sum([np.sin(2 * np.pi * f * time) * np.sin(2 * np.pi * f / 900 * time) for f in voices], 0)


def test_openais_own_code_gives_the_same(monkeypatch):
    """Features, encoder and decoder of the published weights, from audio, within 1e-4."""
    reference = pytest.importorskip("whisper", reason="the reference, openai-whisper")
    monkeypatch.setattr(fetch, "_fetch", lambda *_: pytest.skip("the weights are not in the cache"))
    task = task_of(architecture="tiny.en", weights="package", pad_seconds=30)
    own, audio = task.model, sound(3.3)
    theirs = reference.model.Whisper(reference.model.ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)).eval()
    theirs.load_state_dict({n: t for n, t in own.state_dict().items() if not n.startswith("token_")}, strict=False)
    padded = reference.pad_or_trim(torch.from_numpy(audio.astype(np.float32)))
    tokens = torch.tensor([[*own.start, *own.encode("hello world")]])
    with torch.no_grad():
        encoded, inside = own.encoded(task.features(batch(audio))["audio"])
        expected = theirs.encoder(reference.log_mel_spectrogram(padded)[None])
        logits = own.decoder(tokens, own.decoder.audio(encoded), inside)[0]
        torch.testing.assert_close(encoded, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(logits, theirs.decoder(tokens, expected), atol=1e-4, rtol=1e-4)
    assert own.start == (50257, 50362)


@pytest.mark.parametrize("rate", [8000, 32000])
def test_other_rates_have_the_same_features(rate):
    """Of a sound below 3.5 kHz, sampled at another rate; filters above half the rate are silent."""
    known = task_of().features(batch(sound(1.0)))["audio"][0]
    found = task_of(rate).features(batch(sound(1.0, rate), rate=rate))["audio"][0]
    below = Whisper.filterbank(rate).weights[: 3500 // 40].sum(0) > 0
    heard = known[3:97, torch.from_numpy(below)] > known.max() - 9
    assert heard.float().mean() > 0.3
    assert (found - known)[3:97, torch.from_numpy(below)][heard].abs().max() < 0.05


@pytest.mark.parametrize("beam_width", [1, 3])
def test_neighbors_and_padding_change_nothing(beam_width):
    task = task_of(beam_width=beam_width)
    task.model.pad_frames = 150
    sounds = [sound(0.7), sound(2.0, seed=1)]
    with torch.no_grad():
        together = task.score(task.features(batch(*sounds)))
        for i, one in enumerate(sounds):
            single = task.score(task.features(batch(one)))
            torch.testing.assert_close(together["loss"][i], single["loss"][0], atol=1e-4, rtol=1e-4)
            assert together["transcript"][i].tolist() == single["transcript"][0].tolist()


def test_tokens_one_by_one_are_those_of_the_whole_text():
    task = task_of()
    decoder, features = task.model.decoder, task.features(batch(sound(0.8), sound(1.0, seed=2)))["audio"]
    tokens = torch.randint(0, 6, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoded, inside = task.model.encoded(features)
        audio = decoder.audio(encoded)
        whole, _ = decoder(tokens, audio, inside)
        first, kept = decoder(tokens[:, :2], audio, inside)
        steps = [first]
        for i in range(2, 12):
            logits, kept = decoder(tokens[:, i : i + 1], audio, inside, kept)
            steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-4)


def test_the_confidence_is_that_of_the_tokens(monkeypatch):
    """With an end that becomes likely after three tokens."""
    task = task_of()
    features = task.features(batch(sound(0.8)))["audio"]
    given = task.model.decoder.forward

    def ending(tokens, audio, inside, before=()):
        logits, kept = given(tokens, audio, inside, before)
        logits[:, :, task.model.end] = -9.0 if kept[0][0].shape[2] < 4 else 9.0
        return logits, kept

    monkeypatch.setattr(task.model.decoder, "forward", ending)
    with torch.no_grad():
        written = task.model.transcribe(features)
        steps = [ending(torch.tensor([[task.model.end + 1, *task.model.encode(written.texts[0])]]), *heard(task, features))[0]]
    assert len(written.texts[0]) == 3
    rows = steps[0][0].clone()
    rows[:3, task.model.end] = -9.0
    best = rows.log_softmax(1)[:, : task.model.end + 1].max(1).values
    assert written.confidence.item() == pytest.approx(best.mean().exp().item(), rel=1e-4)


@pytest.mark.parametrize("beam_width", [1, 32])
def test_a_beam_search_finds_the_best_of_all_texts(monkeypatch, beam_width):
    """Among all texts of up to three letters of a decoder that looks at the last token, against a search that lists them."""
    task = task_of(beam_width=beam_width)
    generator = torch.Generator().manual_seed(2)
    tables = 2 * torch.randn(2, 4, 6, 5, generator=generator)  # (recording, place, last token, next token); 4 is the end
    tables[:, 3, :, 4] = 50.0
    features = task.features(batch(sound(0.8), sound(1.0, seed=2)))["audio"]

    def looked_up(tokens, audio, inside, before=()):
        place = before[0][0].shape[2] if before else 0
        rows = torch.arange(len(tokens)) // (len(tokens) // 2)
        logits = torch.cat([tables[rows, place, tokens[:, -1]], torch.full((len(tokens), 1), 9.0)], 1)
        return logits[:, None], [(torch.zeros(len(tokens), 1, place + 1, 1),) * 2]

    monkeypatch.setattr(task.model.decoder, "forward", looked_up)
    with torch.no_grad():
        written = task.model.transcribe(features)
    for i, text in enumerate(written.texts):
        steps = torch.cat([tables[i], torch.full((4, 6, 1), 9.0)], 2).log_softmax(2)
        means = {}
        for letters in (row for count in range(4) for row in itertools.product(range(4), repeat=count)):
            path = [5, *letters, 4]
            means[letters] = sum(steps[n, path[n], path[n + 1]].item() for n in range(len(path) - 1)) / (len(path) - 1)
        greedy, last = [], 5
        while (last := int(steps[len(greedy), last, :5].argmax())) != 4:
            greedy.append(last)
        best = max(means, key=lambda row: means[row])
        assert best != tuple(greedy)
        assert tuple(task.model.encode(text)) == (best if beam_width > 1 else tuple(greedy))
        assert written.confidence[i].item() == pytest.approx(np.exp(means[tuple(task.model.encode(text))]), rel=1e-4)


def heard(task, features: Ragged):
    encoded, inside = task.model.encoded(features)
    return task.model.decoder.audio(encoded), inside


def test_long_recordings_are_cut_in_their_pauses(monkeypatch):
    task = task_of()
    audio = np.concatenate([sound(20.0), np.zeros(16000), sound(20.0, seed=1), np.zeros(16000), sound(5.0, seed=2)])
    features = task.features(batch(audio, sound(1.0)))["audio"]
    seen: list[int] = []
    given = task.model.encoded
    monkeypatch.setattr(task.model, "encoded", lambda f: (seen.extend(f.lengths.tolist()), given(f))[1])
    with torch.no_grad():
        written = task.model.transcribe(features, ["a", "a b"])
    ends = np.cumsum(seen[:-1])
    assert ends[-1] == len(features[0])
    assert all(2000 <= end <= 2100 or 4100 <= end <= 4200 for end in ends[:-1])
    assert len(written.texts) == 2
    assert written.surprise is not None
    assert written.surprise.isnan().tolist() == [True, False]
    with pytest.raises(DataError, match=r"learns from recordings of at most 30 s. Received: 47.0 s"):
        task.model(features, ["a", "b"])


def test_shorter_stretches(monkeypatch):
    task = task_of(stretch_seconds=4)
    features = task.features(batch(np.concatenate([sound(3.0), np.zeros(8000), sound(2.0, seed=1)]), sound(4.0)))["audio"]
    seen: list[int] = []
    given = task.model.encoded
    monkeypatch.setattr(task.model, "encoded", lambda f: (seen.extend(f.lengths.tolist()), given(f))[1])
    with torch.no_grad():
        task.model.transcribe(features)
    assert len(seen) == 3
    assert 300 <= seen[0] <= 350
    assert sum(seen[:2]) == len(features[0])


def test_the_encoder_may_stay_as_it_is():
    task = task_of(trainable="decoder").train()
    given = task.features(batch(sound(0.5)))
    task.loss(given, "model", task.counts(given)).backward()
    assert all(p.grad is None for p in task.model.encoder.parameters())
    assert all(p.grad is not None for p in task.model.decoder.parameters())


def test_texts_outside_the_alphabet_are_errors(monkeypatch):
    task = task_of()
    task.rules.update(lower=True, punctuation=False)
    assert task.texts(task._as_letters(["A b, C!", "aé", ""])) == ["a b c", "a\ufffd", ""]
    scores = {
        "target": task._as_letters(["a b"]),
        "transcript": task._as_letters(["a é"]),
        "confidence": torch.ones(1),
        "loss": torch.ones(1),
    }
    assert task.metrics(scores)["wer"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "package"}, "package has those of tiny.en. Received: architecture=letters"),
        ({"weights": "tiny.en.bin", "architecture": "tiny.en"}, "must be none, package, hub or a file"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(Exception, match=message):
        models.build({"name": "whisper", **options}, spec=spec())


def test_what_has_no_vocabulary_says_so():
    task = task_of(architecture="tiny.en")
    with pytest.raises(ConfigError, match="must not be none for a published architecture"):
        task.prepare(Split({}, np.arange(0)))
    assert task.model.encode("a") == [0]


def test_sample_rates():
    assert isinstance(Whisper.filterbank(8000), Filterbank)
    with pytest.raises(ConfigError, match=r"takes sample rates divisible by 200. Received: 22050 Hz"):
        task_of(22050)


def test_beam_search_is_not_for_a_decoder():
    model = models.build({"name": "whisper"}, spec=spec())
    with pytest.raises(ConfigError, match="must be greedy for a model that decodes by itself"):
        tasks.build({"name": "transcription", "decoding": "beam"}, spec=spec(), model=model)


def test_frames_of_30_seconds():
    assert len(task_of().features(batch(sound(30.0)))["audio"][0]) == MOST_FRAMES
