"""label: a page where people compare the answers that `prefer` sampled, two at a time.

Reads a run's `prefer/unlabelled.jsonl` (or `prefer/pairs.jsonl`, whose pairs people can judge again); votes go to
`labels.sqlite` in the run's folder. One process serves everybody; it can be stopped and started at any time, and the
run can go on meanwhile. Also here: the votes as a file, votes from a file, and how far the raters agree.
"""

from __future__ import annotations

import os
import shlex
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fromnoise.data.people import comparable, compared_of
from fromnoise.data.vote_files import export_rows, import_votes
from fromnoise.data.votes import FILE, VoteStore, rater_name
from fromnoise.evaluate.records import read_jsonl, write_jsonl
from fromnoise.run.errors import UserError, install
from fromnoise.run.recipe import Recipe
from fromnoise.run.recipe_load import load_recipe

if TYPE_CHECKING:
    from fromnoise.evaluate.intervals import Estimate

MAX_SHOWN_BAD = 5
MAX_ROW_TOKENS = 1024  # of the rows in which pairs are scored
ORDERS = ("auto", "unsure", "random")


@dataclass(frozen=True, slots=True)
class Options:
    host: str
    port: int
    raters: tuple[str, ...]  # the only ones who may vote; empty: anybody
    order: str
    reward: Path | None
    repeat_frac: float
    shared_frac: float
    raters_per_shared_pair: int
    public_names: tuple[str, ...]


def run(run_folder: Path, options: Options) -> None:
    """Serve the page until Ctrl-C."""
    uvicorn, guard, page, turns = serving()
    raters = tuple(dict.fromkeys(map(rater_name, options.raters)))
    beyond = not guard.is_loopback(options.host)
    need_token = beyond or bool(options.public_names)  # a public name on loopback means that a proxy lets others in
    if need_token and not raters:
        raise UserError("beyond this machine (--host, --public-name) every rater needs a link of their own: name them, --rater ann --rater ben")
    if options.order not in ORDERS:
        raise UserError(f"--order {options.order!r}: one of {', '.join(ORDERS)}")
    recipe = load_recipe(run_folder / "recipe.toml")
    pairs = pairs_of_run(run_folder)
    margins = margins_for(run_folder, recipe, pairs, options)
    wanted = min(recipe.prefer.num_labelled or len(pairs), len(pairs))
    settings = turns.Settings(wanted, options.repeat_frac, options.shared_frac, options.raters_per_shared_pair)
    with listen(options.host, options.port) as listening, open_votes(run_folder) as store:
        table = turns.Turns(store, [compared_of(pair) for pair in pairs.values()], settings, margins)
        app = page.create_app(table, names=guard.own_names(options.host, options.public_names), need_token=need_token, raters=raters,
                              any_address=beyond)  # fmt: skip
        print_welcome(store, options, raters, need_token, listening.getsockname()[1], wanted, bool(margins))
        config = uvicorn.Config(app, loop="asyncio", http="h11", ws="none", lifespan="off", log_level="warning", access_log=False, server_header=False)
        with suppress(KeyboardInterrupt):  # uvicorn has closed its connections; every vote that was acknowledged is on disk
            uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def open_votes(run_folder: Path) -> Iterator[VoteStore]:
    """The run's votes. UserError for what the database refuses meanwhile: a full disk, a file that another program keeps locked."""
    store = VoteStore(run_folder / FILE)
    try:
        yield store
    except sqlite3.Error as error:
        raise UserError(f"{store.path}: {error}; no vote was taken and none is lost, try again when that is mended") from None
    finally:
        store.close()


def serving():
    """(uvicorn, web.guard, web.label, web.turns), or UserError with how to install what they need."""
    try:
        import uvicorn

        from fromnoise.web import guard, label, turns
    except ImportError as error:
        raise UserError(f"the label page needs {error.name}, which is not installed; {install('starlette', 'uvicorn')}") from None
    return uvicorn, guard, label, turns


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --port or --host") from None


def pairs_of_run(run_folder: Path) -> dict[str, dict]:
    """{key: pair record} of what people can compare in this run."""
    folder = run_folder / "prefer"
    path = folder / "unlabelled.jsonl" if (folder / "unlabelled.jsonl").exists() else folder / "pairs.jsonl"
    found = comparable(read_jsonl(path), Counter())
    if not found:
        command = f"fromnoise prefer {shlex.quote(str(run_folder))} prefer.raters=people"
        raise UserError(f"{folder} holds no pairs to compare yet; make them with `{command}` (it samples the answers, then waits)")
    return found


