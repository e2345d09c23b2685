"""From a path to decoded text: which files, unpacked how, in which encoding. Everything streams in bounded memory."""

from __future__ import annotations

import codecs
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from gzip import GzipFile
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal
from zlib import error as ZlibError

from fromnoise.run.errors import UserError

KINDS = {
    "text": (".txt", ".text", ".md", ".markdown", ".rst", ".tex", ".org",
             ".py", ".js", ".ts", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".rb", ".sh", ".sql", ".r", ".jl"),
    "html": (".html", ".htm", ".xhtml"),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet",),
}  # fmt: skip
KIND_OF = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}
READABLE = "txt, md, rst, html, jsonl, json, csv, parquet (plain, .gz or .zst) and source code"
BLOCK_BYTES = 1 << 20
LEGACY_FRAC = 0.3  # a line with a larger share of bytes that are not UTF-8 is not taken for text at all
EXCERPT_CHARS = 120
RUN = "the folder of a run, which is not read"  # training on what it wrote, a run would change its own input


@dataclass(frozen=True, slots=True)
class BadRecord:
    """Something that could not be read as it stands. `line` counts from 1 (items for json, rows for parquet)."""

    file: str
    line: int | None  # None: the file as a whole
    reason: str
    excerpt: str = ""
    # A record lost · a line lost out of a text or page that is kept · a file or its rest lost · kept, repaired
    kind: Literal["record", "line", "file", "repaired"] = "record"

    def __post_init__(self) -> None:
        for name in ("file", "reason", "excerpt"):
            object.__setattr__(self, name, encodable(getattr(self, name)))

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


OnBad = Callable[[BadRecord], None]


class Reasons:
    """An `on_bad` that passes on what it is told and remembers why things were lost, for the message where nothing could be read."""

    def __init__(self, on_bad: OnBad):
        self.on_bad = on_bad
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.first: dict[tuple[str, ...], str] = {}

    def __call__(self, bad: BadRecord) -> None:
        if bad.kind != "repaired":
            self.counts[(bad.reason,)] += 1
            self.first.setdefault((bad.reason,), bad.place)
        self.on_bad(bad)

    def __str__(self) -> str:
        return most_often(self.counts, self.first)


def most_often(counts: Mapping[tuple[str, ...], int], first: Mapping[tuple[str, ...], str]) -> str:
    """ " Most often: REASON (first at FILE:LINE)." of keys that end in the reason; "" where nothing was counted."""
    worst = max(counts, key=counts.get, default=None)
    return f" Most often: {worst[-1]} (first at {first[worst]})." if worst else ""


@dataclass(frozen=True, slots=True)
class DataFile:
    path: Path
    kind: str  # a key of KINDS
    packing: str  # "", ".gz" or ".zst"
    name: str  # relative to the source's root, for document ids


def data_files(path: str, on_bad: OnBad, what: str = "data") -> list[DataFile]:
    """The readable files that `path` (a file, a folder or a glob) names, sorted; others in a folder are reported.

    Errors: UserError where nothing is there, or a file named outright has a kind that is not read.
    """
    expanded, on_bad = os.path.expanduser(path), Reasons(on_bad)
    root, found = files_named(expanded, on_bad)
    if not found and not root.is_dir():
        if os.path.lexists(expanded):
            raise UserError(f"{what}: {path} is a pipe, a device or a link to nothing; name a file or a folder.")
        if glob.has_magic(expanded):
            raise UserError(f"{what}: no file matches {path!r} (looked from {os.getcwd()}); check the pattern.")
        raise UserError(f"{what}: there is no file or folder {path!r} (looked from {os.getcwd()}); check the path.")
    files = []
    for file in found:
        kind, packing = file_kind(file)
        if kind is None and len(found) == 1 and not os.path.isdir(expanded):
            raise UserError(f"{what}: {file} is of no kind that is read here; convert it to one of {READABLE}.")
        if kind is None:
            extension = "".join(file.suffixes[-2:]) if packing else file.suffix
            on_bad(BadRecord(str(file), None, f"unknown extension {extension or '(none)'}", kind="file"))
        else:
            files.append(DataFile(file, kind, packing, encodable(file.relative_to(root).as_posix())))
    if not files and is_run(root):
        raise UserError(f"{what}: {path} is the folder of a run; name the folder that holds the data.")
    if not files:
        raise UserError(f"{what}: {path} holds none of {READABLE}.{on_bad}")
    return files


