"""Files of questions and answers in the forms people have them; what cannot be checked is reported with file and line."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from fromnoise.data.problems import held_out_records, problem_of, read_problems
from fromnoise.tasks.problems import FILE_LEVELS, file_levels, grade
from fromnoise.tasks.splits import held_out


@pytest.mark.parametrize("record, question, answer", [
    ({"question": "How many?", "answer": "3+4=7\n#### 7"}, "How many?", "7"),
    ({"Question": "How many?", "Answer": "7"}, "How many?", "7"),
    ({"Body": "Ada has 3 eggs.", "Question": "How many?", "Answer": 3.0}, "Ada has 3 eggs. How many?", "3"),
    ({"input": "How many?", "target": 43.0, "idx": 0}, "How many?", "43"),
    ({"input": "How much?", "target": 0.1, "type": "multi"}, "How much?", "0.1"),
    ({"question": "How many?", "answer": 4}, "How many?", "4"),
    ({"question": "How many?", "answer": 10**15}, "How many?", str(10**15)),
    ({"question": "How many?", "answer": -2.5}, "How many?", "-2.5"),
    ({"question": 7, "answer": 7}, "7", "7"),
    ({"question": "Where?", "answer": "Paris"}, "Where?", "paris"),
    ({"question": "Where?", "answer": "The Hague."}, "Where?", "hague"),
    ({"question": "How much?", "answer": "1/2"}, "How much?", "1/2"),
    ({"question": "How much?", "answer": "5km"}, "How much?", "5"),
    ({"problem": "How much?", "solution": "It is x.", "answer": "\\frac{1}{2}"}, "How much?", "\\frac{1}{2}"),
    ({"instruction": "Add these.", "input": "3, 4", "output": "7"}, "Add these.\n\n3, 4", "7"),
    ({"instruction": "Add 3, 4.", "input": "", "output": "7"}, "Add 3, 4.", "7"),
])  # fmt: skip
def test_forms(record, question, answer):
    problem = problem_of(record)
    assert (problem.prompt, problem.check["answer"]) == (question, answer)
    assert grade("problem", problem.check, problem.answer, True).correct
    assert grade("problem", problem.check, f"The answer is {problem.check['answer']}.", True).correct


@pytest.mark.parametrize("record, reason", [
    ({"answer": "7"}, "no question: none of question, "),
    ({"question": " ", "answer": "7"}, "no question: "),
    ({"question": "How many?"}, "no answer: none of answer, "),
    ({"question": "How many?", "answer": None}, "no answer: "),
    ({"question": "How many?", "answer": [7]}, "no answer: "),
    ({"question": "Is it?", "answer": True}, "no answer: "),
    ({"question": "How many?", "answer": float("nan")}, "no answer: "),
    ({"question": "How many?", "answer": 1e40}, "no answer: "),
    ({"question": "Why?", "answer": "Because it was raining all day"}, "nothing to check in the answer: "),
    ({"question": "Why?", "answer": "...!"}, "nothing to check in the answer: "),
    ({"question": "How many?", "context": ["Ann has 3.", "Bo has 4."], "answer": "7"}, "`context` is a list, not text"),
])  # fmt: skip
def test_what_cannot_be_used_is_named_with_its_line(record, reason, tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ({"question": "Where?", "answer": "Paris"}, record)))
    bad = []
    assert len(read_problems(str(path), bad.append)) == 1
    assert [(one.file, one.line) for one in bad] == [(str(path), 2)] and bad[0].reason.startswith(reason)


def test_what_evaluation_draws_from_is_the_side_left_out(tmp_path):
    path = tmp_path / "problems.jsonl"
    records = [{"question": f"How much is {n} times 3?", "answer": 3 * n} for n in range(80)]
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    found, read = held_out_records(str(path)), read_problems(str(path), lambda bad: None)
    assert {one["prompt"] for one in found} == {one["question"] for one in records if held_out(one["question"])}
    level_of = dict(zip((problem.prompt for problem in read), file_levels(read), strict=True))
    assert found and all(one["level"] == level_of[one["prompt"]] for one in found)


@pytest.mark.skipif("FROMNOISE_DATA" not in os.environ, reason="FROMNOISE_DATA is not set: no real data beside the project")
@pytest.mark.parametrize("name, count", [("gsm8k/train", 7473), ("gsm8k/test", 1319), ("svamp/svamp.test", 1000), ("mawps/mawps.test", 2065)])
def test_real_problem_files(name, count):
    bad = []
    path = Path(os.environ["FROMNOISE_DATA"]) / "reasoning" / f"{name}.jsonl"
    found = read_problems(str(path), bad.append)
    assert len(found) == count and bad == []
    assert not any(problem.check["is_text"] for problem in found)
    sizes = Counter(file_levels(found))
    assert set(sizes) == set(FILE_LEVELS) and max(sizes.values()) - min(sizes.values()) <= 1
    misread = sum(not grade(problem.kind, problem.check, problem.answer, True).correct for problem in found)
    assert misread <= 0.02 * count  # mixed numbers ("3 1/2 - 2"), algebra, and equations that are false in the file
    if name.startswith("svamp"):
        assert found[0].prompt.startswith("There are 87 oranges") and found[0].prompt.endswith("How big is each group of bananas?")
        assert found[0].check["answer"] == "145"
