"""People's votes on pairs of answers, in one SQLite file: `labels.sqlite` in the run's folder.

Three tables. `pairs`: what was compared. `showings`: which pair a rater was shown, and which answer stood on the left.
`votes`: what the rater said; an undone vote stays, marked. A vote carries a key that its sender made up, so that one
sent again (its answer was lost, the server died) is recognised and counts once; a showing has at most one vote that
counts, which the database itself enforces.

A vote is acknowledged after its commit, with `synchronous=FULL`: SQLite has then told the disk to keep it. Several
threads and processes may use the file at once. It lies beside the stage folders, not in one: it outlives `--rerun`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fromnoise.data.conversation import Message
from fromnoise.run.errors import UserError

FILE = "labels.sqlite"
SCHEMA_VERSION = 1
CHOICES = ("first", "second", "tie", "both_bad", "skip")  # first and second as in ComparedPair, whatever side each stood on
MAX_NAME, MAX_REASON, MAX_KEY = 40, 2_000, 80
MAX_SECONDS = 1e9
JOINERS = "\u200c\u200d"  # no glyphs of their own, and no name in Persian or Hindi is spelled right without them

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE pairs (key TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE showings (
  id INTEGER PRIMARY KEY, rater TEXT NOT NULL, pair TEXT NOT NULL REFERENCES pairs, repeated INTEGER NOT NULL,
  swapped INTEGER, opened_s REAL NOT NULL, UNIQUE (rater, pair, repeated)
);
CREATE TABLE votes (
  number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, showing INTEGER NOT NULL REFERENCES showings,
  choice TEXT NOT NULL CHECK (choice IN ('first', 'second', 'tie', 'both_bad', 'skip')),
  reason TEXT, seconds REAL, cast_at TEXT NOT NULL, undone INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_vote_a_showing ON votes (showing) WHERE undone = 0;
"""


class VoteError(Exception):
    """A vote that cannot be taken. `status` is the HTTP status that says so: 404 unknown, 409 in conflict, 412 for another run, 422 malformed."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """A prompt and two different answers, in alphabetical order: the same pair is the same, however it was come by."""

    key: str
    messages: list[Message]
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Vote:
    """A vote that counts (not undone, not a skip unless asked for)."""

    key: str
    pair: str
    rater: str
    choice: str  # one of CHOICES
    reason: str | None
    repeated: bool  # the rater had voted on this pair before
    swapped: bool | None  # the second answer stood on the left; None for votes that came in from a file
    seconds: float | None  # from being shown to being sent
    cast_at: str  # UTC


def compared_pair(messages: Sequence[Message], answers: Sequence[str]) -> ComparedPair:
    """The pair of a prompt and two answers; its key is made of its content, so the same pair sampled or read again keeps its votes.

    Texts are as a file gives them back, half a surrogate pair being a question mark there: else a pair and its line in a file were two.
    """
    plain = [{"role": message["role"], "content": storable(message["content"].strip())} for message in messages]
    first, second = sorted(storable(answer.strip()) for answer in answers)
    content = json.dumps([[[message["role"], message["content"]] for message in plain], first, second])
    return ComparedPair(hashlib.sha256(content.encode()).hexdigest()[:20], plain, first, second)


def rater_name(name: object) -> str:
    """A rater's name in one spelling: composed characters, single spaces. UserError for what is no name."""
    plain = " ".join(unicodedata.normalize("NFC", name).split()) if isinstance(name, str) else ""
    letters = plain.translate(dict.fromkeys(map(ord, JOINERS)))
    if not letters or len(plain) > MAX_NAME or not letters.isprintable():
        raise UserError(f"a rater's name has 1 to {MAX_NAME} printable characters; this is {str(name)[:60]!r}")
    return plain


def is_key(key: object) -> bool:
    return isinstance(key, str) and 8 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()


def is_duration(seconds: object) -> bool:
    """Seconds that a vote can have taken. JSON also spells negative and infinite numbers, and ones too large for a float."""
    return isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < MAX_SECONDS


