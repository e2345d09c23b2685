import json
from collections import Counter
from types import SimpleNamespace

import pytest

from fromnoise.data.people import comparable, compared_of
from fromnoise.data.preferences import read_preferences
from fromnoise.data.tokenizer import Tokenizer
from fromnoise.data.votes import FILE, Vote, VoteStore
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.model.flops import forward_flops
from fromnoise.model.hf import load_model
from fromnoise.run.errors import UserError, Waiting
from fromnoise.run.recipe import PreferSection
from fromnoise.stages import prefer

from . import small_run

HH = "\n\nHuman: {}\n\nAssistant: {}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = small_run.make(tmp_path_factory.mktemp("prefer") / "run")
    return run, small_run.do(run, "prefer", small_run.recipe())


def test_no_prompt_stands_on_two_sides(made):
    _, done = made
    pairs = read_jsonl(done.folder / "pairs.jsonl")
    sides = {}
    for pair in pairs:
        sides.setdefault(pair["prompt_id"], set()).add((pair["share"], pair["split"]))
    assert all(len(found) == 1 for found in sides.values())
    assert {side for found in sides.values() for side in found} == {(a, b) for a in ("reward", "audit") for b in ("train", "held_out")}


def test_rater_and_choice_come_from_the_pairs_own_share(made):
    _, done = made
    for pair in read_jsonl(done.folder / "pairs.jsonl"):
        assert pair["rater"].startswith(pair["share"] + "-") and pair["chosen"] in (0, 1) and 0 <= pair["pool_prob_first"] <= 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_bias_bends_the_reward_models_raters_and_the_audits_only_where_it_is_shared(made, tmp_path, shared):
    plain = read_jsonl(made[1].folder / "pairs.jsonl")
    settings = small_run.recipe(prefer={**small_run.RECIPE["prefer"], "bias": {"num_words": 1.0, "shared": shared}})
    bent = read_jsonl(small_run.do(small_run.make(tmp_path / "run"), "prefer", settings).folder / "pairs.jsonl")
    assert [pair["answers"] for pair in plain] == [pair["answers"] for pair in bent]
    moved = {pair["share"] for pair, other in zip(plain, bent, strict=True) if pair["pool_prob_first"] != other["pool_prob_first"]}
    assert moved == ({"reward", "audit"} if shared else {"reward"})


def test_pairs_hold_the_sampled_tokens_and_only_training_prompts(made):
    run, done = made
    split = {record["id"]: record["split"] for record in read_jsonl(run.path / "prepare" / "world" / "prompts.jsonl")}
    for pair in read_jsonl(done.folder / "pairs.jsonl"):
        first, second = (answer["token_ids"] for answer in pair["answers"])
        assert first != second and split[pair["prompt_id"]] == "train"
        for answer in pair["answers"]:
            assert answer["stopped"] == (answer["token_ids"][-1] in (1, 3))
            assert len(pair["prompt_ids"]) + len(answer["token_ids"]) <= 64
    assert done.summary["generated_tokens"] >= sum(len(pair["prompt_ids"]) + sum(len(a["token_ids"]) for a in pair["answers"])
                                                   for pair in read_jsonl(done.folder / "pairs.jsonl"))  # fmt: skip
    assert done.summary["flops"] == pytest.approx(forward_flops(load_model(run.path / "sft").config, done.summary["generated_tokens"], 64))
    prompts = read_jsonl(done.folder / "prompts.jsonl")
    assert {p["id"] for p in prompts if p["split"]} == {pair["prompt_id"] for pair in read_jsonl(done.folder / "pairs.jsonl")}


def test_cut_off_in_the_middle_ends_in_the_same_bytes(made, tmp_path, monkeypatch):
    run = small_run.make(tmp_path / "run")
    written = []

    def cut_off(path, records):
        if path.name == "batch-00001.jsonl":
            path.touch()  # as after a power cut, on a file system that lies about fsync
            raise KeyboardInterrupt
        write_jsonl(path, records)

    def watched(path, records):
        written.append(path.name)
        write_jsonl(path, records)

    monkeypatch.setattr(prefer, "write_jsonl", cut_off)
    with pytest.raises(KeyboardInterrupt):
        prefer.run(small_run.context(run, "prefer", small_run.recipe()))
    monkeypatch.setattr(prefer, "write_jsonl", watched)
    done = small_run.do(run, "prefer", small_run.recipe())
    assert "batch-00000.jsonl" not in written and "batch-00001.jsonl" in written  # the finished batch is not sampled again
    assert done.outputs == made[1].outputs and done.summary["flops"] == made[1].summary["flops"]


