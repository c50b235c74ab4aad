"""Every mode and orientation is read to the value that its format defines, or refused with the option that decides."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin
from torchvision.transforms import v2

from dlframe.readers.images import Picture, pixel_limit, read_image
from dlframe.readers.modes import Decoding

RAMP = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (16, 1))


def read(file: Path, color_mode: str = "grayscale", size: int = 16, **decoding) -> Picture:
    return read_image(file, (size, size), color_mode, decoding=Decoding(fit="squash", **decoding))


def saved(image: Image.Image, file: Path, **options) -> Path:
    image.save(file, **options)
    return file


def tiff(file: Path, values: np.ndarray, *, bits: int, photometric: int = 1, sample_format: int = 1, order: str = "<") -> Path:
    """Write a TIFF without compression; 12 bits are packed, two values in three bytes."""
    if bits == 12:
        first, second = values.reshape(-1, 2).astype(np.uint32).T
        content = b"".join((int(a) << 12 | int(b)).to_bytes(3, "big") for a, b in zip(first, second, strict=True))
    else:
        content = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(content)}
    tags[339] = sample_format
    start = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    file.write_bytes(start + struct.pack(f"{order}I", 8 + len(content)) + content + directory)
    return file


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale"])
def test_modes_as_pillow_and_torchvision(mode, color_mode, tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).convert(mode)
    file = saved(image, tmp_path / "x.tif")
    loaded = Image.open(file).convert("RGB" if color_mode == "rgb" else "L")
    want = np.asarray(v2.functional.resize(loaded, [16, 16]))
    tensor = v2.functional.resize(v2.functional.pil_to_tensor(loaded), [16, 16], antialias=True)
    found = read(file, color_mode)
    assert found.pixels is not None
    assert found.pixels.shape == (3 if color_mode == "rgb" else 1, 16, 16)
    assert np.abs(found.pixels.astype(int) - np.atleast_3d(want).transpose(2, 0, 1)).max() <= 1
    assert (torch.from_numpy(found.pixels.copy()).int() - tensor.int()).abs().max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_orientation_comes_before_conversion(orientation, suffix, mode, tmp_path):
    if mode == "I;16" and suffix in ("jpg", "webp"):
        pytest.skip("has no such mode")
    values = np.arange(12 * 20, dtype=np.uint16).reshape(12, 20)
    image = Image.fromarray(values * 257) if mode == "I;16" else Image.fromarray(values.astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    file = saved(image, tmp_path / f"x.{suffix}", exif=exif, **options)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(file.read_bytes())))
    want = np.asarray(turned) >> 8 if mode == "I;16" else np.asarray(turned.convert("L"))
    found = read_image(file, want.shape, "grayscale", decoding=Decoding(fit="squash"))
    assert np.abs(found.pixels[0].astype(int) - want).max() <= 1
    assert want.shape == ((12, 20) if orientation < 5 else (20, 12))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [1, 0])
@pytest.mark.parametrize(("bits", "scale"), [(16, 257), (12, 4095 / 255)])
def test_unsigned_depths_use_their_whole_range(order, photometric, bits, scale, tmp_path):
    if bits == 12 and (order, photometric) != ("<", 1):
        pytest.skip("not read by Pillow")
    values = np.rint(RAMP.astype(np.float64) * scale).astype(np.uint16)
    found = read(tiff(tmp_path / "x.tif", values, bits=bits, photometric=photometric, order=order))
    if found.fault:  # WhiteIsZero in big-endian order
        assert found.fault.startswith("is TIFF, damaged or of a kind that is not read")
        return
    assert np.abs(found.pixels[0].astype(int) - (RAMP if photometric else 255 - RAMP)).max() <= 1
    assert not found.notes


@pytest.mark.parametrize("maximum", [255, 4095, 65535])
def test_a_pgm_says_its_own_range(maximum, tmp_path):
    values = np.rint(RAMP / 255 * maximum)
    file = tmp_path / "x.pgm"
    file.write_bytes(f"P5 16 16 {maximum}\n".encode() + values.astype(">u2" if maximum > 255 else "u1").tobytes())
    assert np.abs(read(file).pixels[0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "bits", "sample_format", "scale", "shift"),
    [
        ("u4", 32, 1, 2**24, 0),
        ("i4", 32, 2, 1000, -100_000),
        ("i2", 16, 2, 100, -9000),
        ("f4", 32, 3, 1 / 255, 0.0),
        ("f4", 32, 3, 2.5, -300.0),
    ],
)
def test_depths_without_a_range_need_one(dtype, bits, sample_format, scale, shift, tmp_path):
    values = (RAMP.astype(np.float64) * scale + shift).astype(dtype)
    file = tiff(tmp_path / "x.tif", values, bits=bits, sample_format=sample_format)
    refused = read(file)
    assert refused.pixels is None
    assert f"a depth without a range. Give the values of black and white: data.range=[{values.min():g}," in refused.fault
    found = read(file, value_range=(float(values.min()), float(values.max())))
    assert np.abs(found.pixels[0].astype(int) - RAMP).max() <= 1
    assert not found.notes
    clipped = read(file, value_range=(float(values.min()), float(values.mean())))
    assert "beyond data.range" in clipped.notes[0]


def test_a_float_that_is_not_finite(tmp_path):
    file = tiff(tmp_path / "x.tif", np.full((4, 4), np.nan, "f4"), bits=32, sample_format=3)
    assert read(file, value_range=(0.0, 1.0)).fault == "has values that are not finite"


def test_twelve_bits_in_sixteen_are_told(tmp_path):
    file = saved(Image.fromarray(RAMP.astype(np.uint16) * 16), tmp_path / "x.png")
    (note,) = read(file).notes
    assert "data.range=[0,4095]" in note
    assert np.abs(read(file, value_range=(0.0, 4095.0)).pixels[0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("background", ["white", "black", "mean"])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "P", "I;16"])
def test_alpha_is_laid_on_a_ground(mode, background, tmp_path):
    """A gray square of value 51 in a hidden bright field."""
    shape = np.zeros((16, 16), bool)
    shape[4:12, 4:12] = True
    gray = np.where(shape, 51, 200).astype(np.uint8)
    file = tmp_path / "x.png"
    rgba = Image.fromarray(np.dstack([gray, gray, gray, np.where(shape, 255, 0).astype(np.uint8)]))
    match mode:
        case "I;16":
            saved(Image.fromarray(gray.astype(np.uint16) * 257), file, transparency=200 * 257)
        case "P":
            saved(Image.fromarray(gray).convert("P"), file, transparency=200)
        case "PA":
            file = saved(rgba.convert("LA"), tmp_path / "x.tif")
        case _:
            saved(rgba.convert(mode), file)
    found = read(file, background=background)
    ground = {"white": 255, "black": 0, "mean": 51}[background]
    assert np.abs(found.pixels[0].astype(int) - np.where(shape, 51, ground)).max() <= 1
    assert found.notes[0] == f"transparent, laid on {background} (data.background)"
    assert (len(found.notes) == 2) == (background == "mean")  # nothing is left to be seen


def test_an_opaque_alpha_is_not_told(tmp_path):
    image = Image.fromarray(RAMP).convert("RGBA")
    found = read(saved(image, tmp_path / "x.png"))
    assert (found.pixels[0] == RAMP).all()
    assert not found.notes


def test_lab_is_converted_by_the_formula(tmp_path):
    """CIE 1976, D50, adapted to D65 by Bradford's matrix."""
    lab = np.array([[60, 20, -30], [40, -10, 25], [75, 5, 5], [30, 0, 0]])
    stored = np.stack([lab[:, 0] * 255 / 100, lab[:, 1] % 256, lab[:, 2] % 256], 1).round().astype(np.uint8)
    image = Image.frombytes("LAB", (4, 1), stored.tobytes())
    found = read_image(saved(image, tmp_path / "x.tif"), (1, 4), "rgb", decoding=Decoding(fit="squash"))
    fy = (lab[:, 0] + 16) / 116
    f = np.stack([fy + lab[:, 1] / 500, fy, fy - lab[:, 2] / 200], 1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1.0, 0.8249)
    matrix = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = np.clip(xyz @ matrix.T, 0, 1)
    want = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(found.pixels[:, 0].T - want).max() <= 3  # 8 bits of L, a and b


