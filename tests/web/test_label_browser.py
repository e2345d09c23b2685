"""The label page in a real Chromium, where one is installed: keys, undo, text that is not markup, a server that goes away."""

from __future__ import annotations

import http.server
import sqlite3
import threading

import pytest

from fromnoise.data.votes import FILE

from .browser import Browser, installed
from .pages import Server, make_run

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(installed() is None, reason="no Chromium is installed")

EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"><b id=bold>bold</b>"
READY = "!document.getElementById('pair').hidden && !document.querySelector('[data-choice=left]').disabled"
QUESTION = "document.getElementById('prompt').innerText"


def votes(run, what: str = "v.choice, s.swapped") -> list[tuple]:
    db = sqlite3.connect(run / FILE)
    try:
        return db.execute(f"SELECT {what} FROM votes v JOIN showings s ON s.id = v.showing WHERE v.undone = 0 ORDER BY v.number").fetchall()
    finally:
        db.close()


def side(choice: str, swapped: int) -> str:
    return choice if choice not in ("first", "second") else "left" if (choice == "first") != bool(swapped) else "right"


def press(page: Browser, key: str) -> None:
    """Press a key and wait until the next pair is there."""
    before = page.js(QUESTION)
    page.key(key)
    page.until(f"{READY} && {QUESTION} !== {before!r}")


def test_a_rater_with_a_keyboard(tmp_path):
    run = make_run(tmp_path / "run", texts=[(f"Question {n}? {EVIL}", f"{n} one {EVIL}", f"{n} two\n{EVIL}") for n in range(30)])
    with Server(run, "--repeat-frac", "0") as server, Browser(tmp_path / "profile") as page:
        page.go(f"http://127.0.0.1:{server.port}/")
        page.until("!document.getElementById('enter').hidden")
        page.js("document.getElementById('name').focus()")
        page.type("Ann  Lee")
        page.key("Enter")
        page.until(READY)
        check_text_is_text(page)
        for key in ("ArrowLeft", "ArrowRight", "1", "2", "t", "b", "s"):
            press(page, key)
        assert [side(*vote) for vote in votes(run)] == ["left", "right", "left", "right", "tie", "both_bad", "skip"]
        assert votes(run, "DISTINCT s.rater") == [("Ann Lee",)]
        check_undo_and_reason(page, run)
        check_the_server_may_go_away(page, run, server)
        assert page.js("document.getElementById('count').innerText") == f"{len([v for v in votes(run) if v[0] != 'skip'])} of 30 pairs"


def check_text_is_text(page: Browser) -> None:
    assert "<script>" in page.js("document.querySelector('#left .text').innerText") and "<script>" in page.js(QUESTION)
    assert page.js("document.querySelectorAll('main script, main img, #bold').length") == 0 and page.js("document.title") == "Which answer is better?"
    assert page.errors == []  # no refused load either: nothing was tried
    page.js("const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s); 0")
    assert page.js("document.title") == "Which answer is better?" and "Content Security Policy" in str(page.errors)  # the second lock holds as well
    page.errors.clear()


def check_undo_and_reason(page: Browser, run) -> None:
    count = len(votes(run))
    question = page.js(QUESTION)
    press(page, "t")
    press(page, "u")
    assert page.js(QUESTION) == question and len(votes(run)) == count
    page.key("r")
    page.type("t is a letter here, and 1 a digit")
    page.key("t")
    page.key("Enter")
    press(page, "1")
    assert votes(run, "v.choice, s.swapped, v.reason")[-1][2] == "t is a letter here, and 1 a digitt" and len(votes(run)) == count + 1


def check_the_server_may_go_away(page: Browser, run, server: Server) -> None:
    """A vote given while the server is dead survives a reload of the page, and is sent, once, when the server is back."""
    count = len(votes(run))
    server.kill()
    page.key("ArrowRight")
    page.until("document.getElementById('notice').innerText.includes('kept in this browser')")
    assert page.js("Object.keys(localStorage).length") == 1
    page.key("ArrowRight")  # nothing can be chosen meanwhile
    page.js("document.body.dataset.old = 1")
    server.start()
    page.go(f"http://127.0.0.1:{server.port}/#rater=Ann%20Lee")  # the window was closed and opened again
    page.until(f"!document.body.dataset.old && {READY}")
    assert len(votes(run)) == count + 1 and side(*votes(run)[-1]) == "right" and page.js("Object.keys(localStorage).length") == 0
    server.kill()
    page.key("ArrowLeft")
    page.until("document.getElementById('notice').innerText.includes('kept in this browser')")
    server.start()
    page.until(READY)  # it goes on by itself
    assert len(votes(run)) == count + 2 and side(*votes(run)[-1]) == "left"