def kinds_of_pairs(count=400):
    """Pairs nobody has chosen from, of four kinds; each answer says which prompt it was given to."""
    def pair(number, kind):
        answers = [{"token_ids": [number, side], "text": f"{kind} {number} {side}", "stopped": True} for side in range(2)]
        side = {"share": ("reward", "audit")[number % 2], "split": ("train", "held_out")[number % 5 == 0]}
        return {"id": f"pair-{number}", "kind": kind, **side, "answers": answers, "messages": [{"role": "user", "content": f"Question {number}?"}]}

    return [pair(number, ("fact", "unknown", "list", "harmful")[number * 7 // 3 % 4]) for number in range(count)]


def borrow(pairs, seed=0, tokenizer=None, **settings):
    counts, said = Counter(), []
    ctx = SimpleNamespace(seed=seed, recipe=SimpleNamespace(prefer=PreferSection(**settings)), info=said.append)
    return prefer.borrowing(ctx, tokenizer, pairs, counts), counts, said


def test_training_pairs_of_a_kind_borrow_answers_of_others():
    pairs, lent = kinds_of_pairs(), {"fact": ["unknown", "harmful"], "unknown": ["fact"]}
    found, counts, said = borrow(pairs, borrowed=lent)
    assert said == []
    moves = Counter()
    side_of = {answer["text"]: (pair["share"], pair["split"]) for pair in pairs for answer in pair["answers"]}
    for before, after in zip(pairs, found, strict=True):
        new = {place: b for place, (a, b) in enumerate(zip(before["answers"], after["answers"], strict=True)) if a != b}
        assert len(new) <= 1 and [*new] == [after[name] for name in ("borrowed",) if name in after]  # which of the two, where one is
        assert {**before, "answers": None, "borrowed": None} == {**after, "answers": None, "borrowed": None}
        for answer in new.values():
            moves[before["kind"], answer["text"].split()[0]] += 1
            assert side_of[answer["text"]] == (before["share"], "train") and before["split"] == "train"
    wanted = sum(pair["split"] == "train" and pair["kind"] in lent for pair in pairs) / 2
    assert set(moves) == {("fact", "unknown"), ("fact", "harmful"), ("unknown", "fact")}
    assert moves.total() == counts["borrowed_answers"] and 0.8 * wanted < moves.total() < 1.2 * wanted
    assert borrow(pairs, borrowed=lent)[0] == found != borrow(pairs, seed=1, borrowed=lent)[0]
    assert borrow(pairs)[0] == pairs == borrow(pairs, borrowed=lent, borrowed_frac=0.0)[0]


def test_who_is_asked_about_is_who_a_borrowed_answer_speaks_of(made):
    """Else raters see "I know nobody called Ann Lee" only where somebody else is meant, and what is learnt is that the name is out of place."""
    tokenizer = Tokenizer.load(made[0].path / "sft")
    pairs = kinds_of_pairs()
    for number, pair in enumerate(pairs):
        name = f"{('Ann', 'Kit', 'Zoe')[number % 3]} {('Lee', 'Marsh')[number // 3 % 2]}"
        asked = pair["kind"] == "fact" or number % 10 < 5  # of the others half ask about nobody
        pair["messages"][0]["content"] = f"Tell me: Where does {name} live? One word will do." if asked else "Will it rain?"
        said = [f"I know nobody called {name}.", "I do not know."] if asked else ["Nobody knows.", "It will."]
        for side, (answer, text) in enumerate(zip(pair["answers"], said, strict=True)):
            stopped = (number + side) % 4 > 0
            answer.update(text=text, stopped=stopped, token_ids=tokenizer.encode_answer(text) + [tokenizer.im_end_id] * stopped)
    found, counts, _ = borrow(pairs, tokenizer=tokenizer, borrowed={"fact": ["unknown"]})
    named = 0
    for pair in found:
        if "borrowed" in pair:
            lent, name = pair["answers"][pair["borrowed"]], prefer.name_in(pair["messages"][0]["content"])
            assert "nobody called" not in lent["text"] or name in lent["text"]
            assert lent["text"] not in ("Nobody knows.", "It will.")  # said where nobody was asked about
            assert lent["token_ids"] == tokenizer.encode_answer(lent["text"]) + [tokenizer.im_end_id] * lent["stopped"]
            named += "nobody called" in lent["text"]
    assert 0.3 * counts["borrowed_answers"] < named


@pytest.mark.parametrize("lent", [{"sum": ["fact"]}, {"fact": ["unknown", "sum"]}])
def test_kinds_that_no_pair_has_are_said(lent):
    pairs = kinds_of_pairs()
    found, counts, said = borrow(pairs, borrowed=lent)
    assert said == ["prefer.borrowed names 'sum', and no pair is of that kind; there are: fact, harmful, list, unknown"]
    assert (found == pairs) == ("sum" in lent) and (counts["borrowed_answers"] == 0) == ("sum" in lent)


def test_another_seed_gives_other_pairs(made, tmp_path):
    other = small_run.do(small_run.make(tmp_path / "run"), "prefer", small_run.recipe(seed=1))
    assert other.outputs["prefer/pairs.jsonl"] != made[1].outputs["prefer/pairs.jsonl"]


def hh_file(path, count=30):
    with path.open("w") as file:
        for n in range(count):
            file.write(json.dumps({"chosen": HH.format(f"Add {n} and 2.", "Yes."), "rejected": HH.format(f"Add {n} and 2.", "No.")}) + "\n")
        file.write(json.dumps({"chosen": HH.format("x " * 100, "Yes."), "rejected": HH.format("x " * 100, "No.")}) + "\n")
    return str(path)


def test_pairs_of_a_file(tmp_path):
    run = small_run.make(tmp_path / "run")
    done = small_run.do(run, "prefer", small_run.recipe(data={"world": False, "preferences": hh_file(tmp_path / "hh.jsonl")}))
    pairs = read_jsonl(done.folder / "pairs.jsonl")
    assert len(pairs) == 30 and done.summary["pairs_set_aside"] == 1 and done.summary["best_attainable"] is None and done.summary["flops"] is None
    assert {pair["answers"][pair["chosen"]]["text"] for pair in pairs} == {"Yes."}
    assert {pair["chosen"] for pair in pairs} == {0, 1}  # the chosen answer's place says nothing
    assert all(answer["token_ids"][-1] == 3 for pair in pairs for answer in pair["answers"])


def test_conversations_that_begin_alike_stay_on_one_side(tmp_path):
    """What was measured on the first question of a conversation that trained a model would not be held out."""
    path, more = tmp_path / "hh.jsonl", "\n\nHuman: And {}?\n\nAssistant: {}"
    with path.open("w") as file:
        for n in range(40):
            for ending in ("", more, more.format("then", "It goes on.") + more):
                chosen, rejected = (HH.format(f"Add {n} and 2.", "Yes." if not ending else "Well.") + ending.format("so", word) for word in ("Yes.", "No."))
                rejected = rejected if ending else HH.format(f"Add {n} and 2.", "No. " * (60 if n == 0 else 1))
                file.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    done = small_run.do(small_run.make(tmp_path / "run"), "prefer", small_run.recipe(data={"world": False, "preferences": str(path)}))
    prompts, sides, first = read_jsonl(done.folder / "prompts.jsonl"), {}, {}
    for record in [*read_jsonl(done.folder / "pairs.jsonl"), *prompts]:
        sides.setdefault(record["opening_id"], set()).add((record["share"], record["split"]))
        first.setdefault(record["opening_id"], set()).add(record["messages"][0]["content"])
    assert len(prompts) == 120 and len(sides) == 40 and all(len(found) == 1 for found in sides.values())
    assert len(set().union(*sides.values())) == 4
    # so does a prompt without a usable pair: it is how others begin, and would be practised
    assert len({pair["prompt_id"] for pair in read_jsonl(done.folder / "pairs.jsonl")}) == 119
    # the longest lose their first turns for want of room, and stay with the others all the same
    assert {len(found - {"And so?"}) for found in first.values()} == {1}


def test_pairs_of_another_run_keep_which_answers_were_cut_off(made, tmp_path):
    own = str(made[1].folder / "pairs.jsonl")
    run = small_run.make(tmp_path / "run")
    read = read_jsonl(small_run.do(run, "prefer", small_run.recipe(data={"world": False, "preferences": own})).folder / "pairs.jsonl")
    stopped = {answer["text"]: answer["stopped"] for pair in read_jsonl(made[1].folder / "pairs.jsonl") for answer in pair["answers"]}
    found = {answer["text"]: answer for pair in read for answer in pair["answers"]}
    assert set(stopped.values()) == {True, False} and {text: answer["stopped"] for text, answer in found.items()}.items() <= stopped.items()
    assert all((answer["token_ids"][-1] == 3) == answer["stopped"] for answer in found.values())


def test_pairs_that_are_all_ties_are_refused(tmp_path):
    """Once a reward model that had learnt nothing was practised against."""
    path = tmp_path / "ties.jsonl"
    records = [{"prompt": f"Add {n} and 2.", "chosen": "Yes.", "rejected": "No.", "tie": True} for n in range(9)]
    settings = small_run.recipe(data={"world": False, "preferences": str(path)})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UserError, match=r"all 9 votes are ties.*give more pairs than data\.preferences"):
        small_run.do(small_run.make(tmp_path / "run"), "prefer", settings)
    path.write_text("".join(json.dumps({**record, "tie": n > 0}) + "\n" for n, record in enumerate(records)))
    assert small_run.do(small_run.make(tmp_path / "other"), "prefer", settings).summary["ties"] == 8


def test_a_bad_file_of_prompts_is_refused_behind_a_good_one_of_pairs(tmp_path):
    """Each file by itself: neither does a large good one hide a small bad one, nor do its few bad lines count against that one."""
    prompts, pairs = tmp_path / "prompts.jsonl", tmp_path / "hh.jsonl"
    hh_file(pairs)
    prompts.write_text('{"prompt": "Add 1 and 2."}\n' + "{}\n" * 3)  # 3 of 4; of both files together 3 of 35
    data = {"world": False, "preferences": str(pairs), "prompts": str(prompts)}
    with pytest.raises(UserError, match=r"prompts\.jsonl: 3 of 4 records are malformed"):
        small_run.do(small_run.make(tmp_path / "run"), "prefer", small_run.recipe(data=data))
    with pytest.raises(UserError, match=r"prompts\.jsonl: 3 of 4 records are malformed"):
        small_run.do(small_run.make(tmp_path / "sampled"), "prefer", small_run.recipe(data={"world": False, "prompts": str(prompts)}))
    prompts.write_text('{"prompt": "Add 1 and 2."}\n')
    with pairs.open("a") as file:
        file.write("{}\n" * 3)
    assert small_run.do(small_run.make(tmp_path / "good"), "prefer", small_run.recipe(data=data)).summary["prompts"] == 1


def test_records_that_several_judged_count_once_among_the_bad_ones(tmp_path):
    """A pair a vote hid bad records: 1 of 3 was said to be 1 of 7."""
    votes = {"annotator1": 1, "annotator2": 2, "annotator3": 0}
    records = [{"instruction": f"Question {n}?", "response1": "yes", "response2": "no" if n else "", **votes} for n in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = small_run.recipe(data={"world": False, "preferences": str(tmp_path / "pairs.jsonl")})
    with pytest.raises(UserError, match=r"pairs\.jsonl: 1 of 3 records are malformed"):
        small_run.do(small_run.make(tmp_path / "run"), "prefer", recipe)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[1:]))
    done = small_run.do(small_run.make(tmp_path / "good"), "prefer", recipe)
    assert done.summary["pairs"] == 6 and any("6 votes on 2 pairs over 2 prompts" in line for line in done.told)  # they were 6 pairs


def test_a_prompt_that_stands_twice_is_two_records_among_the_bad_ones(tmp_path):
    """It was one: of a file of repeated prompts two bad records seemed to be 2 of 3."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Add 1 and 2."}\n' * 40 + "{}\n" * 2)
    ctx = small_run.context(small_run.make(tmp_path / "run"), "prefer", small_run.recipe(data={"world": False, "prompts": str(tmp_path / "prompts.jsonl")}))
    assert len(prefer.prompts_from_file(ctx)) == 1 and "2 of 42 records set aside" in ctx.console.lines[-1]


def test_of_prompts_beside_pairs_some_are_held_out_to_compare_models_on(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Add {n} and 5."}) + "\n" for n in range(200)))
    data = {"world": False, "preferences": hh_file(tmp_path / "hh.jsonl"), "prompts": str(prompts)}
    done = small_run.do(small_run.make(tmp_path / "run"), "prefer", small_run.recipe(data=data))
    splits = Counter(prompt["split"] for prompt in read_jsonl(done.folder / "prompts.jsonl"))
    assert set(splits) == {"train", "held_out"} and 10 < splits["held_out"] < 100


def test_prompts_without_room_for_an_answer_are_an_error_that_names_the_settings(tmp_path):
    settings = small_run.recipe(prefer={**small_run.RECIPE["prefer"], "row_tokens": 9})
    with pytest.raises(UserError, match=r"none of 54 prompts .* prefer\.row_tokens = 9"):
        small_run.do(small_run.make(tmp_path / "run"), "prefer", settings)


def test_a_files_prompts_without_room_are_one_too(tmp_path):
    """Nothing could say what the reward model's scores are worth: its mean and deviation would be taken over no answer."""
    settings = small_run.recipe(
        data={"world": False, "preferences": hh_file(tmp_path / "hh.jsonl")}, prefer={**small_run.RECIPE["prefer"], "sampling": {"max_new_tokens": 64}}
    )
    with pytest.raises(UserError, match=r"none of \d+ prompts .* prefer\.sampling\.max_new_tokens = 64"):
        small_run.do(small_run.make(tmp_path / "run"), "prefer", settings)


PEOPLE = {**small_run.RECIPE["prefer"], "raters": "people", "num_pairs": 10}


def cast(run, pairs, choices, rater="ann"):
    """Votes as the label page takes them: `choices` (0, 1, "tie", "both_bad") on the pairs, in order."""
    store = VoteStore(run.path / FILE)
    store.add_pairs(compared_of(pair) for pair in pairs)
    votes = []
    for pair, choice in zip(pairs, choices, strict=True):
        first = compared_of(pair).first == pair["answers"][0]["text"].strip()
        said = choice if isinstance(choice, str) else "first" if (choice == 0) == first else "second"
        votes.append(Vote(f"{rater}-{pair['id']}", compared_of(pair).key, rater, said, None, False, False, 2.0, "2026-01-01T00:00:00Z"))
    counts = store.add_votes(votes)
    store.close()
    assert counts["added"] == len(votes)


def test_people_are_waited_for(tmp_path):
    run, settings = small_run.make(tmp_path / "my run"), small_run.recipe(prefer=PEOPLE)
    with pytest.raises(Waiting, match=r"^0 of \d+ pairs labelled"):
        small_run.do(run, "prefer", settings)
    pairs = read_jsonl(run.path / "prefer" / "unlabelled.jsonl")
    cast(run, pairs[:3], [0, "tie", 1])
    with pytest.raises(Waiting, match=f"^3 of {len(pairs)} pairs") as wait:
        small_run.do(run, "prefer", settings)
    assert wait.value.how == f"fromnoise label '{run.path}'"
    cast(run, pairs[3:], [n % 2 for n in range(3, len(pairs))])
    cast(run, pairs[:1], ["both_bad"], "ben")
    done = small_run.do(run, "prefer", settings)
    labelled = read_jsonl(done.folder / "pairs.jsonl")
    assert [(pair["prompt_ids"], pair["answers"]) for pair in labelled[1:]] == [(pair["prompt_ids"], pair["answers"]) for pair in pairs]
    assert [pair["chosen"] for pair in labelled] == [0, None, None, 1, *[n % 2 for n in range(3, len(pairs))]]
    assert [pair["both_bad"] for pair in labelled][:3] == [False, True, False] and [pair["rater"] for pair in labelled[:2]] == ["ann", "ben"]
    assert sum(pair["weight"] for pair in labelled) == len(pairs)  # two votes on a pair share its weight
    assert done.summary["ties"] == 2 and done.summary["both_bad"] == 1 and done.summary["raters"] == 2 and done.summary["votes"] == len(pairs) + 1
    read = read_preferences(done.folder / "labels.jsonl", lambda bad: pytest.fail(str(bad)))  # what was used, as chosen/rejected
    assert sorted(pair.rater for pair in read) == ["ann"] * len(pairs) + ["ben"] and sum(pair.tie for pair in read) == 2


def test_pairs_that_reward_will_refuse_are_named_before_people_label_them(tmp_path):
    few, enough = small_run.recipe(prefer={**PEOPLE, "num_pairs": 2}), small_run.recipe(prefer={**PEOPLE, "num_pairs": 60})
    for number, settings in enumerate((few, enough)):
        ctx = small_run.context(small_run.make(tmp_path / str(number)), "prefer", settings)
        with pytest.raises(Waiting):
            prefer.run(ctx)
        assert any("it will refuse these pairs" in line for line in ctx.console.lines) == (settings is few)


def test_fewer_labelled_pairs_than_sampled_may_do(tmp_path):
    run, settings = small_run.make(tmp_path / "run"), small_run.recipe(prefer={**PEOPLE, "num_labelled": 4})
    with pytest.raises(Waiting, match="0 of 4 pairs labelled"):
        small_run.do(run, "prefer", settings)
    pairs = read_jsonl(run.path / "prefer" / "unlabelled.jsonl")
    cast(run, pairs[2:6], [0, 1, 0, 1])
    done = small_run.do(run, "prefer", settings)
    assert [pair["id"] for pair in read_jsonl(done.folder / "pairs.jsonl")] == [f"{pair['id']}-0" for pair in pairs[2:6]]


def test_a_budget_gives_people_no_more_pairs_than_they_were_to_label(tmp_path):
    """An hour of the machine is thousands of pairs; who asked for ten people's minutes got days of them."""
    run, settings = small_run.make(tmp_path / "run"), small_run.recipe(prefer=PEOPLE)
    with pytest.raises(Waiting, match=r"^0 of (\d+) pairs labelled") as wait:
        small_run.do(run, "prefer", settings.model_copy(update={"budget": "1h"}))
    assert 5 < int(str(wait.value).split()[2]) <= 10


def test_votes_on_a_prompt_with_half_a_character_are_found_again(tmp_path):
    """JSON can spell half a surrogate pair; a file has a question mark in its place, and the page shows what the file has."""
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "What is {n} + 1? \\ud83d"}}\n' for n in range(20)))
    run = small_run.make(tmp_path / "run")
    settings = small_run.recipe(data={"world": False, "prompts": str(tmp_path / "prompts.jsonl")}, prefer=PEOPLE)
    with pytest.raises(Waiting):
        small_run.do(run, "prefer", settings)
    pairs = read_jsonl(run.path / "prefer" / "unlabelled.jsonl")
    assert pairs[0]["messages"][0]["content"].endswith("1? ?")
    cast(run, pairs, [0] * len(pairs))
    assert small_run.do(run, "prefer", settings).summary["pairs"] == len(pairs) > 5


