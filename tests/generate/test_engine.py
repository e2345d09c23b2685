"""Laws of generation: cached decoding equals the full forward pass, log-probabilities equal the trainer's, and an answer
does not depend on its neighbours."""

from dataclasses import dataclass

import pytest
import torch

from fromnoise.generate import native
from fromnoise.generate.engine import Engine
from tests.model.shapes import random_ids, random_model


@dataclass
class Sampling:
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


@pytest.fixture(params=["native", "torch"], autouse=True)
def decoder(request, monkeypatch):
    """Every law holds for either decoder; test_native.py compares the two."""
    if request.param == "torch":
        monkeypatch.setattr(native, "problem", lambda model, dtype: "this test wants the other one")
    elif isinstance(why := native.library(), str):
        pytest.skip(f"no native decoder here: {why}")


STOP = frozenset(range(12))  # about one token in twenty ends an answer


def ragged_prompts(num, seed=0, longest=40):
    lengths = random_ids(num, seed=seed, low=1, high=longest).tolist()
    return [random_ids(n, seed=100 + i).tolist() for i, n in enumerate(lengths)]


@torch.no_grad()
def check_logprobs_equal_the_trainers(model, engine, temperature=0.8):
    for answer in engine.generate(ragged_prompts(20), 50, STOP, Sampling(temperature), seed=3):
        ids = torch.tensor([answer.prompt_ids + answer.token_ids])
        logprobs = torch.log_softmax(model.logits(model(ids)) / temperature, -1)[0]
        at = torch.arange(len(answer.prompt_ids) - 1, ids.shape[1] - 1)
        torch.testing.assert_close(torch.tensor(answer.logprobs), logprobs[at, ids[0, at + 1]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": False}, {"num_kv_heads": 1, "tie_embeddings": False}, {"num_kv_heads": 4}], ids=str)
def test_cached_decoding_equals_the_full_forward_pass(changes):
    model = random_model(**changes)
    check_logprobs_equal_the_trainers(model, Engine(model, max_batch=8))


def test_a_stale_engine_is_caught_and_refresh_mends_it():
    model, changed = random_model(), random_model(seed=1)
    engine = Engine(model, max_batch=8)
    with pytest.raises(AssertionError):
        check_logprobs_equal_the_trainers(changed, engine)
    engine.refresh(changed)
    check_logprobs_equal_the_trainers(changed, engine)


@torch.no_grad()
def test_greedy_equals_a_plain_loop():
    model = random_model()
    prompts = ragged_prompts(6)
    for prompt, answer in zip(prompts, Engine(model, max_batch=4).generate(prompts, 12, frozenset(), Sampling(0.0), 0), strict=True):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(model.logits(model(torch.tensor([ids])))[0, -1].argmax()))
        assert answer.token_ids == ids[len(prompt) :] and answer.prompt_ids == prompt and not answer.stopped


@torch.no_grad()
def test_a_repetition_penalty_is_over_prompt_and_answer():
    """Greedily, a plain loop with transformers' own; sampled, another answer whose log-probabilities are still the model's own."""
    from transformers import RepetitionPenaltyLogitsProcessor

    model, penalise = random_model(), RepetitionPenaltyLogitsProcessor(1.5)
    prompts, engine = ragged_prompts(6), Engine(model, max_batch=4)
    for prompt, answer in zip(prompts, engine.generate(prompts, 12, frozenset(), Sampling(0.0, repetition_penalty=1.5), 0), strict=True):
        ids = list(prompt)
        for _ in range(12):
            ids.append(int(penalise(torch.tensor([ids]), model.logits(model(torch.tensor([ids])))[:, -1]).argmax()))
        assert answer.token_ids == ids[len(prompt) :]
    drawn = [engine.generate(prompts, 12, frozenset(), Sampling(repetition_penalty=penalty), 0) for penalty in (1.0, 1.5)]
    assert [a.token_ids for a in drawn[0]] != [a.token_ids for a in drawn[1]]
    for answer in drawn[1]:
        ids = torch.tensor([answer.prompt_ids + answer.token_ids])
        at = torch.arange(len(answer.prompt_ids) - 1, ids.shape[1] - 1)
        logprobs = torch.log_softmax(model.logits(model(ids)), -1)[0, at, ids[0, at + 1]]
        torch.testing.assert_close(torch.tensor(answer.logprobs), logprobs, rtol=0, atol=1e-5)


def test_without_a_repetition_penalty_nothing_is_looked_up(monkeypatch):
    monkeypatch.setattr("fromnoise.generate.engine.penalise_repeats", None)
    assert Engine(random_model(), max_batch=4).generate(ragged_prompts(3), 5, STOP, Sampling(), 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_answers_do_not_depend_on_the_batch(dtype):
    """In fp32 the same tokens for any batch size; in bf16 rounding may part two answers, but not most of them."""
    model = random_model()
    prompts = ragged_prompts(30)
    prompts[7] = prompts[3]  # equal prompts share their reading and nothing else
    found = [Engine(model, dtype, max_batch=size).generate(prompts, 30, STOP, Sampling(), seed=5) for size in (1, 7, 64)]
    same = [a.token_ids == b.token_ids == c.token_ids for a, b, c in zip(*found, strict=True)]
    assert sum(same) >= (30 if dtype == torch.float32 else 15)
    assert found[0][3].token_ids != found[0][7].token_ids
    again = Engine(model, dtype, max_batch=7).generate(prompts, 30, STOP, Sampling(), seed=5)
    assert again == found[1]
    other_seed = Engine(model, dtype, max_batch=7).generate(prompts, 30, STOP, Sampling(), seed=6)
    assert [a.token_ids for a in other_seed] != [a.token_ids for a in found[1]]


def test_answers_end_with_their_stop_token_or_at_a_limit():
    model = random_model()
    answers = Engine(model, max_batch=8).generate(ragged_prompts(40), 25, STOP, Sampling(), seed=1)
    assert {answer.stopped for answer in answers} == {True, False}
    for answer in answers:
        assert answer.stopped == (answer.token_ids[-1] in STOP) and len(answer.token_ids) == len(answer.logprobs)
        assert not STOP.intersection(answer.token_ids[:-1])
        assert answer.stopped or len(answer.token_ids) == 25


def test_a_sequence_ends_where_the_context_does():
    model = random_model()  # context of 128 tokens
    (answer,) = Engine(model).generate([random_ids(120).tolist()], 50, frozenset(), Sampling(), seed=0)
    assert len(answer.token_ids) == 8 and not answer.stopped
    for prompt in ([], random_ids(128).tolist()):
        with pytest.raises(ValueError, match="prompt 0"):
            Engine(model).generate([prompt], 5, frozenset(), Sampling(), seed=0)
    assert Engine(model).generate([], 5, frozenset(), Sampling(), seed=0) == []


def test_the_tokens_that_go_through_the_model_are_counted():
    """Each different prompt once, and every token of an answer but the last, which nothing follows."""
    engine = Engine(random_model(), max_batch=8)
    prompts = [prompt for prompt in ragged_prompts(3) for _ in range(2)]
    answers = engine.generate(prompts, 20, STOP, Sampling(), seed=0)
    assert engine.num_tokens == sum(map(len, prompts)) / 2 + sum(len(answer.token_ids) - 1 for answer in answers)
    engine.generate(prompts[:1], 1, STOP, Sampling(), seed=0)
    assert engine.num_tokens == sum(map(len, prompts)) / 2 + sum(len(answer.token_ids) - 1 for answer in answers) + len(prompts[0])


def test_each_answer_is_told_of_as_it_ends():
    ended = []
    answers = Engine(random_model(), max_batch=8).generate(ragged_prompts(20), 25, STOP, Sampling(), 0, ended.append)
    assert sum(ended) == len(answers) == 20 and min(ended) > 0 and len(ended) > 3


def test_streaming_yields_the_same_answer_without_its_stop_token():
    engine = Engine(random_model())
    for seed in range(5):
        (answer,) = engine.generate([[5, 6, 7]], 40, STOP, Sampling(), seed)
        expected = answer.token_ids[:-1] if answer.stopped else answer.token_ids
        assert list(engine.stream([5, 6, 7], 40, STOP, Sampling(), seed)) == expected


@pytest.mark.parametrize("stranger", [-1, "vocab_size", 10**9])
def test_an_id_that_the_model_has_no_row_for_is_refused(stranger):
    """Native code looks rows up by id: it would read, and answer from, whatever lies in memory there."""
    model = random_model()
    bad = model.config.vocab_size if stranger == "vocab_size" else stranger
    with pytest.raises(ValueError, match=f"prompt 1 holds token ids of .*{bad}"):
        Engine(model, max_batch=8).generate([[5, 6], [7, bad]], 4, STOP, Sampling(), seed=0)
