"""Transcription: features, decoding, scores and the exported model, on tones."""

import itertools
import json
import math
import wave

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
from dlframe.serving.model import Model
from dlframe.types import Batch, DataSpec, Field, Ragged, Split

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
    found, confidence = task_of().decode(path_of(path)[None], torch.tensor([len(path)]))
    assert task_of().texts(found) == [text]
    assert confidence.item() == pytest.approx(math.exp(4) / (math.exp(4) + 4))


def test_steps_behind_the_end_say_nothing():
    both = torch.stack([path_of("abab"), path_of("ab__")])
    both[1, 2:] = path_of("ee")
    assert task_of().texts(task_of().decode(both, torch.tensor([4, 2]))[0]) == ["abab", "ab"]


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


@pytest.mark.slow
def test_resumes_bitwise(tmp_path):
    command = ["task=speech_recognition", "data=tones", "data.utterances=60", "model.width=32", "epochs=3", "batch_size=10"]
    command += ["augmentation=[spec_augment,speech_noise,time_stretch,vocal_tract]", f"runs={tmp_path}"]
    assert verify(command, kills=2, seed=0) == 0


def test_beam_search_prefers_the_letters_of_the_training_transcripts():
    """ "b" and "e" are as probable by their sound; after "a" the training transcripts have "b"."""
    task = tasks.build({"name": "transcription", "decoding": "beam", "lm_order": 2}, spec=SPEC, model=nn.Identity())
    train = {"text": Ragged.of([np.array([1, 2]), np.array([1, 2, 0, 1, 2])])}
    task.prepare(Split(train, np.arange(2)))
    sound = path_of("a_e_")
    sound[2, 3] = sound[2, 4]
    found, _ = task.decode(sound[None], torch.tensor([4]))
    assert task.texts(found) == ["ab"]
    other = tasks.build({"name": "transcription", "decoding": "beam", "lm_order": 2}, spec=SPEC, model=nn.Identity())
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.letters, task.letters)
