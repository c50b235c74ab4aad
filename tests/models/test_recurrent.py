"""Recurrent layers over sequences of varying length, against torch's packed sequences."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlframe.models.recurrent import BidirectionalLSTM


def test_states_and_gradients_are_those_of_packed_sequences():
    torch.manual_seed(0)
    ours = BidirectionalLSTM(3, 4).double()
    reference = nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()
    reference.load_state_dict(
        ours.forwards.state_dict() | {f"{name}_reverse": value for name, value in ours.backwards.state_dict().items()}
    )
    steps, lengths = torch.randn(5, 7, 3, dtype=torch.float64), torch.tensor([7, 1, 4, 6, 2])
    inside = (torch.arange(7) < lengths[:, None]).unsqueeze(2)
    packed = pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0], batch_first=True)
    found = ours(steps, lengths) * inside
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, value in ours.forwards.named_parameters():
        torch.testing.assert_close(value.grad, getattr(reference, name).grad)
    for name, value in ours.backwards.named_parameters():
        torch.testing.assert_close(value.grad, getattr(reference, f"{name}_reverse").grad)


def test_what_is_beyond_a_length_changes_nothing():
    torch.manual_seed(0)
    layer, steps = BidirectionalLSTM(3, 4).double(), torch.randn(1, 7, 3, dtype=torch.float64)
    alone = layer(steps[:, :4], torch.tensor([4]))
    torch.testing.assert_close(layer(steps, torch.tensor([4]))[:, :4], alone)
