"""The Python interface on a model folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import fromnoise
from fromnoise.api import Run, _flatten
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.hf import CALCULATOR_KEY, save_model
from fromnoise.run.errors import UserError
from fromnoise.run.recipe_load import load_recipe
from tests.data.test_tokenizer import LLAMA3, hub_folder
from tests.model.shapes import random_model


def test_a_loaded_model_answers_and_continues(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    save_model(tmp_path, random_model(vocab_size=tokenizer.vocab_size), tokenizer)
    model = fromnoise.load(tmp_path)
    assert model.complete("the cat", max_new_tokens=5, seed=1) == model.complete("the cat", max_new_tokens=5, seed=1)
    assert isinstance(model.chat("Hello?", max_new_tokens=5), str)
    for ask in (model.chat, model.complete):
        assert ask("the cat", max_new_tokens=20, temperature=0, repetition_penalty=1e9) != ask("the cat", max_new_tokens=20, temperature=0)
    for settings, message in (({"max_new_tokens": 0}, "max_new_tokens = 0: must be at least 1"), ({"temperature": -1}, "temperature = -1"),
                              ({"top_p": 0}, "top_p = 0"), ({"top_k": -1}, "top_k = -1"),
                              ({"repetition_penalty": 0}, "repetition_penalty = 0")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            model.chat("Hello?", **settings)
    for messages in (None, {}, [], [{}], [{"role": "user", "content": None}], b"Hello"):
        with pytest.raises(ValueError, match="messages must be text, or a list"):
            model.chat(messages)
    turns = {name[0]: {"role": name, "content": "Hello"} for name in ("system", "user", "assistant", "tool")}
    for spelt, message in (("ua", "the last message is the assistant's; it must be the user's"), ("s", "the last message is the system's"),
                           ("tu", "message 1 has role 'tool'; it must be system, user or assistant"), ("usu", "message 2 is the system's"),
                           ("uu", "turn 2 is the user's where the assistant's was expected"), ("au", "turn 1 is the assistant's")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            model.chat([turns[letter] for letter in spelt], max_new_tokens=2)
    assert isinstance(model.chat([turns[letter] for letter in "suau"], max_new_tokens=2), str)


def test_threads_that_ask_at_once_get_what_each_gets_alone(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    save_model(tmp_path, random_model(vocab_size=tokenizer.vocab_size), tokenizer)
    model = fromnoise.load(tmp_path)

    def ask(seed: int) -> str:
        return model.complete("the cat" + " sat" * seed, max_new_tokens=40, seed=seed)

    alone = [ask(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, [*range(6)] * 5)) == alone * 5


def test_calls_of_the_calculator_are_answered_where_the_model_learnt_them(tmp_path):
    class Calls:
        context_tokens = 128

        def generate(self, prompts, max_new_tokens, stop_ids, sampling, seed):
            ids = tokenizer.encode(" So 84." if tokenizer.decode(prompts[0]).endswith("=84>>") else " <<12*7=83>> So 83.")
            end = next((at for at, token in enumerate(ids, start=1) if token in stop_ids), len(ids))
            return [SimpleNamespace(token_ids=ids[:end], logprobs=[0.0] * end)]

    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    for name, generation, answer in (("with", {CALCULATOR_KEY: True}, "<<12*7=84>> So 84."), ("without", None, "<<12*7=83>> So 83.")):
        save_model(tmp_path / name, random_model(vocab_size=tokenizer.vocab_size), tokenizer, generation=generation)
        model = fromnoise.load(tmp_path / name)
        model.engine = Calls()
        assert model.chat("What is 12*7?", max_new_tokens=50) == answer
        assert model.complete("12*7", max_new_tokens=50) == " <<12*7=83>> So 83."  # a document's text is left alone


def test_a_model_of_the_hub_continues_a_text_as_transformers_has_it(tmp_path):
    """Greedily, and after the token that Llama's texts begin with."""
    transformers = pytest.importorskip("transformers")
    tokenizer = hub_folder(tmp_path, ["<|begin_of_text|>", "<|end_of_text|>", "<x>"], LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    save_model(tmp_path / "m", random_model(qk_norm=False, vocab_size=tokenizer.vocab_size), tokenizer)
    theirs, their_tokenizer = (kind.from_pretrained(tmp_path / "m") for kind in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer))
    given = their_tokenizer("The ferry left", return_tensors="pt")
    ids = theirs.generate(**given, max_new_tokens=20, do_sample=False)[0, given["input_ids"].shape[1] :]
    continued = fromnoise.load(tmp_path / "m").complete("The ferry left", max_new_tokens=20, temperature=0)
    assert continued == tokenizer.decode(ids.tolist()) != ""


