"""Pretrained encoders of texts."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.samples import encoder_folder, encoder_weights

from dlframe.config import load
from dlframe.contracts.samples import lines, written
from dlframe.jobs.data import load_data
from dlframe.models import sentence_encoder
from dlframe.models.text_encoder import TextEncoder, pretrained
from dlframe.readers.texts.subwords import architecture
from dlframe.types import CheckpointError, ConfigError, Ragged

pytest.importorskip("tokenizers")


def by_hand(weights: dict[str, torch.Tensor], ids: list[int]) -> np.ndarray:
    """States (length, 8) of one text by NumPy, as Devlin et al. 2018 describe BERT, heads one by one."""
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centered = x - x.mean(1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-12)
        return scaled * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
    for layer in range(2):
        place = f"encoder.layer.{layer}."
        heads = []
        for head in range(2):
            q, k, v = (dense(x, f"{place}attention.self.{n}")[:, 4 * head : 4 * head + 4] for n in ("query", "key", "value"))
            odds = np.exp(q @ k.T / 2)
            heads.append(odds / odds.sum(1, keepdims=True) @ v)
        mixed = dense(np.concatenate(heads, 1), f"{place}attention.output.dense")
        x = norm(x + mixed, f"{place}attention.output")
        hidden = dense(x, f"{place}intermediate.dense")
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = norm(x + dense(hidden, f"{place}output.dense"), f"{place}output")
    return x


def test_the_states_are_those_of_a_loop_by_hand(tmp_path):
    folder = encoder_folder(tmp_path / "e")
    encoder = TextEncoder(architecture(folder / "config.json")).eval()
    pretrained(encoder, str(folder))
    texts = [[2, 4, 5, 8, 3], [2, 6, 3], [2, 9, 10, 7, 7, 1, 3]]
    with torch.no_grad():
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in texts], batch_first=True)
        states, outside = encoder(padded, torch.tensor([5, 3, 7]))
        alone, _ = encoder(torch.tensor([texts[1]]), torch.tensor([3]))
    for own, mask, ids in zip(states, outside, texts, strict=True):
        np.testing.assert_allclose(own[~mask].numpy(), by_hand(encoder_weights(), ids), atol=2e-5)
    torch.testing.assert_close(alone[0], states[1, :3], rtol=1e-4, atol=1e-5)


def build(folder, **options):
    data = {"path": written() / "lines.csv", "text": "line", "target": "of"}
    given = [f"data.{name}={value}" for name, value in data.items()]
    chosen = [f"model.{name}={value}" for name, value in {"weights": folder, "length": 20, **options}.items()]
    config = load(["task=text_classification", "data=text_table", "model=sentence_encoder", *given, *chosen])
    dataset = load_data(config)
    return dataset, config.build_model(dataset.spec)


def test_frozen_features_are_those_of_the_padded_batch_and_are_computed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sentence_encoder, "_features", {})
    dataset, model = build(encoder_folder(tmp_path / "e"))
    texts = dataset.train["text"].take(np.arange(12))
    tokens = Ragged(torch.from_numpy(texts.values), torch.from_numpy(texts.offsets))
    assert int(tokens.lengths.max()) == 20
    model.train()
    alone = model.features(tokens)
    assert not alone.requires_grad
    torch.testing.assert_close(alone, model.pooled(tokens).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.norm(dim=1), torch.full((12,), 8**0.5))
    monkeypatch.setattr(model, "pooled", None)  # what is kept is not computed again
    assert torch.equal(model.features(tokens), alone)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    monkeypatch.undo()
    other = encoder_folder(tmp_path / "other", seed=1)
    model.load_state_dict(build(other)[1].state_dict())  # of other weights nothing is kept
    assert not torch.allclose(model.features(tokens), alone, atol=1e-2)


def test_fine_tuning_moves_the_encoder_at_a_rate_of_its_own(tmp_path):
    dataset, model = build(encoder_folder(tmp_path / "e"), trainable="all", encoder_lr_scale=0.02)
    assert [group["lr_scale"] for group in model.parameter_groups()] == [1.0, 0.02]
    texts = dataset.train["text"].take(np.arange(4))
    model(Ragged(torch.from_numpy(texts.values), torch.from_numpy(texts.offsets))).square().sum().backward()
    torch.nn.init.ones_(model.head.weight)
    model(Ragged(torch.from_numpy(texts.values), torch.from_numpy(texts.offsets))).square().sum().backward()
    assert model.encoder.layers.layers[0].linear1.weight.grad.abs().sum() > 0


def test_data_of_words_and_of_another_tokenizer_are_refused(tmp_path):
    folder, other = encoder_folder(tmp_path / "e"), encoder_folder(tmp_path / "other")
    file = other / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"lowercase": true', '"lowercase": false'), encoding="utf-8")
    dataset, _ = build(other)
    options = [f"data.tokenizer={other}", f"model.weights={folder}", "model.length=20"]
    table = [f"data.path={written() / 'lines.csv'}", "data.text=line", "data.target=of"]
    config = load(["task=text_classification", "data=text_table", "model=sentence_encoder", *table, *options])
    with pytest.raises(ConfigError, match=r"^data\.tokenizer: must be that of model\.weights"):
        config.build_model(dataset.spec)
    dataset.spec.fitted["text"].pop("encoder")
    with pytest.raises(ConfigError, match="needs texts in its own sub-words"):
        load(["model=sentence_encoder", "data=sms_spam", "task=text_classification"]).build_model(dataset.spec)
    with pytest.raises(ConfigError, match=r"^model\.length: must be at most 32, the positions of the encoder\. Received: 99"):
        build(folder, length=99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoder.layer.1.output.dense.bias"), "missing tensor 'layers.layers.1.linear2.bias'"),
        (lambda w: w.pop("encoder.layer.1.attention.self.key.bias"), "missing tensor 'layers.layers.1.self_attn.in_proj_bias'"),
        (lambda w: w.update({"encoder.layer.2.x": torch.zeros(1)}), "unexpected tensor 'layers.layers.2.x'"),
        (lambda w: w.update({"embeddings.word_embeddings.weight": torch.zeros(17, 8)}), "must have shape (16, 8)"),
        (lambda w: w["embeddings.LayerNorm.bias"].fill_(math.nan), "NaN or infinity in 'norm.bias'"),
    ],
)
def test_weights_of_another_network_are_refused(change, message, tmp_path):
    folder = encoder_folder(tmp_path / "e")
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        pretrained(TextEncoder(architecture(folder / "config.json")), str(folder))
    assert message in str(error.value)


def test_a_run_keeps_its_tokenizer_and_needs_no_folder(tmp_path, monkeypatch):
    """Trained, exported and restored after the folder of the encoder is gone."""
    import shutil

    import dlframe
    from dlframe.jobs.train import run

    folder = encoder_folder(tmp_path / "e")
    data = [f"data.path={written() / 'lines.csv'}", "data.text=line", "data.target=of"]
    options = ["task=text_classification", "data=text_table", "model=sentence_encoder", "model.length=24", "epochs=2"]
    result = run(
        load([*options, *data, f"model.weights={folder}", f"runs={tmp_path / 'runs'}", "tracking=none", "figures=none"])
    )
    shutil.rmtree(folder)
    table = __import__("pyarrow.parquet").parquet.read_table(result.folder / "predictions.parquet").to_pydict()
    texts, _ = lines()
    found = dlframe.load(result.folder).predict([texts[row - 1] for row in table["id"]])
    for own, kept in zip(found["probabilities"], table["probabilities"], strict=True):
        assert own.tolist() == kept
