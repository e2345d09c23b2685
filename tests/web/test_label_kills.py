"""Twenty raters at once, the server killed in the middle: no acknowledged vote is lost, none counts twice."""

from __future__ import annotations

import http.client
import json
import random
import socket
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from fromnoise.data.votes import FILE

from .pages import Server, make_run

pytest.importorskip("uvicorn")
NUM_RATERS, VOTES_EACH = 20, 8
SIDES = ("left", "right", "tie", "both_bad")


class Rater(threading.Thread):
    """Votes as the page does: keeps a vote until it is acknowledged, sends it again with the same key for as long as it takes.

    Now and then it hangs up before the answer arrives, or sends a vote twice: what networks and impatient people do.
    """

    def __init__(self, name: str, port: int, heart: threading.Event):
        super().__init__(daemon=True)
        self.rater, self.port, self.heart, self.chance = name, port, heart, random.Random(name)
        self.acknowledged: dict[str, tuple[int, str]] = {}  # key -> (showing, side)
        self.problem: BaseException | None = None
        self.retries = 0

    def send(self, path: str, body: dict, hang_up: bool = False) -> dict | None:
        """The answer; None when there was none (refused, reset, hung up)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, json.dumps({**body, "rater": self.rater}), {"Content-Type": "application/json"})
            if hang_up:
                return None
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status == 200, (response.status, answer)
            return answer
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def until_answered(self, path: str, body: dict) -> dict:
        hang_up = self.chance.random() < 0.15
        deadline = time.monotonic() + 60
        while (answer := self.send(path, body, hang_up)) is None:
            assert time.monotonic() < deadline, "the server never came back"
            hang_up, self.retries = False, self.retries + 1
            time.sleep(0.05)
        return answer

    def run(self) -> None:
        try:
            for number in range(VOTES_EACH):
                state = self.until_answered("/api/state", {})
                showing = state["showing"]["id"]
                key, side = f"{self.rater}-{number:04d}-key", self.chance.choice(SIDES)
                body = {"key": key, "showing": showing, "choice": side}
                self.until_answered("/api/vote", body)
                self.acknowledged[key] = (showing, side)
                if self.chance.random() < 0.2:
                    self.until_answered("/api/vote", body)  # the same vote again
                self.heart.set()
        except BaseException as problem:
            self.problem = problem


def problems(path: Path, acknowledged: dict[str, tuple[int, str]]) -> list[str]:
    """What is wrong with the votes on disk, given all that were acknowledged."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT v.key, v.showing, v.choice, s.swapped FROM votes v JOIN showings s ON s.id = v.showing WHERE v.undone = 0").fetchall()
    twice = db.execute(
        "SELECT rater, pair, repeated, COUNT(*) FROM votes v JOIN showings s ON s.id = v.showing GROUP BY 1, 2, 3 HAVING COUNT(*) > 1"
    ).fetchall()
    db.close()
    found = [f"counted twice: {row}" for row in twice]
    found += [f"{key} stands {count} times" for key, count in Counter(row[0] for row in rows).items() if count > 1]
    stored = {key: (showing, choice, swapped) for key, showing, choice, swapped in rows}
    for key, (showing, side) in acknowledged.items():
        if key not in stored:
            found.append(f"lost: {key}")
            continue
        kept_showing, choice, swapped = stored[key]
        meant = side if side not in ("left", "right") else ("second" if swapped else "first") if side == "left" else ("first" if swapped else "second")
        if (kept_showing, choice) != (showing, meant):
            found.append(f"changed: {key}")
    return found + [f"never sent: {key}" for key in stored if key not in acknowledged]


def test_twenty_raters_and_a_server_that_is_killed(tmp_path):
    run = make_run(tmp_path, count=400)
    with Server(run, "--order", "random", "--shared-frac", "0.5") as server:
        hearts = [threading.Event() for _ in range(NUM_RATERS)]
        raters = [Rater(f"rater {n}", server.port, heart) for n, heart in enumerate(hearts)]
        for rater in raters:
            rater.start()
        for _ in range(2):
            for heart in hearts:
                heart.clear()
            assert all(heart.wait(60) for heart in hearts[:3]), [rater.problem for rater in raters]  # voting is under way
            server.kill()
            assert any(rater.is_alive() for rater in raters)  # in the middle, not after it
            server.start()
        for rater in raters:
            rater.join(90)
    assert [rater.problem for rater in raters if rater.problem] == []
    acknowledged = {key: vote for rater in raters for key, vote in rater.acknowledged.items()}
    assert len(acknowledged) == NUM_RATERS * VOTES_EACH and sum(rater.retries for rater in raters) > NUM_RATERS
    assert problems(run / FILE, acknowledged) == []
    check_the_check(run / FILE, acknowledged)


def check_the_check(path: Path, acknowledged: dict) -> None:
    """The broken twins: a file in which a vote was lost, changed, or counted twice is found out."""
    columns = "key, showing, choice, cast_at"
    for damage, word in (
        ("DELETE FROM votes WHERE number = 7", "lost"),
        ("UPDATE votes SET choice = CASE choice WHEN 'tie' THEN 'both_bad' ELSE 'tie' END WHERE number = 9", "changed"),
        (f"DROP INDEX one_vote_a_showing; INSERT INTO votes ({columns}) SELECT key || '2', showing, choice, cast_at FROM votes WHERE number = 8", "twice"),
    ):  # fmt: skip
        copy = path.with_name("damaged.sqlite")
        copy.unlink(missing_ok=True)
        source, target = sqlite3.connect(path), sqlite3.connect(copy)
        source.backup(target)
        target.executescript(damage)
        target.close()
        source.close()
        assert any(word in problem for problem in problems(copy, acknowledged)), word


def test_a_port_in_use_is_said_plainly(tmp_path, capsys):
    from fromnoise.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as left:
        main(["label", str(make_run(tmp_path)), "--port", str(taken.getsockname()[1])])
    assert left.value.code == 2 and "choose another with --port" in capsys.readouterr().err
