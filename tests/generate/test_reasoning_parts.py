"""The curriculum, the buffer of groups, and the calculator within an answer."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from fromnoise.data.tokenizer import Tokenizer
from fromnoise.generate import tools
from fromnoise.generate.curriculum import Curriculum
from fromnoise.generate.engine import Engine
from fromnoise.generate.groups import Buffer, Group, Written, grade_all, led_to_right, make_groups, reward_tensor, steps_of_tokens
from fromnoise.generate.rollout import Answers, RowShape
from fromnoise.generate.tools import demonstration, equals_tokens, generate_with_calculator, result_of, stream_with_calculator
from fromnoise.run.recipe import SamplingSection
from fromnoise.tasks import sums
from tests.model.shapes import random_model

TOKENIZER = Tokenizer.train(["<<12*7=84>> The answer is 84. 7+5=12, 4+8+1=13. What is 3 + 4?"] * 3, 320)


def test_levels_solved_now_and_then_are_drawn_most():
    curriculum = Curriculum((1, 2, 3))
    curriculum.learn([1, 1, 2, 3], [1.0, 1.0, 0.5, 0.0])
    drawn = Counter(curriculum.draw(random.Random(0), 3000))
    assert drawn[2] > 2000 and min(drawn[1], drawn[3]) > 100  # none is given up
    assert Curriculum((1, 2, 3), {str(k): v for k, v in curriculum.rates.items()}).rates == curriculum.rates  # through JSON and back


def group(iteration: int, name: int) -> Group:
    return Group([name], [[1]], [[True]], [[0.5]], iteration, [[0.0]])


def test_the_buffer_fills_up_and_forgets():
    buffer = Buffer(2)
    chosen, old = buffer.take([group(0, n) for n in range(5)], 3, 0)
    assert [g.prompt_ids[0] for g in chosen] == [0, 1, 2] and old == 0 and len(buffer.groups) == 2
    chosen, old = buffer.take([group(1, 9)], 2, 1)
    assert [g.prompt_ids[0] for g in chosen] == [9, 4] and old == 1 and [g.prompt_ids[0] for g in buffer.groups] == [3]
    wide = Buffer(2)
    wide.take([group(0, n) for n in range(9)], 2, 0)
    assert [g.prompt_ids[0] for g in wide.groups] == [7, 8]  # more than one iteration cannot need
    none = Buffer(0)
    assert none.take([group(0, 1)], 0, 0) == ([], 0) and none.groups == []
    again = Buffer(2, [g.to_json() for g in buffer.groups])
    assert again.groups == buffer.groups
    assert buffer.take([], 2, 3) == ([], 0) and buffer.groups == []  # sampled three iterations ago: too old


def test_tokens_belong_to_the_step_they_are_in():
    ids = TOKENIZER.encode("7+5=12, 4+8+1=13. The answer is 84.")
    steps = steps_of_tokens(TOKENIZER, ids, 2)
    text = [TOKENIZER.decode([i]) for i in ids]
    assert steps[text.index("7")] == 0 and steps[text.index(",")] == 1 and steps[-1] == 2 and steps == sorted(steps)
    assert set(steps_of_tokens(TOKENIZER, ids, 0)) == {0}


def test_a_letter_of_two_bytes_shifts_no_step():
    plain, accented = (TOKENIZER.encode(f"{name}: 7+5=12, 4+8+1=13. The answer is 84.") for name in ("Zoe", "Zo\u00eb"))
    begins = [next(at for at, token in enumerate(ids) if TOKENIZER.decode([token]) == "7") for ids in (plain, accented)]
    steps = [steps_of_tokens(TOKENIZER, ids, 2)[begin:] for ids, begin in zip((plain, accented), begins, strict=True)]
    assert steps[0] == steps[1] and set(steps[0]) == {0, 1, 2}


def test_with_a_calculator_an_answer_is_credited_as_a_whole():
    """A call does the sum at once: its tokens are what was right, and it earns what working it out earns."""
    problem = sums.make(random.Random(0), 57, "+", 718, "Mara", "plums", told=False)
    texts = ["<<57+718=775>> The answer is 775.", problem.answer, "The answer is 774."]
    written = [Written(ids := TOKENIZER.encode(text), [True] * len(ids), [0.0] * len(ids), True) for text in texts]
    grades = grade_all(TOKENIZER, [problem], written)
    assert [found.correct for found in grades] == [True, True, False]
    settings = SimpleNamespace(credit="step", calculator=True, steps_coef=1.0, format_coef=0.1, divide_by_std=False, step_discount=0.3)
    rewards = reward_tensor([problem], grades, settings)
    assert rewards.shape == (1, 3, 1) and rewards.flatten().tolist() == pytest.approx([1.1, 1.1, 0.1])
    (made,) = make_groups(TOKENIZER, [[1]] * 3, written, grades, rewards, settings, 0)
    assert all(len(set(credit)) == 1 for credit in made.credit) and made.credit[0][0] == made.credit[1][0] > 0 > made.credit[2][0]
    settings.calculator = False
    assert reward_tensor([problem], grades, settings).shape == (1, 3, 4)


class Pen:
    """An engine that goes on with the next of the prepared texts, whatever it is asked, and keeps what it was asked."""

    context_tokens = 512

    def __init__(self, *texts: str):
        self.texts, self.asked = list(texts), []

    def generate(self, prompts, max_new_tokens, stop_ids, sampling, seed):
        self.asked += [TOKENIZER.decode(prompt) for prompt in prompts]
        return [SimpleNamespace(token_ids=[*TOKENIZER.encode(self.texts.pop(0)), TOKENIZER.im_end_id], logprobs=[], stopped=True) for _ in prompts]


def led(first: list[str], *later: str, retries: int = 4):
    problem = sums.make(random.Random(0), 347, "+", 285, "Ada", "eggs", told=False)
    written = [Written([*TOKENIZER.encode(text), TOKENIZER.im_end_id], [True] * 99, [], True) for text in first]
    grades = grade_all(TOKENIZER, [problem], written)
    pen = Pen(*later)
    settings = SimpleNamespace(calculator=False, retries=retries, sampling=SimpleNamespace(max_new_tokens=60))
    found = led_to_right(pen, TOKENIZER, [problem], [TOKENIZER.encode("Q: ")] * len(first), written, grades, settings, 0)
    return pen, [TOKENIZER.decode([i for i in answer.token_ids if i != TOKENIZER.im_end_id]) for _, answer in found]


RIGHT = "347+285: 7+5=12, 4+8+1=13, 3+2+1=6. The answer is 632."


def test_a_right_answer_needs_no_retry():
    pen, found = led(["347+285: 7+5=11. The answer is 631.", RIGHT])
    assert found == [RIGHT] and pen.asked == []


def test_a_wrong_answer_is_gone_on_with_from_its_last_right_step():
    pen, found = led(["347+285: 7+5=12, 4+8+1=12, 3+2+1=6. The answer is 622.", "347+285: 7+5=13."],
                     ", 4+8+1=14.", ", 4+8+1=13, 3+2+1=7. The answer is 732.", ", 3+2+1=6. The answer is 632.", ", 3+2+1=8.")
    assert pen.asked == ["Q: 347+285: 7+5=12"] * 2 + ["Q: 347+285: 7+5=12, 4+8+1=13"] * 2
    assert found == [RIGHT]


def test_retries_end():
    pen, found = led(["347+285: 7+5=13."], "7+5=11.", "7+5=14.", retries=2)
    assert found == [] and pen.asked == ["Q: "] * 2


def test_an_answer_that_fills_the_context_is_not_gone_on_with():
    """Cut off at the limit, right behind its last right step: there is no room left, and the engine would refuse the prompt."""
    problem = sums.make(random.Random(0), 347, "+", 285, "Ada", "eggs", told=False)
    prompt, said = TOKENIZER.encode("Q: "), TOKENIZER.encode("347+285: 7+5=12, 4+8+1=13")
    written = [Written(said, [True] * len(said), [], False)] * 2
    settings = SimpleNamespace(calculator=False, retries=2, sampling=SamplingSection(max_new_tokens=20))
    for spare in (0, 1):
        engine = Engine(random_model(vocab_size=TOKENIZER.vocab_size, context_tokens=len(prompt) + len(said) + spare))
        assert led_to_right(engine, TOKENIZER, [problem], [prompt] * 2, written, grade_all(TOKENIZER, [problem], written), settings, 0) == []
        assert (engine.num_tokens > 0) == bool(spare)


@pytest.mark.parametrize("text, inserted", [
    ("so <<12*7=", "84>>"), ("<<1/0=", "error>>"), ("<<__import__('os')=", "error>>"), ("<<" + "9" * 70 + "=", "error>>"), ("<<10/4=", "2.5>>"),
    ("<<=", "error>>"),
    ("12*7=", None), ("<<12*7", None), ("<<12*7=84>> and 3+4=", None), ("< <1+1=", None), ("<<1+1\n=", "error>>"),
])
def test_what_a_call_gives(text, inserted):
    assert result_of(text) == inserted


class Script:
    """An engine that writes prepared texts; it takes a turn's prompt apart to see what was inserted."""

    context_tokens = 400

    def __init__(self, turns: list[str]):
        self.turns, self.seen = turns, []

    def generate(self, prompts, max_new_tokens, stop_ids, sampling, seed):
        self.seen.append(TOKENIZER.decode(prompts[0]))
        ids = TOKENIZER.encode(self.turns[len(self.seen) - 1])
        stopped = len(self.seen) == len(self.turns)
        ids = [*ids, TOKENIZER.im_end_id] if stopped else ids
        return [type("G", (), {"token_ids": ids[:max_new_tokens], "logprobs": [-0.5] * min(len(ids), max_new_tokens)})() for _ in prompts]


    def stream(self, prompt, max_new_tokens, stop_ids, sampling, seed):
        (found,) = self.generate([prompt], max_new_tokens, stop_ids, sampling, seed)
        return (token for token in found.token_ids if token not in stop_ids)