@pytest.mark.parametrize("suffix", ["avif", "jp2", "tga", "qoi", "pcx", "bmp", "gif", "webp"])
def test_formats_of_pillow(suffix, tmp_path):
    options = {"webp": {"lossless": True}, "avif": {"quality": 100}}.get(suffix, {})
    file = saved(Image.fromarray(RAMP).convert("RGB"), tmp_path / f"x.{suffix}", **options)
    assert np.abs(read(file).pixels[0].astype(int) - RAMP).max() <= 2


def test_what_is_not_read_is_named(tmp_path):
    for start, name in ((b"\0\0\0\x18ftypheic", "HEIC"), (b"8BPS\0\1", "Photoshop"), (b"II*\0\x08\0\0\0", "TIFF")):
        (tmp_path / "x").write_bytes(start + bytes(40))
        assert read(tmp_path / "x").fault.startswith(f"is {name}, damaged or of a kind that is not read")
    (tmp_path / "x").write_bytes(b"hello")
    assert read(tmp_path / "x").fault == "is not an image"


def test_the_first_page_is_read_and_told(tmp_path):
    pages = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    for suffix in ("tif", "gif"):
        found = read(saved(pages[0], tmp_path / f"x.{suffix}", save_all=True, append_images=pages[1:]))
        assert (found.pixels[0] == RAMP).all()
        assert found.notes == ("with several pages or frames, of which the first is read",)