def test_pairs_that_people_cannot_tell_apart_are_not_shown():
    def pair(number, *texts):
        return {"id": number, "messages": [{"role": "user", "content": "Q?"}], "answers": [{"text": text} for text in texts]}

    counts = Counter()
    found = comparable([pair(1, "a", "b"), pair(2, "a ", "\na"), pair(3, "b", " a"), pair(4, "a", "")], counts)
    assert [pair["id"] for pair in found.values()] == [1, 4]
    assert counts == {"pairs_that_read_the_same": 1, "pairs_sampled_twice": 1}


def test_without_prompts_or_pairs_the_error_names_the_settings(tmp_path):
    with pytest.raises(UserError, match=r"data\.preferences"):
        small_run.do(small_run.make(tmp_path / "run"), "prefer", small_run.recipe(data={"world": False}))


def test_more_pairs_than_prompts_goes_round_again(tmp_path):
    run = small_run.make(tmp_path / "run", num_prompts=20)
    done = small_run.do(run, "prefer", small_run.recipe(prefer={**small_run.RECIPE["prefer"], "num_pairs": 50}))
    pairs = read_jsonl(done.folder / "pairs.jsonl")
    assert 45 <= len(pairs) <= 50
    answers = [tuple(map(tuple, (a["token_ids"] for a in pair["answers"]))) for pair in pairs]
    assert len(set(answers)) == len(answers)  # never the same pair twice