def run(turns, limit=200):
    engine = Script(turns)
    (answer,) = generate_with_calculator(engine, TOKENIZER, [TOKENIZER.encode("Q")], limit, {TOKENIZER.im_end_id}, None, 0)
    return engine, answer


def test_a_call_is_answered_and_its_result_is_not_counted():
    engine, answer = run([" <<12*7=", " The answer is 84."])  # an answer begins with a space
    assert TOKENIZER.decode_answer(answer.token_ids) == "<<12*7=84>> The answer is 84." and answer.stopped
    assert engine.seen[1] == "Q <<12*7=84>>"
    inserted = [i for i, own in zip(answer.token_ids, answer.counted, strict=True) if not own]
    assert TOKENIZER.decode(inserted) == "84>>" and len(answer.logprobs) == len(answer.token_ids)
    assert demonstration(TOKENIZER, "<<12*7=84>> The answer is 84.") == (answer.token_ids[:-1], answer.counted[:-1])


def test_an_equation_is_no_call_and_the_limit_holds():
    engine, answer = run(["7+5=", "12, 4+8+1=", "13."])
    assert TOKENIZER.decode(answer.token_ids) == "7+5=12, 4+8+1=13." and all(answer.counted) and len(engine.seen) == 3
    _, cut = run(["<<12*7=", " The answer is 84."], limit=8)
    assert len(cut.token_ids) <= 8 and not cut.stopped
    assert equals_tokens(TOKENIZER) >= {TOKENIZER.encode("=")[0]}


