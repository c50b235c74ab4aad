import pytest
import torch
from sklearn.datasets import load_digits
from tests.samples import image_spec

from dlframe.registry import models, plugins
from dlframe.types import ConfigError

plugins.discover()
DIGITS = image_spec("digits", (1, 8, 8), tuple("0123456789"))
FASHION = image_spec("fashion", (1, 28, 28), tuple("0123456789"))
WIDE = image_spec("wide", (3, 12, 18), ("no", "yes"))


@pytest.mark.parametrize(
    ("spec", "patch", "message"),
    [
        (FASHION, 5, "28 x 28. Received: 5. Choose from: 1, 2, 4, 7, 14, 28."),
        (WIDE, 4, "12 x 18. Received: 4. Choose from: 1, 2, 3, 6."),
        (DIGITS, 16, "8 x 8. Received: 16. Choose from: 1, 2, 4, 8."),
    ],
)
def test_a_patch_that_does_not_divide_the_image_is_refused(spec, patch, message):
    with pytest.raises(ConfigError) as error:
        models.build({"name": "vit", "patch_size": patch}, spec=spec)
    assert str(error.value) == f"model.patch_size: must divide the image's height and width, {message}"


def test_a_width_that_the_heads_do_not_share_is_refused():
    with pytest.raises(ConfigError) as error:
        models.build({"name": "vit", "width": 50, "num_heads": 4}, spec=DIGITS)
    message = "model.width: must be a multiple of model.num_heads, 4. Received: 50. Try: model.width=52"
    assert str(error.value) == message


@pytest.mark.parametrize(("spec", "patch", "tokens"), [(DIGITS, 2, 16), (FASHION, 7, 16), (WIDE, 6, 6), (DIGITS, 8, 1)])
def test_every_patch_is_a_token(spec, patch, tokens):
    model = models.build({"name": "vit", "patch_size": patch, "depth": 1}, spec=spec)
    assert len(model.position) == tokens
    assert model(torch.rand(2, *spec.shape)).shape == (2, len(spec.classes))


def test_knows_where_a_patch_lies():
    model = models.build({"name": "vit"}, spec=DIGITS).eval()
    image = torch.from_numpy(load_digits().images[:4, None]).float() / 8 - 1
    swapped = image.roll(4, dims=3)  # the left patches and the right ones change places
    assert (model(image) - model(swapped)).abs().max() > 0.01
    model.position.data.zero_()
    torch.testing.assert_close(model(image), model(swapped))


def test_blocks_do_not_start_alike():
    model = models.build({"name": "vit"}, spec=DIGITS)
    first, second = (block.linear1.weight for block in model.blocks[:2])
    assert not torch.equal(first, second)
