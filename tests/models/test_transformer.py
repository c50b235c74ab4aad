import pytest
import torch
from torch import nn

from dlframe.models.transformer import TransformerLayer, TransformerLayers


def twins(norm_first, activation):
    torch.manual_seed(0)
    own = TransformerLayer(16, 4, 32, 0.1, activation=activation, norm_first=norm_first, epsilon=1e-6)
    torch.manual_seed(0)
    reference = nn.TransformerEncoderLayer(16, 4, 32, 0.1, activation, 1e-6, batch_first=True, norm_first=norm_first)
    return own, reference


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_layer_is_that_of_torch(norm_first, activation):
    own, reference = twins(norm_first, activation)
    assert own.state_dict().keys() == reference.state_dict().keys()
    assert all(torch.equal(tensor, reference.state_dict()[name]) for name, tensor in own.state_dict().items())
    with torch.no_grad():
        for tensor, twin in zip(own.parameters(), reference.parameters(), strict=True):
            twin.copy_(tensor.normal_())
    own.eval(), reference.eval()
    states = torch.randn(3, 5, 16)
    outside = torch.arange(5) >= torch.tensor([5, 1, 3]).unsqueeze(1)
    torch.testing.assert_close(own(states), reference(states), rtol=1e-4, atol=1e-4)
    found, expected = own(states, ~outside[:, None, None, :]), reference(states, src_key_padding_mask=outside)
    torch.testing.assert_close(found[~outside], expected[~outside], rtol=1e-4, atol=1e-4)
    gradients = [
        torch.autograd.grad(layer[~outside].square().sum(), module.parameters())
        for layer, module in ((found, own), (expected, reference))
    ]
    for of, to in zip(*gradients, strict=True):
        torch.testing.assert_close(of, to, rtol=1e-3, atol=1e-3)


def test_dropout_reaches_what_is_added_and_the_units():
    torch.manual_seed(0)
    layer = TransformerLayer(16, 4, 32, 1.0)
    states = torch.randn(3, 5, 16)
    assert torch.equal(layer(states), states)
    assert not torch.equal(layer.eval()(states), states)


def test_layers_begin_unlike_each_other():
    torch.manual_seed(0)
    layers = TransformerLayers((TransformerLayer(16, 4, 32) for _ in range(2)), nn.LayerNorm(16))
    first, second = layers.layers
    for name in ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.bias"):
        assert not torch.equal(first.get_parameter(name), second.get_parameter(name))
    assert torch.equal(layers(torch.ones(1, 2, 16)), layers.norm(second(first(torch.ones(1, 2, 16)))))
