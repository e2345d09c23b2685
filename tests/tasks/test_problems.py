"""Problems of every level: ideal answers earn everything, each kind of mistake is seen, the split is kept by construction."""

import random
import re

import pytest

from fromnoise.tasks import problems, puzzles, sums
from fromnoise.tasks.problems import LEVELS, final_number, from_file, grade, with_calls
from fromnoise.tasks.splits import HELD_OUT_IN, held_out, held_out_pair


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_ideal_answers_earn_everything_and_wrong_ones_do_not(level):
    rng = random.Random(level.number)
    for held in (False, True):
        for _ in range(60):
            example = level.make(rng, "Mara", "plums", held)
            ideal = grade(example.kind, example.check, example.answer, True)
            assert ideal.correct and ideal.steps == 1.0 and ideal.form_ok and ideal.num_false == 0, example
            assert not grade(example.kind, example.check, example.answer, stopped=False).correct
            assert not grade(example.kind, example.check, "", True).correct
            assert not grade(example.kind, example.check, example.prompt, True).correct
            if re.search(r"\d", example.answer):
                last = re.findall(r"\d+", example.answer)[-1]
                wrong = example.answer[: example.answer.rindex(last)] + str(int(last) + 1) + example.answer[example.answer.rindex(last) + len(last) :]
                assert not grade(example.kind, example.check, wrong, True).correct, wrong


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_an_answer_by_the_calculator_is_as_right_as_one_worked_out(level):
    rng = random.Random(level.number)
    for _ in range(60):
        example = level.make(rng, "Mara", "plums", False)
        called = with_calls(example)
        assert grade(example.kind, example.check, called, True).correct, called
        if example.kind != "sum":
            continue
        assert called.startswith("<<")
        result, (before, after) = str(example.check["answer"]), called.rsplit(str(example.check["answer"]), 1)
        for wrong in (called.replace(f"={result}>>", f"={result}1>>"), f"{before}{result}1{after}"):
            assert not grade(example.kind, example.check, wrong, True).correct, wrong
        assert not grade(example.kind, example.check, called[: called.rindex(">>") + 2], True).correct  # a call alone says nothing


@pytest.mark.parametrize("a, sign, b, steps", [
    (347, "+", 285, ["7+5=12", "4+8+1=13", "3+2+1=6"]), (415, "-", 38, ["15-8=7", "11-3-1=7", "4-0-1=3"]), (12, "+", 5, ["12+5=17"]),
    (99, "+", 1, ["9+1=10", "9+0+1=10"]), (100, "-", 99, ["10-9=1", "10-9-1=0", "1-0-1=0"]), (50, "-", 50, ["0-0=0", "5-5=0"]),
])
def test_columns_by_hand(a, sign, b, steps):
    assert sums.columns(a, sign, b) == steps


def test_columns_are_true_and_spell_the_result():
    """The last digits of the columns, from the last to the first, are the result; the last column says all it has."""
    for a in range(0, 240, 3):
        for b in range(0, 200, 7):
            for sign in "+-" if a >= b else "+":
                steps, total = sums.columns(a, sign, b), a + b if sign == "+" else a - b
                assert all(true for _, true in problems.equations(sums.work(a, sign, b)))
                digits = [step.split("=")[1] for step in steps]
                spelt = digits[-1] + "".join(d[-1] for d in reversed(digits[:-1]))
                assert int(spelt) == total, (a, sign, b, steps)


SUM = {"form": "free", "a": 347, "b": 285, "sign": "+", "answer": 632, "steps": sums.columns(347, "+", 285)}


@pytest.mark.parametrize("answer, correct, steps", [
    ("347+285: 7+5=12, 4+8+1=13, 3+2+1=6. The answer is 632.", True, 1.0),
    ("The answer is 632.", True, 0.0),  # right, but nothing of the working is shown
    ("347+285: 7+5=12, 4+8+1=13, 3+2+1=6. The answer is 633.", False, 1.0),
    ("347+285: 7+5=12, 4+8+1=14, 3+2+1=6. The answer is 632.", False, 1 / 3),  # a false step spoils a right answer
    ("347+285: 7+5=12, 4+8=12, 3+2+1=6. The answer is 632.", True, 1 / 3),  # true, but not the working of this sum
    ("1+1=2, 1+1=2, 1+1=2. The answer is 632.", True, 0.0),  # truths beside the point earn nothing
    ("347+285: 7+5=12, 4+8+1=13", False, 2 / 3),
])
def test_grade_of_a_sum(answer, correct, steps):
    found = grade("sum", SUM, answer, True)
    assert found.correct == correct and found.steps == pytest.approx(steps)


