"""Sub-words of a pretrained encoder."""

import json

import numpy as np
import pytest
from tests.samples import WORDS, encoder_folder

from dlframe.readers.texts import subwords
from dlframe.readers.texts.subwords import architecture, read_subwords
from dlframe.readers.texts.tokens import FIRST, Encoder, Tokens, encode_texts, text_dataset
from dlframe.types import DataError, MissingPackageError

pytest.importorskip("tokenizers")


@pytest.fixture
def folder(tmp_path):
    return encoder_folder(tmp_path / "encoder")


def named(tokens: np.ndarray) -> list[str]:
    return [WORDS[token - FIRST] for token in tokens]


def dataset(folder, texts, **options):
    tokens = Tokens(tokenizer=str(folder), **options)
    labels, ids = [np.arange(len(texts)) % 2] * 3, [np.arange(len(texts))] * 3
    return text_dataset("texts", encode_texts([texts] * 3, tokens), labels, ids, ("a", "b"), tokens, source="", splits="")


def test_texts_have_the_ends_of_the_encoder(folder):
    data, notes = dataset(folder, ["The wines.", "", "of cells is data to the wine in data"], length=6)
    assert [named(text) for text in data.train["text"]] == [
        ["[CLS]", "the", "wine", "##s", ".", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "of", "cell", "in", "data", "[SEP]"],
    ]
    assert any(
        "the middle of 1 of 3 texts is left out: they have more than data.length=6 tokens, the longest 12" in n for n in notes
    )


def test_new_texts_are_encoded_as_those_of_the_run(folder):
    texts = ["the wines", "of \u00e9 \ud83d cells", "", "is = a data . in the cell of the data to a wine"]
    for cut in ("end", "middle", "start"):
        data, _ = dataset(folder, texts, length=7, cut=cut)
        encoder = Encoder(json.loads(json.dumps(data.spec.fitted)))
        assert [encoder(text).tolist() for text in texts] == [text.tolist() for text in data.train["text"]]


def test_a_text_of_unknown_subwords_is_told_from_others(folder):
    data, _ = dataset(folder, ["the wines", "a cell"])
    encoder = Encoder(data.spec.fitted)
    assert [encoder.knows(encoder(text)) for text in ("the wines", "\u00e9 \u00e9 a", "\u00e9 \u00e9", "", " ")] == [
        *(True, True, False, False, False)
    ]


def test_no_room_for_a_text(folder):
    with pytest.raises(DataError, match=r"^data.length: must be above 2, the tokens at the ends of every text. Received: 2"):
        dataset(folder, ["the wine", "a cell"], length=2)


def test_the_package_is_named_where_it_is_missing(folder, monkeypatch):
    subwords._tokenizer.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'dlframe\[text\]'"):
        read_subwords(str(folder))


def test_positions_of_roberta_begin_behind_the_padding(tmp_path):
    folder = encoder_folder(tmp_path / "r", model_type="roberta", pad_token_id=1, max_position_embeddings=34)
    found = architecture(folder / "config.json")
    assert (found.kind, found.positions, found.first_position) == ("roberta", 32, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "model_type must be bert, roberta"),
        ({"model_type": ["bert"]}, "model_type must be bert"),
        ({"hidden_size": 9}, "'num_heads' must divide the width, 9. Received: 2"),
        ({"hidden_size": "8"}, "'width' must be an integer from 1 to 8,192. Received: '8'"),
        ({"num_hidden_layers": 10**9}, "'depth' must be an integer from 1 to 128. Received: 1000000000"),
        ({"hidden_act": "silu"}, "'activation' must be gelu or relu. Received: 'silu'"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "'auto_map' names code of its own, which is not run"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be absolute"),
        ({"vocab_size": 10}, "its numbers must be below 10, the vocabulary of the encoder"),
    ],
)
def test_what_is_another_network_is_refused(config, message, tmp_path):
    with pytest.raises(DataError) as error:
        read_subwords(str(encoder_folder(tmp_path / "e", **config)))
    assert message in str(error.value)


@pytest.mark.parametrize("source", ["minilm2", "no/such/folder"])
def test_a_source_that_is_not_there(source):
    with pytest.raises(DataError, match="must be minilm, or a folder of a transformers encoder"):
        read_subwords(source)
