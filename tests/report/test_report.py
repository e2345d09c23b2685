"""The page is a pure function of the folder, says what is missing, and lets nothing a model wrote become markup."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser

import pytest
from matplotlib.backends.backend_svg import FigureCanvasSVG

from fromnoise.report.blocks import Prose, Table, duration, large, measured, number, percent
from fromnoise.report.collect import collect
from fromnoise.report.figures import thinned
from fromnoise.report.making import late_text
from fromnoise.report.page import lede, render
from fromnoise.report.reason import practice, reason
from fromnoise.report.reward import reward
from fromnoise.run.errors import UserError
from fromnoise.run.files import digest_of
from fromnoise.stages.report import run
from tests.report.synthetic_run import NASTY, _stage, write_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "world")


@pytest.fixture(scope="module")
def page(whole) -> str:
    return render(whole)


@pytest.fixture(autouse=True)
def unprinted(request, monkeypatch):
    """Figures are drawn in every test, and printed, most of a page's time, where the page itself is looked at: `page`, and whether its bytes are the same."""
    if request.function is not test_same_folder_same_bytes:
        monkeypatch.setattr(FigureCanvasSVG, "print_svg", lambda canvas, target, **given: target.write('<svg viewBox="0 0 1 1"></svg>'))


class Tags(HTMLParser):
    VOID = ("meta", "link", "br", "path", "use", "rect", "line", "img")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.ids = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_same_folder_same_bytes(whole):
    first = run(whole).read_bytes()
    assert run(whole).read_bytes() == first


def test_one_self_contained_well_formed_page(page):
    tags = Tags()
    tags.feed(page)
    assert not tags.open and "svg" in tags.seen
    assert not {"script", "link", "iframe", "object", "img"} & tags.seen
    assert len(tags.ids) == len(set(tags.ids))
    outside = re.findall(r'(?:src|href)="(?!#)([^"]+)"|url\((?!#)([^)]+)\)', page)
    assert outside == []


def test_what_models_wrote_never_becomes_markup(page):
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page and "\u202e" not in page and "␛[31m" in page
    assert NASTY not in page


def test_it_shows_what_it_must(page):
    for text in ("75.", "n = 512", "ln V", "simulated", "8.318", "tokens per parameter", "The cat sat on the", "best of 16", "Tolby", "at equal length",
                 "balanced accuracy", "110 T", "while the truth falls", "Dotted curve: the fit d",
                 "best attainable is what", "Speed is that of the median step", "evaluate takes its own rows",
                 "exposure", "6 bits is full recall, 1.38 is chance", "20,5"):  # fmt: skip
        assert text in page, text


def test_what_was_mended_is_not_said_to_be_set_aside(page):
    assert "1 records, lines or files could not be read and were set aside" in page
    assert "5,000 lines or values that could not be read as they stood were mended and kept" in page


@pytest.mark.parametrize("upto", ["prepare", "pretrain", "sft", "rlhf"])
def test_a_run_that_is_not_finished_says_so(tmp_path, upto):
    found = render(write_run(tmp_path, upto=upto))
    assert "Not finished in this run" in found and "evaluate has not run" in found


def test_stages_that_the_recipe_does_not_have_are_not_unfinished(tmp_path):
    run = write_run(tmp_path, upto="sft")
    (tmp_path / "a.jsonl").write_text("{}\n")
    (run / "recipe.toml").write_text(f'from = "owner/name"\n[data]\nconversations = ["{tmp_path / "a.jsonl"}"]\n')
    for stage in ("tokenizer", "base"):
        shutil.rmtree(run / stage)
    found = render(run)
    assert "Not finished in this run" not in found and all(f">{verb}<small>" not in found for verb in ("tokenizer", "pretrain", "rlhf"))
    assert ">owner/name, a.jsonl<" in found and 'href="#tuning"' in found
    (run / "sft" / "stage.json").write_text(json.dumps({**json.loads((run / "sft" / "stage.json").read_text()), "status": "waiting"}))
    assert "Not finished in this run: sft." in render(run) and ">waiting<" in render(run)


