"""metrics.jsonl and seeds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fromnoise.run.metrics import MetricsLog, averages, read_metrics
from fromnoise.run.seeds import seed_from


def test_lines_are_plain_json(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", "sft")
    log.write(3, 1.23456, {"loss": torch.tensor(0.5), "bad": float("nan"), "n": np.int64(2), "top5": [("a", np.float32(0.5))], "ok": True})
    log.close()
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert line == {
        "schema_version": 1, "stage": "sft", "step": 3, "time_s": 1.235, "loss": 0.5, "bad": None, "n": 2, "top5": [["a", 0.5]], "ok": True,
    }  # fmt: skip


def test_truncation_goes_back_to_a_size(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", "sft")
    assert log.size() == 0
    log.write(0, 0.0, {})
    size = log.size()
    log.write(1, 0.0, {})
    log.truncate(size)
    log.write(1, 0.0, {"again": 1})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"half a li')
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])["again"] == 1
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_the_file_may_be_named_by_text(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    assert read_metrics(f"{tmp_path}/metrics.jsonl") == [{"step": 0}] and read_metrics(f"{tmp_path}/none.jsonl") == []


def test_seeds_are_fixed_and_different():
    assert seed_from(0, "sft") == 8194877168899985081  # changing the mixing would change every published run
    assert len({seed_from(seed, part) for seed in range(50) for part in ("a", "b")}) == 100
    assert all(0 <= seed_from(i) < 2**63 for i in range(100))
    assert seed_from("1") != seed_from(1) and seed_from("a", "b") != seed_from("ab")


def test_a_mean_of_means_weighs_each_by_what_it_is_a_mean_of():
    found = averages([{"count": 9, "ratio": 1.0}, {"count": 1, "ratio": 2.0, "accuracy": 0.5}, {"count": 0, "ratio": 0.0}])
    assert found == {"ratio": pytest.approx(1.1), "accuracy": 0.5}
    assert averages([{"ratio": 1.0}, {"ratio": 2.0}]) == {"ratio": 1.5} and averages([{"count": 0, "ratio": 0.0}]) == {"ratio": 0.0} and averages([]) == {}
