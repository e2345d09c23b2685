"""The shape of a model, what decides its mathematics, and its translation to and from Hugging Face's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fromnoise.run.errors import UserError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder in the Qwen3 shape, or with `qk_norm=False` in Llama's.

    Raises ValueError for a shape that cannot be built.
    """

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int  # query heads i * G .. (i + 1) * G - 1 share key-value head i, G = num_heads / num_kv_heads
    head_size: int
    ffn_width: int
    qk_norm: bool = True  # RMSNorm over each query's and key's head_size values, before the rotation
    tie_embeddings: bool = True  # the output head is the embedding matrix
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    context_tokens: int = 512  # longest input that readers of the model are promised; no tensor is sized by it

    def __post_init__(self) -> None:
        for name in ("vocab_size", "num_layers", "width", "num_heads", "num_kv_heads", "head_size", "ffn_width", "context_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_size % 2:
            raise ValueError(f"head_size must be even for rotary positions, not {self.head_size}")

    def to_hf(self, architecture_suffix: str = "ForCausalLM") -> dict:
        """The keys of config.json that describe the model, for transformers 4.51 and later.

        `rope_theta` and `torch_dtype` are the names of version 4, `rope_parameters` is that of version 5.
        """
        family, model_type = ("Qwen3", "qwen3") if self.qk_norm else ("Llama", "llama")
        keys = {
            "architectures": [family + architecture_suffix],
            "model_type": model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "intermediate_size": self.ffn_width,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "max_position_embeddings": self.context_tokens,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_embeddings,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,  # unused by a trained model; readers expect the key
            "use_cache": True,
            "torch_dtype": "float32",
        }
        if self.qk_norm:
            keys |= {"use_sliding_window": False, "sliding_window": None, "max_window_layers": self.num_layers}
        else:
            keys |= {"mlp_bias": False, "pretraining_tp": 1}
        return keys

    @classmethod
    def from_hf(cls, keys: Mapping, where: str = "config.json") -> ModelConfig:
        """The shape that a config.json of the Qwen3 or Llama family describes.

        Raises UserError, naming `where` and the key, for another family, for a missing key, and for any key that asks
        for other mathematics than ours. Keys unknown to both families are ignored, as transformers ignores them.
        """
        model_type = keys.get("model_type")
        if model_type not in ("qwen3", "llama"):
            raise UserError(f"{where}: model_type {model_type!r} is not supported; models of the families 'qwen3' and 'llama' are.")
        refuse_other_mathematics(keys, where)
        qwen3 = model_type == "qwen3"
        rope = keys.get("rope_parameters") or {}
        try:
            num_heads = int(keys["num_attention_heads"])
            head_size = keys.get("head_dim") or (128 if qwen3 else int(keys["hidden_size"]) // num_heads)
            return cls(
                vocab_size=int(keys["vocab_size"]),
                num_layers=int(keys["num_hidden_layers"]),
                width=int(keys["hidden_size"]),
                num_heads=num_heads,
                num_kv_heads=int(keys.get("num_key_value_heads") or num_heads),
                head_size=int(head_size),
                ffn_width=int(keys["intermediate_size"]),
                qk_norm=qwen3,
                tie_embeddings=bool(keys.get("tie_word_embeddings", False)),
                rope_theta=float(rope.get("rope_theta", keys.get("rope_theta", 10_000.0))),
                rms_norm_eps=float(keys.get("rms_norm_eps", 1e-6)),
                context_tokens=int(keys.get("max_position_embeddings", 32768 if qwen3 else 2048)),
            )
        except KeyError as error:
            raise UserError(f"{where}: the key {error} is missing; a {model_type} model cannot be built without it.") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {error}.") from None


def refuse_other_mathematics(keys: Mapping, where: str) -> None:
    """UserError for the first key whose value changes what the model computes in a way that ours does not."""

    def refuse(key: str, value: object, supported: str) -> None:
        raise UserError(f"{where}: {key} = {value!r} is not supported (only {supported}); this model would compute something else.")

    for holder, name in ((keys.get("rope_scaling"), "rope_scaling"), (keys.get("rope_parameters"), "rope_parameters")):
        if not holder:
            continue
        if not isinstance(holder, Mapping):
            refuse(name, holder, "plain rotary positions")
        kind = holder.get("rope_type", holder.get("type", "default" if "rope_theta" in holder else None))
        if kind != "default":
            refuse(name, dict(holder), "plain rotary positions, rope_type 'default'")
        if holder.get("partial_rotary_factor") not in (None, 1):
            refuse(f"{name}.partial_rotary_factor", holder["partial_rotary_factor"], "1.0")
    for key, supported in (
        ("partial_rotary_factor", (None, 1, 1.0)),
        ("attention_bias", (None, False)),
        ("mlp_bias", (None, False)),
        ("hidden_act", (None, "silu", "swish")),
        ("attention_dropout", (None, 0, 0.0)),
        ("num_experts", (None, 0, 1)),
        ("num_local_experts", (None, 0, 1)),
        ("quantization_config", (None,)),
        ("is_causal", (None, True)),
        ("is_decoder", (None, False, True)),
        ("add_cross_attention", (None, False)),
    ):
        if keys.get(key) not in supported:
            refuse(key, keys[key], " or ".join(repr(value) for value in supported if value is not None) or "absent")
    window = keys.get("sliding_window")
    windowed_layers = int(keys.get("num_hidden_layers") or 0) - int(keys.get("max_window_layers") or 0)
    if keys.get("use_sliding_window") and window is not None and "layer_types" not in keys and windowed_layers > 0:
        refuse("use_sliding_window", True, "False")
    other = [kind for kind in keys.get("layer_types") or () if kind != "full_attention"]
    if other:
        refuse("layer_types", other[0], "'full_attention'")