class NotOurs(http.server.BaseHTTPRequestHandler):
    """What a proxy answers while the server behind it starts again."""

    def do_POST(self):
        self.send_error(404)

    def log_message(self, *arguments):
        pass


def test_a_vote_is_kept_where_somebody_else_answers(tmp_path):
    run = make_run(tmp_path / "run")
    with Server(run) as server, Browser(tmp_path / "profile") as page:
        page.go(f"http://127.0.0.1:{server.port}/#rater=ann")
        page.until(READY)
        server.kill()
        with http.server.ThreadingHTTPServer(("127.0.0.1", server.port), NotOurs) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            page.key("1")
            page.until("document.getElementById('notice').innerText.includes('kept in this browser')")
            other.shutdown()
        server.start()
        page.until(READY)
        assert [side(*vote) for vote in votes(run)] == ["left"]


def test_a_kept_vote_is_never_sent_to_another_run(tmp_path):
    texts = [(f"Question {n}?", "one", "two") for n in range(5)]
    first, second = make_run(tmp_path / "first", texts=texts), make_run(tmp_path / "second", texts=texts)
    with Server(first) as server, Browser(tmp_path / "profile") as page:
        address = f"http://127.0.0.1:{server.port}/#rater=ann"
        page.go(address)
        page.until(READY)
        server.kill()
        page.key("1")
        page.until("document.getElementById('notice').innerText.includes('kept in this browser')")
        server.run = second
        server.start()
        page.go(address)
        page.until(READY)
        press(page, "t")
        assert [vote[0] for vote in votes(second)] == ["tie"] and votes(first) == []
        server.kill()
        server.run = first
        server.start()
        page.go(address)
        page.until(READY)
        assert [side(*vote) for vote in votes(first)] == ["left"] and page.js("Object.keys(localStorage).length") == 0


def test_a_keyboard_of_another_script(tmp_path):
    """What a Russian keyboard writes where a Latin one has t is no t, and nothing happened."""
    run = make_run(tmp_path / "run")
    with Server(run, "--repeat-frac", "0") as server, Browser(tmp_path / "profile") as page:
        page.go(f"http://127.0.0.1:{server.port}/#rater=Анна")
        page.until(READY)
        for name, place in (("е", "KeyT"), ("И", "KeyB"), ("б", "Comma"), ("ы", "KeyS")):
            before = page.js(QUESTION)
            page.key(name, place)
            if place != "Comma":
                page.until(f"{READY} && {QUESTION} !== {before!r}")
        assert [vote[0] for vote in votes(run)] == ["tie", "both_bad", "skip"]


def test_a_network_that_comes_back_leaves_what_is_shown(tmp_path):
    """A phone that changed its network lost the reason that its rater was writing, and the page that asks for a name complained of none."""
    run, online = make_run(tmp_path / "run"), "dispatchEvent(new Event('online')); new Promise((go) => setTimeout(go, 1000))"
    with Server(run) as server, Browser(tmp_path / "profile") as page:
        page.go(f"http://127.0.0.1:{server.port}/")
        page.js(online)
        assert page.js("document.getElementById('enter-problem').innerText") == ""
        page.go(f"http://127.0.0.1:{server.port}/#rater=ann")
        page.until(READY)
        page.key("r")
        page.type("It is the only one that")
        page.js(online)
        assert page.js("document.getElementById('reason').value") == "It is the only one that" and page.js("!document.getElementById('why').hidden")


def test_a_phone_sized_screen_holds_the_page(tmp_path):
    long = "An answer that goes on for some time, with averyveryveryveryveryveryveryveryveryveryveryverylongwordinit. " * 12
    run = make_run(tmp_path / "run", texts=[("A question of some length, which takes two lines on a phone?", long, "Short.")])
    with Server(run) as server, Browser(tmp_path / "profile", (390, 844), touch=True) as page:
        page.go(f"http://127.0.0.1:{server.port}/#rater=ann")
        page.until(READY)
        assert page.js("document.documentElement.scrollWidth") <= 390
        boxes = page.js("[...document.querySelectorAll('#choices button')].map(b => b.getBoundingClientRect().toJSON())")
        assert all(box["height"] >= 44 and box["bottom"] <= 844 and box["left"] >= 0 and box["right"] <= 390 for box in boxes)  # always in reach
        page.js("document.querySelector('[data-choice=tie]').click()")
        page.until("!document.getElementById('done').hidden")
        assert votes(run)[0][0] == "tie" and page.errors == []
