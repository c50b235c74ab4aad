"""What holds for every augmentation, and the geometry and arithmetic of each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits, load_sample_image
from tests.samples import image_spec

from dlframe.augmentations import operations
from dlframe.registry import augmentations
from dlframe.registry.plugins import discover
from dlframe.types import Batch, ConfigError

discover()
NAMES = [
    e.name
    for e in augmentations
    if e.origin == "dlframe" and "image" in e.facts["inputs"] and not e.facts["sample"]  # those of boxes are in test_boxes.py
]
CLASSES = tuple("0123456789")


def labeled(pixels: torch.Tensor, targets: torch.Tensor) -> Batch:
    """Images in [0, 1] with their classes."""
    shape = tuple(pixels.shape[1:])
    spec = image_spec("real", shape, CLASSES, mean=(0.5,) * shape[0], std=(0.25,) * shape[0])
    return Batch({"image": pixels, "label": targets}, torch.arange(len(pixels)), spec)


@pytest.fixture(scope="module")
def digits() -> Batch:
    inputs, targets = load_digits(return_X_y=True)
    pixels = torch.tensor(inputs[:64], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return labeled(pixels, torch.tensor(targets[:64]))


@pytest.fixture(scope="module")
def photos() -> Batch:
    """64 patches of 32 x 32 pixels of a photograph."""
    patches = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1).unfold(1, 32, 52).unfold(2, 32, 78)
    pixels = patches.permute(1, 2, 0, 3, 4).flatten(0, 1)[:64].float() / 255
    return labeled(pixels.contiguous(), torch.arange(64) % 10)


def build(name: str, batch: Batch, **options):
    return augmentations.build({"name": name, **options}, spec=batch.spec)


def apply(name: str, batch: Batch, seed: int = 0, **options) -> Batch:
    return build(name, batch, **options)(batch, torch.Generator().manual_seed(seed))


def part(batch: Batch, index) -> Batch:
    return labeled(batch.inputs[index], batch.targets[index])


@pytest.fixture(params=["digits", "photos"])
def batch(request) -> Batch:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NAMES)
def test_keeps_shape_type_range_layout_and_its_input(name, batch, layout):
    given = batch.replace(inputs=batch.inputs.contiguous(memory_format=layout))
    before = given.inputs.clone()
    out = apply(name, given)
    assert out.inputs.shape == given.inputs.shape
    assert out.inputs.dtype == given.inputs.dtype
    assert out.inputs.is_contiguous(memory_format=layout)
    assert out.inputs.min() >= 0
    assert out.inputs.max() <= 1
    assert torch.equal(given.inputs, before)
    assert torch.equal(given.targets, batch.targets)
    assert torch.equal(out.index, given.index)


DRAWN_ELSEWHERE = ("none", "alternating_flip")
"""Augmentations that draw nothing for a batch: the second has one draw for each sample of a training."""


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_alone_decides(name, batch):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = apply(name, batch)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = apply(name, batch), apply(name, batch, seed=1)
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.targets, second.targets)
    assert name in DRAWN_ELSEWHERE or not torch.equal(first.inputs, other.inputs)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in (*DRAWN_ELSEWHERE, "mixup", "cutmix")])
def test_each_sample_has_its_own_draw(name, photos):
    same = photos.replace(inputs=photos.inputs[:1].expand(64, -1, -1, -1).contiguous())
    outcomes = {image.numpy().tobytes() for image in apply(name, same).inputs}
    assert len(outcomes) >= 2 if name == "flip" else len(outcomes) > 10


@pytest.mark.parametrize("name", NAMES)
def test_takes_a_single_sample_and_half_precision(name, batch):
    single = part(batch, slice(0, 1))
    out = apply(name, single.replace(inputs=single.inputs.bfloat16()))
    assert out.inputs.shape == single.inputs.shape
    assert out.inputs.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("none", {}),
        ("flip", {"p": 0}),
        ("crop", {"padding": 0}),
        ("affine", {"degrees": 0, "translate": 0, "scale": [1, 1]}),
        ("color_jitter", {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}),
        ("erasing", {"p": 0}),
        ("erasing", {"scale": [0, 0]}),
        ("mixup", {"p": 0}),
        ("cutmix", {"p": 0}),
    ],
)
def test_an_empty_range_changes_nothing(name, options, batch):
    out = apply(name, batch, **options)
    assert torch.allclose(out.inputs, batch.inputs, atol=1e-5)
    if out.targets.ndim == 2:
        assert torch.equal(out.targets.argmax(1), batch.targets)


@pytest.mark.parametrize(("direction", "count"), [("horizontal", 2), ("vertical", 2), ("both", 4)])
def test_flip_mirrors_in_its_directions(direction, count, digits):
    out = apply("flip", digits, direction=direction).inputs
    image = digits.inputs
    mirrored = {"horizontal": [image.flip(3)], "vertical": [image.flip(2)]}
    mirrored["both"] = [image.flip(3), image.flip(2), image.flip(2, 3)]
    options = [image, *mirrored[direction]]
    matches = torch.stack([(out == option).flatten(1).all(1) for option in options])
    assert matches.any(0).all()
    assert (matches.any(1)).sum() == count
    assert torch.equal(apply("flip", digits, p=1).inputs, image.flip(3))


def test_crop_shows_a_window_of_the_padded_image(digits):
    out = apply("crop", digits, padding=2).inputs
    padded = torch.nn.functional.pad(digits.inputs, (2, 2, 2, 2))
    places = set()
    for image, source in zip(out, padded, strict=True):
        found = [(r, c) for r in range(5) for c in range(5) if torch.equal(source[:, r : r + 8, c : c + 8], image)]
        assert found
        places.add(found[0])
    assert len(places) > 12


def test_crop_pads_an_eighth_and_with_what_is_asked(digits):
    assert build("crop", digits).padding == 1
    ones = digits.replace(inputs=torch.ones_like(digits.inputs))
    assert apply("crop", ones, padding=3).inputs.min() == 0
    for padding_mode in ("edge", "reflect"):
        assert torch.equal(apply("crop", ones, padding=3, padding_mode=padding_mode).inputs, ones.inputs)
    with pytest.raises(ConfigError) as error:
        build("crop", digits, padding=8, padding_mode="reflect")
    assert str(error.value) == (
        "augmentation.crop.padding: must be smaller than the image, 8 pixels, with padding_mode=reflect. Received: 8. "
        "Try: augmentation.crop.padding=1"
    )


def test_warp_turns_moves_scales_and_shears_by_the_pixel(photos):
    images = photos.inputs[:1]
    one = torch.ones(1)
    turned = operations.warp(images, degrees=90 * one)
    assert torch.allclose(turned, images.rot90(1, (2, 3)), atol=1e-4)
    moved = operations.warp(images, translate=(one * 3 / 32, -one * 2 / 32))
    assert torch.allclose(moved[..., :30, 3:], images[..., 2:, :29], atol=1e-4)
    assert moved[..., :3].abs().max() < 1e-5
    halved = operations.warp(images, scale=0.5 * one)
    assert torch.allclose(halved[..., 8:24, 8:24], torch.nn.functional.avg_pool2d(images, 2), atol=1e-4)
    # A shear of 1 moves a row by its distance from the centre: row 15 of 32 by half a pixel, to the left.
    sheared = operations.warp(images, shear=(one, 0 * one))
    assert torch.allclose(sheared[..., 15, :-1], (images[..., 15, 1:] + images[..., 15, :-1]) / 2, atol=1e-4)


def test_warp_keeps_a_rectangles_angles():
    image = torch.zeros(1, 1, 9, 17)
    image[..., 4, 4:13] = 1
    upright = operations.warp(image, degrees=torch.tensor([90.0]))
    assert torch.allclose(upright[..., :, 8], torch.ones(9), atol=1e-4)
    assert upright.sum() == pytest.approx(9, abs=1e-3)


def test_colours_follow_pillow(photos):
    pictures = [Image.fromarray(np.uint8(image.permute(1, 2, 0).numpy() * 255)) for image in photos.inputs[:8]]
    images = torch.stack([torch.tensor(np.array(p)).permute(2, 0, 1).float() / 255 for p in pictures])
    strength = torch.full((8,), 1.4)
    for ours, theirs in (
        (operations.recolor(images, brightness=strength), lambda p: ImageEnhance.Brightness(p).enhance(1.4)),
        (operations.recolor(images, contrast=strength), lambda p: ImageEnhance.Contrast(p).enhance(1.4)),
        (operations.recolor(images, saturation=strength), lambda p: ImageEnhance.Color(p).enhance(1.4)),
        (operations.sharpness(images, strength), lambda p: ImageEnhance.Sharpness(p).enhance(1.4)),
        (operations.posterize(images, torch.full((8,), 3.0)), lambda p: ImageOps.posterize(p, 3)),
        (operations.solarize(images, torch.full((8,), 100 / 255)), lambda p: ImageOps.solarize(p, 100)),
        (operations.autocontrast(images), ImageOps.autocontrast),
        (operations.equalize(images), ImageOps.equalize),
    ):
        expected = torch.stack([torch.tensor(np.array(theirs(p))).permute(2, 0, 1).float() / 255 for p in pictures])
        assert (ours - expected).abs().max() < 2.6 / 255


def test_a_turn_of_hue_keeps_luma_and_greys_and_comes_back(photos):
    images = 0.4 + 0.2 * photos.inputs
    turned = operations.recolor(images, hue=torch.full((64,), 0.3))
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert (turned - images).abs().max() > 0.02
    assert torch.allclose((turned * luma).sum(1), (images * luma).sum(1), atol=1e-4)
    assert torch.allclose(operations.recolor(turned, hue=torch.full((64,), -0.3)), images, atol=1e-4)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    assert torch.allclose(operations.recolor(grey, hue=torch.full((64,), 0.3)), grey, atol=1e-4)


def test_jitter_of_brightness_stays_within_its_factors(digits):
    half = digits.replace(inputs=digits.inputs / 2)
    out = apply("color_jitter", half, brightness=0.5, contrast=0, saturation=0).inputs
    factors = out.sum((1, 2, 3)) / half.inputs.sum((1, 2, 3))
    assert 0.5 <= factors.min() < 0.6
    assert 1.4 < factors.max() <= 1.5


@pytest.mark.parametrize(("value", "shown"), [("mean", 0.5), ("black", 0.0)])
def test_erasing_covers_an_area_within_its_range(value, shown, photos):
    ones = photos.replace(inputs=torch.ones_like(photos.inputs))
    out = apply("erasing", ones, p=1, scale=[0.1, 0.2], value=value).inputs
    hidden = out[:, 0] != 1
    assert torch.equal(out[:, 0][hidden], torch.full((int(hidden.sum()),), shown))
    areas = hidden.float().mean((1, 2))
    assert areas.min() > 0.07
    assert areas.max() < 0.23
    assert torch.equal(hidden, hidden.any(1, keepdim=True) & hidden.any(2, keepdim=True))
    assert len({tuple(torch.nonzero(h)[0].tolist()) for h in hidden}) > 20


def test_erasing_changes_a_share_of_the_samples(photos):
    out = apply("erasing", photos, p=0.5, value="noise").inputs
    assert 20 <= (out != photos.inputs).flatten(1).any(1).sum() <= 44


def test_policies_leave_some_samples_and_change_most(batch):
    for name in ("rand_augment", "trivial_augment"):
        changed = (apply(name, batch).inputs - batch.inputs).abs().amax((1, 2, 3)) > 1e-3
        assert 32 < changed.sum() < 64


def test_rand_augment_grows_with_its_magnitude(photos):
    weak, strong = (
        (apply("rand_augment", photos, num_ops=1, magnitude=m).inputs - photos.inputs).abs().mean() for m in (0.1, 1)
    )
    assert strong > 1.5 * weak


def test_mixup_mixes_images_and_labels_by_the_same_share(digits):
    out = apply("mixup", digits, alpha=1.0)
    assert out.targets.shape == (64, 10)
    assert torch.allclose(out.targets.sum(1), torch.ones(64))
    # With the identity as images, the image itself tells who was mixed with whom, and by what share.
    identity = digits.replace(inputs=torch.eye(64).view(64, 1, 8, 8))
    shares = apply("mixup", identity, alpha=1.0).inputs.flatten(1)
    expected = shares @ torch.nn.functional.one_hot(digits.targets, 10).float()
    assert torch.allclose(out.targets, expected, atol=1e-6)
    own = shares.diagonal()
    assert own.std() == pytest.approx(12**-0.5, abs=0.05)


def test_mixup_shares_follow_their_beta_distribution():
    many = labeled(torch.zeros(20000, 1, 1, 1), torch.arange(20000) % 10)
    for alpha in (0.2, 4.0):
        own = apply("mixup", many, alpha=alpha).targets.gather(1, many.targets.unsqueeze(1)).squeeze(1)
        # A tenth of the partners have the same label, which makes the share 1.
        mean, second = 0.5 * 0.9 + 0.1, (0.25 + 1 / (4 * (2 * alpha + 1))) * 0.9 + 0.1
        assert own.mean().item() == pytest.approx(mean, abs=0.01)
        assert own.square().mean().item() == pytest.approx(second, abs=0.01)


def test_cutmix_gives_labels_the_share_of_the_area(photos):
    zeros_and_ones = photos.replace(
        inputs=(torch.arange(64) % 2).float().view(-1, 1, 1, 1).expand(-1, 3, 32, 32), targets=torch.arange(64) % 2
    )
    out = apply("cutmix", zeros_and_ones)
    assert torch.allclose(out.targets[:, 1], out.inputs.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(out.targets.sum(1), torch.ones(64))
    mixed = (out.targets.amax(1) < 1).nonzero().flatten()
    assert len(mixed) > 20
    for image, own in zip(out.inputs[mixed, 0], zeros_and_ones.targets[mixed], strict=True):
        box = image != own
        assert torch.equal(box, box.any(1, keepdim=True) & box.any(0, keepdim=True))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_an_unlabeled_sample_is_a_row_of_zeros(name, digits):
    hidden = replace(digits, labelled=torch.arange(64) < 32)
    rows = apply(name, hidden, p=0).targets
    assert torch.equal(rows.sum(1), (torch.arange(64) < 32).float())
    mixed = apply(name, hidden, alpha=1.0).targets.sum(1)
    assert mixed.min() >= 0
    assert mixed.max() <= 1 + 1e-6
    assert ((mixed > 0.01) & (mixed < 0.99)).any()


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_batch_of_one_is_mixed_with_itself(name, digits):
    single = part(digits, slice(3, 4))
    out = apply(name, single)
    assert torch.allclose(out.inputs, single.inputs)
    assert torch.allclose(out.targets, torch.nn.functional.one_hot(single.targets, 10).float())


def test_mixtures_can_be_mixed_again(digits):
    once = apply("mixup", digits, alpha=1.0)
    twice = apply("cutmix", once, seed=1)
    assert torch.allclose(twice.targets.sum(1), torch.ones(64), atol=1e-5)
    assert (twice.targets > 0).sum(1).max() > 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "affine",
            {"scale": [1.2, 0.8]},
            "augmentation.affine.scale: must be [smallest, largest]. Received: [1.2, 0.8]. "
            "Try: augmentation.affine.scale=[0.8,1.2]",
        ),
        (
            "erasing",
            {"scale": [0.5, 0.1]},
            "augmentation.erasing.scale: must be [smallest, largest]. Received: [0.5, 0.1]. "
            "Try: augmentation.erasing.scale=[0.1,0.5]",
        ),
        (
            "erasing",
            {"ratio": [3, 0.3]},
            "augmentation.erasing.ratio: must be [smallest, largest]. Received: [3.0, 0.3]. "
            "Try: augmentation.erasing.ratio=[0.3,3]",
        ),
    ],
)
def test_a_range_the_wrong_way_round_is_refused(name, options, message, digits):
    with pytest.raises(ConfigError) as error:
        build(name, digits, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_labels_are_mixed_in_any_precision(name, dtype, digits):
    """As under trainer.precision=64-true and bf16-true, where torch makes numbers of that type."""
    batch = digits.replace(inputs=digits.inputs.to(dtype))
    augment = augmentations.build({"name": name}, spec=batch.spec)
    torch.set_default_dtype(dtype)
    try:
        mixed = augment(batch, torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert mixed.inputs.dtype == dtype
    torch.testing.assert_close(mixed.targets.sum(1).float(), torch.ones(len(mixed)), atol=1e-2, rtol=0)
