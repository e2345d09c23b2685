"""The native decoder beside the one of torch's operators: the same logits, whatever the shape, the order of the rows or their moves."""

import ctypes
import platform

import numpy as np
import pytest
import torch

from fromnoise.generate import native
from fromnoise.generate.decoder import Decoder
from fromnoise.generate.engine import Engine
from fromnoise.generate.sampling import row_key, sample, uniforms
from tests.generate.test_engine import STOP, Sampling, check_logprobs_equal_the_trainers, ragged_prompts
from tests.model.shapes import random_ids, random_model

SHAPE = {"head_size": 32, "width": 48, "ffn_width": 80, "num_heads": 4, "num_kv_heads": 2}  # nothing fills a panel of 64 columns
CHANGES = [{}, {"qk_norm": False}, {"num_kv_heads": 1, "tie_embeddings": False}, {"num_kv_heads": 4, "ffn_width": 144}]


def decodable(dtype=torch.float32, **changes):
    model = random_model(**SHAPE | changes)
    if (why := native.problem(model, dtype)) is not None:
        pytest.skip(f"no native decoder here: {why}")
    return model


def walk(decoder) -> torch.Tensor:
    """Logits of prompts of unlike lengths, two of them sampled twice, then of 30 steps, with rows moved and the cache grown."""
    ids, lengths = random_ids(5 * 33, seed=1, low=1, high=60).view(5, 33), torch.tensor([33, 20, 17, 32, 1])
    sources = torch.tensor([0, 0, 1, 2, 3, 4, 4])
    decoder.allocate(9, 48)
    found = [decoder.prefill(ids, lengths, torch.arange(7), sources)]
    positions, tokens = lengths[sources].clone(), torch.arange(7) * 5
    for step in range(30):
        if step == 12:
            decoder.grow(64)
            decoder.move(6, 0, int(positions[6]))
            positions[0], tokens[0] = positions[6], 11
        found.append(decoder.step(tokens, positions))
        positions, tokens = positions + 1, (tokens * 3 + 1) % 60
    return torch.stack([logits.float() for logits in found])


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)], ids=str)
def test_it_computes_what_the_other_decoder_computes(changes, dtype, tolerance):
    model = decodable(dtype, **changes)
    expected, found = walk(Decoder(model, dtype)), walk(native.NativeDecoder(model, dtype))
    spread = float(expected.std())
    assert float((found - expected).abs().max()) < tolerance * max(1.0, 5 * spread)
    twin = native.NativeDecoder(model, dtype)
    twin.move = lambda source, target, length: None  # broken: a second sample of a prompt starts from an empty row
    assert float((walk(twin) - expected).abs().max()) > 2 * tolerance * max(1.0, 5 * spread)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="other processors have one width of vectors")
@pytest.mark.parametrize(("without", "lanes"), [("-mno-avx512f", 8), ("-mno-avx", 4)])
def test_narrower_vectors_compute_the_same(monkeypatch, without, lanes):
    """What processors without AVX-512, or without AVX, run."""
    model = decodable()
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, without))
    narrow = native.library.__wrapped__()
    assert narrow.lanes() <= lanes
    monkeypatch.setattr(native, "library", lambda: narrow)
    expected, found = walk(Decoder(model, torch.float32)), walk(native.NativeDecoder(model, torch.float32))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, 5 * float(expected.std())))
    test_it_draws_what_the_sampler_draws()


def test_its_logprobs_are_the_trainers():
    model = decodable()
    engine = Engine(model, max_batch=8)
    assert isinstance(engine.decoder, native.NativeDecoder)
    check_logprobs_equal_the_trainers(model, engine)


def test_an_answer_does_not_depend_on_its_neighbours_or_on_the_number_of_threads():
    model, prompts = decodable(), ragged_prompts(30)
    before = torch.get_num_threads()
    found = []
    for num_threads, max_batch in ((1, 1), (1, 64), (2, 7), (3, 64)):
        torch.set_num_threads(num_threads)
        found.append(Engine(model, max_batch=max_batch).generate(prompts, 30, STOP, Sampling(), seed=5))
    torch.set_num_threads(before)
    for other in found[1:]:  # to the last bit: no order of addition changes
        assert [(a.token_ids, a.logprobs) for a in other] == [(a.token_ids, a.logprobs) for a in found[0]]