def files_named(path: str, on_bad: OnBad = lambda bad: None) -> tuple[Path, list[Path]]:
    """(root, files) that a file, a folder or a glob names, of whatever kind, without hidden ones below a folder. The root is the
    file's folder, the folder itself, or what all files of a glob share; where nothing is there, the path and nothing.

    What is no file, what cannot be looked into, and the folders of runs (found in a folder or by `**`) are reported and left out."""
    if os.path.isfile(path):
        return Path(path).parent, [Path(path)]
    if os.path.isdir(path):
        return Path(path), list(_walk(Path(path), on_bad))
    real, told, found = cache(os.path.realpath), set(), {}

    def place(path: Path) -> tuple[str, str]:  # the same, whatever links lead there
        return real(path.parent), path.name

    def once(bad: BadRecord) -> None:  # a pattern may match a folder and what is in it
        if (where := place(Path(bad.file))) not in told:
            told.add(where)
            on_bad(bad)

    for match in sorted(set(_matches(path, once)), key=lambda match: (len(match.parts), match)):
        for file in _walk(match, once) if os.path.isdir(match) else [match] if _is_file(match, once) else []:
            found.setdefault(place(file), file)
    files = sorted(found.values())
    return Path(os.path.commonpath([file.parent for file in files])) if files else Path(path), files


def _matches(pattern: str, on_bad: OnBad) -> Iterator[Path]:
    """What a glob matches. `**` looks where `_folders` does: glob's own goes round in loops of links, in two of them for ever."""
    parts = Path(pattern).parts
    at = parts.index("**") if "**" in parts else len(parts)
    starts = map(Path, sorted(glob.glob(str(Path(*parts[:at])))))
    if at == len(parts):
        yield from starts
        return
    for folder in (folder for start in starts if os.path.isdir(start) for folder, _ in _folders(start, on_bad)):
        yield from _matches(os.path.join(glob.escape(str(folder)), *(parts[at + 1 :] or ["*"])), on_bad)


def is_run(folder: Path) -> bool:
    return all(os.path.isfile(folder / name) for name in ("recipe.toml", "run.json"))


def encodable(text: str) -> str:
    """Text as UTF-8 can hold it: of a file name in another encoding, or of a lone surrogate in JSON, the escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def file_kind(path: Path) -> tuple[str | None, str]:
    """(kind or None, packing) by the file's name; a single file without any extension is taken for text."""
    packing = path.suffix.lower() if path.suffix.lower() in (".gz", ".zst") else ""
    suffix = (Path(path.stem) if packing else path).suffix.lower()
    return (KIND_OF.get(suffix) if suffix else "text" if not path.name.startswith(".") else None), packing


def _walk(folder: Path, on_bad: OnBad) -> Iterator[Path]:
    for parent, names in _folders(folder, on_bad):
        yield from (file for name in names if not name.startswith(".") and _is_file(file := parent / name, on_bad))


