"""The form an answer was asked in, and whether it has it.

free: something that reads as finished; word: one word; short: at most three words; sentence: one sentence;
sentences: 2 to 4; numbered: n numbered lines; list: n items in any shape; capitals: no small letter; number: digits
alone.
"""

from __future__ import annotations

import random
import re

from .text import sentences, words

MAX_FREE_WORDS = 60
ASK = {
    "word": ("Answer in one word.", "One word will do.", "Give me one word only.", "Use a single word.", "Just one word, please."),
    "short": ("Answer in as few words as you can.", "Keep the answer to three words or fewer.", "A few words will do.",
              "Give a very short answer."),
    "sentence": ("Answer in one sentence.", "One full sentence, please.", "Reply in a single sentence.", "Use one whole sentence."),
    "number": ("Give only the number.", "Answer with the number alone.", "Just the number, please."),
    "capitals": ("Answer in capital letters.", "Write the answer in capitals.", "Use capital letters only."),
}


def ask(form: str, rng: random.Random) -> str:
    """A sentence that asks for the form; empty for forms that the request itself implies."""
    return rng.choice(ASK[form]) if form in ASK else ""


def form_ok(form: str, answer: str, count: int | None = None) -> bool:
    """`count` is the number of list items asked for."""
    text = answer.strip()
    num_words = len(words(text))
    if num_words == 0:
        return False
    if form == "word":
        return num_words == 1
    if form == "short":
        return num_words <= 3
    if form == "number":
        return re.fullmatch(r"\d+\.?", text) is not None
    if form == "capitals":
        return not re.search(r"[a-z]", text) and re.search(r"[A-Z]", text) is not None
    if form == "numbered":
        lines = [line for line in text.splitlines() if line.strip()]
        numbered = [re.match(rf"\s*{index}[.)]\s+\S", line) for index, line in enumerate(lines, 1)]
        return all(numbered) and (count is None or len(lines) == count)
    if form == "list":
        return num_words <= MAX_FREE_WORDS
    finished = text[-1] in ".!?\"')" or num_words <= 3
    if form == "sentence":
        return len(sentences(text)) == 1 and 3 <= num_words <= 40 and text[-1] in ".!?\"')"
    if form == "sentences":
        return 2 <= len(sentences(text)) <= 4 and finished
    return finished and num_words <= MAX_FREE_WORDS
