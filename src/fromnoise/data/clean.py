"""Cleaning one document: its characters, its boilerplate lines, other people's addresses, and whether it is kept at all.

Thresholds are from Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), C4 (Raffel et al. 2020, arXiv:1910.10683,
section 2.2) and RefinedWeb (Penedo et al. 2023, arXiv:2306.01116), and looser where theirs are made for English web
prose only: novels, plays, code, tables and other languages must pass. Left out for that reason: Gopher's stop words
and mean word length, C4's end punctuation and its ban on braces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# ---------------------------------------------------------------------------------------------------- characters

# C0 and C1 controls but tab and newline, soft hyphen, BOM, zero-width space and joiner, direction marks, unusual spaces
# and line ends. Invisible in print; to a byte-level tokenizer each is a different word.
ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u061c\u180e\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
SPACES = dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
LINE_ENDS = dict.fromkeys([0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029], "\n")
REPLACEMENT = {**SPACES, **LINE_ENDS, **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}
# Joiners shape Persian, the Indic scripts and emoji, and stay there; beside ASCII they are debris.
STRAY_JOINER = re.compile("(?:(?<=[\x00-\x7f])|^)[\u200c\u200d]+|(?<![\u200c\u200d])[\u200c\u200d]+(?=[\x00-\x7f]|$)")
MANY_BLANK_LINES = re.compile(r"\n{4,}")


def normalise(text: str) -> str:
    """NFC, "\\n" for every line end, no control or invisible characters, no spaces at line ends, at most two blank lines.

    Lone surrogates become U+FFFD. Idempotent. Not NFKC: it would turn "x²" into "x2" and "½" into "1⁄2".
    """
    text = text.replace("\r\n", "\n")
    if not text.isascii() or not text.isprintable():
        text = ODD.sub(lambda match: REPLACEMENT.get(ord(match.group()), ""), text)
    if not text.isascii():
        text = STRAY_JOINER.sub("", text)
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text:  # no pattern: it would look at each space of a long run, as padded columns have, once for every one before it
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return MANY_BLANK_LINES.sub("\n\n\n", text).strip("\n").rstrip()


# UTF-8 read as Windows-1252 (once or twice over): the bytes C2, C3, E2 and F0 that begin Western letters, punctuation and
# emoji show as Â, Ã, â and ð, followed by what the bytes 80..BF show as. No language writes these pairs, but where a word ends
# in the letter and a mark follows: "AMANHÃ…", "AMANHÃ»", "AMANHÃ—disse".
WINDOWS_CHARS = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xC0))
BYTE_OF = {char: byte for byte, char in enumerate(WINDOWS_CHARS, start=0x80)} | {chr(byte): byte for byte in range(0x80, 0x100)}
MOJIBAKE = re.compile(f"[ÂÃ][{re.escape(WINDOWS_CHARS)}]|â[{re.escape(WINDOWS_CHARS)}]{{2}}|ð[{re.escape(WINDOWS_CHARS)}]{{3}}")
MARKS = frozenset("…’”–—›»•·™¹²³\xa0")  # what may stand behind a word; no opening quotes: "ESPAÃ‘A" is mojibake


def repair_encoding(text: str) -> tuple[str, int]:
    """(text with "â€™" turned back into "’" and its like, number of places repaired). Run before `normalise`.

    What a word and a mark may be is repaired only where it must be mojibake: the text has other places that are, and no
    character outside ASCII stands elsewhere.
    """
    repaired = 0

    def undo(match: re.Match) -> str:
        nonlocal repaired
        if not consistent and _may_be_meant(match):
            return match.group()
        try:
            char = bytes(BYTE_OF[char] for char in match.group()).decode("utf-8")
        except (UnicodeDecodeError, KeyError):
            return match.group()
        repaired += 1
        return char

    for _ in range(2):
        if text.isascii() or not MOJIBAKE.search(text):
            break
        consistent = MOJIBAKE.sub("", text).isascii() and not all(map(_may_be_meant, MOJIBAKE.finditer(text)))
        text = MOJIBAKE.sub(undo, text)
    return text, repaired


def _may_be_meant(match: re.Match) -> bool:
    """Whether a word that ends in the letter, in capitals if it is one, with marks behind it looks the same."""
    letter, *rest = match.group()
    before = match.string[match.start() - 1 : match.start()]
    return MARKS.issuperset(rest) and (before.isupper() if letter.isupper() else before.isalpha())


# ---------------------------------------------------------------------------------------------- boilerplate lines

# C4 drops lines that speak of javascript, cookies or policies. Here only short lines (a menu, a footer), never a
# paragraph that discusses them, and with the few other phrases that only footers use.
BOILERPLATE = re.compile(
    r"(?:enable|requires?|turn on) javascript|javascript (?:is|must be|to be) (?:en|dis)abled"
    r"|(?:uses?|use of|accept(?: all)?) cookies|cookie (?:policy|settings|preferences)"
    r"|privacy policy|^.{0,24}\bterms (?:of (?:use|service)|(?:and|&) conditions)\b.{0,24}$|all rights reserved|(?:skip|jump) to (?:main )?content|back to top"
    r"|share (?:this )?(?:on|via) (?:facebook|twitter|x|linkedin)|log ?in \| (?:register|sign up)"
    r"|subscribe to (?:our|the) (?:newsletter|mailing list)|sign up for our newsletter",
    re.IGNORECASE | re.MULTILINE,
)
BOILERPLATE_HINTS = (  # one of these is in every match; looking for them is ten times as fast
    "cookie", "javascript", "privacy policy", "terms of use", "terms of service", "terms and conditions", "terms & conditions",
    "all rights reserved", "skip to", "jump to", "back to top", "share", "newsletter", "mailing list", "log in |", "login |",
)  # fmt: skip
MAX_BOILERPLATE_CHARS = 160


def drop_boilerplate(text: str) -> tuple[str, int]:
    """(text without short lines of boilerplate, number of lines dropped)"""
    lowered = text.lower()
    if not any(hint in lowered for hint in BOILERPLATE_HINTS) or not BOILERPLATE.search(text):
        return text, 0
    lines = text.split("\n")
    kept = [line for line in lines if len(line) > MAX_BOILERPLATE_CHARS or not BOILERPLATE.search(line)]
    if len(kept) == len(lines):
        return text, 0
    return MANY_BLANK_LINES.sub("\n\n\n", "\n".join(kept)).strip("\n"), len(lines) - len(kept)


# -------------------------------------------------------------------------------------------------------- contacts

# Not what code writes so: git@github.com:a/b (nobody's), this@Main.text (Kotlin), q@k.transpose(0, 1) and w@x.shape[0], logo@2x.png;
# but a@b.org(home) and a@b.com[1] are addresses: no method has these names.
EMAIL = re.compile(
    r"(?<![\w.+-])(?!(?:git|this)@)[\w.+-]{1,64}@(?!\d(?:\.\d)?x\.)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![\w@])"
    r"(?:(?<=\.com|\.org|\.net|\.edu|\.gov)|(?!\(|\[[-:\d]|\.[A-Za-z]))"
)
EMAIL_MARK, PHONE_MARK = "[email]", "[phone]"
GAP = r"[ .\-\u2010\u2011\u2013]"
# Three shapes that only telephone numbers have, and any groups of digits that a word announces.
PHONES = (
    # +44 20 7946 0958, +1 (555) 123-4567, +4930123456, +49 (0) 30 / 123456
    re.compile(rf"(?<![\w+])(?P<number>\+[1-9]\d{{0,2}}(?:(?:{GAP}| ?/ ?)?\(?\d{{1,5}}\)?){{1,6}})(?!\w)"),
    # (555) 123-4567, 555-123-4567, 555.123.4567, 1-800-555-0199: area codes begin with 2 to 9
    re.compile(rf"(?<![\w.+/-])(?P<number>(?:1{GAP})?(?:\([2-9]\d\d\) ?\d{{3}}{GAP}|[2-9]\d\d([.\-])\d{{3}}\2|[2-9]\d\d \d{{3}}-)\d{{4}})(?!\w|[-.]\d)"),
    # 020 7946 0958, 01632 960123, 07700 900123: a trunk 0, then groups
    re.compile(r"(?<!\d )(?<![\w.,+/-])(?P<number>(?:\(0[1-9]\d{1,3}\)|0[1-9]\d{1,3})[ -]\d{3,4}(?:[ -]?\d{2,4}))(?!\w|[-.,:/]\d)"),
    # call 555 0142, Tel.: 60 12 99, phone number is 01 23 45 67 89
    re.compile(
        r"\b(?:tel(?:ephone)?|phone|mobile|cell|fax|call|dial|ring|text|whatsapp)\b"
        r"(?:[ .:#]|\b(?:me|us|him|her|them|at|on|no|nr|number|is|now|the|office|line|free)\b){1,8}"
        rf"(?P<number>\(?\d{{2,5}}\)?(?:{GAP}?\d{{2,5}}){{1,4}})(?!\w|[-.:/]\d)",
        re.IGNORECASE,
    ),
)
MAYBE_PHONE = re.compile(r"\d[\d .()/\-\u2010\u2011\u2013]{5,}\d")
NOT_PHONE = re.compile(  # dates, spans of years, ISBNs, degrees (numbers of WHOIS, +1.4805551234, have ten digits and more)
    r"\+\d{1,3}\.\d{1,7}|\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}|(?:1[0-9]|20)\d\d ?[-\u2013] ?(?:1[0-9]|20)?\d\d|97[89][- ].*"
)


def scrub_contacts(text: str) -> tuple[str, int, int]:
    """(text with addresses and numbers replaced by [email] and [phone], number of e-mail addresses, of phone numbers).

    Dates, years, times, prices, ISBNs, versions and plain numbers are left alone: a number must have a shape that only
    telephone numbers have, or follow a word such as "call" or "Tel.". Some numbers will be missed; a scrubber that ate
    dates would do more harm.
    """
    emails = phones = 0
    if "@" in text:
        text, emails = EMAIL.subn(EMAIL_MARK, text)

    def mark(match: re.Match) -> str:
        nonlocal phones
        number = match["number"]
        digits = sum(char.isdigit() for char in number)
        least = 7 if not number.startswith("+") else 10 if number[1:].isdigit() else 8
        if not least <= digits <= 15 or NOT_PHONE.fullmatch(number):
            return match.group()
        phones += 1
        return match.group().removesuffix(number) + PHONE_MARK

    if MAYBE_PHONE.search(text):
        for pattern in PHONES:
            text = pattern.sub(mark, text)
    return text, emails, phones


# --------------------------------------------------------------------------------------------------------- filters


@dataclass(frozen=True, slots=True)
class Measured:
    """What the filters look at, measured once."""

    text: str
    shingles: np.ndarray  # (n,) uint64, a hash of each run of five words (dedup.Shingler)
    min_chars: int
    max_repeated_line_frac: float


def too_short(document: Measured) -> str | None:
    """Fewer than `prepare.min_chars` characters. (Gopher asks for 50 words; a definition or a proverb has fewer.)"""
    return "too_short" if len(document.text) < document.min_chars else None


def broken_encoding(document: Measured) -> str | None:
    """More than 1 % replacement characters: text that was destroyed before it came here."""
    return "broken_encoding" if document.text.count("\ufffd") > 0.01 * len(document.text) else None


def few_letters(document: Measured) -> str | None:
    """Less than a tenth of the characters that show are letters, in any script: dumps of numbers.

    Gopher asks for 80 % of words with a letter in them. Code has about 70 % letters, drawn tables 45 %, sums worked
    step by step 16 %: all are worth learning from.
    """
    sample = document.text[:20_000]
    shown = len(sample) - sum(map(sample.count, " \n\t"))
    return "few_letters" if len(LETTER.findall(sample)) < 0.1 * shown else None


LETTER = re.compile(r"[^\W\d_]")


def repeated_lines(document: Measured) -> str | None:
    """More than `prepare.max_repeated_line_frac` of the characters stand in lines that came before.

    By characters, as Gopher's second line rule does (at 0.20): by lines (its first, 0.30) plays fail, whose speakers'
    names are half of the lines. Lines without a letter or digit (rules, braces) do not count.
    """
    seen, repeated, total = set(), 0, 0
    for line in document.text.split("\n"):
        line = line.strip()
        if len(line) < 2:
            continue
        total += len(line)
        if line in seen:
            repeated += len(line)
        else:
            seen.add(line)
    return "repeated_lines" if total and repeated > document.max_repeated_line_frac * total else None


def repeated_phrases(document: Measured) -> str | None:
    """More than a third of the runs of five words came before in the document. Measured from 50 words on.

    Gopher allows 0.15 of the characters in repeated runs of five words; API references and legal texts reach 0.25.
    """
    count = len(document.shingles)
    if count < 46:
        return None
    return "repeated_phrases" if 3 * (count - len(np.unique(document.shingles))) > count else None


FILTERS: tuple[Callable[[Measured], str | None], ...] = (too_short, broken_encoding, few_letters, repeated_lines, repeated_phrases)


def why_removed(document: Measured) -> str | None:
    """The first reason to leave the document out, or None."""
    return next((reason for check in FILTERS if (reason := check(document)) is not None), None)
