"""Folders of encoders of a stranger: pickles, links, code of their own, tokenizers that never end or are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.attacks.conftest import BOMB
from tests.samples import encoder_folder

from dlframe.models.text_encoder import TextEncoder, pretrained
from dlframe.readers.texts import subwords
from dlframe.readers.texts.subwords import architecture, read_subwords
from dlframe.readers.texts.tokens import Encoder
from dlframe.types import DataError, DlframeError

pytest.importorskip("tokenizers")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return encoder_folder(tmp_path / "encoder")


def read_all(folder: Path) -> None:
    read_subwords(str(folder))
    pretrained(TextEncoder(architecture(folder / "config.json")), str(folder))


def test_a_pickle_is_not_read(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(BOMB)
    with pytest.raises(DataError, match=r"It has a pickle, which could run code and is not read\. Convert it"):
        read_all(folder)
    (folder / "model.safetensors").write_bytes(BOMB)
    with pytest.raises(DlframeError, match="is damaged"):
        read_all(folder)
    assert not Path("ran").exists()


def test_code_in_the_folder_is_not_imported(folder):
    for name in ("modeling_bert.py", "tokenization_bert.py", "__init__.py", "tokenizers.py"):
        (folder / name).write_text("open('ran', 'w')", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["tokenization_bert.T", null]}}', encoding="utf-8"
    )
    read_all(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_links_are_refused(name, folder, tmp_path):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match=r"must be a file. Received: a link. Copy the folder: cp -rL"):
        read_all(folder)


def test_huge_files_are_not_read(folder, monkeypatch):
    monkeypatch.setattr(subwords, "LARGEST", {"config.json": 2**20, "tokenizer.json": 1000})
    with pytest.raises(DataError, match="must have at most 1,000 bytes"):
        read_all(folder)
    monkeypatch.setattr(subwords, "LARGEST", {"config.json": 2**20, "tokenizer.json": 2**25})
    (folder / "tokenizer.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_all(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"type": "WordPiece", "vocab": {"a": -1}}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
        {"model": {"type": "Python", "code": "open('ran', 'w')"}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
        {"normalizer": {"type": "Custom"}},
        {"post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": []}},
        {"added_tokens": [{"id": 10**9, "content": "x"}]},
    ],
)
def test_what_is_no_tokenizer_is_an_error(change, folder):
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(DataError):
        read_all(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": "{}"},
        {"tokenizer": 3},
        {"prefix": [99]},
        {"suffix": ["x"]},
        {"suffix": None},
        {"length": 1},
        {"length": -5},
    ],
)
def test_a_damaged_tokenizer_of_a_run(change, folder):
    own = read_subwords(str(folder))
    text = {"level": "subword", "cut": "end", "length": 8, "column": "text", "files": False, **own.kept, **change}
    with pytest.raises(DataError):
        Encoder({"vocabulary": [*own.vocabulary], "text": text})("the wine")


def test_a_run_whose_tokenizer_knows_more_than_its_vocabulary(folder):
    own = read_subwords(str(folder))
    text = {"level": "subword", "cut": "end", "length": 8, "column": "text", "files": False, **own.kept}
    assert Encoder({"vocabulary": [*own.vocabulary[:6]], "text": text})("the cells wine").max() < 8