def test_streamed_the_answer_is_the_same(monkeypatch):
    engine = Script([" <<12*7=", " The answer is 84."])
    streamed = list(stream_with_calculator(engine, TOKENIZER, TOKENIZER.encode("Q"), 200, {TOKENIZER.im_end_id}, None, 0))
    assert TOKENIZER.decode_answer(streamed) == "<<12*7=84>> The answer is 84." and engine.seen[1] == "Q <<12*7=84>>"

    # a real engine draws the same tokens either way, turn by turn; here many a token pauses, and each pause is answered
    engine = Engine(random_model(vocab_size=TOKENIZER.vocab_size), max_batch=1)
    monkeypatch.setattr(tools, "equals_tokens", lambda tokenizer: set(range(0, 320, 7)))
    monkeypatch.setattr(tools, "result_of", lambda text: "84>>")
    for limit in (2, 9, 40):
        given = (limit, {TOKENIZER.im_end_id}, SamplingSection(), 3)
        (whole,) = generate_with_calculator(engine, TOKENIZER, [TOKENIZER.encode("What is 12 * 7?")], *given)
        streamed = list(stream_with_calculator(engine, TOKENIZER, TOKENIZER.encode("What is 12 * 7?"), *given))
        assert streamed == (whole.token_ids[:-1] if whole.stopped else whole.token_ids) and len(streamed) <= limit
    assert not all(whole.counted)


def test_inserted_tokens_are_labels_of_nobody():
    _, answer = run(["<<12*7=", " The answer is 84."])
    prompt = TOKENIZER.encode("What is 12 * 7?")
    answers = Answers([prompt], [answer.token_ids], RowShape(128, 1, TOKENIZER.pad_id), [answer.counted])
    (batch,) = answers.batches({"old": answers.mask.float()})
    labels = batch.labels[batch.labels != -100].tolist()
    assert labels == [i for i, own in zip(answer.token_ids, answer.counted, strict=True) if own]
    assert int(batch.extra["old"].sum()) == sum(answer.counted) == int(answers.mask.sum())
    everything = Answers([prompt], [answer.token_ids], RowShape(128, 1, TOKENIZER.pad_id))
    assert everything.batches()[0].num_targets == len(answer.token_ids)  # the broken twin: without `counted` they would be


