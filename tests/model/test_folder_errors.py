"""A model folder that is not exactly what it should be is refused, by name."""

import json
import os
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from fromnoise.model.config import ModelConfig
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import load_model, load_reward, model_folder, save_model, save_reward
from fromnoise.run.errors import UserError
from tests.model.shapes import random_model


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path / "m", random_model(), pad_id=0)
    return tmp_path / "m"


def test_each_file_of_a_model_is_flushed_once(tmp_path, monkeypatch):
    """config.json was by the writer of single files, and again with its folder."""
    flushed, fsync = Counter(), os.fsync

    def counted(descriptor):
        flushed[os.fstat(descriptor).st_ino] += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    save_model(tmp_path / "s", random_model(), pad_id=0, shard_bytes=40_000)
    counts = {path.name: flushed[path.stat().st_ino] for path in (tmp_path / "s").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors.index.json"} < set(counts) and set(counts.values()) == {1}


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not ...}))


OTHER_MATHEMATICS = {
    "model_type": {"model_type": "gpt2"},
    "rope_scaling": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_parameters": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    "partial_rotary_factor": {"partial_rotary_factor": 0.5},
    "rope_parameters.partial_rotary_factor": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "hidden_act": {"hidden_act": "gelu"},
    "attention_dropout": {"attention_dropout": 0.1},
    "num_experts": {"num_experts": 8},
    "quantization_config": {"quantization_config": {"bits": 4}},
    "use_sliding_window": {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention"]},
    "hidden_size": {"hidden_size": ...},
    "num_heads": {"num_key_value_heads": 3},
}


@pytest.mark.parametrize(("named", "changes"), OTHER_MATHEMATICS.items(), ids=OTHER_MATHEMATICS.keys())
def test_other_mathematics_is_refused_by_name(folder, named, changes):
    edit(folder, **changes)
    with pytest.raises(UserError, match=named) as error:
        load_model(folder)
    assert "config.json" in str(error.value)


UNSET = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": None}}


@pytest.mark.parametrize("changes", [{"sliding_window": 64}, {"rope_scaling": {"type": "default"}}, {"rope_parameters": ...}, {"head_dim": 32}, UNSET])
def test_the_same_mathematics_is_not(folder, changes):
    edit(folder, **changes)
    load_model(folder)


def reweigh(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BAD_WEIGHTS = {
    "missing": lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
    "unexpected": lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(4)}),
    "shape": lambda tensors: tensors.update({"model.norm.weight": torch.zeros(65)}),
    "int32": lambda tensors: tensors.update({"model.norm.weight": torch.zeros(64, dtype=torch.int32)}),
    "lm_head.weight differs": lambda tensors: tensors.update({"lm_head.weight": torch.zeros(256, 64)}),
}


@pytest.mark.parametrize(("named", "change"), BAD_WEIGHTS.items(), ids=BAD_WEIGHTS.keys())
def test_weights_of_another_model_are_refused(folder, named, change):
    reweigh(folder, change)
    with pytest.raises(UserError, match=named):
        load_model(folder)


def test_a_copy_of_a_tied_head_is_accepted(folder):
    reweigh(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 200, 5_000])
def test_a_cut_off_file_is_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cut off or damaged"):
        load_model(folder)


def test_a_missing_shard_a_pickle_and_an_empty_folder_are_refused(tmp_path):
    save_model(tmp_path / "s", random_model(), shard_bytes=40_000)
    next((tmp_path / "s").glob("model-00002*")).unlink()
    with pytest.raises(UserError, match=r"model-00002.*missing"):
        load_model(tmp_path / "s")
    for path in (tmp_path / "s").glob("model*"):
        path.unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_model(tmp_path / "s")
    (tmp_path / "s" / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="pickle"):
        load_model(tmp_path / "s")
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="no model folder there"):
        model_folder(tmp_path / "nowhere")


def test_reward_and_language_models_are_not_mistaken_for_each_other(folder, tmp_path):
    save_reward(tmp_path / "r", ScoreModel(random_model()), pad_id=0)
    with pytest.raises(UserError, match="a reward model"):
        load_model(tmp_path / "r")
    with pytest.raises(UserError, match="no reward model"):
        load_reward(folder)
    for changes, labels in (({"id2label": ..., "label2id": ..., "num_labels": ...}, 2), ({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3)):
        edit(tmp_path / "r", **changes)
        with pytest.raises(UserError, match=f"a classifier with {labels} labels"):
            load_reward(tmp_path / "r")


def test_the_config_survives_the_way_there_and_back():
    for qk_norm in (True, False):
        config = ModelConfig(512, 3, 192, 3, 1, 64, 512, qk_norm=qk_norm, tie_embeddings=qk_norm, rope_theta=5e5, context_tokens=77)
        assert ModelConfig.from_hf(config.to_hf()) == config


def test_weights_that_are_not_finite_are_never_a_model(tmp_path):
    """Of a learning rate that broke them at the last step, with no loss left to see it."""
    model = random_model()
    model.norm.weight.data[0] = float("nan")
    with pytest.raises(UserError, match=r"m: 1 of \d+ tensors hold weights that are not finite \(model\.norm\.weight\); lower the learning rates"):
        save_model(tmp_path / "m", model, pad_id=0)
    assert not list(tmp_path.iterdir())