def test_what_the_recipe_has_no_stage_and_no_data_for_has_no_section(tmp_path):
    """The report of a base model once had ten sections that said, in red, that something had not been measured."""
    run = write_run(tmp_path, world=False, upto="pretrain")
    (run / "recipe.toml").write_text('[data]\npath = "books"\n')
    found = render(run)
    assert re.findall(r'<section id="(\w+)">', found) == ["stages", "data", "tokenizer", "pretraining", "again"]
    assert 'class="missing"' not in found and ">books<" in found
    tuned = render(write_run(tmp_path / "tuned", world=False))  # no world: no harmful requests, no questions, no canaries
    assert not {"questions", "safety", "memory", "reason"} & set(re.findall(r'<section id="(\w+)">', tuned)) and 'id="contamination"' in tuned


def test_what_an_earlier_recipe_left_behind_is_not_shown(tmp_path):
    """Once a run tuned anew without preferences showed the RLHF of its former sft, as its own."""
    run = write_run(tmp_path, world=False)
    recipe = (run / "recipe.toml").read_text()
    assert "tuned on what raters prefer" in render(run) and "rlhf above sft" in render(run)
    (run / "recipe.toml").write_text(recipe.replace("preferences =", "#"))
    found = render(run)
    assert "tuned on what raters prefer" not in found and "rlhf above sft" not in found and "Not finished in this run" not in found


def test_what_was_made_from_other_models_is_stale(tmp_path):
    def record(folder: str, **entries) -> None:
        path = tmp_path / folder / "stage.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    run = write_run(tmp_path)
    record("sft", outputs={"sft/model.safetensors": "1"})
    record("prefer", inputs={"sft": digest_of({"model.safetensors": "1"})}, outputs={"prefer/pairs.jsonl": "2"})
    record("reward", inputs={"prefer": digest_of({"pairs.jsonl": "2"}), "data.preferences": "9"})
    assert "Stale" not in render(run) and collect(run).stages["reward"].state == "done"
    record("sft", outputs={"sft/model.safetensors": "3"})
    assert [verb for verb, stage in collect(run).stages.items() if stage.state == "stale"] == ["prefer", "reward"]
    assert "Stale: prefer, reward: made before a stage that they read was made again" in render(run) and ">stale<" in render(run)


def test_real_data_and_no_data(tmp_path):
    found = render(write_run(tmp_path / "text", world=False))
    assert "higher by the reward model" in found and "preferred by the oracle (ties split)" not in found
    assert "chose no training pair" not in found and "both flatter it" in found
    assert "while the audit model" in found and not any(word in found for word in ("truth", "the fit d", "oracle", "best attainable"))  # none is there
    (tmp_path / "empty").mkdir()
    assert "Not finished in this run: prepare" in render(tmp_path / "empty")
    with pytest.raises(UserError, match="not a folder"):
        run(tmp_path / "nowhere")


def test_the_lede_counts_text_as_text_and_names_the_card(tmp_path):
    folder = write_run(tmp_path)
    record = json.loads((folder / "base/stage.json").read_text())
    record["tokens"], record["summary"]["procedural_tokens"] = 3_400_000, 800_000
    record["numerics"] = {"gpu": "Some <GPU>"}
    (folder / "base/stage.json").write_text(json.dumps(record))
    first = lede(collect(folder))
    assert "on 2.6 M tokens of text and 800 k of sequences without words" in first
    assert "altogether on Some <GPU>." in first and "CPU cores" not in first
    assert "Some &lt;GPU&gt;" in render(folder) and "<GPU>" not in render(folder)


def test_a_proxy_that_fell_as_well_was_not_hacked(tmp_path):
    folder = write_run(tmp_path)
    estimates = json.loads((folder / "evaluate/summary.json").read_text())
    fallen = {"value": -0.5, "low": -0.7, "high": -0.3, "n": 100, "method": "bootstrap", "seed": 0}
    for proxy, said in ((0.0, True), (-0.4, False)):
        estimates["overoptimisation/truth/last_minus_highest"] = fallen
        estimates["overoptimisation/reward/last_minus_highest"] = {**fallen, "value": proxy}
        (folder / "evaluate/summary.json").write_text(json.dumps(estimates))
        page = render(folder)
        assert ("the reward was hacked" in page) is said and ("and the proxy with it." in page) is not said
        assert "the truth fell by 0.500 (0.300 to 0.700" in page  # a fall and its interval have one sign


