"""Near-duplicates: found where exact Jaccard similarity says so, decided in a fixed order."""

import random

import numpy as np
import pytest

from fromnoise.data.dedup import NUM_HASHES, Shingler, exact_key, near_duplicates, signatures

WORDS = [a + b + c for a in "bcdfgklmnprstv" for b in "aeiou" for c in "nrstlmdk"]


def text(seed, words=200):
    rng = random.Random(f"{seed}")
    return " ".join(rng.choice(WORDS) for _ in range(words))


def edited(original, seed, changes):
    rng, words = random.Random(f"{seed}"), original.split()
    for place in rng.sample(range(len(words)), changes):
        words[place] = "changed"
    return " ".join(words)


def jaccard(a, b):
    a, b = (set(Shingler()(item).tolist()) for item in (a, b))
    return len(a & b) / len(a | b)


def find(texts, threshold=0.8, first=None):
    shingler = Shingler()
    return near_duplicates(signatures([shingler(item) for item in texts]), threshold, first).tolist()


def test_signatures_estimate_jaccard():
    base = text("base", 400)
    for changes in (2, 10, 40):
        other = edited(base, changes, changes)
        rows = signatures([Shingler()(base), Shingler()(other)])
        assert rows.shape == (2, NUM_HASHES) and rows.dtype == np.uint32
        assert (rows[0] == rows[1]).mean() == pytest.approx(jaccard(base, other), abs=0.13)


def test_likes_are_found_and_others_kept():
    originals = [text(i) for i in range(300)]
    likes = [edited(originals[i], i, 1) for i in range(100)]  # similarity 0.95
    assert all(jaccard(originals[i], likes[i]) > 0.9 for i in range(5))
    of = find(originals + likes)
    assert of[:300] == [-1] * 300
    assert sum(found == i for i, found in enumerate(of[300:])) >= 99
    unlike = [edited(originals[i], i, 60) for i in range(100)]
    assert find(originals + unlike) == [-1] * 400


def test_the_first_stays_unless_another_is_exempt():
    a, b, c = text("a"), text("b"), edited(text("a"), 0, 1)
    assert find([a, b, c]) == [-1, -1, 0]
    assert find([a, b, c], first=np.array([False, False, True])) == [2, -1, -1]
    assert find([a, a, a], first=np.array([True, False, True])) == [-1, 0, -1]


def test_a_like_of_a_removed_document_stays():
    """A chain a ~ b ~ c with a unlike c: b goes for a, and c is measured against a, not against b."""
    a = text("chain", 300)
    b = edited(a, 1, 4)
    c = edited(b, 2, 12)
    assert jaccard(a, b) > 0.85 and jaccard(a, c) < 0.7  # a chain it is
    assert find([a, b, c])[2] == -1


def test_large_groups():
    group = [text("same")] * 3_000
    assert find([*group, text("other")]) == [-1, *[0] * 2_999, -1]
    assert find([]) == []


def test_short_texts_match_only_themselves():
    assert find(["one two", "one two", "one three", "x"]) == [-1, 0, -1, -1]


def test_order_of_batches_does_not_matter_and_hashes_are_fixed():
    shingler = Shingler(max_words=50)  # its memory is cleared again and again
    rows = signatures([shingler(text(i)) for i in range(20)])
    again = np.concatenate([signatures([Shingler()(text(i))]) for i in range(20)])
    assert np.array_equal(rows, again)
    assert Shingler()("the cat sat on the mat").tolist() == [38043807643525458, 352611694499141367]


def test_exact_key():
    assert exact_key("The  Cat\nsat") == exact_key("the cat sat ") != exact_key("the cat sat.")
