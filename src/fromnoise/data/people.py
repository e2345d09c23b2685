"""People as raters of a run: which of its pairs they can compare, and what their votes make of them.

`prefer` writes the pairs and reads the votes; the label page shows the pairs and takes the votes; the two meet in the
file of votes alone, so that either may run, stop and run again without the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from fromnoise.data.votes import ComparedPair, Vote, compared_pair


def comparable(pairs: Sequence[dict], counts: Counter) -> dict[str, dict]:
    """{key: pair record} of the sampled pairs that people can compare, in their order. What is left out is counted:
    answers that read the same (their tokens differ, or only their ends), and a pair of texts that is there already."""
    found: dict[str, dict] = {}
    for pair in pairs:
        compared = compared_of(pair)
        if compared.first == compared.second:
            counts["pairs_that_read_the_same"] += 1
        elif compared.key in found:
            counts["pairs_sampled_twice"] += 1
        else:
            found[compared.key] = pair
    return found


def compared_of(pair: dict) -> ComparedPair:
    """A line of `pairs.jsonl` or `unlabelled.jsonl` as people see it."""
    return compared_pair(pair["messages"], [answer["text"] for answer in pair["answers"]])


def labelled(pairs: Mapping[str, dict], votes: Sequence[Vote]) -> list[dict]:
    """The records of `pairs.jsonl`: one a vote, in the pairs' order. The votes on a pair share its weight.

    A rater's two votes on a repeated pair both count: who chose once each way has said that there is little between
    the answers. A tie and "both bad" have `chosen` None; `both_bad` tells them apart. `left` is which of the two answers
    stood on the left, None of a vote that came in from a file without it.
    """
    by_pair: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.pair in pairs and vote.choice != "skip":
            by_pair.setdefault(vote.pair, []).append(vote)
    records = []
    for key, pair in pairs.items():
        cast = by_pair.get(key, ())
        first = 0 if pair["answers"][0]["text"].strip() == compared_of(pair).first else 1
        for number, vote in enumerate(cast):
            chosen = {"first": first, "second": 1 - first}.get(vote.choice)
            left = None if vote.swapped is None else 1 - first if vote.swapped else first
            records.append({
                **pair, "id": f"{pair['id']}-{number}", "weight": 1.0 / len(cast), "rater": vote.rater, "chosen": chosen,
                "left": left, "both_bad": vote.choice == "both_bad", "repeated": vote.repeated, "reason": vote.reason,
            })  # fmt: skip
    return records
