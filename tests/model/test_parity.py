"""Our folders in transformers, theirs in ours, to 1e-4 in fp32 over the whole context."""

import pytest
import torch

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model import hf
from fromnoise.model.heads import ScoreModel
from fromnoise.model.hf import CALCULATOR_KEY, load_model, load_reward, save_model, save_reward, wants_calculator
from fromnoise.run.checkpoint import Checkpointer
from fromnoise.run.errors import UserError
from tests.data.test_tokenizer import CONVERSATIONS, CORPUS, LLAMA3, hub_folder
from tests.model.shapes import random_ids, random_model, randomise

transformers = pytest.importorskip("transformers")

SHAPES = {
    "qwen3 tied": {},
    "qwen3 untied": {"tie_embeddings": False},
    "llama tied": {"qk_norm": False, "head_size": 16},
    "llama untied, one kv head": {"qk_norm": False, "tie_embeddings": False, "num_kv_heads": 1},
    "qwen3 long": {"context_tokens": 640, "rope_theta": 500_000.0, "rms_norm_eps": 1e-5},
}


@torch.no_grad()
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
def test_a_saved_model_opens_in_transformers_with_the_same_logits(tmp_path, changes):
    model = random_model(**changes)
    save_model(tmp_path / "m", model, eos_ids=[1, 3], pad_id=0, generation={"temperature": 0.7, CALCULATOR_KEY: True})
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(info.values()), info
    assert theirs.dtype == torch.float32 and theirs.generation_config.temperature == 0.7
    assert theirs.generation_config.eos_token_id == [1, 3] and theirs.generation_config.pad_token_id == 0
    ids = random_ids(2, model.config.context_tokens)
    torch.testing.assert_close(model.logits(model(ids)), theirs(ids).logits, rtol=0, atol=1e-4)
    assert theirs.generate(ids[:, :4], max_new_tokens=2).shape[1] <= 6  # a key that only we know is no argument of theirs
    theirs.save_pretrained(tmp_path / "again")
    assert wants_calculator(tmp_path / "m") and wants_calculator(tmp_path / "again")


@torch.no_grad()
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_ragged_padded_rows_equal(tmp_path, left):
    model = random_model()
    save_model(tmp_path / "m", model, pad_id=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    ids = random_ids(3, 40, low=1)
    real = torch.arange(40) < torch.tensor([40, 23, 7])[:, None]
    real = real.flip(1) if left else real
    ids = ids.where(real, 0)
    positions = (real.cumsum(1) - 1).clamp(min=0)
    expected = theirs(ids, attention_mask=real.long(), position_ids=positions).logits
    ours = model.logits(model(ids, positions, real.long()))
    torch.testing.assert_close(ours[real], expected[real], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"qk_norm": False, "tie_embeddings": False}], ids=["qwen3", "llama untied"])
def test_a_reward_model_scores_the_same_in_transformers_and_after_loading(tmp_path, changes):
    model = randomise(ScoreModel(random_model(**changes), mean=0.25, std=3.0), seed=5)
    save_reward(tmp_path / "r", model, pad_id=0, eos_ids=[3])
    theirs, info = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "r", output_loading_info=True)
    assert not any(info.values()), info
    lengths = torch.tensor([40, 23, 7])
    ids = random_ids(3, 40, low=1).where(torch.arange(40) < lengths[:, None], 0)
    expected = theirs(ids, attention_mask=(ids != 0).long()).logits[:, 0]
    last = (torch.arange(3), lengths - 1)
    torch.testing.assert_close(model(ids)[last], expected, rtol=0, atol=1e-4)
    again = load_reward(tmp_path / "r")
    assert (again.mean, again.std) == (0.25, 3.0)
    assert torch.equal(again(ids), model(ids))


