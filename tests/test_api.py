"""The Python interface on a model folder."""

from __future__ import annotations

import pytest

import fromnoise
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.model.hf import save_model
from fromnoise.run.errors import UserError
from tests.model.shapes import random_model


def test_a_loaded_model_answers_and_continues(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    save_model(tmp_path, random_model(vocab_size=tokenizer.vocab_size), tokenizer)
    model = fromnoise.load(tmp_path)
    assert model.complete("the cat", max_new_tokens=5, seed=1) == model.complete("the cat", max_new_tokens=5, seed=1)
    assert isinstance(model.chat("Hello?", max_new_tokens=5), str)


def test_a_tokenizer_with_more_ids_than_the_model_has_rows_is_refused(tmp_path):
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, 320)
    save_model(tmp_path, random_model(vocab_size=len(tokenizer) - 1), tokenizer)
    with pytest.raises(UserError, match=f"the tokenizer has {len(tokenizer)} ids and the model's embedding {len(tokenizer) - 1} rows"):
        fromnoise.load(tmp_path)
