"""Reading folders of pictures: JPEGs of 12 megapixels to 224 x 224 pixels, and the listing of many files.

    python benchmarks/pictures.py [--photos 200] [--files 200000]

The photos are mosaics of those that scikit-learn and matplotlib bring, in their own resolution, at quality 90. "draft" is what
one would write: Pillow's reduced decoding on all cores, in threads, at the scale that dlframe takes, where images are as those
decoded at full scale to one gray level; "thumbnail" takes the scale of `Image.thumbnail`, which is coarser. Ratios are of whole
times: dlframe also lists, hashes, stores and compares the images of the splits. 1.2 is the budget; the listing has 3 seconds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import sklearn.datasets
from PIL import Image

from dlframe.data.image_folder import image_folder
from dlframe.readers.listing import list_folder

SIDE = 224
WIDTH, HEIGHT = 4000, 3000
EXACT, COARSE = 2, 4
"""Scales of the reduced decoding: of dlframe for these sizes, and of `Image.thumbnail`."""


def write_photos(folder: Path, count: int) -> list[Path]:
    """Write mosaics in two classes."""
    images = Path(sklearn.datasets.__file__).parent / "images"
    sources = [images / "china.jpg", images / "flower.jpg", Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")]
    tiles = [Image.open(source).convert("RGB") for source in sources]
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        canvas = Image.new("RGB", (WIDTH, HEIGHT))
        for top in range(0, HEIGHT, 400):
            for left in range(0, WIDTH, 500):
                tile = tiles[rng.integers(len(tiles))]
                canvas.paste(tile.transpose(Image.Transpose(rng.integers(7))), (left, top))
        file = folder / ("a", "b")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(file, quality=90)
        files.append(file)
    return files


def drafted(scale: int, file: Path) -> np.ndarray:
    with Image.open(file) as image:
        image.draft(None, (image.width // scale, image.height // scale))
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def by_hand(files: list[Path], scale: int) -> np.ndarray:
    found = np.empty((len(files), SIDE, SIDE, 3), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i, image in enumerate(pool.map(partial(drafted, scale), files)):
            found[i] = image
    return found


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--files", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        os.environ["DLFRAME_DATA"] = str(place / "cache")
        files = write_photos(place / "photos", options.photos)
        times = {scale: seconds(partial(by_hand, files, scale)) for scale in (EXACT, COARSE)}
        own = seconds(lambda: image_folder(path=str(place / "photos"), image_size=SIDE))
        again = seconds(lambda: image_folder(path=str(place / "photos"), image_size=SIDE))
        print(f"{options.photos} photos: {own:.1f} s, {options.photos / own:.1f} a second; the second time {again:.2f} s")
        print(f"of draft {own / times[EXACT]:.2f}, of thumbnail {own / times[COARSE]:.2f}", flush=True)
        top = place / "many"
        for number in range(20):
            (top / f"class{number}").mkdir(parents=True)
        for number in range(options.files):
            os.close(os.open(top / f"class{number % 20}" / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
        before = time.process_time()
        taken = seconds(lambda: list_folder(top))
        print(f"{options.files:,} files listed in {taken:.2f} s, of which {time.process_time() - before:.2f} s of CPU")


if __name__ == "__main__":
    main()