@torch.no_grad()
def test_padded_by_its_own_tokenizer_a_reward_model_is_read_at_the_answers_end(tmp_path):
    """Where the Hub's tokenizer pads with the token that ends an answer, as SmolLM2's does."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<x>"]
    tokenizer = hub_folder(tmp_path, specials, LLAMA3, eos_token="<|im_end|>", pad_token="<|im_end|>")
    model = randomise(ScoreModel(random_model(vocab_size=tokenizer.vocab_size)), seed=5)
    save_reward(tmp_path / "r", model, tokenizer, eos_ids=tokenizer.chat_stop_ids)
    theirs, their_tokenizer = (kind.from_pretrained(tmp_path / "r") for kind in (transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer))
    answers = [[*tokenizer.encode(text), tokenizer.im_end_id] for text in ("The ferry left at noon.", "No.")]
    padded = their_tokenizer.pad({"input_ids": answers}, return_tensors="pt", padding_side="right")
    alone = torch.stack([model(torch.tensor([ids]))[0, -1] for ids in answers])
    torch.testing.assert_close(theirs(**padded).logits[:, 0], alone, rtol=0, atol=1e-4)


PLAIN_CHATML = (  # as Qwen's: a line end behind every turn, the last one included
    "{%- for message in messages %}\n{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n{{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
)


@torch.no_grad()
@pytest.mark.parametrize("template", [None, PLAIN_CHATML, PLAIN_CHATML.replace("<|im_end|>\\n", "<|im_end|>")], ids=["ours", "Qwen's", "no line end"])
def test_a_conversation_in_a_reward_models_template_ends_where_it_is_scored(tmp_path, template):
    """TRL and others score `apply_chat_template(messages)` at its last token; behind ours and Qwen's turns that was a line end."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", "<x>"]
    tokenizer = hub_folder(tmp_path / "hub", specials, template, eos_token="<|im_end|>") if template else Tokenizer.train(CORPUS, 512)
    save_reward(tmp_path / "r", model := randomise(ScoreModel(random_model(vocab_size=tokenizer.vocab_size)), seed=5), tokenizer)
    theirs, their_tokenizer = (kind.from_pretrained(tmp_path / "r") for kind in (transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer))
    talks = [CONVERSATIONS[1], CONVERSATIONS[2][:3]]
    prompts = [tokenizer.encode_messages(talk[:-1], add_generation_prompt=True)[0] for talk in talks]
    ours = [[*ids, *tokenizer.encode_answer(talk[-1]["content"].strip()), tokenizer.im_end_id] for ids, talk in zip(prompts, talks, strict=True)]
    talks = [[*talk[:-1], {"role": "assistant", "content": talk[-1]["content"].strip()}] for talk in talks]
    found = their_tokenizer.apply_chat_template(talks, padding=True, return_dict=True, return_tensors="pt")
    expected = torch.stack([model(torch.tensor([ids]))[0, -1] for ids in ours])
    torch.testing.assert_close(theirs(**found).logits[:, 0], expected, rtol=0, atol=1e-4)
    again = Tokenizer.load(tmp_path / "r")
    for talk, ids, prompt in zip(talks, ours, prompts, strict=True):
        assert again.encode_messages(talk)[0] == ids and again.encode_messages(talk[:-1], add_generation_prompt=True)[0] == prompt
        assert their_tokenizer.apply_chat_template(talk[:-1], add_generation_prompt=True, return_dict=False) == prompt
        assert again.encode_answer(talk[-1]["content"]) == tokenizer.encode_answer(talk[-1]["content"])
    assert again.answer_lead == tokenizer.answer_lead
    again.save(tmp_path / "copy", for_scores=True)
    assert Tokenizer.load(tmp_path / "copy").encode_messages(talks[1])[0] == ours[1]


@torch.no_grad()
@pytest.mark.parametrize("dropped", [False, True])
def test_a_value_head_survives_a_checkpoint(tmp_path, dropped):
    """The critic is in no model folder: a checkpoint is where its head is kept. The broken twin leaves it out."""
    critic = randomise(ScoreModel(random_model(), mean=0.25, std=3.0), seed=5)
    held = {name: tensor for name, tensor in critic.state_dict().items() if not (dropped and name == "score.weight")}
    Checkpointer(tmp_path, decide=lambda _, make: make()).save(1, {"critic": held})
    again, saved = ScoreModel(random_model(seed=1), mean=0.25, std=3.0), Checkpointer(tmp_path, decide=lambda _, make: make()).load()
    if dropped:
        with pytest.raises(RuntimeError, match=r"Missing.*score\.weight"):
            again.load_state_dict(saved.group("critic"))
        return
    again.load_state_dict(saved.group("critic"))
    assert torch.equal(again(random_ids(3, 40)), critic(random_ids(3, 40)))


def test_a_reward_model_saved_without_its_head_is_caught(tmp_path, monkeypatch):
    """The broken twin of the test above it: nothing but the backbone is written."""
    honest = hf._write_weights
    monkeypatch.setattr(hf, "_write_weights", lambda folder, tensors, size: honest(folder, {k: v for k, v in tensors.items() if k != "score.weight"}, size))
    save_reward(tmp_path / "r", randomise(ScoreModel(random_model()), seed=5), pad_id=0, eos_ids=[3])
    _, info = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "r", output_loading_info=True)
    assert set(info["missing_keys"]) == {"score.weight"}
    with pytest.raises(UserError, match=r"score\.weight"):
        load_reward(tmp_path / "r")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["Qwen3", "Llama"])
def test_a_model_made_by_transformers_opens_in_ours(tmp_path, family, dtype):
    keys = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = getattr(transformers, f"{family}Config")(**keys, num_key_value_heads=2, max_position_embeddings=96)
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).to(dtype)
    theirs.save_pretrained(tmp_path / "t", max_shard_size="100KB")  # several shards and an index
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "t", dtype=torch.float32)  # rounded weights, exact positions
    ours = load_model(tmp_path / "t")
    assert ours.norm.weight.dtype == torch.float32
    ids = random_ids(3, 96)
    torch.testing.assert_close(ours.logits(ours(ids)), theirs(ids).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_what_we_save_we_load_bit_for_bit_shards_included(tmp_path):
    model = random_model()
    save_model(tmp_path / "m", model, shard_bytes=40_000)
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 1
    again = load_model(tmp_path / "m")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    save_model(tmp_path / "m", model)  # over it: the stale shards go
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]
    assert not list(tmp_path.glob(".*"))
