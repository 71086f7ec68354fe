"""Tiny random models as folders, and images in every mode, for tests of what runs a model."""

import json
import os

import numpy as np
from PIL import Image

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
EOT = 49407
MODELS = {
    "clip": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "quick_gelu": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "custom_text": {"embed_dim": 24, "custom_text": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "custom_eos": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": EOT, "proj_bias": True},
    },
    "bidirectional": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
    },
    "timm": {
        "embed_dim": 24,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 32},
        "text_cfg": TEXT,
    },
    "resnet": {"embed_dim": 24, "vision_cfg": {**VISION, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": TEXT},
}


def tiny_folder(folder, kind="clip", **preprocess):
    """Write a model folder with random weights (seed 0) and return its path."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    os.makedirs(folder, exist_ok=True)
    config = {"model_cfg": MODELS[kind], "preprocess_cfg": {"size": 32, **preprocess}}
    with open(os.path.join(folder, "open_clip_config.json"), "w") as stream:
        json.dump(config, stream)
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, os.path.join(folder, "open_clip_model.safetensors"))
    return str(folder)


def picture(width=57, height=41, mode="RGB", seed=0):
    """A smooth picture with an edge in it, so that resizing filters differ where they are wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(6 * (x * a + y * b) + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    pixels = (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)
    pixels[height // 3 : height // 2] = 255 - pixels[height // 3 : height // 2]
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
    return image.convert(mode)