def test_arguments_that_make_no_sense_are_said(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    save_model(tmp_path, random_model(vocab_size=tokenizer.vocab_size), tokenizer)
    model = fromnoise.load(tmp_path)
    size, context = model.module.config.vocab_size, model.module.config.context_tokens
    assert model.chat("Hello?", max_new_tokens="3", seed=np.int64(5)) == model.chat("Hello?", max_new_tokens=3, seed=5)
    for seed in (None, "x", 1.5):
        with pytest.raises(ValueError, match=f"seed = {seed!r}: must be a whole number"):
            model.chat("Hello?", seed=seed)
    for text in (None, b"the cat", 5):
        for method in (model.encode, model.complete):
            with pytest.raises(ValueError, match=f"text must be a string, not {text!r}"):
                method(text)
    for ids, message in (
        ([], "at least one, not of shape"), ([[[1]]], r"not of shape \(1, 1, 1\)"), (3, r"not of shape \(\)"), ([1.7], "whole numbers, not float32"),
        ([True], "not bool"), ([size], f"no token {size}; the model's are 0 to {size - 1}"), ([-1], "no token -1"), ([2**70], "must be token ids"),
        ("text", "must be token ids"), ([[1], [1, 2]], "rows of one length"), ([1] * (context + 1), f"context of {context} tokens"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            model.logits(ids)
    assert model.logits([[0, size - 1]]).shape == (1, 2, size) and model.logits(np.array([1] * context, dtype=np.uint16)).shape == (context, size)


def test_settings_and_folders_that_make_no_sense_are_said(tmp_path):
    for settings, message in (({"sft": {1: 2}}, "unknown key 'sft.1'"), ({"model": {"width": 10**400}}, r"model\.width = 10+: must be less than 2\^63"),
                              ({"run_dir": "a\0b"}, r"run_dir = 'a\\x00b': no folder's name")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            fromnoise.run("smoke", **{"run_dir": tmp_path / "run", **settings})
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    save_model(tmp_path, random_model(vocab_size=len(tokenizer) - 1), tokenizer)
    with pytest.raises(UserError, match=f"the tokenizer has {len(tokenizer)} ids and the model's embedding {len(tokenizer) - 1} rows"):
        fromnoise.load(tmp_path)


def test_settings_given_in_python_arrive_as_they_are(tmp_path):
    given = {"data": {"sources": [{"name": "x", "path": tmp_path, "weight": 2}]}, "pretrain": {"probes": ("a\x01\n", "[b", '"c')}, "sft.epochs": 1,
             "budget": "10m", "num_threads": None}  # fmt: skip
    recipe = load_recipe("text", [f"{key}={value}" if isinstance(value, str) else (key, value) for key, value in _flatten(given)])
    assert [(one.name, one.path, one.weight) for one in recipe.data.sources] == [("x", str(tmp_path), 2.0)]
    assert recipe.pretrain.probes == ("a\x01\n", "[b", '"c') and recipe.sft.epochs == 1.0 and recipe.budget == "10m" and recipe.num_threads is None
    for borrowed in ({}, {"x.y": ["plain"]}):  # a table that is a setting's value: laid over the recipe's, an empty one changed nothing
        assert load_recipe("world", _flatten({"prefer": {"borrowed": borrowed}})).prefer.borrowed == borrowed


def test_a_run_is_where_it_was_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    """A notebook that changed its folder after a run found none of its models, which are read at first use."""
    monkeypatch.chdir(tmp_path)
    run = Run("runs/short")
    monkeypatch.chdir("/")
    assert run.path == tmp_path / "runs/short" and run.report == tmp_path / "runs/short/report.html"
    with pytest.raises(UserError, match=f"{tmp_path}/runs/short/sft: no model here"):
        run.sft  # noqa: B018
