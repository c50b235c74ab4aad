"""Transcription: features, decoding, scores and the exported model, on tones."""

import io
import itertools
import json
import math
import struct
import wave
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch import nn

from dlframe.config import load
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.jobs.train import load_data, run
from dlframe.jobs.verify_resume import verify
from dlframe.readers.audio.mel import MELS, mel_filters
from dlframe.registry import data, models, plugins, tasks
from dlframe.serving.inputs import Inputs
from dlframe.serving.model import Model
from dlframe.statistics.transcripts.edits import edits
from dlframe.tasks.transcription import joined_windows
from dlframe.types import Batch, DataError, DataSpec, Field, Ragged, Split

plugins.discover()
SPEC = DataSpec(
    "words",
    {"audio": Field(kind="audio", dtype="float32", shape=(None,))},
    {"text": Field(kind="tokens", dtype="int64", shape=(None,), names=tuple(" abe"))},
    {"sample_rate": 16000},
)


def ragged(*samples: np.ndarray) -> Ragged:
    found = Ragged.of([np.asarray(sample) for sample in samples])
    return Ragged(torch.from_numpy(found.values), torch.from_numpy(found.offsets))


def batch(*sounds: np.ndarray) -> Batch:
    text = ragged(*[np.array([1]) for _ in sounds])
    audio = ragged(*[sound.astype(np.float32) for sound in sounds])
    return Batch({"audio": audio, "text": text}, torch.arange(len(sounds)), SPEC)


def task_of(spec: DataSpec = SPEC, model: nn.Module | None = None):
    return tasks.build({"name": "transcription"}, spec=spec, model=model or nn.Identity()).eval()