def test_weights_are_those_of_the_last_refresh():
    model, other = decodable(), random_model(**SHAPE, seed=7)
    engine = Engine(model, max_batch=8)
    engine.refresh(other)
    check_logprobs_equal_the_trainers(other, engine)


def test_what_it_cannot_decode_goes_to_the_other_decoder(monkeypatch):
    lanes = decodable() and native.library().lanes()
    small = random_model(head_size=lanes)
    assert f"multiple of {2 * lanes}" in native.problem(small, torch.float32)
    assert type(Engine(small).decoder) is Decoder
    monkeypatch.setattr(native, "library", lambda: "no C++ compiler was found")
    assert native.problem(random_model(**SHAPE), torch.float32) == "no C++ compiler was found"
    assert type(Engine(random_model(**SHAPE)).decoder) is Decoder
    with pytest.raises(ValueError, match="no C\\+\\+ compiler"):
        native.NativeDecoder(random_model(**SHAPE), torch.float32)


def test_a_compiler_that_fails_or_is_missing_is_said(monkeypatch, tmp_path):
    decodable()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-DBROKEN"))
    broken = tmp_path / "native.cpp"
    broken.write_text("#ifdef BROKEN\n#error not here\n#endif\n")
    monkeypatch.setattr(native, "SOURCE", broken)
    assert native.library.__wrapped__() == "it does not compile here: #error not here"
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler" in native.library.__wrapped__()


def test_it_is_built_once_and_kept(monkeypatch, tmp_path):
    decodable()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert isinstance(native.library.__wrapped__(), ctypes.CDLL)
    (built,) = (tmp_path / "fromnoise" / "native").iterdir()
    before = built.stat().st_mtime_ns
    native.library.__wrapped__()
    assert [path.stat().st_mtime_ns for path in (tmp_path / "fromnoise" / "native").iterdir()] == [before]


def test_one_whose_end_a_power_cut_took_is_built_anew(monkeypatch, tmp_path):
    decodable()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = (*native.FLAGS, "-O0")
    native.build(native.SOURCE, flags)
    (built,) = (tmp_path / "fromnoise" / "native").iterdir()
    whole = built.read_bytes()
    for cut in (0, 40, *([5_000] if whole.startswith(b"\x7fELF") else [])):  # of other formats only the beginning is looked at
        built.unlink()  # never shorten what is open
        built.write_bytes(whole[:cut])
        assert isinstance(native.build(native.SOURCE, flags), ctypes.CDLL)  # which may be the one that is open still
        assert built.stat().st_size == len(whole)


def test_it_draws_what_the_sampler_draws():
    """The same token wherever no cumulative mass lies within rounding of the uniform number, the same log-probability; vocabularies that
    fill no panel, logits that are slices of wider rows, tokens that cannot be."""
    decoder = native.NativeDecoder(decodable(), torch.float32)
    for vocab, temperature in ((7, 1.0), (64, 0.7), (300, 1.3), (4096, 1.0)):
        logits = (torch.randn(2000, vocab + 5, generator=torch.Generator().manual_seed(vocab)) * 3)[:, :vocab]
        logits[:, 1::3] = -torch.inf
        noise = uniforms(np.array([row_key(1, row) for row in range(2000)], dtype=np.uint64), np.zeros(2000))
        noise[0], noise[1] = 0.0, 1 - 2**-53
        expected, expected_logprobs = sample(logits, torch.from_numpy(noise), temperature)
        ids, logprobs = decoder.sample(logits, noise, temperature, 0, 1.0)
        same = ids == expected
        assert same.double().mean() > 0.998 and not (ids % 3 == 1).any() and int(ids.max()) < vocab
        torch.testing.assert_close(logprobs[same], expected_logprobs[same], rtol=1e-5, atol=2e-6)
        twin = decoder.sample(logits, noise[::-1].copy(), temperature, 0, 1.0)[0]  # broken: each row with another's number
        assert (twin == expected).double().mean() < 0.9
    for options in ((0.0, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.4)):  # temperature, top_k, top_p: what is left to the sampler
        for found, wanted in zip(decoder.sample(logits, noise, *options), sample(logits, torch.from_numpy(noise), *options), strict=True):
            torch.testing.assert_close(found, wanted)
