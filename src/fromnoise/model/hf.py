"""Model folders in the Hugging Face format, read and written without `transformers`.

A folder holds config.json, model.safetensors (or shards with an index), generation_config.json and, when a tokenizer
is given, its files. A language model is Qwen3ForCausalLM or LlamaForCausalLM; a reward model is the family's
ForSequenceClassification with one label, whose `score.weight` is our head.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fromnoise.model.config import ModelConfig
from fromnoise.model.heads import ScoreEnsemble, ScoreModel
from fromnoise.model.transformer import Transformer
from fromnoise.run.errors import UserError, install
from fromnoise.run.files import fsync_file, fsync_folder, local_model, write_atomic

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 4 << 30
MEAN_KEY, STD_KEY = "fromnoise_reward_mean", "fromnoise_reward_std"
CALCULATOR_KEY = "fromnoise_calculator"  # in generation_config.json: the model's calls `<<12*7=` want an answer; other readers pass it over


class SavesItself(Protocol):
    """The part of `data.tokenizer.Tokenizer` that is needed here."""

    pad_id: int
    endoftext_id: int
    control_ids: Mapping[str, int]

    def save(self, folder: Path, eos: str | None = None, for_scores: bool = False) -> None: ...


def save_model(
    folder: Path | str,
    model: Transformer,
    tokenizer: SavesItself | None = None,
    *,
    eos_ids: Sequence[int] | None = None,
    pad_id: int | None = None,
    generation: Mapping[str, object] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a language model.

    eos_ids: tokens that end a generation, `<|endoftext|>` for a base model and `<|im_end|>` for a chat model; the
    tokenizer's `<|endoftext|>` by default. generation: further keys of generation_config.json (temperature, ...).
    """
    pad_id, eos_ids = _special_ids(tokenizer, pad_id, eos_ids)
    eos = eos_ids[0] if len(eos_ids) == 1 else list(eos_ids) or None
    config = model.config.to_hf() | {"bos_token_id": None, "eos_token_id": eos, "pad_token_id": pad_id}
    defaults = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 256} | dict(generation or {})
    defaults |= {"eos_token_id": eos, "pad_token_id": pad_id}
    tensors = {_hf_name(name): tensor for name, tensor in model.state_dict().items()}
    _publish(Path(folder), config, defaults, tensors, tokenizer, shard_bytes)


