"""A stage that waits for people: a polite end, a verdict of its own, and the run goes on when called again."""

from __future__ import annotations

import json

import pytest

from fromnoise.cli import main
from fromnoise.run.errors import Interrupted, Waiting
from tests.run import toy, toy_learn, toy_make
from tests.run.toy import patched, toy_run, toy_verdicts


@pytest.fixture
def people(tmp_path, monkeypatch):
    """The toy's second stage, which now needs a file that says how many pairs are labelled."""

    def learn(ctx):
        file = ctx.run.path / "labelled.txt"
        count = int(file.read_text()) if file.exists() else 0
        if count < 5:
            raise Waiting(f"{count} of 5 pairs labelled", how="write labelled.txt")
        toy.run_learn(ctx)

    monkeypatch.setattr(toy_learn, "run", learn)
    return tmp_path / "my run"  # what is offered to copy is quoted


def test_a_run_that_waits_goes_on_when_there_is_enough(people):
    for count in (0, 3):
        if count:
            (people / "labelled.txt").write_text(str(count))
        with pytest.raises(Waiting, match=f"waiting: {count} of 5 pairs labelled\n.*write labelled.txt\n.*fromnoise run '{people}'"):
            toy_run(people)
        assert toy_verdicts(people) == {"make": "done", "learn": f"waiting  {count} of 5 pairs labelled when last asked"}
        assert json.loads((people / "run.json").read_text())["waiting"] == f"{count} of 5 pairs labelled"
        record = json.loads((people / "learnt/stage.json").read_text())
        assert record["status"] == "waiting" and record["waiting"] == f"{count} of 5 pairs labelled"
    assert toy_verdicts(people, "sft.epochs=3")["learn"].startswith("stale")  # other settings are other settings, waiting or not
    (people / "labelled.txt").write_text("5")
    toy_run(people)
    assert toy_verdicts(people) == {"make": "done", "learn": "done"}
    assert json.loads((people / "run.json").read_text())["waiting"] is None
    assert "waiting" not in json.loads((people / "learnt/stage.json").read_text())


def test_a_rerun_that_stops_on_its_way_is_gone_on_with_as_one(people, monkeypatch):
    (people / "labelled.txt").parent.mkdir()
    (people / "labelled.txt").write_text("5")
    toy_run(people)
    (people / "labelled.txt").write_text("0")
    with pytest.raises(Waiting, match=r"then go on: .* --rerun$"):
        toy_run(people, "prepare.min_chars=30", rerun=True)

    def stopped(ctx):
        raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setattr(toy_make, "run", stopped)
    with pytest.raises(Interrupted, match=f"Go on with: fromnoise run '{people}' --rerun$"):
        toy_run(people, "prepare.min_chars=50", rerun=True)


def test_waiting_is_no_error(people, capsys, monkeypatch):
    monkeypatch.chdir(people.parent)
    with pytest.raises(Waiting):
        toy_run(people)
    first, second = patched()
    with first, second, pytest.raises(SystemExit) as left:
        main(["run", str(people), "--quiet"])
    out = capsys.readouterr()
    assert left.value.code == 0 and out.out.startswith("waiting: 0 of 5 pairs labelled") and out.err == ""
    assert not (people / "report.html").exists()
