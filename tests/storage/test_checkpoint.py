"""Checkpoints: whole or not there, and never code."""

from __future__ import annotations

import io
import pickle
import zipfile

import pytest
import torch
from torch import nn

from dlframe.storage import checkpoint
from dlframe.types import CheckpointError


def test_tensors_and_facts_come_back(tmp_path):
    path = tmp_path / "a=b 'c' é" / "x.safetensors"
    shared = torch.arange(6.0).view(2, 3)
    tensors = {"a": shared, "strided": shared.t(), "int": torch.tensor(3), "bf16": torch.ones(2, dtype=torch.bfloat16)}
    checkpoint.save(path, tensors, {"epoch": 3, "value": 0.1})
    loaded, facts = checkpoint.load(path)
    assert facts == {"epoch": 3, "value": 0.1}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_any_header_length_is_read(tmp_path):
    """The header's length is the file's first bytes; some lengths look like the start of a pickle."""
    for size in range(1100, 1700, 8):
        checkpoint.save(tmp_path / "x", {"a": torch.zeros(1)}, {"text": "x" * size})
        assert checkpoint.load(tmp_path / "x")[1]["text"] == "x" * size


def refused(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "FILE")


def test_a_missing_file_is_told(tmp_path):
    assert refused(tmp_path / "x") == "FILE: no such checkpoint."


@pytest.mark.parametrize("size", [0, 5, 8, 9, 60, -1])
def test_a_truncated_file_is_told(tmp_path, size):
    checkpoint.save(tmp_path / "x", {"a": torch.zeros(100)}, {})
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:size])
    assert refused(tmp_path / "x").startswith("FILE: the checkpoint is damaged or truncated: ")


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(pickle.dumps(Bomb(), protocol))
    assert refused(tmp_path / "x") == "FILE: is a pickle, which could run code. Checkpoints must be safetensors."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    (tmp_path / "x").write_bytes(buffer.getvalue())
    assert "is a pickle" in refused(tmp_path / "x")
    assert not (tmp_path / "exploded").exists()


def test_a_safetensors_file_of_somebody_else_is_told(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x", {"format": "pt"})
    assert refused(tmp_path / "x") == "FILE: is not a checkpoint of dlframe. Received format: 'pt'."


def test_another_model_is_told(tmp_path):
    module = nn.Linear(2, 3)
    state = module.state_dict()
    cases = [
        ({"weight": state["weight"]}, "missing tensor 'bias'."),
        ({**state, "wait": state["bias"]}, "unexpected tensor 'wait'."),
        ({**state, "bias": torch.zeros(2)}, "'bias' must have shape (3,). Received: (2,)."),
    ]
    for tensors, message in cases:
        with pytest.raises(CheckpointError) as caught:
            checkpoint.restore(module, tensors, tmp_path / "x")
        assert message in str(caught.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint: "):
        checkpoint.save(tmp_path / "file" / "x", {"a": torch.zeros(1)}, {})