def test_a_peak_beyond_the_path_is_not_said_to_be_there(tmp_path):
    """The fit of a path that only rises has its peak somewhere: at any number of nats, and nobody has been there."""
    folder = write_run(tmp_path)
    estimates = json.loads((folder / "evaluate/summary.json").read_text())
    farthest = max(audit["audit_kl_nats"] for audit in json.loads((folder / "rlhf/stage.json").read_text())["summary"]["audits"])
    estimates["overoptimisation/truth/fit_r2"] = {"value": 0.9, "low": None, "high": None, "n": 9, "method": "", "seed": None}
    for peak, there in ((0.5 * farthest, True), (1e5 * farthest, False)):
        estimates["overoptimisation/truth/peak_kl"] = {"value": peak, "low": None, "high": None, "n": 100, "method": "fit", "seed": 0}
        (folder / "evaluate/summary.json").write_text(json.dumps(estimates))
        page = render(folder)
        assert ("peaks at a KL of" in page) is there and ("a peak was not reached" in page) is not there


@pytest.mark.parametrize("world", [True, False])
def test_dpo_maximises_no_reward_model(tmp_path, world):
    folder = write_run(tmp_path, world=world)
    stage = json.loads((folder / "rlhf/stage.json").read_text())
    stage["summary"]["method"] = "dpo"
    (folder / "rlhf/stage.json").write_text(json.dumps(stage))
    estimates = json.loads((folder / "evaluate/summary.json").read_text())
    for score, value in (("truth", -0.5), ("reward", 0.0)) if world else ():
        estimates[f"overoptimisation/{score}/last_minus_highest"] = {"value": value, "low": -0.7, "high": -0.3, "n": 100, "method": "", "seed": 0}
    (folder / "evaluate/summary.json").write_text(json.dumps(estimates))
    page = render(folder)
    assert "learnt from the same pairs as the policy" in page and not any(word in page for word in ("RLHF maximised", "proxy", "reward was hacked"))


def test_problems_of_a_file_are_not_called_sums(tmp_path):
    one = {"value": 0.4, "low": 0.3, "high": 0.5, "n": 100, "method": "wilson", "seed": None}
    for world in (True, False):
        folder = write_run(tmp_path / str(world), world=world)
        estimates = json.loads((folder / "evaluate/summary.json").read_text())
        (folder / "evaluate/summary.json").write_text(json.dumps({**estimates, "reason/sums/sft": one}))
        page = render(folder)
        assert ("sums of two and three digits" in page) is world and ("held-out problems of the file" in page) is not world


def test_a_difference_stands_behind_the_model_it_is_from(tmp_path):
    """Without one to sft, that to rlhf was looked up under sft's name and "not measured"."""
    folder = write_run(tmp_path / "run")
    estimates = json.loads((folder / "evaluate/summary.json").read_text())
    one = {"low": 0.1, "high": 0.3, "n": 40, "method": "paired bootstrap"}
    kept = {name: value for name, value in estimates.items() if not name.startswith("reason/minus_")}
    kept |= {"reason/sums/reason": {**one, "value": 0.5}, "reason/minus_rlhf/sums": {**one, "value": 0.2}}
    (folder / "evaluate/summary.json").write_text(json.dumps(kept))
    rows = next(block.rows for block in reason(collect(folder)).blocks if isinstance(block, Table) and block.head[0].startswith("paired"))
    assert [[cell.text for cell in row[:2]] for row in rows] == [["reason − rlhf", "+20.0 points"]]


