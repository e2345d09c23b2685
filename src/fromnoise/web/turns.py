"""Which pair a rater sees next, and on which side each answer stands.

Each pair needs one rater; a share of them, fixed by their keys, needs several, so that raters can be compared. Now and
then a rater is shown a pair of their own again, sides swapped, so that they can be compared with themselves. What one
rater has open is not given to another for a while, so that twenty at once do not all judge the same pair.

A rater is never told that a pair is repeated or shared, whose the answers are, or what anybody else said.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fromnoise.data.votes import ComparedPair, VoteStore
from fromnoise.evaluate.text import visible

LEASE_S = 600.0  # how long a pair that is open in one window is kept from other raters
REPEAT_GAP = 8  # own votes before a pair may come again: by then its sides are not remembered as such


@dataclass(frozen=True, slots=True)
class Settings:
    wanted: int  # pairs to be labelled by at least one rater
    repeat_frac: float = 0.1  # repeated pairs for each new one
    shared_frac: float = 0.2  # share of the pairs that several raters see
    raters_per_shared_pair: int = 2


@dataclass(frozen=True, slots=True)
class Showing:
    id: int
    pair: ComparedPair
    swapped: bool

    def to_json(self) -> dict:
        """What the page is told: nothing but the texts, in which marks that would have them read as something else are seen."""
        answers = [visible(self.pair.first), visible(self.pair.second)]
        left, right = answers[::-1] if self.swapped else answers
        messages = [{**message, "content": visible(message["content"])} for message in self.pair.messages]
        return {"id": self.id, "messages": messages, "left": left, "right": right}


class Turns:
    """Turns over the pairs of one run.

    margins: |score difference| by pair key; the smallest go first, pairs without one last. Without margins the order is
    random, though the same after a restart.
    """

    def __init__(self, store: VoteStore, pairs: Sequence[ComparedPair], settings: Settings, margins: Mapping[str, float] | None = None):
        self.store, self.settings = store, settings
        self.run_id = hashlib.sha256(f"run\0{store.secret}".encode()).hexdigest()[:16]
        store.add_pairs(pairs)
        self.pairs = {pair.key: pair for pair in pairs}
        margins = margins or {}
        self.order = sorted(self.pairs, key=lambda key: (margins.get(key, float("inf")), self._draw("order", key)))
        self.shared = {key for key in self.pairs if self._draw("shared", key) < settings.shared_frac} if settings.raters_per_shared_pair > 1 else set()

    def _draw(self, *parts: object) -> float:
        """A number in [0, 1) that only this run's secret and `parts` decide: no rater can foresee it, a restart repeats it."""
        digest = hashlib.sha256("\x1f".join([self.store.secret, *map(str, parts)]).encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:7], "big") / 2**56

    def state(self, rater: str) -> dict:
        """What the page shows a rater: the open pair or the next one, how far everybody is, and which vote can be undone."""
        with self.store.transaction() as db:
            counts = self._counts(db)
            showing = self._open(db, rater) or self._next(db, rater, counts)
            mine = db.execute(
                "SELECT v.key, v.choice, s.pair FROM votes v JOIN showings s ON s.id = v.showing WHERE s.rater = ? AND v.undone = 0 ORDER BY v.number", (rater,)
            ).fetchall()
        return {
            "rater": rater, "run": self.run_id, "showing": showing.to_json() if showing else None,
            "undo": next((key for key, _, pair in reversed(mine) if pair in self.pairs), None),  # of others nothing could be shown again
            "progress": {"labelled": len(counts), "wanted": self.settings.wanted, "mine": sum(choice != "skip" for _, choice, _ in mine),
                         "skipped": sum(choice == "skip" for _, choice, _ in mine)},
        }  # fmt: skip

    def _counts(self, db: sqlite3.Connection) -> dict[str, int]:
        """Raters by pair, for the pairs of this run that have one."""
        rows = db.execute(
            "SELECT s.pair, COUNT(*) FROM votes v JOIN showings s ON s.id = v.showing "
            "WHERE v.undone = 0 AND v.choice != 'skip' AND s.repeated = 0 GROUP BY s.pair"
        )
        return {key: count for key, count in rows if key in self.pairs}

    def _open(self, db: sqlite3.Connection, rater: str) -> Showing | None:
        """The pair that the rater was shown last and has not voted on: the page may have been closed, or a vote undone."""
        rows = db.execute(
            "SELECT id, pair, swapped FROM showings s WHERE rater = ? AND NOT EXISTS (SELECT 1 FROM votes WHERE showing = s.id AND undone = 0) "
            "ORDER BY opened_s DESC, id DESC", (rater,)
        )  # fmt: skip
        return next((Showing(id, self.pairs[key], bool(swapped)) for id, key, swapped in rows if key in self.pairs), None)

    def _next(self, db: sqlite3.Connection, rater: str, counts: Mapping[str, int]) -> Showing | None:
        key = self._repeat(db, rater)
        if key is not None:
            return self._show(db, rater, key, repeated=True)
        mine = {pair for (pair,) in db.execute("SELECT pair FROM showings WHERE rater = ?", (rater,))}
        since = time.time() - LEASE_S
        leased = {
            key for (key,) in db.execute(
                "SELECT pair FROM showings s WHERE rater != ? AND opened_s > ? AND NOT EXISTS (SELECT 1 FROM votes WHERE showing = s.id AND undone = 0)",
                (rater, since),
            )
        }  # fmt: skip
        key = self._pick(rater, len(mine), [key for key in self.order if key not in mine], counts, leased)
        return None if key is None else self._show(db, rater, key, repeated=False)

    def _pick(self, rater: str, turn: int, unseen: Sequence[str], counts: Mapping[str, int], leased: set[str]) -> str | None:
        """A pair nobody has judged, or now and then a shared one that others have; None when enough are labelled."""
        enough = len(counts) >= self.settings.wanted
        wanted = self.settings.raters_per_shared_pair
        overlap = next((key for key in unseen if key in self.shared and 0 < counts.get(key, 0) < wanted and key not in leased), None)
        fresh = None
        if not enough:
            free = (key for key in unseen if key not in counts)
            waiting = []  # open in somebody's window; taken when nothing else is left, for that window may be gone
            fresh = next((key for key in free if key not in leased or waiting.append(key)), None) or (waiting[0] if waiting and overlap is None else None)
        if overlap is not None and (fresh is None or self._draw("overlap", rater, turn) < self.settings.shared_frac):
            return overlap
        return fresh

    def _repeat(self, db: sqlite3.Connection, rater: str) -> str | None:
        """A pair the rater judged a while ago, when one is due."""
        if self.settings.repeat_frac <= 0:
            return None
        voted = db.execute(
            "SELECT s.pair, s.repeated FROM votes v JOIN showings s ON s.id = v.showing "
            "WHERE s.rater = ? AND v.undone = 0 AND v.choice != 'skip' ORDER BY v.number", (rater,)
        ).fetchall()  # fmt: skip
        shown_again = {key for (key,) in db.execute("SELECT pair FROM showings WHERE rater = ? AND repeated = 1", (rater,))}
        first = [key for key, repeated in voted if not repeated and key in self.pairs]
        if len(first) * self.settings.repeat_frac < len(shown_again) + 1:
            return None
        recent = {key for key, _ in voted[-REPEAT_GAP:]}
        old = [key for key in first if key not in shown_again and key not in recent]
        return min(old, key=lambda key: self._draw("repeat", rater, key), default=None)

    def _show(self, db: sqlite3.Connection, rater: str, key: str, repeated: bool) -> Showing:
        """Open a showing. The side is a coin for each rater and pair; a repeat has the other side."""
        swapped = (self._draw("side", rater, key) < 0.5) != repeated
        if repeated:  # a vote that came in from a file has no side, and its repeat keeps the coin's other one
            shown = db.execute("SELECT swapped FROM showings WHERE rater = ? AND pair = ? AND repeated = 0", (rater, key)).fetchone()
            swapped = swapped if shown is None or shown[0] is None else not shown[0]
        cursor = db.execute(
            "INSERT INTO showings (rater, pair, repeated, swapped, opened_s) VALUES (?, ?, ?, ?, ?)", (rater, key, repeated, swapped, time.time())
        )
        return Showing(cursor.lastrowid, self.pairs[key], swapped)