def margins_for(run_folder: Path, recipe: Recipe, pairs: Mapping[str, dict], options: Options) -> dict[str, float] | None:
    """|score difference| by pair key, or None for a random order."""
    folder = options.reward or run_folder / "reward"
    if options.order == "random" or (options.order == "auto" and options.reward is None and not (folder / "config.json").is_file()):
        return None
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no reward model, which --order unsure needs; give one with --reward, or take --order random")
    print(f"scoring {len(pairs):,} pairs with {folder}: where it is least sure goes first", flush=True)
    return score_margins(folder, recipe, pairs)


def score_margins(folder: Path, recipe: Recipe, pairs: Mapping[str, dict]) -> dict[str, float]:
    """|score difference| (of an ensemble, of its mean), in units of the reward's normalisation; pairs longer than the model's context or
    MAX_ROW_TOKENS have none."""
    from contextlib import nullcontext

    import torch

    from fromnoise.data.tokenizer import Tokenizer
    from fromnoise.generate.rollout import Answers, RowShape, answer_scores
    from fromnoise.model.heads import members_of
    from fromnoise.model.hf import load_scorer
    from fromnoise.run.machine import threads

    torch.set_num_threads(threads(recipe.num_threads))
    model, tokenizer = load_scorer(folder).eval(), Tokenizer.load(folder)
    encoded = {}
    for key, pair in pairs.items():
        # Encoded by the reward model's own tokenizer: with another run's model the run's own token ids would mean something else.
        prompt, _ = tokenizer.encode_messages(pair["messages"], add_generation_prompt=True)
        answers = [[*tokenizer.encode_answer(answer["text"]), tokenizer.im_end_id][: None if answer["stopped"] else -1] for answer in pair["answers"]]
        encoded[key] = (prompt, answers)
    shape = RowShape(min(members_of(model)[0].backbone.config.context_tokens, MAX_ROW_TOKENS), 8, tokenizer.pad_id)
    kept = [key for key, (prompt, answers) in encoded.items() if len(prompt) + max(map(len, answers)) <= shape.row_tokens]
    if not kept:
        return {}
    answers = Answers([encoded[key][0] for key in kept for _ in range(2)], [answer for key in kept for answer in encoded[key][1]], shape)
    scores = answer_scores(model, answers, answers.batches(), nullcontext).reshape(-1, 2)
    return dict(zip(kept, (scores[:, 0] - scores[:, 1]).abs().tolist(), strict=True))


def print_welcome(store: VoteStore, options: Options, raters: tuple[str, ...], need_token: bool, port: int, wanted: int, by_margin: bool) -> None:
    from fromnoise.web.guard import is_loopback, token_for

    shown = options.public_names[0] if options.public_names else socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host
    proxied = bool(options.public_names) and is_loopback(options.host)  # what raters see is the proxy, and it has the certificate
    address = f"https://{shown}/" if proxied else f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    print(f"{wanted:,} pairs to label, {'where the reward model is least sure first' if by_margin else 'in random order'}; votes are kept in {store.path}")
    if need_token:
        print("Each rater's own link; whoever has it votes in their name."
              + (f" The proxy passes them on to port {port}." if proxied else " The connection is not encrypted: use it in a network you trust."))  # fmt: skip
        for rater in raters:
            print(f"  {rater}: {address}#rater={quote(rater)}&token={token_for(store.secret, rater)}")
    elif raters:
        for rater in raters:
            print(f"  {rater}: {address}#rater={quote(rater)}")
    else:
        print(f"  {address}   (add #rater=NAME for a rater's own link)")
    print("Ctrl-C stops; nothing is lost.", flush=True)


