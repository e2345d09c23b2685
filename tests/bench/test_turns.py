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
    sys.path.insert(0, str(BENCH))  # as a script finds what lies beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
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
        "races": [],
        "profile": "",
        "losses": {},
        "startup": [{"name": "import", "seconds": 0.1, "target": 0.2}],
        "left_out": ["sft: none"],
    }
    text = bench.table({**results, "rows": [{**bench.run_row(row, 1, ENVIRONMENT), "date": "today"}]})
    assert "| row | twin | 8.0 | 8.0 | tokens/s | 1.00 |  | float32 | today, 1 | none |" in text
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
    now = {"date": "now", "rows": [{"name": "b", "sides": {"peer": 5}}, {"name": "c", "sides": {"us": 6}}], "races": [], "losses": {}, "startup": [],
           "profile": "", "left_out": ["a: no file", "peer: no checkout", "d: no file"]}  # fmt: skip
    merged = bench.kept(before, now)
    assert [(row["name"], row["sides"]) for row in merged["rows"]] == [("a", {"us": 1}), ("b", {"peer": 5}), ("c", {"us": 6})]
    assert (merged["losses"], merged["startup"], merged["date"]) == ({"gap": 0.0}, [3], "now")
    assert merged["left_out"] == ["d: no file"]  # the rest stands in the table


def test_what_a_side_computes_in_is_told():
    bench = load_bench()
    assert [bench.dtype_of(facts) for facts in ({"dtype": "torch.float32", "bf16": False}, {"bf16": True}, {"bf16": False}, {"dtype": "bfloat16"}, {})] == [
        "float32", "bfloat16", "float32", "bfloat16", ""]  # fmt: skip


def test_a_race_is_the_median_of_its_seeds_beside_the_others():
    races = load_bench().races
    said = "{0} nats a character, {1} bits a byte of the 9 characters held out, 178.3 s from process start to weights (seed 0, float32)"

    def says(nats: float, bits: float) -> list[str]:
        return [sys.executable, "-c", f"print('step 200'); print({said.format(nats, bits)!r})"]

    broken = [sys.executable, "-c", "import os, sys; sys.exit(os.environ['ITS_DTYPE'] + ' is no dtype')"]
    ours = [says(1.5, 1.9), says(1.4, 1.8), says(1.44, 1.85)]
    race = races.Race("novels", "bits a byte", ours, {"peer, depth 2": says(2.0, 1.95), "peer, depth 4": broken}, "less", {"ITS_DTYPE": "float7"})
    found = races.run_race(race, ENVIRONMENT)
    assert found["sides"]["fromnoise"]["value"] == 1.85 and found["sides"]["peer, depth 2"]["value"] == 1.95
    told = "\n".join(races.lines({"races": [found], "profile": "6x256: 1 ms"}))
    assert "| novels | fromnoise | 1.8500 bits a byte (median of 3 seeds) | less |" in told and "| peer, depth 2 | 1.9500 bits a byte |" in told
    assert "failed: float7 is no dtype" in told and "6x256: 1 ms" in told and "ITS_DTYPE=float7" in found["sides"]["peer, depth 4"]["command"]
    assert races.learnt(said.format(1.5, 1.9), "nats a character")["value"] == 1.5
