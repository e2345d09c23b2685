"""The Python interface on a model folder."""

from __future__ import annotations

import fromnoise
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.hf import save_model
from tests.model.shapes import random_model


def test_a_loaded_model_answers_and_continues(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    save_model(tmp_path, random_model(vocab_size=tokenizer.vocab_size), tokenizer)
    model = fromnoise.load(tmp_path)
    assert model.complete("the cat", max_new_tokens=5, seed=1) == model.complete("the cat", max_new_tokens=5, seed=1)
    assert isinstance(model.chat("Hello?", max_new_tokens=5), str)