def without_page(run_folder: Path, *, import_file: Path | None, export: Path | None, measure: bool) -> None:
    """Import, then export, then agreement: whichever were asked for."""
    if export is not None:
        check_export(run_folder / FILE, export)
    with open_votes(run_folder) as store:
        if import_file is not None:
            take_file(store, run_folder, import_file)
        if export is not None:
            votes, left_out = store.votes(), store.left_out()
            try:
                write_jsonl(export, export_rows(store.pairs(), votes))
            except OSError as error:
                raise UserError(f"--export {export}: cannot be written ({error.strerror}); give the name of a file") from None
            print(f"{len(votes):,} votes on {len({vote.pair for vote in votes}):,} pairs written to {export}; "
                  f"left out: {left_out['skipped']:,} skipped, {left_out['undone']:,} undone")  # fmt: skip
        if measure:
            print(agreement_text(store))


def check_export(store: Path, export: Path) -> None:
    """UserError for an export in the place of the votes themselves, or of a file that SQLite keeps beside them."""
    if os.path.realpath(export) in {os.path.realpath(store) + suffix for suffix in ("", "-wal", "-shm", "-journal")}:
        raise UserError(f"--export {export}: the votes themselves are kept there and would be lost; give another name, {store.with_name('votes.jsonl')}")


def take_file(store: VoteStore, run_folder: Path, path: Path) -> None:
    bad: list = []
    counts = import_votes(store, path, bad.append)
    for record in bad[:MAX_SHOWN_BAD]:
        print(f"{record.place}: {record.reason}", file=sys.stderr)
    if len(bad) > MAX_SHOWN_BAD:
        print(f"... and {len(bad) - MAX_SHOWN_BAD:,} more", file=sys.stderr)
    lost = sum(record.kind == "record" for record in bad)
    print(f"{counts['added']:,} votes taken from {path}; {counts['known']:,} were here already, {counts['conflict']:,} left out because their rater "
          f"has another vote on that pair or their key is another vote's, {lost:,} records set aside as no votes")  # fmt: skip
    try:
        mine = pairs_of_run(run_folder)
    except UserError:
        return
    foreign = {vote.pair for vote in store.votes()} - set(mine)
    if foreign:
        print(f"{len(foreign):,} pairs with votes are not among this run's {len(mine):,}: they are kept, exported and count for agreement, but prefer learns "
              f"from its own pairs; to train on a file of pairs, set {shlex.quote(f'data.preferences={path}')}")  # fmt: skip


def agreement_text(store: VoteStore) -> str:
    """The raters in a table, then what all of them say together."""
    from fromnoise.evaluate.agreement import agreement

    said = agreement(store.votes())
    if not said["votes"]:
        return "no votes yet"
    lines = [f"{said['votes']:,} votes on {said['pairs']:,} pairs by {len(said['raters'])} raters", ""]
    width = max(len("rater"), *(len(rater["rater"]) for rater in said["raters"]))
    lines.append(f"{'rater':<{width}}  votes  tie  both bad  chose left            agrees with self      kappa with self       seconds a vote")
    for rater in said["raters"]:
        seconds = f"{rater['median_s']:.1f}" if rater["median_s"] is not None else "-"
        lines.append(
            f"{rater['rater']:<{width}}  {rater['votes']:>5}  {rater['ties']:>3}  {rater['both_bad']:>8}  {shown(rater['left']):<20}  "
            f"{shown(rater['self']):<20}  {shown(rater['self_kappa']):<20}  {seconds:>14}"
        )
    if said["pairs_of_raters"]:
        lines += ["", "two raters on the same pairs: share of equal votes, Cohen's kappa, pairs"]
        for both in said["pairs_of_raters"]:
            lines.append(f"  {' and '.join(both['raters'])}: {shown(both['same'])}, kappa {shown(both['kappa'])}, n {both['kappa'].n}")
    lines += ["", f"Krippendorff's alpha of all: {shown(said['alpha'])} over {said['alpha'].n:,} pairs that several judged",
              f"all with themselves: {shown(said['self'])}, kappa {shown(said['self_kappa'])} over {said['self'].n:,} repeated pairs",
              "(95 % intervals; 0 is what chance gives, 1 is always; a tie and both bad count as the same)"]  # fmt: skip
    return "\n".join(lines)


def shown(estimate: Estimate) -> str:
    """`0.62 (0.41, 0.80)`, `-` for nothing measured."""
    if estimate.value is None:
        return "-"
    return f"{estimate.value:.2f}" if estimate.low is None else f"{estimate.value:.2f} ({estimate.low:.2f}, {estimate.high:.2f})"
