"""Evaluation sets in CLIP_benchmark's layout, written by the standard library's tarfile."""

import io

import numpy as np
from embed_util import picture
from tars import std_tar

CLASSES = ("cat", "dog", "red square", "blue circle", "tree", "car")
TEMPLATES = ("a photo of a {c}.", "{c}")


def png(seed):
    """A small picture's bytes."""
    out = io.BytesIO()
    picture(40 + seed % 7, 36, seed=seed).save(out, "PNG")
    return out.getvalue()


def npy(values):
    out = io.BytesIO()
    np.save(out, np.asarray(values))
    return out.getvalue()


def labelled(count, classes=CLASSES, seed=0):
    """`count` samples with a picture and a class."""
    labels = np.random.default_rng(seed).integers(0, len(classes), count)
    return [{"png": png(i), "cls": str(label).encode()} for i, label in enumerate(labels)]


def captioned(count, seed=0):
    """`count` samples with a picture and one to three captions."""
    rng = np.random.default_rng(seed)
    words = [" ".join(rng.choice(CLASSES, 3)) for _ in range(3 * count)]
    return [{"png": png(i), "txt": "\n".join(words[3 * i : 3 * i + 1 + i % 3]).encode()} for i in range(count)]


def grouped(count, highest, seed=0):
    """`labelled` with an npy of numbers from 0 to `highest`, one a field."""
    rng = np.random.default_rng(seed)
    return [{**s, "npy": npy([rng.integers(0, h + 1) for h in highest])} for s in labelled(count, seed=seed)]


def members(samples, start=0):
    """The tar's members of samples, as CLIP_benchmark names them."""
    return [(f"s{start + i:07d}.{ext}", data) for i, s in enumerate(samples) for ext, data in s.items()]


def write_set(root, samples, shards=1, classes=CLASSES, templates=TEMPLATES, kind=""):
    """Write a set and return its path."""
    (root / "test").mkdir(parents=True, exist_ok=True)
    each = -(-len(samples) // shards)
    for shard in range(shards):
        part = samples[shard * each : (shard + 1) * each]
        (root / "test" / f"{shard}.tar").write_bytes(std_tar(members(part, shard * each)))
    (root / "test" / "nshards.txt").write_text(f"{shards}\n")
    if classes:
        (root / "classnames.txt").write_text("\n".join(classes) + "\n")
        (root / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    if kind:
        (root / "dataset_type.txt").write_text(kind + "\n")
    return str(root)


def plain_rows(model, samples, texts):
    """float32 unit rows of the samples' pictures and of texts, by open_clip alone, one at a time."""
    import open_clip
    import torch
    from PIL import Image

    net, transform = open_clip.create_model_from_pretrained(f"local-dir:{model}", return_transform=True)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model}")
    net.eval()
    with torch.inference_mode():
        images = [net.encode_image(transform(Image.open(io.BytesIO(s["png"])))[None]) for s in samples]
        words = [net.encode_text(tokenizer([text])) for text in texts]
        sides = [torch.nn.functional.normalize(torch.cat(side), dim=-1).numpy() for side in (images, words) if side]
    return sides if len(sides) == 2 else (*sides, None)


def plain_classifier(model, classes=CLASSES, templates=TEMPLATES):
    """(classes, d): the mean over templates of unit rows, made unit again."""
    _, rows = plain_rows(model, [{"png": png(0)}], [t.format(c=c) for c in classes for t in templates])
    means = rows.reshape(len(classes), len(templates), -1).mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def task(kind, root, **fields):
    """A task over the set at `root`."""
    from mmfilter.tasks import build_task

    return build_task({kind: {"key": "t", "dataset": "T", "root": root, **fields}}, "t")


def labels(samples):
    """(n,) of the samples' classes."""
    return np.array([int(s["cls"]) for s in samples])