def save_reward(
    folder: Path | str,
    model: ScoreModel,
    tokenizer: SavesItself | None = None,
    *,
    pad_id: int | None = None,
    eos_ids: Sequence[int] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a reward model with its normalisation. `pad_id` is needed by readers: they score the last token before it."""
    pad_id, eos_ids = _special_ids(tokenizer, pad_id, eos_ids)
    config = model.backbone.config.to_hf("ForSequenceClassification") | {
        "bos_token_id": None,
        "eos_token_id": eos_ids[0] if len(eos_ids) == 1 else list(eos_ids) or None,
        "pad_token_id": pad_id,
        "num_labels": 1,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "problem_type": "regression",
        MEAN_KEY: float(model.mean),
        STD_KEY: float(model.std),
    }
    tensors = {_hf_name(name): tensor for name, tensor in model.backbone.state_dict().items()}
    tensors["score.weight"] = model.score.weight.detach()
    _publish(Path(folder), config, None, tensors, tokenizer, shard_bytes)


def load_model(source: Path | str) -> Transformer:
    """Open a language model in fp32: a folder, or a Hub id. Raises UserError for anything that is not exactly one."""
    folder = model_folder(source)
    keys = read_config(folder)
    if _is_reward(keys):
        raise UserError(f"{folder}/config.json: a reward model ({keys['architectures'][0]}), where a language model is needed.")
    model = Transformer(ModelConfig.from_hf(keys, f"{folder}/config.json"))
    _fill(model, {_hf_name(name): parameter for name, parameter in model.named_parameters()}, folder)
    return model


def wants_calculator(folder: Path | str) -> bool:
    """Whether the model in a folder has learnt to call the calculator while it writes."""
    path = Path(folder) / "generation_config.json"  # folders of other tools need not have one
    return path.is_file() and _read_json(path, "").get(CALCULATOR_KEY) is True


def check_vocabulary(config: ModelConfig, num_ids: int, folder: Path | str) -> None:
    """Raises UserError for a model whose tokenizer (num_ids) has ids that its embedding has no row for; the other way round is usual."""
    if num_ids > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {num_ids:,} ids and the model's embedding {config.vocab_size:,} rows; tokens that were added need rows of their "
            "own (in transformers: model.resize_token_embeddings(len(tokenizer)), then save both again)"
        )


def load_reward(source: Path | str) -> ScoreModel:
    """Open a reward model in fp32 with its head and normalisation. Raises UserError for a folder that is none."""
    folder = model_folder(source)
    keys = read_config(folder)
    if not _is_reward(keys):
        raise UserError(f"{folder}/config.json: architectures {keys.get('architectures')} is no reward model (...ForSequenceClassification).")
    labels = len(keys.get("id2label") or ()) or keys.get("num_labels", 2)  # of two, which are transformers' default, it writes nothing
    if labels != 1:
        raise UserError(f"{folder}/config.json: a classifier with {labels} labels (id2label); a reward model has one.")
    model = ScoreModel(
        Transformer(ModelConfig.from_hf(keys, f"{folder}/config.json")),
        mean=float(keys.get(MEAN_KEY, 0.0)),
        std=float(keys.get(STD_KEY, 1.0)),
    )
    wanted = {_hf_name(name): parameter for name, parameter in model.backbone.named_parameters()}
    _fill(model.backbone, wanted | {"score.weight": model.score.weight}, folder)
    return model


def member_folders(folder: Path | str) -> list[Path]:
    """A reward model's folder, and those of the further members of an ensemble inside it: `member-2`, `member-3`, ..."""
    folder = Path(folder)
    found = [folder]
    while (folder / f"member-{len(found) + 1}" / "config.json").is_file():
        found.append(folder / f"member-{len(found) + 1}")
    return found


def load_scorer(source: Path | str) -> ScoreModel | ScoreEnsemble:
    """Open a reward model, with all its members where it is an ensemble."""
    members = [load_reward(folder) for folder in member_folders(model_folder(source))]
    return members[0] if len(members) == 1 else ScoreEnsemble(members)


def set_normalisation(folder: Path | str, mean: float, std: float) -> None:
    """Give a saved reward model another normalisation: config.json is replaced by one rename, the weights stay."""
    write_atomic(Path(folder) / "config.json", _json(read_config(folder) | {MEAN_KEY: float(mean), STD_KEY: float(std)}))


def model_folder(source: Path | str, commit: str | None = None) -> Path:
    """The folder that `source` names: itself, or the local copy of a Hub repository's model and tokenizer files, as they were at
    `commit` or as they are now. Raises UserError where there is neither."""
    name = str(source)
    if (folder := local_model(name)) is not None:
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{source}: no such folder. To fetch it from the Hugging Face Hub, {install('huggingface_hub')}."
        ) from None
    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer*"]))
    except Exception as error:  # the client raises a dozen kinds: no network, no such repository, gated, ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{source}: no such folder here, and the Hub did not give it: {reason}") from None


def read_config(folder: Path | str) -> dict:
    return _read_json(Path(folder) / "config.json", "a model folder holds config.json, model.safetensors and tokenizer files")


def _read_json(path: Path, hint: str) -> dict:
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {hint}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); the file is damaged, get it again.") from None
    if not isinstance(keys, dict):
        raise UserError(f"{path}: holds a {type(keys).__name__} where a JSON object is expected.")
    return keys


def _is_reward(keys: Mapping) -> bool:
    return any(str(name).endswith("ForSequenceClassification") for name in keys.get("architectures") or ())


def _hf_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def _special_ids(tokenizer: SavesItself | None, pad_id: int | None, eos_ids: Sequence[int] | None) -> tuple[int | None, list[int]]:
    if tokenizer is not None:
        pad_id = tokenizer.pad_id if pad_id is None else pad_id
        eos_ids = [tokenizer.endoftext_id] if eos_ids is None else eos_ids
    return pad_id, [int(i) for i in eos_ids or ()]


# --- writing


def check_finite(tensors: Mapping[str, Tensor], what: object) -> None:
    """UserError where weights are not finite. `update` skips what it cannot use, but the step before may have been the last, and broken them."""
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"{what}: {len(broken)} of {len(tensors)} tensors hold weights that are not finite ({broken[0]}); lower the learning rates")


