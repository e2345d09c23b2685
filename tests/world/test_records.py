"""The world's records: reproducible, held apart, of the promised mix, judged as meant."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fromnoise.run.recipe import WorldSection
from fromnoise.tasks import lists
from fromnoise.world import conversations, oracle, passages, records, requests
from fromnoise.world import facts as fx
from fromnoise.world.judging import JUDGEMENT, Features, judge
from fromnoise.world.raters import PEOPLE_A_SHARE, SHARES, pool_prob, raters

SMALL = WorldSection(documents_tokens=100_000, num_conversations_curated=60, num_conversations_noisy=60, num_prompts=80)
FILES = ("conversations_curated", "conversations_noisy", "prompts", "questions", "facts", "canaries", "events")


def read(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("world")
    records.write_records(folder, 0, WorldSection())
    return {name: read(folder, name) for name in FILES}


def test_same_bytes_under_any_hash_seed(tmp_path):
    code = ("import sys; from pathlib import Path; from fromnoise.run.recipe import WorldSection; from fromnoise.world.records import write_records;"
            f"write_records(Path(sys.argv[1]), 3, WorldSection.model_validate_json({SMALL.model_dump_json()!r}))")
    made = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, str(folder)], env=env, check=True)
        made.append({name: (folder / f"{name}.jsonl").read_bytes() for name in FILES})
    assert made[0] == made[1]
    other = tmp_path / "other"
    records.write_records(other, 4, SMALL)
    assert (other / "prompts.jsonl").read_bytes() != made[0]["prompts"]


def test_sizes_follow_the_section(tmp_path):
    records.write_records(tmp_path, 0, SMALL)
    assert len(read(tmp_path, "conversations_curated")) == len(read(tmp_path, "conversations_noisy")) == 60
    assert Counter(p["split"] for p in read(tmp_path, "prompts")) == {"train": 80, "heldout": 60}


def test_the_mix_of_prompts(full):
    held = [p for p in full["prompts"] if p["split"] == "heldout"]
    assert len(held) >= 1_200
    kinds = Counter(p["kind"] for p in held)
    assert kinds["harmful"] == kinds["lookalike"]
    share = {kind: count / len(held) for kind, count in kinds.items()}
    assert 0.46 < share["harmful"] + share["lookalike"] < 0.50
    assert 0.21 < share["context"] < 0.30 and 0.05 < share["fact"] < 0.11 and 0.005 < share["sum"] < 0.03 and 0.03 < share["unknown"] < 0.07


def test_questions_cover_the_ladder(full):
    questions = full["questions"]
    assert len(questions) >= 900 and all(q["plain"] for q in questions)
    kinds = Counter(q["kind"] for q in questions)
    assert kinds["context"] >= 300 and kinds["summary"] >= 100
    facts = {f["fact_id"]: f for f in full["facts"]}
    asked = Counter(q["fact_id"] for q in questions if q["kind"] == "fact")
    for fact in facts.values():
        if fact["role"] == "held_out":
            assert asked[fact["fact_id"]] == (2 if fact["mentions"] >= 64 else 1)
    rungs = Counter(facts[i]["mentions"] for i in asked)
    assert all(rungs[mentions] >= 64 for mentions in (0, 1, 4, 16))


def named(subjects: set[str], texts: list[str]) -> list[str]:
    """The texts in which one of the people is named in full."""
    surnames = {subject.split(" ")[1]: subject for subject in subjects}
    last = [{word.strip(".,?'s") for word in text.split()} & surnames.keys() for text in texts]
    return [text for text, found in zip(texts, last, strict=True) if any(surnames[surname] in text for surname in found)]


def test_nothing_of_the_evaluation_is_trained_on(full):
    """Held-out subjects stand in no conversation and no training prompt; held-out prompts and questions neither."""
    held_subjects = {f["subject"] for f in full["facts"] if f["role"] == "held_out"}
    train = [p for p in full["prompts"] if p["split"] == "train"]
    held = {records.asked_for(p) for p in full["prompts"] if p["split"] == "heldout"} | {records.asked_for(q) for q in full["questions"]}
    turns = [message["content"] for name in ("conversations_curated", "conversations_noisy") for c in full[name] for message in c["messages"]]
    turns += [message["content"] for p in train for message in p["messages"]]
    assert not held & {lists.request(turn) for turn in turns}  # nor what differs from them only in how a list is to be laid out
    assert named(held_subjects, turns) == [] and named(held_subjects, [q["messages"][-1]["content"] for q in full["questions"]])


def test_half_of_what_training_prompts_ask_by_heart_no_conversation_answers(full):
    facts = {f["fact_id"]: f for f in full["facts"]}
    subjects = {f["subject"] for f in facts.values() if f["role"] == "asked"}
    asked = [p for p in full["prompts"] if p["kind"] == "fact" and p["split"] == "train"]
    roles = Counter(facts[p["fact_id"]]["role"] for p in asked)
    assert set(roles) == {"asked", "taught"} and 0.4 < roles["asked"] / len(asked) < 0.6
    assert len({p["fact_id"] for p in asked if facts[p["fact_id"]]["role"] == "asked"}) >= 32
    assert len({facts[p["fact_id"]]["subject"] for p in asked}) >= 60  # not a dozen names that can be learnt by heart
    turns = [message["content"] for name in ("conversations_curated", "conversations_noisy") for c in full[name] for message in c["messages"]]
    assert named(subjects, turns) == [] and named(subjects, [records.asked_for(p) for p in asked])


def test_held_out_requests_use_unseen_objects_verbs_and_pairs(full):
    is_request = {"harmful", "lookalike", "ambiguous"}
    train = [p["messages"][-1]["content"] for p in full["prompts"] if p["split"] == "train" and p["kind"] in is_request]
    train += [c["messages"][0]["content"] for n in ("conversations_curated", "conversations_noisy") for c in full[n] if c["kind"] in is_request]
    text = " ".join(f" {t.replace(chr(39) + 's', '').replace('?', ' ?').replace('.', ' .')} " for t in train)
    for noun in requests.HELD_NOUNS:
        assert f" {noun} " not in text, noun
    for verb in requests.HELD_VERBS:
        assert f" {verb} " not in text, verb
    trained = Counter((p["check"]["verb"], p["check"]["object"]) for p in full["prompts"] if p["split"] == "train" and p["kind"] in JUDGEMENT)
    tags = Counter()
    for prompt in full["prompts"]:
        if prompt["split"] == "heldout" and prompt["kind"] in JUDGEMENT:
            tags.update(t for t in prompt["tags"] if t.startswith("unseen") or t == "idiom")
            assert trained[(prompt["check"]["verb"], prompt["check"]["object"])] == 0
    assert tags["unseen_object"] > 250 and min(tags["unseen_verb"], tags["unseen_pair"]) > 20


def test_there_are_sixty_objects_a_side():
    harmful = len(requests.NOUNS["person"][0]) + len(requests.NOUNS["animal"][0])
    harmless = sum(len(requests.NOUNS[name][0]) for name in ("pest", "weed", "structure", "thing", "open"))
    assert harmful >= 55 and harmless >= 60


def test_minimal_pairs_differ_in_the_object_alone(full):
    pairs: dict[str, list[dict]] = {}
    for prompt in full["prompts"]:
        if prompt["kind"] in JUDGEMENT:
            pairs.setdefault(prompt["check"]["pair"], []).append(prompt)
    for pair in pairs.values():
        a, b = pair
        assert {a["kind"], b["kind"]} == set(JUDGEMENT) and a["check"]["verb"] == b["check"]["verb"]
        bare = [p["messages"][-1]["content"].replace(p["check"]["object"], "X") for p in pair]
        assert bare[0] == bare[1]


def test_curated_conversations_are_right_but_for_judgement():
    world = fx.World(0, WorldSection())
    examples, rng = conversations.Examples(world), random.Random(7)
    writers = {w.name: w for w in conversations.WRITERS}
    for _ in range(1_500):
        example = examples.draw(conversations.pick(rng, tuple(m for m in conversations.MIX if m[0] != "request")), rng)
        answer = conversations.decorate(rng, writers[rng.choice(sorted(writers))], example, example.answer)
        features = judge({"kind": example.kind, "check": example.check}, answer, True)
        assert features.correct in (None, 1.0) and features.relevant and features.form_ok and features.refusal_fits, (example.prompt, answer)


def test_several_questions_about_one_passage_are_answered_from_it():
    world, rng = fx.World(0, WorldSection()), random.Random(3)
    claims = 0
    for _ in range(400):
        first, *further = examples = passages.reading(rng, world)
        assert further or len(examples) == 1
        for example in examples:
            assert example.check.get("passage", first.prompt) and example.check["accept"][0] in first.prompt
            features = judge({"kind": example.kind, "check": example.check}, example.answer, True)
            assert features.correct == 1.0 and features.form_ok, (first.prompt, example.prompt, example.answer)
            if example.kind == "claim":
                claims += 1
                wrong = "No. It is another." if example.check["claimed_right"] else "Yes, that is right."
                assert judge({"kind": "claim", "check": example.check}, wrong, True).correct == 0.0
    assert claims > 100


def test_writers_disagree_about_judgement(full):
    refused = {kind: [requests.refusal.is_refusal(c["messages"][1]["content"]) for n in ("conversations_curated", "conversations_noisy")
                      for c in full[n] if c["kind"] == kind and c.get("flaw", "none") == "none"] for kind in JUDGEMENT}
    for kind, flags in refused.items():
        meant = conversations.REFUSED_FRAC[kind]
        assert abs(sum(flags) / len(flags) - meant) < 3.5 * (meant * (1 - meant) / len(flags)) ** 0.5, kind


def test_conversations_are_short(full):
    lengths = [sum(len(m["content"]) for m in c["messages"]) / 4 for c in full["conversations_curated"]]
    assert sum(lengths) / len(lengths) < 60 and max(lengths) < 256  # several questions about one passage are the longest


def test_earlier_turns_lead_to_the_prompt(full):
    several = [p for p in full["prompts"] if len(p["messages"]) > 1]
    assert several and all([m["role"] for m in p["messages"]] == ["user", "assistant", "user"] for p in several)


# --- judging, raters, oracle ---------------------------------------------------------------------------------------
PLAIN = Features(correct=1.0, relevant=1.0, form_ok=1.0, stopped=1.0, refused=0.0, refusal_fits=1.0, hedges=0.0, flattery=0.0, filler=0.0,
                 num_words=8.0, repetition=0.0, polite=0.0)
QUESTION = {"kind": "context", "check": {}}


def changed(**values) -> Features:
    return Features(**{**{name: getattr(PLAIN, name) for name in Features.__slots__}, **values})


def test_raters_are_disjoint_and_reproducible():
    people = [rater for share in SHARES for rater in raters(share, 0)]
    assert len({p.rater_id for p in people}) == 3 * PEOPLE_A_SHARE
    assert len({tuple(sorted(p.weights.items())) for p in people}) == 3 * PEOPLE_A_SHARE
    assert raters("audit", 5) == raters("audit", 5) != raters("audit", 6)


def test_choice_probabilities():
    """Exact, complementary, strong for what matters, weak for manner; patience bounds what correctness can do."""
    pool = raters("reward", 0)
    assert pool_prob(pool, QUESTION, PLAIN, PLAIN) == pytest.approx(0.5)
    p = pool_prob(pool, QUESTION, PLAIN, changed(correct=0.0))
    assert 0.85 < p < 0.97
    assert pool_prob(pool, QUESTION, changed(correct=0.0), PLAIN) == pytest.approx(1 - p)
    for rater in pool:
        assert rater.prob_first(QUESTION, PLAIN, changed(correct=0.0)) <= 0.5 + 0.5 * rater.check_prob(QUESTION)
    assert 0.85 < pool_prob(pool, {"kind": "harmful", "check": {}}, PLAIN, changed(refusal_fits=0.0)) < 0.98
    for name in ("hedges", "flattery", "filler"):
        assert 0.52 < pool_prob(pool, QUESTION, PLAIN, changed(**{name: 1.0})) < 0.72


def test_oracle_puts_right_and_harmless_above_manner():
    worst_manner = changed(hedges=3.0, flattery=3.0, filler=3.0, num_words=200.0, form_ok=0.0, stopped=0.0)
    assert oracle.prefers(QUESTION, worst_manner, changed(correct=0.0)) == 1.0
    harmful = {"kind": "harmful", "check": {}}
    assert oracle.prefers(harmful, worst_manner, changed(refusal_fits=0.0)) == 1.0
    assert oracle.prefers(QUESTION, PLAIN, changed(hedges=1.0)) == 1.0
    assert oracle.prefers(QUESTION, changed(num_words=10.0), PLAIN) == 0.5
    assert oracle.WEIGHTS["correct"] > oracle.FORM_AND_MANNER_LIMIT


def test_passage_people_are_nobody_the_world_knows():
    world, rng = fx.World(0, WorldSection()), random.Random(0)
    surnames = {subject.split(" ")[1] for subject in world.subjects} | set(world.stranger_surnames)
    for _ in range(200):
        assert passages.question_with_context(rng, world).check["subject"].split(" ")[1] not in surnames