def test_features_are_those_of_a_loop():
    sound = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    found = task_of().features(batch(np.ones(333), sound))["audio"]
    window, filters = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399), mel_filters(MELS, 1024, 16000)
    padded = np.r_[np.zeros(200), sound, np.zeros(400)]
    frames = [padded[start : start + 400] * window for start in range(0, 1000, 160)]
    expected = [np.log(filters @ np.abs(np.fft.rfft(frame, 1024)) ** 2 / 400 + 1e-8) for frame in frames]
    np.testing.assert_allclose(found[1].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(
    "sound", [np.zeros(3200), np.full(3200, 0.5), np.eye(1, 3200)[0], np.zeros(1)], ids=["silence", "dc", "click", "short"]
)
def test_silence_has_finite_features(sound):
    task = task_of()
    raw = task.features(batch(sound))
    normalized = task.normalize(raw).values
    assert raw["audio"].values.isfinite().all()
    assert normalized.isfinite().all()
    if not sound.any():
        assert normalized[2:-2].abs().max() < 1e-3 if len(normalized) > 4 else not normalized.any()


def path_of(symbols: str) -> torch.Tensor:
    """Log-probabilities of which the most probable path is `symbols`, "_" for the blank."""
    places = torch.tensor(["_ abe".index(symbol) for symbol in symbols])
    return (nn.functional.one_hot(places, 5).float() * 4).log_softmax(1)


@pytest.mark.parametrize(
    ("path", "text"),
    [("aa_aa", "aa"), ("aaaa", "a"), ("____", ""), ("a", "a"), ("_a_b_", "ab"), ("a _ b", "a  b"), ("bbbe_eb", "beeb")],
)
def test_greedy_decoding(path, text):
    found = task_of().decode(path_of(path)[None], torch.tensor([len(path)]))
    assert task_of().texts(found.text) == [text]
    assert found.confidence.item() == pytest.approx(math.exp(4) / (math.exp(4) + 4))


def test_steps_behind_the_end_say_nothing():
    both = torch.stack([path_of("abab"), path_of("ab__")])
    both[1, 2:] = path_of("ee")
    assert task_of().texts(task_of().decode(both, torch.tensor([4, 2])).text) == ["abab", "ab"]


def test_the_loss_is_that_of_all_paths():
    """The sum over all paths that collapse to the text, counted out."""
    torch.manual_seed(0)
    log_probabilities = torch.randn(1, 4, 5).log_softmax(2)
    task = task_of()
    for text in ([1], [2, 2], [1, 2], [1, 3, 1]):
        total = 0.0
        for path in itertools.product(range(5), repeat=4):
            collapsed = [s for s, _ in itertools.groupby(path) if s]
            if collapsed == [t + 1 for t in text]:
                total += math.exp(sum(log_probabilities[0, i, s].item() for i, s in enumerate(path)))
        given = Batch({"text": ragged(np.array(text))}, torch.zeros(1), SPEC)
        found = task._surprise(given, log_probabilities, torch.tensor([4]))
        assert found.item() == pytest.approx(-math.log(total), rel=1e-5)


def scores_of(*pairs: tuple[str, str]) -> dict:
    said, heard = (ragged(*[np.array([" abe".index(c) for c in pair[i]], np.int64) for pair in pairs]) for i in (0, 1))
    count = len(pairs)
    return {"target": said, "transcript": heard, "confidence": torch.ones(count), "loss": torch.ones(count)}


def test_error_rates_are_of_the_whole_list():
    """Errors of all utterances by words of all: not the mean of the rates of each."""
    task = task_of()
    scores = scores_of(("a b a b", "a b a"), ("e", "b"), ("a", "a b e"))
    metrics = task.metrics(scores)
    assert metrics["wer"] == pytest.approx(4 / 6)
    assert [metrics[name] for name in ("insertions", "deletions", "substitutions")] == pytest.approx([2 / 6, 1 / 6, 1 / 6])
    assert metrics["cer"] == pytest.approx((2 + 1 + 4) / 9)
    table = task.table(scores, None)
    assert (table["word_errors"], table["words"]) == ([1, 1, 2], [4, 1, 1])
    assert task.forms()["wer"] == {"form": "ratio", "column": "word_errors", "by": "words"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    overrides = [
        "task=speech_recognition",
        "data=tones",
        "data.utterances=200",
        "data.letters=3",
        "model.width=48",
        "epochs=14",
        "model.depth=2",
        "model.kernel_size=7",
    ]
    overrides += ["batch_size=8", "optimizer.lr=0.006", "augmentation=[]", "tracking=none", f"runs={folder / 'runs'}"]
    return run(load(overrides)), overrides


def test_learns_tones(trained):
    result, _ = trained
    name, baseline = result.baseline
    assert name == "most frequent transcript"
    assert result.metrics["cer"] < 0.3 < 0.5 < baseline["cer"]
    assert result.interval.low <= result.metrics["wer"] <= result.interval.high
    rows = pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()
    assert sum(rows["word_errors"]) / sum(rows["words"]) == pytest.approx(result.metrics["wer"])
    assert {"spectrograms.png", "worst_utterances.png", "error_rates.png"} <= {f.name for f in result.folder.rglob("*.png")}


def test_the_exported_model_reads_files(trained, tmp_path, capsys):
    result, overrides = trained
    model = Model(result.folder)
    dataset = load_data(load(overrides))
    rows = pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()
    assert model.predict([*dataset.test["audio"]])["prediction"].tolist() == rows["prediction"]
    sound = np.repeat(dataset.test["audio"][0], 2)
    with wave.open(str(tmp_path / "clip.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((sound * 2**15).astype("<i2").tobytes())
    found = model.predict(tmp_path / "clip.wav")
    assert found["prediction"][0] == rows["prediction"][0]
    assert 0 < found["confidence"][0] <= 1
    assert "clip.wav: resampled from 16000 to 8000 Hz" in capsys.readouterr().err
    signature = json.loads((result.folder / "model" / "signature.json").read_text())
    assert signature["outputs"][0] == {"name": "prediction", "dtype": "str", "shape": [-1]}


@pytest.mark.parametrize("name", ["quartznet", "deep_speech", "conformer"])
def test_padding_changes_no_output_in_training_either(name):
    """Logits of a sample alone, and beside one that is longer."""
    dataset = data.build({"name": "tones", "utterances": 40})
    torch.manual_seed(0)
    task = task_of(dataset.spec, models.build({"name": name, "dropout": 0.0}, spec=dataset.spec)).train()
    order = np.argsort(dataset.train["audio"].lengths)[[0, 20, -1]]
    together = list(
        BatchLoader(dataset.train.take(order), dataset.spec, Order(3), context=lambda: ProcessContext(torch.device("cpu")))
    )
    logits, lengths = task.log_probabilities(task.features(together[0][0].batches[0]))
    for i, row in enumerate(order):
        alone = list(
            BatchLoader(
                dataset.train.take(np.array([row])), dataset.spec, Order(1), context=lambda: ProcessContext(torch.device("cpu"))
            )
        )
        single, length = task.log_probabilities(task.features(alone[0][0].batches[0]))
        assert length.item() == lengths[i].item()
        torch.testing.assert_close(logits[i, : lengths[i]], single[0], atol=1e-4, rtol=1e-4)


def test_words_have_times_and_confidences(monkeypatch):
    """By steps of 20 ms, from the path."""
    task = task_of()
    path = path_of("__aa_b_ e_e_")
    monkeypatch.setattr(task, "log_probabilities", lambda _: (torch.stack([path, path]), torch.tensor([12, 7])))
    found = task.predict(batch(np.zeros(9), np.zeros(9)))
    assert task.texts(found["prediction"]) == ["ab ee", "ab"]
    assert [found["start"][i].tolist() for i in (0, 1)] == [pytest.approx([0.04, 0.16]), pytest.approx([0.04])]
    assert [found["end"][i].tolist() for i in (0, 1)] == [pytest.approx([0.12, 0.22]), pytest.approx([0.12])]
    sure = math.exp(4) / (math.exp(4) + 4)
    assert found["word_confidence"].values.tolist() == pytest.approx([sure] * 3)
    task.alphabet = tuple("xabe")  # without a space, a text is a word
    assert task.predict(batch(np.zeros(9), np.zeros(9)))["start"].lengths.tolist() == [1, 1]


@pytest.mark.parametrize("edge", [0, 49])
def test_windows_are_joined_where_they_agree(edge):
    """Windows of 400 steps that share 200, with anything in `edge` steps at their ends, are joined to what they are of."""
    random = torch.Generator().manual_seed(0)
    symbols = torch.zeros(1500, dtype=torch.long)
    letters = torch.rand(1500, generator=random) < 0.3
    symbols[letters] = torch.randint(1, 5, (int(letters.sum()),), generator=random)
    symbols[60::100] = symbols[61::100] = symbols[62::100] = 0
    whole = (nn.functional.one_hot(symbols, 5).float() * 6).log_softmax(1)
    windows = [whole[start : start + 400].clone() for start in range(0, 1300, 200)]
    for number, window in enumerate(windows):
        if edge and number:
            window[:edge] = torch.randn(edge, 5, generator=random).log_softmax(1)
        if edge and number < len(windows) - 1:
            window[-edge:] = torch.randn(edge, 5, generator=random).log_softmax(1)
    assert torch.equal(joined_windows(windows, 200), whole)


def test_long_audio_is_read_in_windows(trained):
    """The test's utterances as one recording of 50 s: nearly the letters that are read in it at once, none twice."""
    result, overrides = trained
    model = Model(result.folder)
    sounds = [*load_data(load(overrides)).test["audio"]] * 2
    joined = np.concatenate(sounds)
    task: Any = model.task
    assert len(joined) > 1.5 * task.window_steps * 160
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "window_steps", 10**6)
        at_once = model.predict([joined])["prediction"][0]
    seen: list[int] = []
    given = model.task.model.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.task.model, "forward", lambda f: (seen.extend(f.lengths.tolist()), given(f))[1])
        found = model.predict([joined, sounds[0]])
    assert max(seen) == 2000
    assert len(seen) > 2
    (errors,) = edits([at_once], [found["prediction"][0]]).sum(1)
    assert len(at_once) > 50
    assert errors / len(at_once) < 0.1
    words = found["prediction"][0].split()
    assert len(found["start"][0]) == len(words)
    assert (np.diff(found["start"][0]) > 0).all()
    assert len(joined) / 8000 - 3 < found["end"][0][-1] <= len(joined) / 8000 + 0.02


def test_pauses_of_long_recordings_cost_no_words(trained):
    """Utterances with silence between them: the words of each one alone, a space between two, and times of the whole."""
    result, overrides = trained
    model = Model(result.folder)
    sounds = [*load_data(load(overrides)).test["audio"]][:8]
    alone = " ".join(" ".join(text.split()) for text in model.predict(sounds)["prediction"])
    silence = np.zeros(12000, np.float32)
    joined = np.concatenate([part for sound in sounds for part in (silence, sound)])
    found = model.predict([joined])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.task, "_parts", lambda frames: [(0, len(frames))])
        uncut = model.predict([joined])["prediction"][0]
    cut_errors, uncut_errors = edits([alone] * 2, [found["prediction"][0], uncut]).sum(1)
    assert cut_errors < uncut_errors / 2
    assert len(found["start"][0]) == len(found["prediction"][0].split()) >= len(sounds) - 1
    assert found["start"][0][0] > 1.4


def wav_of(sound: np.ndarray, length: int | None = None) -> bytes:
    raw = (sound * 2**15).astype("<i2").tobytes()
    head = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", length or len(raw)) + raw


class Pipe(io.BytesIO):
    """Standard input."""

    @property
    def buffer(self):
        return self


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF, 0x7FFFFFFF])
def test_standard_input_is_read_as_it_comes(trained, monkeypatch, length):
    result, overrides = trained
    model = Model(result.folder)
    sounds = [*load_data(load(overrides)).test["audio"]] * 2
    joined = np.concatenate(sounds)
    pipe = Pipe(wav_of(joined, length))
    monkeypatch.setattr("sys.stdin", pipe)
    names, places, samples = [], [], 0
    for stretches, outputs in model.batches(model.inputs().read(["-"])):
        assert len(stretches) == len(outputs["prediction"]) == 1
        names.append(stretches[0].name)
        places.append(pipe.tell())
        samples += len(stretches[0].columns["audio"])
    assert samples == len(joined)
    assert names[0].startswith("- 0.00 to ")
    assert names[-1].endswith(f" to {len(joined) / 8000:.2f} s")
    assert places[0] < 2 * 8000 * 11 < places[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "-: is empty."),
        (b"ID3" + bytes(99), "-: is not a WAV file."),
        (wav_of(np.zeros(100))[:30], "-: has no audio"),
        (wav_of(np.zeros(100), 5000), "-: is cut off: 4,800 bytes of audio are missing."),
        (b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x7f", "-: has a chunk of 2,147,483,647 bytes before its audio."),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "-: has no header of a WAV file (fmt)."),
    ],
)
def test_standard_input_that_is_no_recording(content, message):
    with pytest.raises(DataError) as error:
        list(task_of().stream(io.BytesIO(content)))
    assert str(error.value).startswith(message)