def _publish(
    folder: Path, config: dict, generation: dict | None, tensors: dict[str, Tensor], tokenizer: SavesItself | None, shard_bytes: int
) -> None:
    """Write everything beside `folder`, then move it in: a folder that has config.json is a whole model.

    A new folder appears by one rename. In one that is there already (a stage keeps its log in it), config.json goes
    first and comes back last. Raises UserError for weights that are not finite.
    """
    check_finite(tensors, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.tmp-{os.getpid()}"  # a kill leaves it there: RunFolder.clean_up
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _write_weights(temporary, tensors, shard_bytes)
        if generation is not None:
            (temporary / "generation_config.json").write_text(_json(generation), encoding="utf-8")
        if tokenizer is not None:
            ends = config["eos_token_id"][0] if isinstance(config["eos_token_id"], list) else config["eos_token_id"]
            names = {token_id: name for name, token_id in tokenizer.control_ids.items()}
            tokenizer.save(temporary, eos=names.get(ends), for_scores=generation is None)  # readers stop where the tokenizer says, too
        (temporary / "config.json").write_text(_json(config), encoding="utf-8")
        for path in temporary.iterdir():
            fsync_file(path)
        fsync_folder(temporary)
        if not folder.exists():
            temporary.rename(folder)
        else:
            names = sorted(path.name for path in temporary.iterdir() if path.name != "config.json")
            (folder / "config.json").unlink(missing_ok=True)
            for stale in [folder / INDEX, *folder.glob("model*.safetensors")]:
                stale.unlink(missing_ok=True)
            for name in [*names, "config.json"]:
                os.replace(temporary / name, folder / name)
            fsync_folder(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_weights(folder: Path, tensors: dict[str, Tensor], shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    filled = total = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.nbytes
        total += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, name)
    (folder / INDEX).write_text(_json({"metadata": {"total_size": total}, "weight_map": weight_map}), encoding="utf-8")


def _json(keys: Mapping) -> str:
    """As transformers writes it: two spaces, keys sorted."""
    return json.dumps(keys, indent=2, sort_keys=True) + "\n"


# --- reading


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX, "").get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"{folder / INDEX}: holds no weight_map; the file is damaged, get it again.")
        files = [folder / name for name in sorted(set(weight_map.values()))]
        for path in files:
            if not path.is_file():
                raise UserError(f"{path}: missing, though {INDEX} names it; get the folder's shards again.")
        return files
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickles = sorted(folder.glob("*.bin"))
    if pickles:
        raise UserError(f"{pickles[0]}: pickled weights are not read (a pickle can run code); save the model as safetensors.")
    raise UserError(f"{folder}: holds no {WEIGHTS}; a model folder holds config.json, {WEIGHTS} and tokenizer files.")


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (the handle is no mapping)
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); it is cut off or damaged, get it again.") from None


@torch.no_grad()
def _fill(model: Transformer, wanted: dict[str, Tensor], folder: Path) -> None:
    """Copy every tensor of the folder into `wanted`: each name once, every shape as the config says, nothing left over."""
    tied = model.config.tie_embeddings
    missing = dict(wanted)
    for path in _weight_files(folder):
        for name, tensor in _tensors(path):
            if name.endswith("rotary_emb.inv_freq"):  # old Llama folders store this function of rope_theta
                continue
            if name == "lm_head.weight" and tied:
                if not torch.equal(tensor, _named_tensor(folder, "model.embed_tokens.weight")):
                    raise UserError(f"{path}: lm_head.weight differs from the embeddings, but config.json says tie_word_embeddings.")
                continue
            if name not in missing:
                what = "stands twice" if name in wanted else "is unexpected"
                raise UserError(f"{path}: the tensor {name} {what}; config.json and the weights belong to different models.")
            target = missing.pop(name)
            if tensor.shape != target.shape:
                raise UserError(
                    f"{path}: {name} has shape {tuple(tensor.shape)}, and config.json asks for {tuple(target.shape)}; "
                    "config.json and the weights belong to different models."
                )
            if not tensor.is_floating_point() or tensor.element_size() < 2:
                raise UserError(f"{path}: {name} is {tensor.dtype}; float32, bfloat16 and float16 weights are read, quantised ones are not.")
            target.copy_(tensor)
    if missing:
        first = sorted(missing)[0]
        raise UserError(f"{folder}: {len(missing)} tensors are missing, {first} the first; config.json and the weights belong to different models.")


def _named_tensor(folder: Path, wanted: str) -> Tensor:
    """Raises UserError where the folder has none of that name."""
    for path in _weight_files(folder):
        for name, tensor in _tensors(path):
            if name == wanted:
                return tensor
    raise UserError(f"{folder}: the tensor {wanted} is missing.")
