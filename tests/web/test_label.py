"""The label page's application: who may ask, what is shown to whom, what becomes of a vote."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("starlette")

from fromnoise.cli import main
from fromnoise.data.preferences import read_preferences
from fromnoise.data.vote_files import export_rows, import_votes
from fromnoise.data.votes import FILE, Vote, VoteStore, compared_pair, rater_name
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.run.errors import UserError
from fromnoise.stages.label import Options, compared_of, pairs_of_run, print_welcome, take_file
from fromnoise.web.guard import Guard, own_names, token_for
from fromnoise.web.label import STATIC, create_app
from fromnoise.web.turns import REPEAT_GAP, Settings, Turns

from .pages import make_run

LOOPBACK = own_names("127.0.0.1")


def pairs(count: int):
    return [compared_pair([{"role": "user", "content": f"Question {n}?"}], [f"one {n}", f"two {n}"]) for n in range(count)]


@pytest.fixture
def store(tmp_path):
    opened = VoteStore(tmp_path / FILE)
    yield opened
    opened.close()


def settings(**changes) -> Settings:
    return Settings(**{"wanted": 10_000, "repeat_frac": 0.0, "shared_frac": 0.0, **changes})


class Client:
    """Requests straight into the application, headers and all. cut: the connection ends before the body does."""

    def __init__(self, app):
        self.app = app

    def ask(self, path: str, body=None, method: str | None = None, raw: bytes | None = None, cut: bool = False, **headers: str) -> tuple[int, dict | str, dict]:
        method = method or ("GET" if body is None and raw is None else "POST")
        named = {"host": "127.0.0.1:8700", **({"content-type": "application/json"} if method == "POST" else {})}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path, "raw_path": path.encode(),
                 "root_path": "", "query_string": b"", "headers": [(name.encode(), value.encode()) for name, value in named.items() if value is not None],
                 "server": ("127.0.0.1", 8700), "client": ("127.0.0.1", 1)}  # fmt: skip
        sent: list[dict] = []
        incoming = [{"type": "http.request", "body": raw if raw is not None else json.dumps(body).encode(), "more_body": cut}]

        async def receive():
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
        return sent[0]["status"], json.loads(text) if "json" in found.get("content-type", "") else text, found

    def state(self, rater: str) -> dict:
        return self.ask("/api/state", {"rater": rater})[1]

    def vote(self, rater: str, key: str, showing: int, choice: str, **more) -> tuple[int, dict]:
        return self.ask("/api/vote", {"rater": rater, "key": key, "showing": showing, "choice": choice, **more})[:2]


def client(store: VoteStore, count: int = 12, *, app: dict | None = None, **changes) -> Client:
    return Client(create_app(Turns(store, pairs(count), settings(**changes)), **{"names": LOOPBACK, "need_token": False, **(app or {})}))


# -- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8700", "127.0.0.1.evil.example", "10.0.0.7", "localhost.evil.example:8700", "", "[::2]:8700"])
def test_a_foreign_name_is_refused(store, host):
    """DNS rebinding: the browser says whose page it believes to be asking."""
    page = client(store)
    for path, body in (("/", None), ("/api/state", {"rater": "ann"})):
        assert page.ask(path, body, host=host)[0] == 421
    assert Client(Guard(page.app, names=LOOPBACK | {host}, any_address=False).app).ask("/", host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:8700", "[::1]"])
def test_our_own_names_are_not(store, host):
    assert client(store).ask("/", host=host)[0] == 200


def test_beyond_loopback_addresses_and_given_names_are_ours(store):
    page = client(store, app={"names": own_names("0.0.0.0", ["label.example.org"]), "any_address": True})
    assert [page.ask("/", host=host)[0] for host in ("192.0.2.7:8700", "label.example.org", "evil.example")] == [200, 200, 421]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8700", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"content_type": "text/plain"}, 415),  # what a foreign page may send without being asked first
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": None}, 415),
    ],
)
def test_a_post_from_another_site_is_refused(store, headers, status):
    page = client(store)
    showing = page.state("ann")["showing"]["id"]
    body = {"rater": "ann", "key": "a-key-0001", "showing": showing, "choice": "left"}
    assert page.ask("/api/vote", body, **headers)[0] == status
    assert len(store.votes()) == (status == 200)


@pytest.mark.parametrize(("host", "origin", "status"), [
    ("127.0.0.1:8700", "https://label.example.org", 200), ("label.example.org", "https://label.example.org", 200),
    ("127.0.0.1:8700", "https://evil.example", 403), ("label.example.org", "http://127.0.0.1:8700", 403), ("127.0.0.1:8700", "http://localhost:9", 403),
])  # fmt: skip
def test_a_proxy_may_put_its_own_target_in_the_host_header(store, host, origin, status):
    page = client(store, app={"names": LOOPBACK | {"label.example.org"}})
    assert page.ask("/api/state", {"rater": "ann"}, host=host, origin=origin)[0] == status


def test_links_behind_a_proxy_are_the_proxys(store, capsys):
    def links(host, *public_names):
        options = Options(host, 8700, ("ann",), "random", None, 0.0, 0.0, 1, public_names)
        print_welcome(store, options, ("ann",), bool(public_names), 8700, 5, False)
        return [line.strip().partition("#")[0] for line in capsys.readouterr().out.splitlines() if "#" in line]

    assert links("127.0.0.1", "label.example.org") == ["ann: https://label.example.org/"]
    assert links("0.0.0.0", "label.example.org") == ["ann: http://label.example.org:8700/"] and links("127.0.0.1") == ["ann: http://127.0.0.1:8700/"]


def test_tokens_are_each_raters_own(store):
    page = client(store, app={"need_token": True, "raters": ("ann", "ben")})
    ann, ben, eve = (token_for(store.secret, name) for name in ("ann", "ben", "eve"))
    for token in (None, "", "Bearer", f"Bearer {ben}", f"Bearer {ann}x", f"Bearer {ann[:-1]}", f"Basic {ann}", "Bearer ä"):
        assert page.ask("/api/state", {"rater": "ann"}, authorization=token)[0] == 401, token
    assert page.ask("/api/state", {"rater": "ann"}, authorization=f"Bearer {ann}")[0] == 200
    assert page.ask("/api/state", {"rater": "eve"}, authorization=f"Bearer {eve}")[0] == 403  # made with the secret, but not invited
    showing = page.ask("/api/state", {"rater": "ann"}, authorization=f"Bearer {ann}")[1]["showing"]["id"]
    body = {"rater": "ben", "key": "a-key-0001", "showing": showing, "choice": "left"}
    assert page.ask("/api/vote", body, authorization=f"Bearer {ben}")[0] == 404 and store.votes() == []  # nobody votes on another's showing
    for path in ("/api/vote", "/api/undo", "/api/unskip"):
        assert page.ask(path, {**body, "rater": "ann"})[0] == 401


@pytest.mark.parametrize("options", [("--host", "0.0.0.0"), ("--public-name", "label.example.org")])  # a proxy in front is beyond loopback, too
def test_beyond_loopback_raters_must_be_named(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as left:
        main(["label", str(make_run(tmp_path)), *options])
    assert left.value.code == 2 and "--rater" in capsys.readouterr().err


def test_every_answer_carries_the_security_headers(store):
    page = client(store)
    for status, answer in ((200, page.ask("/")), (200, page.ask("/static/label.js")), (421, page.ask("/", host="evil")), (404, page.ask("/nothing"))):
        assert answer[0] == status
        assert "default-src 'none'" in answer[2]["content-security-policy"] and "unsafe" not in answer[2]["content-security-policy"]
        assert answer[2]["x-content-type-options"] == "nosniff" and answer[2]["referrer-policy"] == "no-referrer"


def test_the_page_writes_text_never_markup():
    """What a browser does with it is tested in one, where there is one; here: nothing in the page can make markup of text."""
    script, page = (STATIC / "label.js").read_text(), (STATIC / "label.html").read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "createContextualFragment", "srcdoc"):
        assert word not in script
    assert "://" not in page + script + (STATIC / "label.css").read_text()  # nothing comes from elsewhere
    assert "<script>" not in page and " on" not in page.replace(" only", "").replace(" one", "").partition("<body>")[0] and "style=" not in page


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"rater": 3}', b'{"rater": ""}', b'{"rater": "\\u0000"}', b'{"rater": "' + b"a" * 41 + b'"}', b"[" * 30_000]
)
def test_what_is_no_request_is_refused(store, raw):
    status, answer, _ = client(store).ask("/api/state", raw=raw)
    assert 400 <= status < 500 and answer["error"]


def test_a_body_that_is_too_large_is_refused(store):
    assert client(store).ask("/api/state", raw=b"x" * 40_000)[0] == 413


def test_a_client_that_leaves_in_the_middle_is_no_error(store):
    assert client(store).ask("/api/state", raw=b'{"rater"', cut=True)[:2] == (400, "")


@pytest.mark.parametrize(
    "change",
    [{"choice": "first"}, {"choice": None}, {"key": "short"}, {"key": "x" * 81}, {"key": 12345678}, {"showing": "1"}, {"showing": True}, {"showing": 2**70},
     {"reason": 3}, {"reason": "x" * 2001}, {"seconds": -1}, {"seconds": "2"}, {"seconds": float("nan")}],
    ids=repr,
)  # fmt: skip
def test_a_malformed_vote_is_refused(store, change):
    page = client(store)
    body = {"rater": "ann", "key": "a-key-0001", "showing": page.state("ann")["showing"]["id"], "choice": "left"}
    assert page.ask("/api/vote", {**body, **change})[0] == 422 and store.votes() == []


def test_an_answer_reads_as_what_it_is(store):
    """A direction mark turned the words behind it round: raters judged others than the answer holds."""
    pair = compared_pair([{"role": "user", "content": "Is it\x07?"}], ["It is \u202eton\u202c.\r\nSo it is.", "two"])
    showing = Turns(store, [pair], settings(wanted=1)).state("ann")["showing"]
    assert showing["messages"] == [{"role": "user", "content": "Is it␇?"}]
    assert {showing["left"], showing["right"]} == {"It is \ufffdton\ufffd.\nSo it is.", "two"}


# -- what becomes of a vote -------------------------------------------------------------------------------------------


def test_left_and_right_mean_what_was_shown(store):
    page = client(store, 40)
    for number in range(40):
        showing = page.state("ann")["showing"]
        assert page.vote("ann", f"a-key-{number:04d}", showing["id"], "left" if number % 2 else "right", reason=f" because {number} ", seconds=1.5)[0] == 200
        vote = store.votes()[-1]
        pair = store.pairs()[vote.pair]
        assert {"first": pair.first, "second": pair.second}[vote.choice] == showing["left" if number % 2 else "right"]
        assert (vote.reason, vote.seconds) == (f"because {number}", 1.5)
    sides = [vote.swapped for vote in store.votes()]
    assert 8 < sum(sides) < 32  # a coin for each pair
    assert page.state("ann")["showing"] is None


def test_the_order_differs_between_raters_and_holds_for_one(store):
    """Same pairs, same secret: another rater has other sides; asking again, or a new server, changes nothing."""
    made = pairs(60)
    turns = Turns(store, made, settings(shared_frac=1.0, raters_per_shared_pair=2))
    sides = {}
    for rater in ("ann", "ben"):
        for number in range(60):
            showing = turns.state(rater)["showing"]
            assert Turns(store, made, settings(shared_frac=1.0)).state(rater)["showing"] == showing
            sides[rater, showing["messages"][0]["content"]] = showing["left"].startswith("one")
            store.cast(rater, f"{rater}-{number:05d}", showing["id"], "tie", None, None)
    same = [sides["ann", f"Question {n}?"] == sides["ben", f"Question {n}?"] for n in range(60)]
    assert 12 < sum(same) < 48


def test_a_vote_sent_again_counts_once(store):
    page = client(store)
    showing = page.state("ann")["showing"]["id"]
    first, again = page.vote("ann", "a-key-0001", showing, "left"), page.vote("ann", "a-key-0001", showing, "left")
    assert first == again and first[0] == 200 and len(store.votes()) == 1
    assert page.vote("ann", "a-key-0002", showing, "right")[0] == 409  # another window of the same rater
    assert page.vote("ben", "a-key-0001", page.state("ben")["showing"]["id"], "right")[0] == 409  # another's key
    assert page.vote("ann", "a-key-0003", 10_000, "right")[0] == 404 and len(store.votes()) == 1


def test_a_vote_meant_for_another_run_is_refused(store, tmp_path):
    """The page keeps a vote, the server stops, and another run is served at the same address."""
    other = VoteStore(tmp_path / "other.sqlite")
    page, elsewhere = client(store), client(other)
    state = page.state("ann")
    elsewhere.state("ann")
    assert elsewhere.vote("ann", "a-key-0001", state["showing"]["id"], "left", run=state["run"])[0] == 412 and other.votes() == []
    assert page.vote("ann", "a-key-0001", state["showing"]["id"], "left", run=state["run"])[0] == 200
    other.close()


def test_the_file_itself_refuses_a_second_vote_on_a_showing(store):
    """The broken twin of a server that forgets to ask: the database does not take it."""
    import sqlite3

    page = client(store)
    showing = page.state("ann")["showing"]["id"]
    page.vote("ann", "a-key-0001", showing, "left")
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as db:
        store._insert(db, "a-key-0002", showing, "first", None, None, "now")
    assert len(store.votes()) == 1


def test_undo_shows_the_pair_again_and_the_next_after_it(store):
    page = client(store)
    first = page.state("ann")["showing"]
    second = page.vote("ann", "a-key-0001", first["id"], "left")[1]
    assert second["undo"] == "a-key-0001" and second["showing"]["id"] != first["id"]
    for _ in range(2):  # undone twice (the answer was lost): the same
        status, undone, _ = page.ask("/api/undo", {"rater": "ann", "key": "a-key-0001"})
        assert status == 200 and undone["showing"] == first and undone["undo"] is None and undone["progress"]["labelled"] == 0
    assert page.vote("ann", "a-key-0001", first["id"], "left")[0] == 200 and store.votes() == []  # a late retry revives nothing
    after = page.vote("ann", "a-key-0002", first["id"], "right")[1]
    assert after["showing"] == second["showing"] and [vote.key for vote in store.votes()] == ["a-key-0002"]
    assert page.ask("/api/undo", {"rater": "ben", "key": "a-key-0002"})[0] == 404 and len(store.votes()) == 1  # not ben's to undo


def test_undo_stops_at_votes_on_pairs_that_could_not_be_shown_again(store):
    """Imported ones, or of an earlier sampling: taken back, there would be no place to give them again."""
    foreign = compared_pair([{"role": "user", "content": "Of another run?"}], ["yes", "no"])
    store.add_pairs([foreign])
    store.add_votes([Vote("a-key-elsewhere", foreign.key, "ann", "first", None, False, None, None, "2026-01-01T00:00:00Z")])
    page = client(store)
    state = page.state("ann")
    assert state["undo"] is None and state["progress"]["mine"] == 1
    assert page.vote("ann", "a-key-0001", state["showing"]["id"], "left")[1]["undo"] == "a-key-0001"
    assert page.ask("/api/undo", {"rater": "ann", "key": "a-key-0001"})[1]["undo"] is None
    assert [vote.key for vote in store.votes()] == ["a-key-elsewhere"]


def test_skipped_pairs_count_for_nothing_and_can_be_looked_at_again(store):
    page = client(store, 3)
    for number in range(3):
        state = page.vote("ann", f"a-key-{number:04d}", page.state("ann")["showing"]["id"], "skip" if number else "tie")[1]
    assert state["showing"] is None and state["progress"] == {"labelled": 1, "wanted": 10_000, "mine": 1, "skipped": 2}
    state = page.ask("/api/unskip", {"rater": "ann"})[1]
    assert state["showing"] is not None and state["progress"]["skipped"] == 0
    for number in range(2):
        state = page.vote("ann", f"b-key-{number:04d}", state["showing"]["id"], "left")[1]
    assert state["showing"] is None and state["progress"]["labelled"] == 3


# -- which pair comes next --------------------------------------------------------------------------------------------


def label_all(turns: Turns, raters: tuple[str, ...], rounds: int, choice: str = "left") -> None:
    for number in range(rounds):
        for rater in raters:
            showing = turns.state(rater)["showing"]
            if showing:
                turns.store.cast(rater, f"{rater}-{number:06d}", showing["id"], choice, None, None)


def test_some_pairs_come_again_with_their_sides_swapped(store):
    label_all(Turns(store, pairs(200), settings(repeat_frac=0.1)), ("ann",), 110)
    votes = store.votes()
    again = [at for at, vote in enumerate(votes) if vote.repeated]
    assert len(again) == 10 and len({votes[at].pair for at in again}) == 10
    for at in again:
        (before,) = [n for n, vote in enumerate(votes[:at]) if vote.pair == votes[at].pair]
        assert at - before > REPEAT_GAP and votes[before].swapped != votes[at].swapped
        assert votes[before].choice != votes[at].choice  # who always says "left" contradicts themselves, and it shows


def test_shared_pairs_are_judged_by_several_and_others_by_one(store):
    turns = Turns(store, pairs(100), settings(shared_frac=0.25, raters_per_shared_pair=3))
    label_all(turns, ("ann", "ben", "cat", "dan"), 45)
    raters: dict[str, set[str]] = {}
    for vote in store.votes():
        raters.setdefault(vote.pair, set()).add(vote.rater)
    assert len(raters) == 100 and 12 < len(turns.shared) < 38
    assert all(len(found) == (3 if key in turns.shared else 1) for key, found in raters.items())


def test_at_once_everybody_gets_a_pair_of_their_own_until_none_is_left(store):
    turns = Turns(store, pairs(20), settings())
    open_now = [turns.state(f"rater {n}")["showing"] for n in range(25)]
    questions = [showing["messages"][0]["content"] for showing in open_now]
    assert len(set(questions[:20])) == 20
    assert all(question in questions[:20] for question in questions[20:])  # windows may be gone: nobody waits for them


def test_enough_is_enough(store):
    turns = Turns(store, pairs(50), settings(wanted=12))
    label_all(turns, ("ann", "ben"), 30)
    assert len(store.votes()) in (12, 13) and turns.state("ann")["showing"] is None and turns.state("new")["showing"] is None
    assert turns.state("ann")["progress"]["labelled"] >= 12


def test_the_least_sure_pairs_come_first(store):
    made = pairs(30)
    margins = {pair.key: (n * 7) % 30 / 10 for n, pair in enumerate(made) if n % 5}
    label_all(Turns(store, made, settings(), margins), ("ann",), 30)
    seen = [margins.get(vote.pair, float("inf")) for vote in store.votes()]
    assert seen == sorted(seen) and len(seen) == 30


def test_the_reward_model_says_where_it_is_least_sure(tmp_path):
    import torch

    from fromnoise.data.tokenizer import Tokenizer
    from fromnoise.model.heads import ScoreModel
    from fromnoise.model.hf import load_model, save_reward
    from fromnoise.stages.label import Options, margins_for, pairs_of_run
    from tests.stages import small_run

    run = small_run.make(tmp_path / "run")
    make_run(run.path, texts=[("What is 1 + 2?", "3", "It is 3."), ("What is 2 + 2?", "4 plums", "5"), ("x " * 80, "long", "longer")])
    scorer = ScoreModel(load_model(run.path / "sft"))
    with torch.no_grad():
        scorer.score.weight.copy_(torch.randn(scorer.score.weight.shape, generator=torch.Generator().manual_seed(0)))
    tokenizer = Tokenizer.load(run.path / "sft")
    save_reward(run.path / "reward", scorer, tokenizer)
    found = pairs_of_run(run.path)
    options = Options("127.0.0.1", 0, (), "auto", None, 0.1, 0.2, 2, ())
    margins = margins_for(run.path, small_run.recipe(), found, options)
    short = list(found)[:2]
    assert set(margins) == set(short)  # the third is longer than the model's context
    for key in short:
        ids, _ = tokenizer.encode_messages(found[key]["messages"], add_generation_prompt=True)
        whole = ([*ids, *tokenizer.encode_answer(answer["text"]), tokenizer.im_end_id] for answer in found[key]["answers"])
        one, two = (scorer(torch.tensor([token_ids]))[0, -1].item() for token_ids in whole)
        assert margins[key] == pytest.approx(abs(one - two), rel=1e-4)
    with torch.no_grad():
        scorer.score.weight.mul_(-3.0)
    save_reward(run.path / "reward" / "member-2", scorer, tokenizer)  # of opposite mind, and surer: their mean has the first one's margins
    assert margins_for(run.path, small_run.recipe(), found, options) == pytest.approx(margins, rel=1e-4)
    with torch.no_grad():
        scorer.score.weight.mul_(1 / 3)
    save_reward(run.path / "reward" / "member-2", scorer, tokenizer)
    assert margins_for(run.path, small_run.recipe(), found, options) == pytest.approx(dict.fromkeys(short, 0.0), abs=1e-5)  # they cancel
    with pytest.raises(UserError, match="no reward model"):
        margins_for(run.path, small_run.recipe(), found, Options("127.0.0.1", 0, (), "unsure", tmp_path, 0.1, 0.2, 2, ()))


# -- files ------------------------------------------------------------------------------------------------------------


def test_export_and_import_keep_everything(store, tmp_path):
    turns = Turns(store, pairs(30), settings(repeat_frac=0.2, shared_frac=0.5))
    for number in range(25):
        for rater in ("ann", "Bénédicte O'Neill"):
            showing = turns.state(rater)["showing"]
            if showing:
                choice = ("left", "right", "tie", "both_bad", "skip")[number % 5]
                store.cast(rater, f"{rater[-3:]}-{number:05d}", showing["id"], choice, "It says <b>why</b>." if number % 3 else None, 1.25)
    store.undo("ann", "ann-00001")
    write_jsonl(tmp_path / "votes.jsonl", export_rows(store.pairs(), store.votes()))
    other = VoteStore(tmp_path / "other.sqlite")
    bad: list = []
    counts = import_votes(other, tmp_path / "votes.jsonl", bad.append)
    assert bad == [] and counts == {"added": len(store.votes())} and other.votes() == store.votes()
    assert import_votes(other, tmp_path / "votes.jsonl", bad.append) == {"known": len(store.votes())} and other.votes() == store.votes()
    assert export_rows(other.pairs(), other.votes()) == read_jsonl(tmp_path / "votes.jsonl")
    assert {vote.choice for vote in other.votes()} == {"first", "second", "tie", "both_bad"} and any(vote.repeated for vote in other.votes())
    other.close()
    spelled = [{**row, **{name: str(row[name]).lower() for name in ("tie", "both_bad", "repeated")}} for row in read_jsonl(tmp_path / "votes.jsonl")]
    write_jsonl(tmp_path / "spelled.jsonl", spelled)  # as after a way through columns of text
    third = VoteStore(tmp_path / "third.sqlite")
    import_votes(third, tmp_path / "spelled.jsonl", bad.append)
    assert bad == [] and third.votes() == store.votes()
    third.close()
    read = read_preferences(tmp_path / "votes.jsonl", bad.append)  # the form that other runs, and other trainers, take
    assert bad == [] and len(read) == len(store.votes()) and {pair.rater for pair in read} == {"ann", "Bénédicte O'Neill"}
    for pair, vote in zip(read, store.votes(), strict=True):
        compared = store.pairs()[vote.pair]
        assert pair.tie == (vote.choice in ("tie", "both_bad"))
        assert pair.tie or pair.chosen == (compared.first if vote.choice == "first" else compared.second)
    assert sum(pair.weight for pair in read) == pytest.approx(len({vote.pair for vote in store.votes()}))


def test_votes_of_other_forms_and_what_is_none(store, tmp_path):
    lines = [
        {"instruction": "Say a.", "input": "", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 2, "annotator3": 0},
        {"prompt": "Say c.", "chosen": "c", "rejected": "d"},
        {"prompt": "Say c.", "chosen": "d", "rejected": "c"},
        {"prompt": "Say c.", "chosen": "c", "rejected": "d"},
        {"vote": "x" * 90, "prompt": [], "chosen": [], "rejected": []},
        {"vote": "a-key-0001", "prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"},
        {"nothing": 1},
    ]
    write_jsonl(tmp_path / "other.jsonl", lines)
    bad: list = []
    assert import_votes(store, tmp_path / "other.jsonl", bad.append) == {"added": 6}
    assert [record.line for record in bad] == [5, 6, 7] and all(record.reason for record in bad)
    assert [(vote.rater, vote.choice, vote.repeated) for vote in store.votes()] == [
        ("annotator1", "first", False), ("annotator2", "second", False), ("annotator3", "tie", False),
        ("other.jsonl", "first", False), ("other.jsonl (2)", "second", False), ("other.jsonl (3)", "first", False),
    ]  # fmt: skip
    assert import_votes(store, tmp_path / "other.jsonl", bad.append) == {"known": 6}
    write_jsonl(tmp_path / "none.jsonl", lines[-1:])
    with pytest.raises(UserError, match=r"no vote found in it\. Most often: no pair of answers: keys \['nothing'\] \(first at .*none\.jsonl:1\)\. Give"):
        import_votes(store, tmp_path / "none.jsonl", bad.append)


def test_what_an_import_sets_aside_is_said_with_its_place_and_counted(store, tmp_path, capsys):
    """A README was "line None", and it and a repaired line were counted as records that are no votes."""
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes/README.md").write_text("Votes.")
    (tmp_path / "votes/a.csv").write_bytes(b"prompt,chosen,rejected\nSay c.,caf\xe9,d\nSay e.,e,e\n")
    take_file(store, tmp_path / "no run", tmp_path / "votes")
    said = capsys.readouterr()
    assert "1 votes taken" in said.out and "1 records set aside as no votes" in said.out
    assert f"{tmp_path}/votes/README.md: a text file holds no records" in said.err and f"{tmp_path}/votes/a.csv:3: the two answers are the same" in said.err


def test_the_command_exports_imports_and_measures(tmp_path, capsys):
    run = make_run(tmp_path / "run", 8)
    store = VoteStore(run / FILE)
    label_all(Turns(store, [compared_of(pair) for pair in pairs_of_run(run).values()], settings(shared_frac=1.0)), ("ann", "ben"), 8)
    store.close()
    main_quietly("label", str(run), "--export", str(tmp_path / "votes.jsonl"), "--agreement")
    out = capsys.readouterr().out
    assert "16 votes on 8 pairs written" in out and "ann and ben:" in out and "Krippendorff's alpha" in out
    main_quietly("label", str(make_run(tmp_path / "again", 8)), "--import", str(tmp_path / "votes.jsonl"))
    assert "16 votes taken" in capsys.readouterr().out
    main_quietly("label", str(make_run(tmp_path / "smaller", 5)), "--import", str(tmp_path / "votes.jsonl"))
    assert "3 pairs with votes are not among this run's 5" in capsys.readouterr().out
    (tmp_path / "votes.jsonl").rename(tmp_path / "my votes.jsonl")
    main_quietly("label", str(make_run(tmp_path / "spaced", 5)), "--import", str(tmp_path / "my votes.jsonl"))
    assert f"set 'data.preferences={tmp_path}/my votes.jsonl'\n" in capsys.readouterr().out


def test_a_full_disk_is_said_and_takes_no_vote(tmp_path, capsys, monkeypatch):
    class Full(VoteStore):
        def __init__(self, path):
            super().__init__(path)
            (pages,) = self._db.execute("PRAGMA page_count").fetchone()
            self._db.execute(f"PRAGMA max_page_count={pages}")

    run = make_run(tmp_path / "run", texts=[("Why?", "a" * 9_000, "b" * 9_000)])
    write_jsonl(tmp_path / "votes.jsonl", [{"prompt": "Why?", "chosen": "a" * 9_000, "rejected": "b" * 9_000}])
    monkeypatch.setattr("fromnoise.stages.label.VoteStore", Full)
    for options in (["--import", str(tmp_path / "votes.jsonl")], ["--port", "0"]):
        with pytest.raises(SystemExit) as left:
            main(["label", str(run), *options])
        said = capsys.readouterr().err
        assert left.value.code == 2 and f"{run / FILE}: database or disk is full" in said and said.count("\n") == 1
    store = VoteStore(run / FILE)
    assert store.votes() == [] and store.pairs() == {}
    store.close()


def test_a_folder_is_no_file_to_export_to(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["label", str(make_run(tmp_path / "run", 8)), "--export", str(tmp_path)])
    assert left.value.code == 2 and "cannot be written (Is a directory); give the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-shm", f"../run/{FILE}", "link"])
def test_an_export_does_not_take_the_place_of_the_votes(tmp_path, capsys, name):
    run = make_run(tmp_path / "run", 8)
    main_quietly("label", str(run), "--agreement")
    (run / "link").symlink_to(run / FILE)
    votes = (run / FILE).read_bytes()
    with pytest.raises(SystemExit) as left:
        main(["label", str(run), "--export", str(run / name)])
    assert left.value.code == 2 and f"--export {run / name}: the votes themselves are kept there" in capsys.readouterr().err
    assert (run / FILE).read_bytes() == votes and (run / "link").is_symlink()


def main_quietly(*arguments: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert left.value.code in (0, None)


def test_a_run_without_pairs_says_how_to_make_them(tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text('name = "x"\n')
    with pytest.raises(SystemExit) as left:
        main(["label", str(tmp_path)])
    assert left.value.code == 2 and "prefer.raters=people" in capsys.readouterr().err
    spaced = tmp_path / "my run"
    spaced.mkdir()
    with pytest.raises(UserError, match=f"`fromnoise prefer '{spaced}' prefer.raters=people`"):
        pairs_of_run(spaced)


def test_unnamed_raters_are_called_the_same_whatever_is_imported_beside_their_file(store, tmp_path):
    """A file imported with its folder and then by itself was counted twice."""
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / "votes" / name, [{"prompt": "Say c.", "chosen": "c", "rejected": "d"}])
    assert import_votes(store, tmp_path / "votes", pytest.fail) == {"added": 2}
    assert [vote.rater for vote in store.votes()] == ["a.jsonl", "b.jsonl"]
    assert import_votes(store, tmp_path / "votes" / "b.jsonl", pytest.fail) == {"known": 1}


def test_another_file_in_its_place_is_refused(tmp_path):
    (tmp_path / FILE).write_text("this is no database, though it is long enough to look like a file of some kind" * 20)
    with pytest.raises(UserError, match="cannot be used as the file of votes"):
        VoteStore(tmp_path / FILE)


def test_names_have_one_spelling():
    assert rater_name("  Zoe\u0308   B ") == "Zoë B"
    for name in ("علی\u200cرضا", "शर्\u200dमा"):  # joiners print nothing and are part of the spelling
        assert rater_name(name) == name
    for name in ("", "  ", "\u200c\u200d", "a" * 41, "a\x00b", "a\u202eb", "\ud800", None, 3):
        with pytest.raises(UserError):
            rater_name(name)
