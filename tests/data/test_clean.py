"""What cleaning changes, and what it must leave alone."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.data.clean import Measured, drop_boilerplate, normalise, repair_encoding, scrub_contacts, why_removed
from fromnoise.data.dedup import Shingler


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc\u2028d\x85e\x0cf", "a\nb\nc\nd\ne\nf"),
        ("\ufeffzero\u200bwidth soft\u00adhyphen", "zerowidth softhyphen"),
        ("nbsp\u00a0here\u202fand\u2003there", "nbsp here and there"),
        ("bell\x07 nul\x00 del\x7f tab\tstays", "bell nul del tab\tstays"),
        ("cafe\u0301", "café"),
        ("x² ½ ﬁ", "x² ½ ﬁ"),
        ("می\u200cخواهم 👩\u200d🌾", "می\u200cخواهم 👩\u200d🌾"),
        ("plain\u200d text\u200c", "plain text"),
        ("trailing  \t\nspace \n\n\n\n\n\nblank", "trailing\nspace\n\n\nblank"),
        ("\ud800x", "\ufffdx"),
        ("    indented\n    code\n", "    indented\n    code"),
    ],
)
def test_normalise(before, after):
    assert normalise(before) == after


@pytest.mark.parametrize("run", [" ", "\t", "\u200d"])
def test_long_runs_of_spaces_and_joiners_take_no_longer_than_others(run):
    """Padded columns of a table took the square of their width: 20,000 spaces four seconds, a million of them hours."""
    began = time.process_time()
    assert normalise(f"é{run * 20_000}é\n") == f"é{run * 20_000}é"
    assert time.process_time() - began < 0.5


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=80))
def test_normalise_is_idempotent_and_encodable(text):
    once = normalise(text)
    assert normalise(once) == once
    once.encode("utf-8")


def as_windows(text):
    """UTF-8 bytes shown as Windows-1252, as a browser would (its five gaps as controls)."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())


@pytest.mark.parametrize("text", ["It’s “fine” – café, 5 €", "naïve garçon…", "emoji 👍 here"])
def test_mojibake_is_undone(text):
    assert repair_encoding(as_windows(text))[0] == text
    assert repair_encoding(text) == (text, 0)


def test_mojibake_is_undone_twice_over():
    assert repair_encoding(as_windows(as_windows("It’s a café – no?")))[0] == "It’s a café – no?"


@pytest.mark.parametrize("text", ["CAFÉ® à Paris", "Âge, Ã, ðe", "über – “naïve”", "Ó¡ CAÑÓN"])
def test_real_accents_are_not_mojibake(text):
    assert repair_encoding(text) == (text, 0)


@pytest.mark.parametrize(
    "text",
    ["AMANHÃ…", "AMANHÃ—disse ele", "ĐÃ…", "«AMANHÃ»", "“AMANHÃ” – SÓ AMANHÃ’", "AMANHÃ\u00a0!", "A MAÇÃ… e a IRMÃ– sim", "VÂ…", "đâ…”",
     "It’s AMANHÃ… again", "BÃ»"],
)  # fmt: skip
def test_a_word_that_ends_in_the_letter_is_not_mojibake(text):
    assert repair_encoding(text) == (text, 0)
    # Nor where other parts of the document are.
    assert repair_encoding("ação: donâ€™t. " + text)[0] == "ação: don’t. " + text


@pytest.mark.parametrize(
    "text",
    ["SMÅLAND är i Sverige", "Là-bas, où l’été", "OPÇÕES DE CAFÉ", "HÔTEL À CÔTÉ", "Bûche de Noël", "ESPAÑA", "INFORMACIÓN", "KÖLN, Düsseldorf", "Århus",
     "20°C", "déjà vu", "×", "a × b", "½ – ⅔"],
)  # fmt: skip
def test_capitals_before_mojibake_are_no_reason_to_keep_it(text):
    assert repair_encoding(as_windows(text))[0] == text


def test_boilerplate_lines_go_and_prose_about_them_stays():
    page = "Home\nThis site uses cookies. Accept all cookies?\nThe ferry left.\n© 2018 Allergan. All rights reserved.\nPrivacy Policy | Terms of Use"
    assert drop_boilerplate(page) == ("Home\nThe ferry left.", 3)
    prose = "The proposed extension to the Terms of Use, as expressed in the text below, is short.\n"
    prose += "A long paragraph on how a privacy policy is written. " * 5
    assert drop_boilerplate(prose) == (prose, 0)
    story = 'Mom took the tray out.\n"Let us share our cookies with Tom," said Lily.\nTom smiled.'
    assert drop_boilerplate(story) == (story, 0)