def _folders(folder: Path, on_bad: OnBad) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of what is no folder in it) for it and those below, through links too: each once, whatever leads to it."""
    seen: set[tuple[int, int]] = set()

    def unreadable(error: OSError) -> None:
        on_bad(BadRecord(str(error.filename), None, f"a folder that cannot be read: {error.strerror}", kind="file"))

    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        here = os.stat(parent)
        passed_over = "a folder read already under another name" if (here.st_dev, here.st_ino) in seen else RUN if is_run(Path(parent)) else None
        seen.add((here.st_dev, here.st_ino))
        if passed_over:
            on_bad(BadRecord(parent, None, passed_over, kind="file"))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(parent), sorted(names)


def _is_file(path: Path, on_bad: OnBad) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        on_bad(BadRecord(str(path), None, f"cannot be read: {error.strerror}", kind="file"))
        return False
    if not stat.S_ISREG(mode):
        on_bad(BadRecord(str(path), None, "a pipe, socket or device, not a file", kind="file"))
    return stat.S_ISREG(mode)


def byte_chunks(file: DataFile, on_bad: OnBad) -> Iterator[bytes]:
    """The unpacked bytes in chunks of at most about a MiB. A truncated or damaged archive is reported, what came before kept."""
    done = 0
    with open(file.path, "rb") as raw:
        try:
            for chunk in _unpacked(raw, file.packing):
                done += len(chunk)
                yield chunk
        except EOFError:
            on_bad(BadRecord(str(file.path), None, f"truncated {file.packing[1:]} archive", f"{done} bytes read before", "file"))
        except (ZlibError, OSError, ValueError) as error:
            if not file.packing:
                raise
            on_bad(BadRecord(str(file.path), None, f"damaged {file.packing[1:]} archive", f"{done} bytes read before: {error}", "file"))


def _unpacked(raw: BinaryIO, packing: str) -> Iterator[bytes]:
    if packing == ".zst":
        yield from _unzstd(raw)
        return
    # read1, not read: a truncated gzip raises EOFError, and read would lose what it had gathered until then.
    stream = GzipFile(fileobj=raw) if packing == ".gz" else raw
    while chunk := stream.read1(BLOCK_BYTES):
        yield chunk


def _unzstd(raw: BinaryIO) -> Iterator[bytes]:
    """zstandard's own stream reader ends a truncated frame without a word; its decompressobj says whether it is at an end."""
    import zstandard

    # Small reads bound the output of one step: a block of 4 bytes may stand for 128 KiB.
    decompressor, begun = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(), False
    while data := raw.read(4096):
        while data:
            begun = True
            try:
                if out := decompressor.decompress(data):
                    yield out
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from None
            data = decompressor.unused_data if decompressor.eof else b""
            if decompressor.eof:
                decompressor, begun = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(), False
    if begun:
        raise EOFError


def text_blocks(file: DataFile, on_bad: OnBad) -> Iterator[str]:
    """Decoded text in blocks of about a MiB, ending at line ends where lines are not longer than that.

    UTF-8 with or without BOM, UTF-16 with BOM. Bytes that are not UTF-8 are reported with file and line. Where the
    file shows no other sign of UTF-8, or next to none (SIGNS_FRAC), they are read as Windows-1252, the commonest older encoding; else
    they are damage and become U+FFFD. A line with more than LEGACY_FRAC of such bytes is no text and is set aside. A file with NUL bytes
    at its beginning is binary and set aside whole.
    """
    chunks, buffer, line, signs, first = byte_chunks(file, on_bad), b"", 1, (0, 0), True
    for chunk in chunks:
        if first:
            first = False
            if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                yield from _utf16_blocks(chain([chunk], chunks), str(file.path), on_bad)
                return
            if b"\0" in chunk[:8192]:
                on_bad(BadRecord(str(file.path), None, "binary file", kind="file"))
                return
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        buffer += chunk
        if len(buffer) >= BLOCK_BYTES:
            cut = buffer.rfind(b"\n") + 1 or _character_boundary(buffer)
            text, signs = _decode(buffer[:cut], str(file.path), line, signs, on_bad)
            line += buffer.count(b"\n", 0, cut)
            buffer = buffer[cut:]
            yield text
    if buffer:
        yield _decode(buffer, str(file.path), line, signs, on_bad)[0]


def _utf16_blocks(chunks: Iterator[bytes], name: str, on_bad: OnBad) -> Iterator[str]:
    """The text of UTF-16 with BOM. Halves of characters are reported with their line, and become U+FFFD."""
    decoder, line = codecs.getincrementaldecoder("utf-16")("surrogatepass"), 1
    for chunk in chunks:
        parts = decoder.decode(chunk).split("\n")
        for at, part in enumerate(parts):
            if HALF_CHARACTER.search(part):
                parts[at] = HALF_CHARACTER.sub("\ufffd", part)
                on_bad(BadRecord(name, line + at, "half a character of UTF-16, replaced by U+FFFD", parts[at][:EXCERPT_CHARS], "repaired"))
        line += len(parts) - 1
        yield "\n".join(parts)
    if decoder.getstate()[0]:
        on_bad(BadRecord(name, line, "UTF-16 that ends inside a character, replaced by U+FFFD", kind="repaired"))
        yield "\ufffd"