@pytest.mark.parametrize("answer, number", [
    ("She has 3 and 4 so 7.\n#### 42", "42"), ("#### $1,200", "1200"), ("It is 12, then 15.", "15"), ("#### none", None), ("no number", None),
    ("-3.50 in all", "-3.5"), (".5", "0.5"), ("It is $.50.", "0.5"), ("-.5", "-0.5"), ("version 1.2.3", "3"), ("in all...5", "5"),
    ("so \\boxed{42}", "42"), ("from 1 to $\\boxed{x = 5}$.", "5"), ("so \\boxed{\\frac{3}{4}}", None), ("\\boxed{x = 1, y = 2}", None), ("\\boxed{4", None),
    ("#### 3/4", None), ("#### 3, 4", None), ("It is 3/4.", None), ("at 12:30", None), ("Step 2: 12", "12"), ("of 8/4=2", "2"), ("\\frac{3}{4}", None),
    ("the answer is 7, 8", "8"), ("It is \u22125.", "-5"), ("#### \u2212$1,200", "-1200"),
])
def test_final_number(answer, number):
    assert final_number(answer) == number


def test_problems_from_a_file():
    example = from_file("How many clips?", "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 in all.\n#### 72")
    assert example.check["answer"] == "72"
    assert grade("problem", example.check, example.answer, True) == problems.Grade(True, 1.0, True, 0)
    assert grade("problem", example.check, "48/2=25, so #### 72", True) == problems.Grade(False, 0.0, True, 1)
    assert not grade("problem", example.check, "72 or 73", True).correct and not grade("problem", example.check, "many", True).form_ok
    assert from_file("Why?", "because nobody ever came to count them") is None
    assert from_file("How likely?", "Of the four balls three are red, so it is 3/4.") is None  # the 4 alone is not the answer
    assert from_file("Where?", "Both lines are met in \\boxed{x = 1, y = 2, z = 3, w = 4}.") is None


PARIS = "Paris", "paris.", " PARIS ", "The answer is Paris.", "It rained. The answer is: Paris", "Answer: Paris", "so\n#### Paris", '"Paris"'
NOT_PARIS = (
    "", "London", "Paris or London", "Paris, London", "not Paris", "The answer is not Paris.", "Is it Paris?", "The answer is Paris?", "Par", "Parish",
    "Paris Hilton", "Where is Paris", "The answer is Paris. The answer is London.", "#### Paris\n#### London", "Paris #### London", "the",
    "1+1=3 The answer is Paris.",
)  # fmt: skip


