"""A stranger's model folder chooses sizes; it names no code, no host and no file elsewhere."""

import json
import os
import sys
import types

import pytest
from tars import samples, tar
from train_util import CONFIG

from mmfilter.checkpoint import read_config, tokenizer_of
from mmfilter.errors import DataError
from mmfilter.model_config import check_config, known_names
from mmfilter.start import configuration
from mmfilter.weights import DEMO, ModelSpec, build, resolve

NAME = "timm/ViT-B-16-SigLIP"


def folder_with(path, text=(), vision=(), files=(), model=None):
    """A model folder whose configuration has these fields."""
    path.mkdir(exist_ok=True)
    config = json.loads(json.dumps(CONFIG))
    config["model_cfg"]["text_cfg"].update(text)
    config["model_cfg"]["vision_cfg"].update(vision)
    if model is not None:
        config["model_cfg"] = model
    (path / "open_clip_config.json").write_text(json.dumps(config))
    for name, data in dict(files).items():
        (path / name).write_text(data)
    return path


HOSTILE = {
    "code of a tokenizer": {"text": {"hf_tokenizer_name": NAME, "tokenizer_kwargs": {"trust_remote_code": True}}},
    "code, without a name": {"text": {"tokenizer_kwargs": {"trust_remote_code": True}}},
    "code, falsely": {"text": {"hf_tokenizer_name": NAME, "tokenizer_kwargs": {"trust_remote_code": False}}},
    "a stranger's tokenizer": {"text": {"hf_tokenizer_name": "evil/tokenizer"}},
    "a tokenizer by path": {"text": {"hf_tokenizer_name": "../evil"}},
    "a tokenizer by absolute path": {"text": {"hf_tokenizer_name": "/tmp/evil"}},
    "a list for a name": {"text": {"hf_tokenizer_name": ["evil/tokenizer"]}},
    "another revision": {"text": {"hf_tokenizer_name": NAME, "tokenizer_kwargs": {"revision": "refs/pr/1"}}},
    "a sub-folder": {"text": {"hf_tokenizer_name": NAME, "tokenizer_kwargs": {"subfolder": "x"}}},
    "another kind": {"text": {"hf_tokenizer_name": NAME, "tokenizer_kwargs": {"tokenizer_type": "transfo-xl"}}},
    "a proxy": {"text": {"hf_tokenizer_name": NAME, "tokenizer_kwargs": {"proxies": {"https": "http://evil"}}}},
    "kwargs that are none": {"text": {"tokenizer_kwargs": ["trust_remote_code"]}},
    "a cleaning that is none": {"text": {"tokenizer_kwargs": {"clean": "os.system"}}},
    "a mode that is none": {"text": {"tokenizer_mode": "evil"}},
    "a vocabulary elsewhere": {"text": {"tokenizer_kwargs": {"bpe_path": "../../etc/hostname"}}},
    "a vocabulary by absolute path": {"text": {"tokenizer_kwargs": {"bpe_path": "/etc/hostname"}}},
    "a vocabulary that is no path": {"text": {"tokenizer_kwargs": {"bpe_path": 3}}},
    "a stranger's text tower": {"text": {"hf_model_name": "evil/model"}},
    "a text tower by path": {"text": {"hf_model_name": "./evil"}},
    "a vision tower of the hub": {"vision": {"timm_model_name": "hf-hub:evil/model"}},
    "a vision tower of the hub, otherwise": {"vision": {"timm_model_name": "hf_hub:evil/model"}},
    "a vision tower by path": {"vision": {"timm_model_name": "local-dir:/tmp/evil"}},
    "a vision tower that is none": {"vision": {"timm_model_name": {"a": 1}}},
    "a tokenizer's own code": {
        "text": {"hf_tokenizer_name": NAME},
        "files": {"tokenizer.json": "{}", "tokenizer_config.json": '{"auto_map": {"AutoTokenizer": ["evil.Evil"]}}'},
    },
    "a configuration's own code": {
        "text": {"hf_tokenizer_name": NAME},
        "files": {"vocab.txt": "a", "config.json": '{"auto_map": {"AutoConfig": "evil.Evil"}}'},
    },
    "a tokenizer that un-pickles": {
        "text": {"hf_tokenizer_name": NAME},
        "files": {"vocab.txt": "a", "tokenizer_config.json": '{"tokenizer_class": "TransfoXLTokenizer"}'},
    },
    "a tokenizer's files that are none": {
        "text": {"hf_tokenizer_name": NAME}, "files": {"vocab.txt": "a", "tokenizer_config.json": "[" * 10**5}
    },
    "no text": {"model": {"vision_cfg": {}, "text_cfg": None}},
    "no vision": {"model": {"text_cfg": {}}},
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_configuration_is_refused_in_a_sentence(what, tmp_path, mmfilter):
    folder = folder_with(tmp_path / "model", **HOSTILE[what])
    with pytest.raises(DataError) as error:
        read_config(str(folder))
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError):
        resolve(ModelSpec(model=str(folder)))
    with pytest.raises(DataError):
        configuration(str(folder / "open_clip_config.json"))


def test_embedding_with_one_ends_in_that_sentence(tmp_path, mmfilter):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "0.tar").write_bytes(tar(samples(2)))
    folder = folder_with(tmp_path / "model", **HOSTILE["code of a tokenizer"])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\nembed: {{m: {{model: {folder}}}}}\nscores: [clip_similarity: {{model: m}}]\n")
    code, _, err = mmfilter("embed", recipe, "--pool", tmp_path / "pool", "--out", tmp_path / "out", "--local")
    assert code and "trust_remote_code" in err and "is not taken from a model's files" in err and "Traceback" not in err


def test_what_open_clip_itself_names_is_allowed():
    from open_clip.factory import _MODEL_CONFIGS

    for name, config in _MODEL_CONFIGS.items():
        check_config(config, name, "")
    assert NAME in known_names()["hf_tokenizer_name"]
    assert read_config(DEMO)["model_cfg"]


def test_transformers_is_told_to_run_no_code(tmp_path, monkeypatch):
    asked = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(name, **options):
            asked.append((name, options))
            return types.SimpleNamespace()

    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(AutoTokenizer=AutoTokenizer))
    named = {"hf_tokenizer_name": NAME, "tokenizer_kwargs": {"clean": "canonicalize"}}
    plain = folder_with(tmp_path / "plain", named)
    tokenizer_of(read_config(str(plain))["model_cfg"]["text_cfg"], str(plain))
    own = folder_with(tmp_path / "own", named, files={"tokenizer.json": "{}", "tokenizer_config.json": "{}"})
    tokenizer_of(read_config(str(own))["model_cfg"]["text_cfg"], str(own))
    assert [name for name, _ in asked] == [NAME, str(own)]
    assert all(options["trust_remote_code"] is False for _, options in asked)


def test_the_demo_model_is_built_as_before():
    spec = ModelSpec(model="demo")
    _, _, tokenizer = build(spec, resolve(spec))
    assert tokenizer(["a red square"]).shape[0] == 1 and os.path.isdir(DEMO)