def _character_boundary(data: bytes) -> int:
    """The last place, at most 3 bytes from the end, where a UTF-8 character begins; the end itself when there is none."""
    for back in range(1, 4):
        if data[-back] >= 0xC0:
            return len(data) - back
        if data[-back] < 0x80:
            break
    return len(data)


UNDECODED = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of a byte that is not UTF-8
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # what surrogatepass leaves of a pair whose other half is lost
UNDECODED_RUN = re.compile("[\udc80-\udcff]+")
SIGNS_FRAC = 0.1  # of the runs of undecodable bytes; fewer characters that are UTF-8 are chance: "É" and a hard space, in French before ":", are one


def _decode(data: bytes, name: str, line: int, signs: tuple[int, int], on_bad: OnBad) -> tuple[str, tuple[int, int]]:
    """(text, what the file has shown so far: bytes of UTF-8 characters beyond the first of each, runs of bytes that are not UTF-8)"""
    try:
        text = data.decode("utf-8")
        return text, (signs[0] + len(data) - len(text), signs[1])
    except UnicodeDecodeError:
        text = data.decode("utf-8", "surrogateescape")
    signs = (signs[0] + len(data) - len(text), signs[1] + len(UNDECODED_RUN.findall(text)))
    multibyte = signs[0] >= SIGNS_FRAC * signs[1]
    kept = []
    for number, part in enumerate(text.split("\n"), start=line):
        count = len(UNDECODED.findall(part))
        if not count:
            kept.append(part)
            continue
        reading = "replaced by U+FFFD" if multibyte else "read as Windows-1252"
        repaired = UNDECODED_RUN.sub("\ufffd", part) if multibyte else part.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        if len(part) >= 8 and count > LEGACY_FRAC * len(part):
            on_bad(BadRecord(name, number, "bytes that are not text in UTF-8", f"{count} of {len(part)} bytes"))
            kept.append("")  # an empty line in its place keeps the numbers of the others right
        else:
            on_bad(BadRecord(name, number, f"undecodable bytes, {reading}", repaired[:EXCERPT_CHARS], "repaired"))
            kept.append(repaired)
    return "\n".join(kept), signs


MAX_LINE_CHARS = 256 << 20  # a longer line is no record but a file that lost its newlines
LONG_LINE_CHARS = 16 << 20  # a longer line is read, and reported: few files are meant to have one


def line_fits(file: DataFile, number: int, length: int, on_bad: OnBad) -> bool:
    """Whether a line of so many characters may be held. One that may not is reported, and so is one that may but is unusually long."""
    if length > MAX_LINE_CHARS and file.kind != "text":  # text comes in pieces, whatever its lines are
        on_bad(BadRecord(str(file.path), number, f"a line of more than {MAX_LINE_CHARS:,} characters"))
        return False
    if length > LONG_LINE_CHARS:
        on_bad(BadRecord(str(file.path), number, f"an unusually long line, of more than {LONG_LINE_CHARS:,} characters", f"{length:,}", "repaired"))
    return True


def watched_blocks(file: DataFile, on_bad: OnBad) -> Iterator[str]:
    """`text_blocks`; each line that `line_fits` has something to say about is reported at its end."""
    number, length = 1, 0
    for block in text_blocks(file, on_bad):
        yield block
        *complete, rest = block.split("\n")
        for line in complete:
            line_fits(file, number, length + len(line), on_bad)
            number, length = number + 1, 0
        length += len(rest)
    line_fits(file, number, length, on_bad)


def text_lines(file: DataFile, on_bad: OnBad) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) for each line. Only newlines end lines: U+2028 or U+0085 in a JSON string do not.

    Errors: a line longer than MAX_LINE_CHARS is reported and left out; one longer than LONG_LINE_CHARS is reported.
    """
    number, parts, length = 1, [], 0
    for block in text_blocks(file, on_bad):
        *complete, rest = block.split("\n")
        for line in complete:
            if line_fits(file, number, length + len(line), on_bad):
                yield number, ("".join(parts) + line if parts else line).removesuffix("\r")
            number, parts, length = number + 1, [], 0
        length += len(rest)
        if rest and length <= MAX_LINE_CHARS:
            parts.append(rest)
    if line_fits(file, number, length, on_bad) and parts:
        yield number, "".join(parts).removesuffix("\r")