def test_damaged_files_are_named(tmp_path):
    folder = write_run(tmp_path, upto="pretrain")
    (folder / "prepare" / "ledger.json").write_text("{broken")
    with (folder / "base" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99')
    (folder / "tokenizer" / "compression.json").write_text("[]")
    found = render(folder)
    assert "ledger.json could not be read" in found and "1 lines are not JSON objects" in found and "compression.json is not a JSON object" in found


def test_a_page_that_cannot_be_written_is_said(tmp_path):
    write_run(tmp_path)
    (tmp_path / "report.html").mkdir()  # as a read-only folder refuses it; root may write there
    with pytest.raises(UserError, match=r"report\.html cannot be written \("):
        run(tmp_path)


def test_a_first_loss_is_kept_when_points_are_thinned():
    points = [(float(i), 8.3 if i == 0 else 2.0) for i in range(5000)]
    found = thinned(points)
    assert found[0] == (0.0, 8.3) and len(found) <= 400 and all(y == 2.0 for _, y in found[1:])


@pytest.mark.parametrize(("first", "said"), [(15.1, True), (8.33, False), (6.0, False)])
def test_text_that_begins_late_is_called_worse_than_guessing_where_it_is(first, said):
    """In short runs the sequences before it had taught nothing, and 6.942 for ln V = 6.931 was called worse than guessing."""
    assert ("worse than even guessing" in late_text([(7, first), (8, 5.0)], [(0, 8.318)], math.log(4096))) is said


def test_numbers_as_written():
    assert [number(x) for x in (-0.0, 1.9234, 0.04567, 1234.5, 8192, 1.2e-7, None)] == ["0", "1.92", "0.0457", "1,234", "8,192", "1.20e-07", "–"]
    assert (percent(0.754), large(1.1e14), large(3_010_000), duration(246), duration(41.24), duration(3700)) == (
        "75.4 %", "110 T", "3.01 M", "4 min 06 s", "41.2 s", "1 h 01 min",
    )  # fmt: skip
    assert (large(999_936), large(999_400), large(999.7, "B"), duration(59.97)) == ("1 M", "999 k", "1 kB", "1 min 00 s")  # once 1e+03 k, 60.0 s
    cell = measured({"value": 0.041, "low": -0.002, "high": 0.084, "n": 1420}, "points")
    assert (cell.text, cell.small) == ("+4.1 points", "-0.2 to +8.4 · n = 1,420")
    assert measured({"value": None, "n": 0}).text == "not measured"


def test_bits_per_byte_have_their_interval_at_the_top_and_by_model(tmp_path, whole, page):
    assert page.count("0.870 to 0.930 · n = 256") == 1 + 9  # the headline; three models by three sources
    (write_run(tmp_path) / "evaluate" / "summary.json").unlink()
    assert "0.910" in render(tmp_path) and "0.870 to" not in render(tmp_path)  # not evaluated: what training saw


def changed(folder, file: str, **values):
    """The folder with other entries in one of its JSON files."""
    entries = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**entries, **values}))
    return folder


def test_a_policy_that_is_the_sft_model_is_said_to_be(tmp_path):
    folder = write_run(tmp_path)
    assert "Iteration 0 is the sft model itself" not in render(folder)
    record = json.loads((folder / "rlhf/stage.json").read_text())
    found = render(changed(folder, "rlhf/stage.json", summary={**record["summary"], "chosen_iteration": 0, "audit_chosen": 0.0}))
    assert "Iteration 0 is the sft model itself" in found
    found = render(changed(folder, "rlhf/stage.json", summary={**record["summary"], "chosen_iteration": 40}))
    assert "liked the last policy best, that of iteration 40," in found and "the last policy would have been" not in found


def test_a_practice_that_solved_no_more_is_said_to_have_kept_rlhf(tmp_path):
    folder = write_run(tmp_path)
    for iteration in (0, 4):
        _stage(folder / "reason", "reason", 9.0, {"iterations": 4, "chosen_iteration": iteration}, [{"step": 0, "correct_frac": 0.0}])
        said = [block.text for block in practice(collect(folder)) if isinstance(block, Prose)]
        assert any("reason holds the weights of rlhf" in text for text in said) == (iteration == 0)


def test_the_audit_has_other_raters_where_they_are_simulated(tmp_path):
    assert "learnt from other raters on other prompts" in render(write_run(tmp_path / "world"))
    assert "learnt from pairs on other prompts" in render(write_run(tmp_path / "file", world=False))
    people = write_run(tmp_path / "people")
    with (people / "recipe.toml").open("a") as file:
        file.write('prompts = "p.jsonl"\n[prefer]\nraters = "people"\n')
    assert "learnt from pairs on other prompts" in render(people)


