"""Bits per byte by hand, on any batch shape, and probes against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.evaluate.likelihood import bits_per_byte, probes, scored_rows, summarise
from tests.stages.whole_run import model

TEXTS = ["The cat sat on the mat.", "Once upon a time there was a mill.", "A river ran by the town, and the town slept."] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 320)


class Shards:
    """What `bits_per_byte` needs of TokenShards."""

    def __init__(self, **sources):
        self.found = {name: np.asarray(ids, dtype=np.uint16) for name, ids in sources.items()}
        self.sources = list(sources)

    def tokens(self, source):
        return self.found[source]


def stream(tokenizer, texts):
    return [token for text in texts for token in [*tokenizer.encode(text), tokenizer.endoftext_id]]


def test_uniform_model_needs_log2_of_the_vocabulary_a_token(tokenizer):
    uniform = model(tokenizer, 0)
    with torch.no_grad():
        for parameter in uniform.parameters():
            parameter.zero_()
    ids = stream(tokenizer, TEXTS)
    num_tokens = sum(token != tokenizer.endoftext_id for token in ids)
    num_bytes = sum(len(text.encode()) for text in TEXTS)
    found = bits_per_byte(uniform, Shards(web=ids), tokenizer.token_bytes(), 10**9, 3, 16)
    assert found["web"] == pytest.approx(num_tokens * math.log2(tokenizer.vocab_size) / num_bytes, rel=1e-5)
    assert found["all"] == pytest.approx(found["web"])


def test_every_byte_counts_once_whatever_the_batch(tokenizer):
    """The same rows in batches of 1, 4 and 16 give the same number: padding counts nowhere."""
    shards, net = Shards(web=stream(tokenizer, TEXTS), books=stream(tokenizer, TEXTS[:2])), model(tokenizer, 1)
    found = [bits_per_byte(net, shards, tokenizer.token_bytes(), 10**9, rows, 32) for rows in (1, 4, 16)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5)


def test_equals_a_plain_sum_over_whole_documents(tokenizer):
    """Rows longer than the text: each document after <|endoftext|>, none seeing another, as computed one by one."""
    net, nats = model(tokenizer, 2), 0.0
    for text in TEXTS[:3]:
        ids = torch.tensor([[tokenizer.endoftext_id, *tokenizer.encode(text)]])
        with torch.no_grad():
            logprobs = net.logits(net(ids)).log_softmax(-1)
        nats -= float(logprobs[0, :-1].gather(1, ids[0, 1:, None]).sum())
    expected = nats / math.log(2) / sum(len(text.encode()) for text in TEXTS[:3])
    found = bits_per_byte(net, Shards(web=stream(tokenizer, TEXTS[:3])), tokenizer.token_bytes(), 10**9, 2, 256)
    assert found["web"] == pytest.approx(expected, rel=1e-4)


def test_a_limit_takes_evenly_spaced_rows_and_all_weighs_by_bytes(tokenizer):
    shards = Shards(web=stream(tokenizer, TEXTS * 8), books=stream(tokenizer, TEXTS[:1]), empty=[])
    net = model(tokenizer, 3)
    found = bits_per_byte(net, shards, tokenizer.token_bytes(), 64, 4, 16)
    assert set(found) == {"web", "books", "all"} and found == bits_per_byte(net, shards, tokenizer.token_bytes(), 64, 4, 16)
    web, books = 8 * sum(len(text.encode()) for text in TEXTS), len(TEXTS[0].encode())
    assert found["all"] == pytest.approx((found["web"] * web + found["books"] * books) / (web + books))


def test_the_tokens_counted_are_those_scored(tokenizer):
    """Whole rows, at least one of each source, and no `<|endoftext|>`: not what was asked for."""
    web, books = stream(tokenizer, TEXTS * 8), stream(tokenizer, TEXTS[:1])
    end, net = tokenizer.endoftext_id, model(tokenizer, 3)
    found = scored_rows(net, Shards(web=web, books=books), tokenizer.token_bytes(), 10**9, 4, 16)
    counts = {"web": sum(token != end for token in web), "books": sum(token != end for token in books)}
    assert {source: sum(row["tokens"] for row in found if row["source"] == source) for source in counts} == counts
    few = scored_rows(net, Shards(web=web, books=books), tokenizer.token_bytes(), 40, 4, 16)
    ends = [*web[:16], *web[(len(web) - 1) // 16 * 16 :]]  # two rows of the web's share: the first and the last
    assert sum(row["tokens"] for row in few if row["source"] == "web") == sum(token != end for token in ends) < 32
    assert [row["tokens"] for row in few if row["source"] == "books"] == [sum(token != end for token in books[:16])]


def test_the_summary_has_the_same_value_and_an_interval_over_rows(tokenizer):
    shards, net = Shards(web=stream(tokenizer, TEXTS * 8), books=stream(tokenizer, TEXTS[1:] * 3), empty=[]), model(tokenizer, 3)
    arguments = net, shards, tokenizer.token_bytes(), 600, 4, 16
    rows, values = scored_rows(*arguments), bits_per_byte(*arguments)
    found = summarise("base", rows, seed=1)
    assert {name: one.value for name, one in found.items()} == {f"bits_per_byte/base/{source}": pytest.approx(v, rel=1e-12) for source, v in values.items()}
    assert set(values) == {"web", "books", "all"} and found["bits_per_byte/base/all"].n == len(rows)
    for one in found.values():
        assert one.low < one.value < one.high and one.seed == 1
    assert summarise("base", [], seed=1) == {} and found == summarise("base", rows, seed=1)


def test_probe_equals_a_plain_greedy_loop(tokenizer):
    net = model(tokenizer, 4)
    found = probes(net, tokenizer, ["The cat sat", "Once"], max_new_tokens=6)
    for one in found:
        ids = [tokenizer.endoftext_id, *tokenizer.encode(one["text"])]
        start = len(ids)
        for step in range(6):
            with torch.no_grad():
                logits = net.logits(net(torch.tensor([ids])))[0, -1]
            if step == 0:
                top = logits.softmax(-1).topk(5)
                assert [p for _, p in one["top5"]] == pytest.approx(top.values.tolist(), abs=1e-4)
            following = int(logits[: len(tokenizer)].argmax())
            if following == tokenizer.endoftext_id:
                break
            ids.append(following)
        assert one["completion"] == tokenizer.decode(ids[start:])
    assert probes(net, tokenizer, ["The cat sat"], 6) == found[:1]
    assert probes(net, tokenizer, []) == []