@pytest.mark.parametrize("wanted, right, wrong", [
    ("Paris", PARIS, NOT_PARIS),
    ("The Rolling Stones", ("Rolling Stones", "the rolling  stones.", "The answer is The Rolling Stones."), ("Stones", "The Stones", "Rolling the Stones")),
    ("vitamin A", ("Vitamin A", "a vitamin A"), ("vitamin", "a", "vitamin B")),
    ("A", ("A", "a.", "The answer is A."), ("", "B", "the", "an", "A or B", "A B")),
    ("B", ("(B)", "B)", "The answer is (b).", "\\boxed{(B)}"), ("(A)", "(B) or (C)", "(AB)", "()")),
    ("(B)", ("B", "B.", "The answer is B."), ("A", "(b) Paris")),
    ("1/2", ("1/2", "The answer is 1/2."), ("3/2", "2", "1", "1 2", "12")),
    ("12:30", ("12:30",), ("11:30", "30", "12")),
    ("3/4 cup", ("3/4 cup", "The answer is 3/4 cup."), ("4", "1/4 cup", "4 cup")),
    ("1 1/2", ("1 1/2", "The answer is 1 1/2."), ("2", "3/2", "1/2")),
    ("10:30 am", ("10:30 am",), ("30", "11:30 am", "10:30 pm")),
    ("1, 2, 3", ("1, 2, 3", "The answer is 1, 2, 3."), ("3", "7, 9, 3")),
    ("1 hour 20 minutes", ("1 hour 20 minutes",), ("20", "20 minutes", "2 hours 20 minutes")),
    ("2", ("2", "The answer is 2.", "8/4=2"), ("1/2", "The answer is 1 1/2 cups.", "#### 2/3")),
    ("We add both and find that it is $\\boxed{\\frac{3}{4}}$.", ("\\boxed{\\frac{3}{4}}", "It is \\boxed{\\frac{3}{4}}."),
     ("4", "\\boxed{\\frac{1}{4}}", "\\frac{1}{4}")),
    ("So the answer is $\\boxed{42}$.", ("42", "so $\\boxed{42}$", "The answer is 42."), ("\\boxed{43}", "43")),
    ("H2O", ("h2o", "The answer is H2O."), ("2", "CO2")),
    ("[1,2)", ("[1,2)", "The answer is [1,2)."), ("(1,2]", "(1,2)", "1,2", "2")),
    ("0.6666666667", ("0.6666666667", "2/3 = 0.6667", "The answer is 0.6667."), ("0.67", "0.6666", "0.7", "0", "1")),
    ("0.00001", ("0.00001",), ("0", "0.0001", "1")),
    (".5", (".5", "0.5", "The answer is .50."), ("5", "50", "0.05", "-0.5")),
    ("\u22125", ("-5", "\u22125", "It is \u22125."), ("5", "\u22126", "")),
    ("145", ("145", "145.0", "$145", "145 plums"), ("144", "145.01", "-145", "1450", "", "plums")),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_the_verifier_of_a_files_problems_rejects_each_wrong_answer(wanted, right, wrong):
    check = from_file("?", wanted).check
    for answer in right:
        assert grade("problem", check, answer, True).correct, answer
        assert not grade("problem", check, answer, stopped=False).correct
    for answer in wrong:
        assert not grade("problem", check, answer, True).correct, answer


def test_a_verifier_that_looks_for_the_words_anywhere_would_be_seen():
    """The law's broken twin."""
    assert sum("paris" in answer.lower() for answer in NOT_PARIS) > 10


def test_the_form_of_an_answer_in_words_is_that_it_is_short():
    check = from_file("Where?", "Paris").check
    assert grade("problem", check, "London", True).form_ok and not grade("problem", check, "", True).form_ok
    assert not grade("problem", check, "I would say that it must be Paris", True).form_ok


def test_levels_of_a_file_are_thirds_by_worked_steps_then_by_length():
    steps = [from_file(f"Question {'x' * at}?", " ".join("<<1+1=2>>2" for _ in range(num))) for at, num in enumerate((4, 1, 2, 3, 1, 2))]
    assert problems.file_levels(steps) == [103, 101, 102, 103, 101, 102]
    plain = [from_file(f"Question {'x' * at}?", "7") for at in (5, 1, 3)]
    assert problems.file_levels(plain) == [103, 101, 102]
    stated = [from_file("Question?", "7"), from_file("Question?", "3+4=7"), from_file("Question?", "1+2=3, 3+4=7")]
    assert problems.file_levels(stated[::-1]) == [103, 102, 101]
    assert problems.file_levels(plain[:1]) == [101] and problems.file_levels([]) == []


def test_puzzle_verifier_rejects():
    check = {"form": "free", "puzzle": "largest", "items": ["41", "7", "88"], "what": "", "answer": "88", "steps": ["7<41", "41<88"]}
    for right in ("7<41, 41<88. The answer is 88.", "88", "88.", "The largest is 88."):
        assert puzzles.verify(check, right).correct, right
    for wrong in ("", "41", "41<7, 41<88. The answer is 88.", "41, 7, 88", "The answer is 88 or 41.", "Is it 88?", "188", "The answer is not 88."):
        assert not puzzles.verify(check, wrong).correct, wrong
    sort = {"form": "free", "puzzle": "sort", "items": ["9", "3"], "what": "", "answer": "3, 9", "steps": []}
    assert puzzles.verify(sort, "3, 9").correct and puzzles.verify(sort, "The answer is 3 and 9.").correct
    assert not any(puzzles.verify(sort, wrong).correct for wrong in ("9, 3", "3", "3, 9, 9", "3 9 and more"))


def test_the_split_is_even_symmetric_and_spares_the_table():
    share = sum(held_out_pair(a, b) for a in range(10, 200) for b in range(10, 200)) / 190**2
    assert abs(share - 1 / HELD_OUT_IN) < 0.01
    assert all(held_out_pair(a, b) == held_out_pair(b, a) for a in range(10, 60) for b in range(10, 60))
    assert not any(held_out_pair(a, b) for a in range(10) for b in range(1000))
    assert held_out_pair(10, 12) == held_out("10 12")  # no seed, no clock: the same under every run


def test_every_maker_keeps_to_its_side():
    rng = random.Random(5)
    for held in (False, True):
        made = [sums.example(rng, "Mara", "plums", held=held) for _ in range(400)]
        made += [level.make(rng, "Mara", "plums", held) for level in LEVELS for _ in range(30)]
        pairs = [pair for e in made if e.kind == "sum" for pair in e.check.get("operands") or [(e.check["a"], e.check["b"])] if min(pair) >= 10]
        assert len(pairs) > 300 and all(held_out_pair(*pair) == held for pair in pairs)
        keys = [" ".join((e.check["puzzle"], e.check["what"], *e.check["items"])) for e in made if e.kind == "puzzle"]
        assert keys and all(held_out(key) == held for key in keys)