@pytest.mark.parametrize(
    "text",
    ["+44 20 7946 0958", "+1 (555) 123-4567", "+4930123456", "+49 (0) 30 / 123456", "+49 30/123456",
     "(202) 364-1200", "213-484-0480", "910.538.0115", "1-800-555-0199", "020 7946 0958",
     "+1.4805551234", "07700 900123", "01632 960123", "call 555 0142", "Tel.: 555-0142", "phone number is 01 23 45 67 89"],
)  # fmt: skip
def test_phone_numbers_are_scrubbed(text):
    scrubbed, emails, phones = scrub_contacts(f"Write, or {text}, any day.")
    assert (emails, phones) == (0, 1) and "[phone], any day." in scrubbed and not any(char.isdigit() for char in scrubbed)


@pytest.mark.parametrize(
    "text",
    ["2001-07-05", "05-07-2001", "5/7/2001", "1914-1918", "in 1914–18", "call on 2023-01-15", "ISBN 978-0-13-468599-1", "ISBN 0-306-40615-2",
     "ISBN 0306406152", "10:30-11:45", "$1,299.00", "£1 200 000", "12,345,678", "3.14159265", "192.168.100.101", "1.2.3-4", "100 200 300",
     "pages 100-2000", "x = 12345678", "555-0142", "12 + 345 = 357", "550e8400-e29b-41d4-a716-446655440000", "10:00:00 +0200", "12+34567890",
     "28 00 N, 3 00 E", "1 000 000 000", "call 911", "0.123 456 789", "2020 2021 2022", "PEP 3333, 2010",
     "+52.5200066", "+13.404954", "a change of +12.345678 %"],
)  # fmt: skip
def test_other_numbers_are_left_alone(text):
    assert scrub_contacts(f"Look: {text}, then.") == (f"Look: {text}, then.", 0, 0)


def test_emails():
    text = "Ask guido.van+x@python.org or <a_b@mail.example.co.uk>; not @decorator, a@b, 5@6 or user@localhost."
    scrubbed, emails, _ = scrub_contacts(text)
    assert emails == 2 and scrubbed == "Ask [email] or <[email]>; not @decorator, a@b, 5@6 or user@localhost."


@pytest.mark.parametrize(
    "code",
    ["git clone git@github.com:a/b.git", "att = (q@k.transpose(-2, -1)) * s", "y = w@x.shape[0]", "w@x.T + b", "logo@2x.png", "logo@1.5x.png",
     "this@Main.binding.text = 1", "react@18.2.0", "a = w@x.mT.contiguous()"],
)  # fmt: skip
def test_code_with_an_at_sign_is_no_email(code):
    assert scrub_contacts(code) == (code, 0, 0)
    assert scrub_contacts(f"{code} a.git@host.org[x] 123@163.com a@b.com[1] c@d.org(home) e@f.co.uk. G")[1] == 5


def reason(text, min_chars=40, max_repeated=0.3):
    return why_removed(Measured(text, Shingler()(text), min_chars, max_repeated))


def test_filters_and_their_reasons():
    sentence = "The miller counted his sacks by the light of a lamp that smoked. "
    assert reason("Too short.") == "too_short"
    assert reason("\ufffd\ufffd" + sentence) == "broken_encoding"
    assert reason("11 22 33 | 44 55 66 | 77 88 99 | 10 20 30 40 50 | 60 70 80 and 90") == "few_letters"
    assert reason("Buy the best lamps here today\n" * 5 + sentence) == "repeated_lines"
    assert reason(" ".join(["cheap lamps and best lamps in town, order lamps now"] * 9)) == "repeated_phrases"
    assert reason(sentence) is None


def test_plays_code_and_other_scripts_pass():
    play = "\n\n".join(
        f"{('ROMEO', 'JULIET')[i % 2]}:\nSpeak, {chr(97 + i) * 4}, and be brief about {chr(98 + i) * 4} and {chr(99 + i) * 3}." for i in range(20)
    )
    assert reason(play) is None
    code = "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len(values)\n"
    assert reason(code) is None
    assert reason("Work out 579 - 134. 579 - 130 = 449. 449 - 4 = 445. So 579 - 134 = 445.") is None
    assert reason("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。") is None


def test_shingles_of_short_and_spaceless_texts():
    shingler = Shingler()
    assert len(shingler("one two")) == 1 and len(shingler("")) == 1
    assert len(shingler("one two three four five six")) == 2
    assert len(shingler("吾輩は猫である名前はまだ無い")) == 10
    assert np.array_equal(shingler("One, two; three four FIVE six!"), shingler("one two three four five six"))
