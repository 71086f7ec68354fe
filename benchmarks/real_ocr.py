"""Which images hold text: `masked_similarity`'s thresholds, chosen on generated images, then tried on photographs.

    python benchmarks/real_ocr.py [--n 200] [--data ../shared/data] [--sides 320 448]

Generated: scenes of `mmfilter synth`, half of them with words written over them. Real: the pool's kind
`text_over_image`, and its other kinds, whose photographs can hold a shirt or a sign with letters of their
own. Told for each side (px that the reader looks at), least number of letters and least score: the share
of images with text in which a box reads so (recall), the same of images without (false), and seconds of
processor time an image.
"""

import argparse
import io
import os
import tarfile
import time
from collections.abc import Iterator
from random import Random

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFont

from mmfilter.ocr import read_text
from mmfilter.synth import SynthOptions
from mmfilter.synth.captions import english
from mmfilter.synth.noise import image_of, scene_of

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
LETTERS = (0, 1, 2, 3, 4)  # 0 at score 0: whatever the detector boxes


def write_over(image: Image.Image, words: str, rng: Random) -> Image.Image:
    """Words of 9 to 32 px over a picture, in one to three lines, on a band or straight on it."""
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(rng.randint(9, 32))
    some = words.split()
    count = rng.randint(1, 3)
    lines = [" ".join(some[i * 3 : i * 3 + 3]) or "sale" for i in range(count)]
    text = "\n".join(lines)
    box = draw.multiline_textbbox((0, 0), text, font=font)
    x = rng.randint(0, max(0, int(image.width - box[2])))
    y = rng.randint(0, max(0, int(image.height - box[3])))
    ink, paper = rng.choice([("white", "black"), ("black", "white"), ("yellow", "navy"), ("red", "white")])
    if rng.random() < 0.4:
        draw.rectangle((x - 3, y - 3, x + box[2] + 3, y + box[3] + 3), fill=paper)
    draw.multiline_text((x, y), text, font=font, fill=ink)
    return image


def generated(n: int) -> Iterator[tuple[Image.Image, bool]]:
    """n scenes, every other one with text on it, as JPEG."""
    options = SynthOptions(samples=n, size=224, seed=11)
    for i in range(n):
        scene, rng = scene_of(options, i), Random(f"text/{i}")
        image = Image.open(io.BytesIO(image_of(options, i, scene)))
        if i % 2:
            image = write_over(image, english(scene, rng), rng)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=rng.randint(60, 92))
        yield Image.open(stream), bool(i % 2)


def real(data: str, n: int) -> Iterator[tuple[Image.Image, bool]]:
    """All of the pool's images with text over them, and n others, spread over the pool."""
    labels = pl.read_parquet(os.path.join(data, "pool_labels.parquet"))
    text = set(labels.filter(pl.col("kind") == "text_over_image")["uid"])
    clean = labels.filter(pl.col("kind") == "clean").sort("uid")["uid"]
    wanted = text | set(clean.gather_every(max(1, len(clean) // n))[:n])
    keys = dict(labels.select("key", "uid").iter_rows())
    for name in sorted(os.listdir(os.path.join(data, "pool"))):
        if name.endswith(".tar"):
            with tarfile.open(os.path.join(data, "pool", name)) as file:
                for member in file:
                    uid = keys.get(member.name.removesuffix(".jpg"))
                    if member.name.endswith(".jpg") and uid in wanted:
                        stream = file.extractfile(member)
                        assert stream is not None
                        yield Image.open(io.BytesIO(stream.read())), uid in text


def measure(name: str, images: list[tuple[Image.Image, bool]], sides: list[int]) -> None:
    """Print the table of one set of images."""
    labels = np.array([label for _, label in images])
    print(f"{name}: {labels.sum()} with text, {(~labels).sum()} without; recall / false")
    print("| side | s an image | letters | " + " | ".join(f"{t:g}" for t in THRESHOLDS) + " |")
    for side in sides:
        read_text(images[0][0], side)
        started = time.process_time()
        found = [read_text(image, side) for image, _ in images]
        seconds = (time.process_time() - started) / len(images)
        for letters in LETTERS:
            cells = []
            for least in THRESHOLDS:
                has = np.array([len(one.words(least, letters)) > 0 for one in found])
                cells.append(f"{has[labels].mean():.3f} / {has[~labels].mean():.3f}")
            print(f"| {side} | {seconds:.3f} | {letters} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("MMFILTER_DATA", "../shared/data"))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--sides", type=int, nargs="+", default=[320, 448])
    parser.add_argument("--only", choices=["generated", "real"])
    args = parser.parse_args()
    if args.only != "real":
        measure("generated", list(generated(args.n)), args.sides)
    if args.only != "generated":
        measure("photographs", list(real(args.data, args.n)), args.sides)


if __name__ == "__main__":
    main()