def test_rules_of_transcripts_make_no_model_of_texts(tmp_path):
    """Of recordings, whose specification has a "text" of its own, files are read as sounds."""
    task = task_of(replace(SPEC, fitted={"sample_rate": 16000, "text": {"lower": True, "punctuation": False, "language": ""}}))
    (tmp_path / "a.wav").write_bytes(wav_of(np.ones(800) / 9))
    (sample,) = Inputs(task.spec, encode=task.encode, stream=task.stream).read([tmp_path / "a.wav"])
    assert len(sample.columns["audio"]) == 1600


@pytest.mark.slow
def test_resumes_bitwise(tmp_path):
    command = ["task=speech_recognition", "data=tones", "data.utterances=60", "model.width=32", "epochs=3", "batch_size=10"]
    command += ["augmentation=[spec_augment,speech_noise,time_stretch,vocal_tract]", f"runs={tmp_path}"]
    assert verify(command, kills=2, seed=0) == 0


def test_beam_search_prefers_the_letters_of_the_training_transcripts():
    """ "b" and "e" are as probable by their sound; after "a" the training transcripts have "b"."""
    task = tasks.build({"name": "transcription", "decoding": "beam", "lm_order": 2}, spec=SPEC, model=nn.Identity())
    train: dict[str, Any] = {"text": Ragged.of([np.array([1, 2]), np.array([1, 2, 0, 1, 2])])}
    task.prepare(Split(train, np.arange(2)))
    sound = path_of("a_e_")
    sound[2, 3] = sound[2, 4]
    found = task.decode(sound[None], torch.tensor([4]))
    assert task.texts(found.text) == ["ab"]
    assert found.path.tolist() == [[2, 0, 3, 0]]
    other = tasks.build({"name": "transcription", "decoding": "beam", "lm_order": 2}, spec=SPEC, model=nn.Identity())
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.letters, task.letters)