def storable(text: str) -> str:
    """Half a surrogate pair, which JSON can spell, is no text: the database cannot hold it, so a question mark stands in its place."""
    return text.encode("utf-8", "replace").decode()


def make_private(path: Path) -> None:
    """The file, empty and its owner's alone: it will hold the secret that makes the raters' tokens.

    SQLite gives `-wal` and `-shm` the mode it finds on the file, so that has to be right before the first connection. A
    file that is there is not opened: closing it again would drop the locks of this process's other connections.
    """
    try:
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if path.stat().st_size == 0:  # not a database yet: it is made one now
            path.chmod(0o600)


class VoteStore:
    """The file, open. One connection, used by one thread at a time."""

    def __init__(self, path: Path):
        """Opens the file, making it when it is not there. UserError when it is something else."""
        self.path = path
        self._lock = threading.RLock()
        try:
            make_private(path)
            self._db = sqlite3.connect(path, timeout=20, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            with self.transaction() as db:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    for statement in SCHEMA.strip().split(";\n"):
                        db.execute(statement)
                    db.execute("INSERT INTO meta VALUES ('secret', ?)", (secrets.token_hex(32),))
                    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path}: cannot be used as the file of votes ({error})") from None
        if version not in (0, SCHEMA_VERSION):
            raise UserError(f"{path}: version {version} of the file of votes; this program knows version {SCHEMA_VERSION}")
        self.secret: str = self._db.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0]

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing, on disk when the block is left."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # SQLite has rolled back by itself where the disk was full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # -- pairs and showings -------------------------------------------------------------------------------------

    def add_pairs(self, pairs: Iterable[ComparedPair]) -> None:
        rows = [(pair.key, json.dumps({"messages": pair.messages, "answers": [pair.first, pair.second]})) for pair in pairs]
        with self.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO pairs VALUES (?, ?)", rows)

    def pairs(self) -> dict[str, ComparedPair]:
        """Every pair that was ever to be compared here, by its key."""
        found = {}
        with self._lock:
            rows = self._db.execute("SELECT key, content FROM pairs ORDER BY rowid").fetchall()
        for key, text in rows:
            content = json.loads(text)
            found[key] = ComparedPair(key, content["messages"], *content["answers"])
        return found

    # -- votes --------------------------------------------------------------------------------------------------

    def cast(self, rater: str, key: str, showing: int, side: str, reason: str | None, seconds: float | None) -> None:
        """Take a vote on what was shown; returns once it is on disk. The same key again changes nothing.

        side: "left", "right", "tie", "both_bad" or "skip". Raises VoteError.
        """
        with self.transaction() as db:
            known = db.execute("SELECT v.showing, s.rater FROM votes v JOIN showings s ON s.id = v.showing WHERE v.key = ?", (key,)).fetchone()
            if known is not None:
                if known != (showing, rater):
                    raise VoteError(409, "this key was used for another vote")
                return
            shown = db.execute("SELECT rater, swapped FROM showings WHERE id = ?", (showing,)).fetchone()
            if shown is None or shown[0] != rater:
                raise VoteError(404, "this pair was never shown to you")
            if db.execute("SELECT 1 FROM votes WHERE showing = ? AND undone = 0", (showing,)).fetchone():
                raise VoteError(409, "this pair has your vote already, given in another window")
            choice = side if side not in ("left", "right") else "first" if (side == "left") != bool(shown[1]) else "second"
            self._insert(db, key, showing, choice, reason, seconds, utc_now())

    def undo(self, rater: str, key: str) -> None:
        """Take a vote back and show its pair again. Doing it twice changes nothing. VoteError when it is not the rater's."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT v.showing, v.undone FROM votes v JOIN showings s ON s.id = v.showing WHERE v.key = ? AND s.rater = ?", (key, rater)
            ).fetchone()
            if row is None:
                raise VoteError(404, "there is no such vote of yours")
            if not row[1]:
                db.execute("UPDATE votes SET undone = 1 WHERE key = ?", (key,))
                db.execute("UPDATE showings SET opened_s = ? WHERE id = ?", (time.time(), row[0]))

    def take_back_skips(self, rater: str) -> None:
        """Show the rater again what they skipped: otherwise a pair that everybody skipped would keep a run waiting for ever."""
        with self.transaction() as db:
            of_rater = "undone = 0 AND choice = 'skip' AND showing IN (SELECT id FROM showings WHERE rater = ?)"
            db.execute(f"UPDATE showings SET opened_s = ? WHERE id IN (SELECT showing FROM votes WHERE {of_rater})", (time.time(), rater))
            db.execute(f"UPDATE votes SET undone = 1 WHERE {of_rater}", (rater,))

    def add_votes(self, votes: Iterable[Vote]) -> Counter[str]:
        """Take votes from a file, all or none: how many were "added", "known" (the same vote again) and in "conflict" (the
        rater has another vote on that pair, or the key is another vote's; what is here stays)."""
        counts: Counter[str] = Counter()
        with self.transaction() as db:
            for vote in votes:
                counts[self._add(db, vote)] += 1
        return counts

    def _add(self, db: sqlite3.Connection, vote: Vote) -> str:
        known = db.execute("SELECT s.rater, s.pair, v.choice FROM votes v JOIN showings s ON s.id = v.showing WHERE v.key = ?", (vote.key,)).fetchone()
        if known is not None:
            return "known" if known == (vote.rater, vote.pair, vote.choice) else "conflict"
        row = db.execute("SELECT id FROM showings WHERE rater = ? AND pair = ? AND repeated = ?", (vote.rater, vote.pair, vote.repeated)).fetchone()
        if row is None:
            new = (vote.rater, vote.pair, vote.repeated, vote.swapped)
            row = (db.execute("INSERT INTO showings (rater, pair, repeated, swapped, opened_s) VALUES (?, ?, ?, ?, 0)", new).lastrowid,)
        elif db.execute("SELECT 1 FROM votes WHERE showing = ? AND undone = 0", row).fetchone():
            return "conflict"
        self._insert(db, vote.key, row[0], vote.choice, vote.reason, vote.seconds, vote.cast_at)
        return "added"

    @staticmethod
    def _insert(db: sqlite3.Connection, key: str, showing: int, choice: str, reason: str | None, seconds: float | None, cast_at: str) -> None:
        db.execute(
            "INSERT INTO votes (key, showing, choice, reason, seconds, cast_at) VALUES (?, ?, ?, ?, ?, ?)", (key, showing, choice, reason, seconds, cast_at)
        )

    def votes(self) -> list[Vote]:
        """The votes that count, in the order they were cast."""
        with self._lock:
            rows = self._db.execute(
                "SELECT v.key, s.pair, s.rater, v.choice, v.reason, s.repeated, s.swapped, v.seconds, v.cast_at "
                "FROM votes v JOIN showings s ON s.id = v.showing WHERE v.undone = 0 ORDER BY v.number"
            ).fetchall()
        return [
            Vote(key, pair, rater, choice, reason, bool(repeated), None if swapped is None else bool(swapped), seconds, cast_at)
            for key, pair, rater, choice, reason, repeated, swapped, seconds, cast_at in rows
            if choice != "skip"
        ]

    def left_out(self) -> dict[str, int]:
        """How many votes `votes()` leaves out, by why."""
        with self._lock:
            skipped, undone = self._db.execute("SELECT COALESCE(SUM(undone = 0 AND choice = 'skip'), 0), COALESCE(SUM(undone), 0) FROM votes").fetchone()
        return {"skipped": skipped, "undone": undone}


def read_votes(path: Path) -> list[Vote]:
    """The votes of a file that need not be there yet."""
    if not path.exists():
        return []
    store = VoteStore(path)
    try:
        return store.votes()
    finally:
        store.close()


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