@pytest.mark.filterwarnings("ignore")  # as where the reader is called
def test_damaged_metadata_do_not_break_a_picture(tmp_path):
    image = Image.fromarray(RAMP)
    for name, options in {
        "profile": {"icc_profile": b"no profile" * 9},
        "exif": {"exif": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(60))},
    }.items():
        file = saved(image, tmp_path / f"{name}.jpg", quality=100, **options)
        assert np.abs(read(file).pixels[0].astype(int) - RAMP).max() <= 2
    rational = TiffImagePlugin.ImageFileDirectory_v2()
    rational[282] = TiffImagePlugin.IFDRational(0, 0)
    file = saved(image, tmp_path / "x.tif", tiffinfo=rational)
    assert (read(file).pixels[0] == RAMP).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_fit(fit, tmp_path):
    """A white strip with a black mark at its left end."""
    strip = np.full((12, 48), 255, np.uint8)
    strip[:, :12] = 0
    file = saved(Image.fromarray(strip), tmp_path / "x.png")
    seen = read_image(file, (12, 12), "grayscale", decoding=Decoding(fit=fit, background="black")).pixels[0]
    match fit:
        case "crop":
            assert (seen == 255).all()
        case "pad":
            assert (seen[:4] == 0).all()
            assert (seen[8:] == 0).all()
            assert (seen[5:7, :2] == 0).all()
            assert (seen[5:7, 4:] == 255).all()
        case "squash":
            assert (seen[:, :2] == 0).all()
            assert (seen[:, 4:] == 255).all()


def test_a_reduced_jpeg_is_the_same_picture(tmp_path):
    from sklearn.datasets import load_sample_images

    for number, photo in enumerate(load_sample_images().images):
        image = Image.fromarray(photo[:424])
        file = saved(image.resize((2560, 1696), Image.Resampling.BICUBIC), tmp_path / f"{number}.jpg", quality=90)
        want = np.asarray(Image.open(file).resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        difference = np.abs(read(file, "rgb", 64).pixels.astype(int) - want)
        assert (difference > 1).mean() < 0.005
        assert difference.max() <= 3


def test_a_large_scan_by_choice(tmp_path):
    file = saved(Image.new("1", (300, 40)), tmp_path / "x.tif")
    with pixel_limit(11_999):
        assert read(file).fault == "has more than 11,999 pixels (data.max_pixels)"
    with pixel_limit(12_000):
        assert read(file).pixels is not None


@pytest.mark.parametrize("kept", [{}, {"decoding": 1}, {"decoding": {"fit": "x", "background": "white", "value_range": None}}])
def test_an_invalid_decoding_of_a_run_is_the_default(kept):
    assert Decoding.of(kept) == Decoding()
    own = Decoding(fit="pad", background="mean", value_range=(0.0, 9.0))
    assert Decoding.of(own.kept()) == own


def test_truncated_anywhere_is_read_or_refused(tmp_path):
    for suffix in ("png", "jpg", "tif", "gif", "bmp", "webp", "jp2", "avif", "qoi", "tga"):
        buffer = io.BytesIO()
        Image.fromarray(RAMP).convert("RGB").save(buffer, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix))
        content = buffer.getvalue()
        for end in range(0, len(content), max(1, len(content) // 40)):
            (tmp_path / f"x.{suffix}").write_bytes(content[:end])
            found = read(tmp_path / f"x.{suffix}")
            assert (found.pixels is None) == bool(found.fault)
