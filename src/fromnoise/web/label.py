"""The page where people compare pairs of answers: an ASGI application of one page and four calls.

    GET  /                                              the page; its script and style beside it
    POST /api/state  {rater}                            the open pair or the next one, and the progress
    POST /api/vote   {rater, key, showing, choice, reason, seconds}   a vote; then as /api/state
    POST /api/undo   {rater, key}                       takes the vote `key` back; then as /api/state
    POST /api/unskip {rater}                            opens what the rater skipped; then as /api/state

`choice` is left, right, tie, both_bad or skip. `key` is the sender's own name for the vote: sent twice, it counts once.
`run`, if given, must be the one that /api/state named: a page that kept a vote may find another run at the same address.
An answer with status 200 means that the vote is on disk. Where tokens are needed every call carries
`Authorization: Bearer TOKEN`, the rater's own. Texts of a model go out as JSON strings and become text nodes in the
page, never markup.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fromnoise.data.votes import MAX_KEY, MAX_REASON, VoteError, is_duration, is_key, rater_name, storable
from fromnoise.run.errors import UserError
from fromnoise.web.guard import MAX_BODY_BYTES, Guard, is_token
from fromnoise.web.turns import Turns

STATIC = Path(__file__).parent / "static"
SIDES = ("left", "right", "tie", "both_bad", "skip")


def create_app(turns: Turns, *, names: frozenset[str], need_token: bool, raters: Collection[str] = (), any_address: bool = False) -> Starlette:
    """raters: the only names that may vote; anybody may when empty (each still needs their token where tokens are needed).
    names, any_address: see `web.guard.Guard`."""
    calls = Calls(turns, need_token, frozenset(raters))
    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/state", calls.state, methods=["POST"]),
            Route("/api/vote", calls.vote, methods=["POST"]),
            Route("/api/undo", calls.undo, methods=["POST"]),
            Route("/api/unskip", calls.unskip, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, names=names, any_address=any_address)],
    )


async def page(request: Request) -> FileResponse:
    return FileResponse(STATIC / "label.html")


class Calls:
    """What the page can ask for. Each call acts, if it does, and answers with the rater's new state."""

    def __init__(self, turns: Turns, need_token: bool, raters: frozenset[str]):
        self.turns, self.store, self.need_token, self.raters = turns, turns.store, need_token, raters

    async def state(self, request: Request) -> Response:
        return await self._call(request, None)

    async def vote(self, request: Request) -> Response:
        return await self._call(request, self._cast)

    async def undo(self, request: Request) -> Response:
        return await self._call(request, lambda rater, body: self.store.undo(rater, vote_key(body)))

    async def unskip(self, request: Request) -> Response:
        return await self._call(request, lambda rater, body: self.store.take_back_skips(rater))

    async def _call(self, request: Request, act: Callable[[str, dict], None] | None) -> Response:
        try:
            body = await read_body(request)
            rater = rater_name(body.get("rater"))
            self._check(request, rater)
            if body.get("run") not in (None, self.turns.run_id):
                raise VoteError(412, "this was meant for another run, which was served here before")
            if act is not None:
                await run_in_threadpool(act, rater, body)  # returns after the commit
            return JSONResponse(await run_in_threadpool(self.turns.state, rater))
        except ClientDisconnect:  # nobody is left to read an answer, and nothing was done
            return Response(status_code=400)
        except VoteError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 422)
        except sqlite3.Error as error:  # locked by a backup, a full disk: the page keeps the vote and asks again
            return JSONResponse({"error": f"the vote could not be saved yet ({error})"}, 503)

    def _check(self, request: Request, rater: str) -> None:
        if self.need_token:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not is_token(token.strip(), self.store.secret, rater):
                raise VoteError(401, "the token in your link is missing, or not yours")
        if self.raters and rater not in self.raters:
            raise VoteError(403, f"{rater} is not among the raters of this page")

    def _cast(self, rater: str, body: dict) -> None:
        side = body.get("choice")
        if side not in SIDES:
            raise VoteError(422, f"choice {side!r} is none of {', '.join(SIDES)}")
        showing, reason, seconds = body.get("showing"), body.get("reason"), body.get("seconds")
        if not isinstance(showing, int) or isinstance(showing, bool) or not 0 < showing < 2**63:
            raise VoteError(422, "showing must be the number that came with the pair")
        if reason is not None and (not isinstance(reason, str) or len(reason) > MAX_REASON):
            raise VoteError(422, f"a reason is text of at most {MAX_REASON} characters")
        if seconds is not None and not is_duration(seconds):
            raise VoteError(422, "seconds must be a number that is not negative")
        reason = storable(reason or "").strip() or None
        self.store.cast(rater, vote_key(body), showing, side, reason, seconds)


def vote_key(body: dict) -> str:
    key = body.get("key")
    if not is_key(key):
        raise VoteError(422, f"key must be 8 to {MAX_KEY} printable characters that the sender made up for this vote")
    return key


async def read_body(request: Request) -> dict[str, Any]:
    """The request's JSON object, read no further than MAX_BODY_BYTES. Raises VoteError."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise VoteError(413, f"at most {MAX_BODY_BYTES} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise VoteError(400, "not JSON") from None
    if not isinstance(body, dict):
        raise VoteError(400, "not a JSON object")
    return body
