"""The benchmark's machinery with sides that cost nothing: turns, medians, ratios, and a side that fails."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(BENCH)}


def load_bench():
    spec = importlib.util.spec_from_file_location("side_by_side", BENCH / "bench.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def side(code: str) -> list[str]:
    return [sys.executable, "-c", f"from pace import Pace, serve\nprint('noise')\n{code}"]


def test_sides_take_turns_and_a_failing_one_is_told_of():
    bench = load_bench()
    steady = side("times = iter([1.0, 4.0, 2.0])\nserve(lambda: (8.0, next(times)), dtype='float32')")  # 8, 2, 4 a second
    trainer = side("pace = Pace(2, 3)\nfor units in [100.0, 100.0] + [1.0] * 9: pace.step(units)\nraise RuntimeError('too long')")
    broken = side("raise RuntimeError('no such option')")
    row = bench.Row("row", "tokens/s", "none", steady, [bench.Peer("trainer", trainer, 4.0), bench.Peer("broken", broken), bench.Peer("twin", steady)])
    found = bench.run_row(row, 3, ENVIRONMENT)["sides"]
    assert found["fromnoise"]["rates"] == [8.0, 2.0, 4.0] and found["fromnoise"]["median"] == 4.0 and found["fromnoise"]["facts"]["dtype"] == "float32"
    assert found["twin"]["ratio"] == 1.0
    assert len(found["trainer"]["rates"]) == 3 and found["trainer"]["ratio"] == 4.0 / found["trainer"]["median"]
    assert "no such option" in found["broken"]["failed"] and "median" not in found["broken"]
    results = {
        "machine": "m",
        "date": "d",
        "rounds": 3,
        "losses": {},
        "startup": [{"name": "import", "seconds": 0.1, "target": 0.2}],
        "left_out": ["sft: none"],
    }
    text = bench.table({**results, "rows": [{**bench.run_row(row, 1, ENVIRONMENT), "date": "today"}]})
    assert "| row | twin | 8.0 | 8.0 | tokens/s | 1.00 |  | today, 1 | none |" in text
    assert "failed: RuntimeError: no such option" in text and "Left out: sft: none." in text


def test_the_steps_before_warming_up_are_not_counted():
    bench = load_bench()
    trainer = bench.Side(side("pace = Pace(2, 2)\nfor units in [100.0, 100.0, 1.0, 2.0, 3.0, 4.0]: pace.step(units)"), ENVIRONMENT)
    trainer.ready()
    seen = []
    for _ in range(2):
        trainer.process.stdin.write("go\n")
        trainer.process.stdin.flush()
        seen.append(trainer.read(60)["units"])
    trainer.close()
    assert seen == [3.0, 7.0]


def test_rows_that_were_not_asked_for_stay_as_they_were():
    bench = load_bench()
    before = {"date": "then", "rows": [{"name": "a", "sides": {"us": 1}}, {"name": "b", "sides": {"peer": 2}}], "losses": {"gap": 0.0}, "startup": [3],
              "left_out": ["x"]}  # fmt: skip
    now = {"date": "now", "rows": [{"name": "b", "sides": {"peer": 5}}, {"name": "c", "sides": {"us": 6}}], "losses": {}, "startup": [],
           "left_out": ["a: no file", "peer: no checkout", "d: no file"]}  # fmt: skip
    merged = bench.kept(before, now)
    assert [(row["name"], row["sides"]) for row in merged["rows"]] == [("a", {"us": 1}), ("b", {"peer": 5}), ("c", {"us": 6})]
    assert (merged["losses"], merged["startup"], merged["date"]) == ({"gap": 0.0}, [3], "now")
    assert merged["left_out"] == ["d: no file"]  # the rest stands in the table
