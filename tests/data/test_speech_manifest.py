"""The user's own recordings: lists, folders and tables; what is split, said and refused."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from dlframe.data.speech_manifest import speech_manifest
from dlframe.readers.audio.manifests import read_list
from dlframe.readers.audio.transcripts import normalized, read_alphabet
from dlframe.types import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))


def sound(path: Path, seconds: float = 0.5, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng([*path.name.encode()]).integers(-999, 999, round(seconds * rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(values.tobytes())
    return path


def manifest(folder: Path, texts: list[str], name: str = "train.jsonl", **fields) -> Path:
    rows = []
    for i, text in enumerate(texts):
        sound(folder / f"{name}-{i}.wav")
        own = {key: value[i] if isinstance(value, list) else value for key, value in fields.items()}
        rows.append({"audio_filepath": f"{name}-{i}.wav", "text": text, **own})
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def texts_of(split, spec) -> list[str]:
    return ["".join(spec.target.names[i] for i in row) for row in split["text"]]


def test_json_lines_with_speakers(tmp_path, capsys):
    speakers = [f"s{i % 10}" for i in range(40)]
    path = manifest(tmp_path, [f"Well, it's {'ab'[i % 2]}!" for i in range(40)], speaker=speakers, duration=0.5)
    dataset = speech_manifest(path=str(path))
    assert "".join(dataset.spec.target.names) == " 'abeilstw"
    assert set(texts_of(dataset.train, dataset.spec)) == {"well it's a", "well it's b"}
    parts = [set(split.groups.tolist()) for split in (dataset.train, dataset.validation, dataset.test)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    rules = {"lower": True, "punctuation": False, "language": ""}
    assert dataset.spec.fitted == {"sample_rate": 16000, "longest_seconds": 0.5, "text": rules}
    assert "Decoding 40 utterances" in capsys.readouterr().err
    assert speech_manifest(path=str(path)).fingerprint == dataset.fingerprint
    assert "Decoding" not in capsys.readouterr().err


def test_durations_are_those_of_the_files(tmp_path, capsys):
    path = manifest(tmp_path, ["ab"] * 20, duration=[0.5] * 18 + [0.6, 0.505])
    speech_manifest(path=str(path))
    told = capsys.readouterr().err
    assert f"1 durations are not those of the files, which count: {path}:19: says 0.6 s, the file has 0.5 s" in told


def test_a_part_of_a_file(tmp_path):
    path = manifest(tmp_path, ["ab"] * 20, offset=0.1, duration=0.3)
    assert set(speech_manifest(path=str(path)).train["audio"].lengths.tolist()) == {4800}


def test_librispeech(tmp_path):
    for part, speaker in (("train-clean", "1"), ("train-other", "2"), ("dev-clean", "3"), ("test-clean", "4")):
        folder = tmp_path / part / speaker / "7"
        for i in range(2):
            sound(folder / f"{speaker}-7-{i}.wav")
        (folder / f"{speaker}-7.trans.txt").write_text("".join(f"{speaker}-7-{i} OPEN THE DOOR\n" for i in range(2)))
    dataset = speech_manifest(path=str(tmp_path))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [4, 2, 2]
    assert set(texts_of(dataset.test, dataset.spec)) == {"open the door"}
    assert dataset.splits == "as given"
    assert set(dataset.train.groups.tolist()) == {"1", "2"}


def test_audio_of_librispeech_without_a_transcript_is_named(tmp_path, capsys):
    for i in range(9):
        sound(tmp_path / f"{i}" / "7" / f"{i}-7-0.wav")
        (tmp_path / f"{i}" / "7" / f"{i}-7.trans.txt").write_text(f"{i}-7-0 OPEN THE DOOR\n")
    sound(tmp_path / "3" / "7" / "3-7-1.wav")
    speech_manifest(path=str(tmp_path))
    assert "speech_manifest: left out 1 audio files without a transcript: 3/7/3-7-1.wav" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"^data.audio: is for lists; LibriSpeech has its files beside the transcripts"):
        speech_manifest(path=str(tmp_path), audio=str(tmp_path))


@pytest.mark.parametrize("name", ["gone.wav", "../outside.wav"])
def test_a_file_that_is_missing_or_outside_may_be_left_out(tmp_path, name, capsys):
    sound(tmp_path / "outside.wav")
    path = manifest(tmp_path / "own", ["ab"] * 20)
    path.write_text(path.read_text().replace("train.jsonl-3.wav", name))
    with pytest.raises(DataError, match=rf"^{path}:4: "):
        speech_manifest(path=str(path))
    dataset = speech_manifest(path=str(path), on_error="skip")
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 19
    assert f"speech_manifest: skipped 1: {path}:4: " in capsys.readouterr().err


def test_what_is_listed_again_or_ends_behind_the_file_is_said(tmp_path, capsys):
    path = manifest(tmp_path, ["ab"] * 20)
    lines = path.read_text().splitlines()
    lines += [lines[0], '{"audio_filepath": "train.jsonl-1.wav", "text": "ab", "offset": 0.1, "duration": 0.5}']
    path.write_text("\n".join(lines))
    speech_manifest(path=str(path))
    told = capsys.readouterr().err
    assert f"1 lines have a file that is listed before: {path}:21" in told
    assert (
        f"1 durations are not those of the files, which count: {path}:22: says 0.1 s and 0.5 s more, the file has 0.5 s" in told
    )


def table(folder: Path, name: str, rows: list[tuple[str, str, str]]) -> None:
    for _, file, _ in rows:
        sound(folder / "clips" / file)
    lines = ["client_id\tpath\tsentence\tup_votes", *(f"{'	'.join(row)}\t2" for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")


def test_common_voice_and_a_speaker_on_both_sides(tmp_path, capsys):
    table(tmp_path, "train.tsv", [("s1", "a.wav", "Open the door."), ("s2", "b.wav", "null"), ("s3", "c.wav", "it rains")])
    table(tmp_path, "dev.tsv", [("s4", "d.wav", "open")])
    table(tmp_path, "test.tsv", [("s3", "e.wav", "Open the door!")])
    with pytest.raises(DataError) as error:
        speech_manifest(path=str(tmp_path))
    assert str(error.value) == (
        "speech_manifest: 1 speakers of test are in train or validation too: s3. Allow it: data.shared_speakers=allow"
    )
    dataset = speech_manifest(path=str(tmp_path), shared_speakers="allow")
    assert texts_of(dataset.train, dataset.spec) == ["open the door", "null", "it rains"]
    assert "1 transcripts of test are in train or validation too: open the door" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"audio_filepath": "a.wav", "text": "a"}, ', "must be one JSON object"),
        ("[1]", "must be one JSON object. Received: list."),
        ('{"text": "a"}', "must have the field 'audio_filepath'. Received: text."),
        ('{"audio_filepath": "a.wav"}', "must have the field 'text'. Received: audio_filepath."),
        ('{"audio_filepath": "a.wav", "text": null}', "'text' must be text. Received: null."),
        ('{"audio_filepath": "a.wav", "text": 42}', "'text' must be text. Received: 42."),
        ('{"audio_filepath": "a.wav", "text": "a", "duration": NaN}', "'duration' must be seconds. Received: NaN."),
        ('{"audio_filepath": "gone.wav", "text": "a"}', "no such file. Received: 'gone.wav'."),
        ('{"audio_filepath": "", "text": "a"}', "no such file. Received: ''."),
        ('{"audio_filepath": "../outside.wav", "text": "a"}', "must be inside "),
        ('{"audio_filepath": "link.wav", "text": "a"}', "must be inside "),
        ("\xff", "must be one JSON object"),
    ],
)
def test_lines_that_are_refused(tmp_path, line, message):
    folder = tmp_path / "data"
    sound(folder / "a.wav")
    (folder / "link.wav").symlink_to(sound(tmp_path / "outside.wav"))
    path = folder / "train.jsonl"
    path.write_text(f'\ufeff{{"audio_filepath": "a.wav", "text": "a"}}\r\n\r\n{line}\n')
    with pytest.raises(DataError) as error:
        read_list(path)
    assert str(error.value).startswith(f"{path}:3: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("...", "must have a transcript. Received: '...'."),
        ("abab" * 10, "must have more than 0.78 s for 40 letters (CTC). Received: 0.5 s."),
    ],
)
def test_transcripts_that_cannot_be_learned(tmp_path, text, message, capsys):
    path = manifest(tmp_path, ["ab"] * 30 + [text])
    with pytest.raises(DataError) as error:
        speech_manifest(path=str(path))
    assert str(error.value) == f"{path}:31: {message.rstrip('.')}. Leave such utterances out: data.on_error=skip"
    dataset = speech_manifest(path=str(path), on_error="skip")
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 30
    assert f"skipped 1: {path}:31: {message}" in capsys.readouterr().err


def test_letters_outside_the_alphabet(tmp_path):
    alphabet = tmp_path / "letters.txt"
    alphabet.write_text("# of the set\n \na\nb\n\\#\n")
    assert read_alphabet(alphabet) == " ab#"
    path = manifest(tmp_path, ["ab"] * 20 + ["a7"])
    with pytest.raises(DataError, match=r":21: must have letters of the alphabet only. Received: '7'"):
        speech_manifest(path=str(path), alphabet=str(alphabet))
    test = manifest(tmp_path, ["xa"], "test.jsonl")
    with pytest.raises(DataError, match=r"test.jsonl:1: must have letters of the alphabet only \('ab'\). Received: 'x'"):
        speech_manifest(path=str(manifest(tmp_path, ["ab"] * 20)), test=str(test))


def test_an_alphabet_has_each_letter_once(tmp_path):
    (tmp_path / "a.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"a.txt:3: must be another letter than in line 1. Received: 'a'"):
        read_alphabet(tmp_path / "a.txt")


@pytest.mark.parametrize("apostrophe", "\u2019\u2018\u02bc\uff07\u00b4`'")
def test_apostrophes(apostrophe):
    assert normalized(f"That{apostrophe}s fine.") == "that's fine"


@pytest.mark.parametrize(
    ("text", "language", "result"),
    [
        ("\u0130ZM\u0130R", "tr", "izmir"),
        ("ISPARTA", "tr", "\u0131sparta"),
        ("\u0130ZM\u0130R", "", "izmir"),
        ("STRA\u1e9eE", "", "stra\u00dfe"),
        ("De\u0301JA\u0300 VU", "", "d\u00e9j\u00e0 vu"),
        ("now\u2014never", "", "now never"),
        ("'go', she\u00a0said", "", "go she said"),
    ],
)
def test_normalized(text, language, result):
    assert normalized(text, language=language) == result


def segments(folder: Path, name: str, file: str, count: int) -> Path:
    """A list of parts of one file."""
    rows = [{"audio_filepath": file, "text": "ab", "offset": 0.1 * i, "duration": 0.1} for i in range(count)]
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_parts_of_a_file_stay_in_one_split(tmp_path):
    rows = []
    for i in range(30):
        sound(tmp_path / f"{i:03}{'x' * i}.wav", 1.0)
        rows += [{"audio_filepath": f"{i:03}{'x' * i}.wav", "text": "ab", "offset": k / 10, "duration": 0.1} for k in range(9)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    dataset = speech_manifest(path=str(tmp_path / "train.jsonl"))
    files = [{name.partition("#")[0] for name in split.ids} for split in (dataset.train, dataset.validation, dataset.test)]
    assert len(files[0]) + len(files[1]) + len(files[2]) == 30
    assert len(files[0] | files[1] | files[2]) == 30


def test_a_planted_file_in_two_splits(tmp_path):
    sound(tmp_path / "call.wav", 3.0)
    path, test = manifest(tmp_path, ["ab"] * 20), segments(tmp_path, "test.jsonl", "call.wav", 5)
    with path.open("a") as file:
        file.write(json.dumps({"audio_filepath": "call.wav", "text": "ba", "offset": 2.0, "duration": 0.5}) + "\n")
    with pytest.raises(DataError, match=r"1 files of test are in train too: .*call.wav. Allow it: data.shared_speakers=allow"):
        speech_manifest(path=str(path), test=str(test))
    assert len(speech_manifest(path=str(path), test=str(test), shared_speakers="allow").test) == 5


def test_a_planted_copy_of_a_training_recording(tmp_path):
    path = manifest(tmp_path, ["ab"] * 20)
    (tmp_path / "copy.wav").write_bytes((tmp_path / "train.jsonl-7.wav").read_bytes())
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"audio_filepath": "copy.wav", "text": "another text ab"}) + "\n")
    with pytest.raises(DataError, match=r"test.jsonl:1: must not be a recording of another split. Received: the samples of"):
        speech_manifest(path=str(path), test=str(test), alphabet=str(letters(tmp_path)))


def letters(folder: Path) -> Path:
    (folder / "letters.txt").write_text(" \n" + "\n".join("abcdefghijklmnopqrstuvwxyz") + "\n")
    return folder / "letters.txt"


def test_copies_are_drawn_into_one_split(tmp_path):
    path = manifest(tmp_path, ["ab"] * 30)
    rows = path.read_text().splitlines()
    for i in range(30):
        (tmp_path / f"copy-{i}.wav").write_bytes((tmp_path / f"train.jsonl-{i}.wav").read_bytes())
        rows.append(json.dumps({"audio_filepath": f"copy-{i}.wav", "text": "ba"}))
    path.write_text("\n".join(rows) + "\n")
    dataset = speech_manifest(path=str(path))
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 60