def test_how_far_people_agree_is_said_where_their_best_attainable_is_unknown(tmp_path, whole):
    """The lede spoke of a number that only simulated raters have; what people's own votes say of it stood nowhere."""
    folder = write_run(tmp_path, world=False)
    known = "the best attainable is what knowing their choice probabilities would give."
    assert reward(collect(whole)).lede.endswith(known) and reward(collect(folder)).lede.endswith("no model can be right about all of them.")
    said = {"votes": 179, "raters": 3, "ties": 20, "both_bad": 5, "repeated_pairs": 14, "shared_pairs": 25, "self_agreement": 0.643,
            "self_agreement_low": 0.388, "self_agreement_high": 0.837, "self_kappa": None, "alpha": 0.0459, "alpha_low": -0.27, "alpha_high": 0.36}  # fmt: skip

    def shown() -> list[Table]:
        return [block for block in reward(collect(folder)).blocks if isinstance(block, Table) and block.head[0] == "how far raters agree"]

    assert not shown()
    changed(folder, "prefer/stage.json", summary=said)
    (table,) = shown()
    assert [(cell.text, cell.small) for _, cell in table.rows] == [
        ("64.3 %", "38.8 to 83.7 · n = 14"), ("not measured", ""), ("0.0459", "-0.270 to 0.360 · n = 25")]  # fmt: skip
    assert table.caption.startswith("179 votes of 3 people; 20 prefer neither answer, 5 of them because both are bad.")


def test_raters_with_few_votes_stand_behind_all_others(tmp_path):
    one = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 40, "method": "Wilson", "seed": None}
    names = ("zoe", "ann", "others, fewer than 5 votes each")
    folder = changed(write_run(tmp_path), "evaluate/summary.json", **{f"reward/accuracy_by_rater/{name}": one for name in names})
    assert re.findall(r'<th scope="row">(ann|zoe|others, [^<]*)</th>', render(folder)) == ["ann", "zoe", "others, fewer than 5 votes each"]


def test_raters_of_one_model_each_have_a_table_each(tmp_path):
    """The world's: half of one table was dashes."""
    one = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 40, "method": "Wilson", "seed": None}
    few = "others, fewer than 5 votes each"

    def tables(folder, **raters):
        names = {f"{model}/accuracy_by_rater/{rater}": one for model, own in raters.items() for rater in own}
        return re.findall(r"right, by rater.*?</table>", render(changed(write_run(folder), "evaluate/summary.json", **names)), re.DOTALL)

    apart = tables(tmp_path / "world", reward=("ann", "ben", few), audit=("cat", few))
    assert len(apart) == 2 and not any("–" in table for table in apart) and "cat" in apart[1]
    (both,) = tables(tmp_path / "people", reward=("ann", "ben"), audit=("ann",))
    assert both.count("–") == 1


def test_questions_in_which_names_repeat_are_no_alarm(tmp_path):
    """What is by chance was red beside a sentence that nothing was found."""
    found = {"value": 4, "low": None, "high": None, "n": 749, "method": "count", "seed": None}
    page = render(changed(write_run(tmp_path), "evaluate/summary.json", **{"contamination/subject_and_value": found}))
    assert "Of 749 questions about facts, whom they ask about and the answer are named in one training conversation for 4: " in page
    assert 'class="bad"' not in page.split('<section id="contamination">')[1].split("</section>")[0]


def test_what_was_trained_on_is_said_in_words(tmp_path, page):
    assert "No prompt stands where it must not" in page and "prompts of held-out pairs" in page and "may stand in a conversation" in page
    path = write_run(tmp_path) / "evaluate" / "summary.json"
    summary = json.loads(path.read_text())
    summary["contamination/prompts/training_prompts/normalised"]["value"] = 2
    path.write_text(json.dumps(summary))
    assert "Found where it must not be: 2 of 300 prompts of RLHF against SFT stand in the training prompts." in render(tmp_path)


def test_every_estimate_is_listed(whole, page):
    summary = json.loads((whole / "evaluate" / "summary.json").read_text())
    assert all(f'<th scope="row">{name}</th>' in page for name in summary)
