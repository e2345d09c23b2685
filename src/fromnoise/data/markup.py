"""Text out of HTML and out of nested JSON, and JSON values out of text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

SKIPPED = frozenset("script style noscript template svg math iframe object canvas nav button select textarea head".split())
BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer h1 h2 h3 h4 h5"
    " h6 header hr html li main ol p pre section summary table tbody tfoot thead tr ul".split()
)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
POWER = re.compile(r"[-\u2212]?\d{1,4}")
BREAKS = re.compile(r"</?(?:p|br|div|li|ul|ol|tr|h[1-6])\b[^<>]*>", re.IGNORECASE)

META_CHARSET = re.compile(rb"<meta\b[^>]*?charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)  # a script's or a link's charset is not the page's
XML_ENCODING = re.compile(rb"\s*<\?xml\b[^>]*?encoding\s*=\s*[\"']([\w-]+)", re.IGNORECASE)
# A declaration that could be read in ASCII is not true of the first of these, whatever it says, and no page is in the others.
NOT_DECLARED = frozenset("utf-8 utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be utf-7 idna punycode undefined unicode-escape raw-unicode-escape".split())
# What labels mean on pages (WHATWG, Encoding Standard): mostly a superset of what they say, since those who wrote "ISO-8859-1" or "GB2312"
# typed curly quotes and characters of the superset too. By label where Python knows it not, else by its name of the codec.
MEANT = {
    "windows-31j": "cp932", "windows-874": "cp874", "windows-949": "cp949", "iso-8859-8-i": "iso8859-8",
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_jp": "euc_jis_2004", "euc_kr": "cp949",
}  # fmt: skip


def declared_codec(head: bytes) -> str | None:
    """Python's name of the codec for the charset that a page declares at its beginning; None where it declares none, or one that
    cannot be true of it."""
    declared = META_CHARSET.search(head) or XML_ENCODING.match(head)
    if not declared:
        return None
    label = declared.group(1).decode("ascii", "replace").lower().removeprefix("x-")
    try:
        codec = codecs.lookup(MEANT.get(label, label)).name
        codec = MEANT.get(codec, codec)
        "".encode(codec)
    except (LookupError, ValueError):  # unknown, or as base64 no codec of text
        return None
    return None if codec in NOT_DECLARED else codec


def html_to_text(html: str) -> str:
    """The readable text of a page: paragraphs apart by a blank line, list items by "- ", preformatted text as it stands.

    Scripts, styles, navigation and the controls of forms are left out. (Not forms: some frameworks wrap the whole page in
    one.) Malformed markup gives what a browser would make of it.
    """
    from selectolax.lexbor import LexborHTMLParser

    root = LexborHTMLParser(html).root
    if root is None:
        return ""
    pieces = "".join(_pieces(root))
    lines = [line.strip(" ") if "\x00" not in line else line.replace("\x00", "") for line in pieces.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _pieces(root) -> Iterator[str]:
    """Text and line ends in document order, by an explicit stack: pages nest deeper than Python recurses.

    Preformatted lines carry a leading NUL so that their indentation survives the stripping of lines.
    """
    stack: list[tuple[object, bool, bool]] = [(root, False, False)]  # (node, is its end, inside <pre>)
    text = ""  # the last that was read
    while stack:
        node, is_end, pre = stack.pop()
        tag = node.tag
        if is_end:
            yield "" if tag == "li" else "\n" if tag in ("tr", "dt") else " " if tag in ("td", "th") else "\n\n"
            continue
        if tag == "-text":
            text = node.text_content or ""
            yield text.replace("\n", "\n\x00") if pre else re.sub(r"\s+", " ", text)
            continue
        if tag in SKIPPED or (tag.startswith(("-", "_", "!")) and tag != "-undef"):
            continue
        if tag == "br":
            text = ""
            yield "\n"
            continue
        if tag == "sup" and text[-1:].isdigit() and POWER.fullmatch(node.text(strip=True)):
            yield "^"  # 10 to the sixth is not 106
        if tag in BLOCKS or tag in ("td", "th"):
            text = ""
            yield "\n- " if tag == "li" else "" if tag in ("td", "th") else "\n" if tag in ("tr", "dd", "dt") else "\n\n"
            stack.append((node, True, pre))
        if tag == "pre":
            yield "\x00"
        children, child = [], node.child
        while child is not None:
            children.append((child, False, pre or tag == "pre"))
            child = child.next
        stack.extend(reversed(children))


def strip_tags(text: str) -> str:
    """Text that may hold a few tags (`<p>`, `<br>`, `<strong>`), without them; text without tags is returned as it is."""
    if "<" not in text or not TAG.search(text):
        return unescape(text) if "&" in text else text
    text = TAG.sub("", BREAKS.sub("\n", text))
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip() for line in unescape(text).split("\n"))
    return "\n".join(line for line in lines if line)


def json_value(text: str) -> Any:
    """A JSON value; an integer of more digits than Python converts stays the text of its digits."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def is_json(line: str) -> bool:
    try:
        json_value(line)
    except (ValueError, RecursionError):
        return False
    return True


def json_to_text(value: object, depth: int = 1) -> str:
    """A nested JSON value as headed text: sections under `# name`, fields under `## name`, deeper ones as "name: value".

    A mapping whose only text stands under "text" (as in the CIA World Factbook's {"text": "<p>..."}) reads as that text.
    Markup is stripped; numbers, nulls and booleans alone say nothing without their names and are written beside them.
    """
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_leaves(value, depth))).strip()


def _leaves(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            name = str(key).strip()
            flat = _flat(inner)
            if flat == "":
                continue
            if flat is not None and name == "text":
                yield flat
            elif flat is not None and (depth > 2 or (len(flat) <= 60 and "\n" not in flat)):
                starts_with_name = flat.lower().startswith(name.lower() + ":")
                yield flat if starts_with_name else f"{name}: {flat}"
            elif depth <= 2:
                yield f"\n{'#' * depth} {name}\n"
                yield from _leaves(inner, depth + 1)
                yield ""
            else:
                yield f"{name}:"
                yield from _leaves(inner, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, depth)
    elif flat := _flat(value):
        yield flat


def _flat(value: object) -> str | None:
    """The text of a value that is one leaf, or {"text": leaf}; None for what has parts; "" for nothing."""
    if isinstance(value, dict):
        return _flat(value["text"]) if set(value) == {"text"} else None if value else ""
    if isinstance(value, list):
        return None if value else ""
    return "" if value is None else strip_tags(value).strip() if isinstance(value, str) else str(value)
