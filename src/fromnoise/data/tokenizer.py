"""The tokenizer: byte-level BPE, four control tokens, one chat template; and, the same way, those of Hub models.

Text never becomes a control token, whatever it spells: text is encoded by a twin of the tokenizer that has no control
tokens, and control tokens are put between the pieces by their ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers

from fromnoise.data.chat_template import ANSWER_LEAD, CHATML, CHATML_SCORED, Piece, has_marks, render, scored
from fromnoise.run.errors import UserError

PAD, ENDOFTEXT, IM_START, IM_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROLS = (PAD, ENDOFTEXT, IM_START, IM_END)  # ids 0, 1, 2, 3
VOCABULARY_MULTIPLE = 64
QUESTION = {"role": "user", "content": "?"}  # before an answer that is encoded by itself
SHORT_CHARS = 16  # longer text between control tokens is seldom said twice
# Qwen2's rule for what may be one token: words with the space or mark before them, digits one by one, punctuation, white
# space. tokenizers, llama.cpp and vLLM all know it.
QWEN2_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


def vocabulary_for(train_bytes: int) -> int:
    """A vocabulary for a corpus of this size: its square root, a multiple of 64 between 512 and 65,536.

    1 MB gives 1,024, 20 MB 4,480, 1 GB 31,616. Each token is then seen thousands of times, and the embeddings stay a
    part of the model, not most of it. (A rule of thumb, not a law; that larger models deserve larger vocabularies is
    measured by Tao et al. 2024, arXiv:2407.13623.)
    """
    return min(max(round(train_bytes**0.5 / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE, 512), 65_536)


class Tokenizer:
    """Encodes text and conversations. Make one with `train` or `load`."""

    def __init__(self, inner_json: dict, config: dict):
        """inner_json: the content of tokenizer.json. config: of tokenizer_config.json."""
        self._json, self._config = inner_json, config
        self._added = {token["content"]: token["id"] for token in inner_json["added_tokens"]}
        self._by_id = {token_id: text for text, token_id in self._added.items()}
        # The twin for text. A post-processor would add control tokens of its own (Llama's <|begin_of_text|>).
        plain = {**inner_json, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        self._text = tokenizers.Tokenizer.from_str(json.dumps(plain))
        pre_tokenizer = _inside(inner_json.get("pre_tokenizer"))
        differs = pre_tokenizer != inner_json.get("pre_tokenizer")
        self._inner_text = tokenizers.Tokenizer.from_str(json.dumps({**plain, "pre_tokenizer": pre_tokenizer})) if differs else None
        # "user", a line end: between control tokens they are most of what there is
        self._ids_of_short = lru_cache(maxsize=1024)(lambda text: self._encoding(text, begins=False).ids)
        self._bytes_of = _token_bytes(inner_json)
        self._length = max(len(self._bytes_of), max(self._added.values(), default=-1) + 1)
        padded = -(-self._length // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        self.vocab_size: int = max(int(config.get("fromnoise_vocab_size") or 0), padded)
        self.chat_template: str | None = config.get("chat_template")
        self.im_end_id = self._find((IM_END, "<|eot_id|>", "<|end|>", "<end_of_turn>"), "eos_token")
        self.endoftext_id = self._find((ENDOFTEXT, "<|end_of_text|>", "</s>"), "eos_token", self.im_end_id)
        put_before = self._put_before_text(inner_json)
        self.begin_id = self.endoftext_id if put_before is None else put_before  # what a document begins with
        self.pad_id = self._find((PAD, "<|finetune_right_pad_id|>", "<pad>"), "pad_token", self.endoftext_id)
        if self.pad_id == self.im_end_id:  # readers take a reward model's score at the last token that is no padding, ours is at an answer's end
            named = (self._added.get(self._token_name(role)) for role in ("unk_token", "bos_token"))
            self.pad_id = next((i for i in (self.endoftext_id, *named) if i not in (None, self.im_end_id)), self.pad_id)

    @property
    def text_ids(self) -> np.ndarray:
        """The ids that text can have: all but control tokens and padding of the vocabulary."""
        return np.array([i for i in range(self._length) if i not in self._by_id], dtype=np.int64)

    def __len__(self) -> int:
        """The number of tokens there are; `vocab_size` is padded to a multiple of 64 and is the model's."""
        return self._length

    @property
    def chat_stop_ids(self) -> tuple[int, int]:
        """What ends a chat model's answer: `<|im_end|>`, and `<|endoftext|>`, which base models end with."""
        return self.im_end_id, self.endoftext_id

    # ------------------------------------------------------------------------------------------------ making, files

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Byte-level BPE trained on `texts`: the same texts give the same tokenizer, byte for byte.

        vocab_size: the four control tokens and 256 bytes included; rounded up to a multiple of 64. A small corpus may
        have fewer merges than that; the rest of the ids stay unused.
        """
        vocab_size = max(-(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE, 320)
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        inner.decoder = decoders.ByteLevel()
        inner.post_processor = processors.ByteLevel(trim_offsets=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(CONTROLS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        )
        inner.train_from_iterator(texts, trainer)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1_000_000_000, "clean_up_tokenization_spaces": False,
            "add_bos_token": False, "bos_token": None, "eos_token": ENDOFTEXT, "pad_token": PAD, "unk_token": None,
            "model_input_names": ["input_ids", "attention_mask"],  # transformers 4 adds token_type_ids otherwise, which its models refuse
            "chat_template": CHATML, "fromnoise_vocab_size": vocab_size,
        }  # fmt: skip
        return cls(json.loads(inner.to_str()), config)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """A tokenizer folder or model folder, ours or a Hub model's. Errors: UserError for what is not there or not supported."""
        folder = Path(folder)
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise UserError(f"{folder}: holds no {TOKENIZER_FILE}. A tokenizer or model folder of this program or of a Hub model (with a fast tokenizer) does.")
        inner = _read_json(path)
        config = _read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
        template = folder / "chat_template.jinja"  # where newer transformers put it
        if template.is_file() and not config.get("chat_template"):
            config["chat_template"] = template.read_text(encoding="utf-8")
        if config.get("chat_template") is not None:
            config["chat_template"] = _default_template(config["chat_template"], folder / CONFIG_FILE)
        kind = inner["model"].get("type") if isinstance(inner.get("model"), dict) else None
        if kind != "BPE":
            raise UserError(f"{path}: a {kind} tokenizer; only BPE (Llama, Qwen and their families) is supported.")
        try:
            return cls(inner, config)
        except UserError:
            raise
        except KeyError as error:
            raise UserError(f"{path}: not a tokenizer.json as `tokenizers` writes it: {error} is missing.") from None
        except Exception as error:  # `tokenizers` has no class of its own for what it cannot read
            raise UserError(f"{path}: not a tokenizer.json as `tokenizers` writes it, or not with its {CONFIG_FILE}: {error}") from None

    def save(self, folder: str | Path, eos: str | None = None, for_scores: bool = False) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer opens.

        eos: what ends generation, `<|endoftext|>` for a base model, `<|im_end|>` for a chat model; None keeps what it is.
        for_scores: a reward model's, whose template ends where the score is read.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if eos is not None and eos not in self._added:
            raise ValueError(f"eos {eos!r} is no control token of this tokenizer: {sorted(self._added)}")
        config = {**self._config, "pad_token": self._by_id[self.pad_id]}
        config |= {} if eos is None else {"eos_token": eos}
        config |= {"chat_template": scored(self.chat_template)} if for_scores and self.chat_template else {}
        (folder / TOKENIZER_FILE).write_text(json.dumps(self._json, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        (folder / CONFIG_FILE).write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    # -------------------------------------------------------------------------------------------------------- text

    def encode(self, text: str) -> list[int]:
        """Ids of the text. Never a control token, whatever the text spells. Lone surrogates count as "?"."""
        return self._encoding(text).ids

    def _encoding(self, text: str, begins: bool = True) -> tokenizers.Encoding:
        """begins: the text is the beginning of what is encoded; else it stands behind a control token."""
        twin = self._text if begins or self._inner_text is None else self._inner_text
        return twin.encode(_encodable(text), add_special_tokens=False)

    def encode_beginning(self, text: str) -> list[int]:
        """Ids of the text as the beginning of a document: behind `<|endoftext|>`, or Llama's `<|begin_of_text|>`."""
        return [self.begin_id, *self.encode(text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        return [encoding.ids for encoding in self._text.encode_batch_fast([_encodable(text) for text in texts], add_special_tokens=False)]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text the ids stand for; bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
        if skip_special:
            return self.decode_bytes(ids).decode("utf-8", "replace")
        spelled = (self._by_id[i].encode() if i in self._by_id else self._bytes(i) for i in ids)
        return b"".join(spelled).decode("utf-8", "replace")

    def encode_answer(self, text: str) -> list[int]:
        """Ids of what an assistant says after the chat template's header, its stop token not included: as `encode_messages` has them."""
        if not text or self.chat_template in (None, CHATML, CHATML_SCORED):
            return self.encode(f"{ANSWER_LEAD if self.chat_template else ''}{text}" if text else "")
        return self._answer_by_template(text) or self.encode(text)

    def decode_answer(self, ids: Iterable[int]) -> str:
        """The text of an assistant's answer: without what the template begins it with."""
        return self.decode(ids).removeprefix(self.answer_lead)

    @cached_property
    def answer_lead(self) -> str:
        """The text that the chat template puts before an assistant's words: our space, a line end, the empty lines around Qwen3's empty thought."""
        return ANSWER_LEAD if self.chat_template in (CHATML, CHATML_SCORED) else self.decode(self.encode_answer("a")).rpartition("a")[0]

    def _answer_by_template(self, text: str) -> list[int] | None:
        """None where the template does not answer a question alone, or writes the answer without its header before it."""
        try:
            header = self._answer_header
            ids = self._encode_pieces(self._render([QUESTION, {"role": "assistant", "content": text}], False))[0]
        except UserError:
            return None
        said = ids[len(header) :]
        return said[: -1 - said[::-1].index(self.im_end_id)] if ids[: len(header)] == header and self.im_end_id in said else None

    @cached_property
    def _answer_header(self) -> list[int]:
        """What the chat template puts before the answer to QUESTION alone."""
        return self._encode_pieces(self._render([QUESTION], True))[0]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes the ids stand for; control tokens and unused ids stand for none. `decode_bytes(encode(s)) == s.encode()`.

        (The last holds for ours, and for Hub tokenizers up to their own normalisation of text, such as Qwen's to NFC.)
        """
        return b"".join(map(self._bytes, ids))

    def _bytes(self, token_id: int) -> bytes:
        return self._bytes_of[token_id] if 0 <= token_id < len(self._bytes_of) else b""

    def token_bytes(self) -> np.ndarray:
        """(vocab_size,) int64: how many bytes of text each token stands for; 0 for control tokens and unused ids."""
        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        lengths[: len(self._bytes_of)] = [len(value) for value in self._bytes_of]
        return lengths

    # ----------------------------------------------------------------------------------------------- conversations

    def encode_messages(self, messages: Sequence[dict], add_generation_prompt: bool = False) -> tuple[list[int], list[bool]]:
        """(ids, assistant_mask): a conversation in the chat template; the mask is True for what the assistant says.

        messages: {"role", "content"} each. True stand the assistant's content and the control token that ends its turn;
        everything else, the role's name and the line end after the turn included, is False. The ids are those of
        transformers' `apply_chat_template`, but for content that spells a control token.
        """
        if self.chat_template is None:
            raise UserError("this tokenizer has no chat template: it belongs to a base model. Tune it first, or choose a chat model.")
        pieces = self._render(messages, add_generation_prompt)
        if not has_marks(self.chat_template):
            pieces = self._marked_by_turns(messages, pieces)
        return self._encode_pieces(pieces)

    def _render(self, messages: Sequence[dict], add_generation_prompt: bool) -> list[Piece]:
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        variables = {name: token for name in names if (token := self._token_name(name)) is not None}  # of the others transformers writes nothing
        return render(self.chat_template, messages, tuple(self._added), add_generation_prompt=add_generation_prompt, variables=variables)

    def _encode_pieces(self, pieces: Iterable[Piece]) -> tuple[list[int], list[bool]]:
        ids, mask = [], []
        for piece in pieces:
            if piece.is_control:
                ids.append(self._added[piece.text])
                mask.append(bool(piece.assistant))
                continue
            if not piece.assistant and ids and len(piece.text) <= SHORT_CHARS:
                found = self._ids_of_short(piece.text)
                ids += found
                mask += [False] * len(found)
                continue
            encoding = self._encoding(piece.text, begins=not ids)
            ids += encoding.ids
            if not piece.assistant:
                mask += [False] * len(encoding.ids)
                continue
            begin, end = piece.assistant[0]  # a token is the assistant's when any of its characters is
            if len(piece.assistant) == 1:
                mask += [first < end and begin < last for first, last in encoding.offsets]
            else:
                mask += [any(first < end and begin < last for begin, end in piece.assistant) for first, last in encoding.offsets]
        return ids, mask

    def _marked_by_turns(self, messages: Sequence[dict], pieces: list[Piece]) -> list[Piece]:
        """For templates without `{% generation %}`: a turn is what an assistant message adds to the prompt before it."""
        whole, turns = "".join(piece.text for piece in pieces), []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = "".join(piece.text for piece in self._render(messages[:index], True))
            after = self._render(messages[: index + 1], False)
            text = "".join(piece.text for piece in after)
            if not text.startswith(before) or not whole.startswith(text):
                raise UserError(
                    "this model's chat template writes earlier turns in another way than the last one, and has no {% generation %} marks: "
                    "what the assistant said cannot be told from the rest. Add the marks around it in chat_template, or train on single turns."
                )
            while after and not after[-1].is_control:  # what follows the end of the turn is not said
                text = text.removesuffix(after.pop().text)
            turns.append((len(before), max(len(text), len(before))))
        marked, start = [], 0
        for piece in pieces:
            end = start + len(piece.text)
            inside = [(max(first, start) - start, min(last, end) - start) for first, last in turns if first < end and start < last]
            marked.append(piece._replace(assistant=inside))
            start = end
        return marked

    # ------------------------------------------------------------------------------------------------ control tokens

    @property
    def control_ids(self) -> dict[str, int]:
        """All control tokens by spelling. None of them is ever in `encode`'s result."""
        return dict(self._added)

    def _token_name(self, role: str) -> str | None:
        value = self._config.get(role)
        return value.get("content") if isinstance(value, dict) else value

    def _put_before_text(self, inner_json: dict) -> int | None:
        """The control token that transformers puts before any text it encodes: Llama's `<|begin_of_text|>`, `<s>`. None for Qwen's tokenizers and ours."""
        letter = {"type": "BPE", "vocab": {"x": 0}, "merges": []}  # a post-processor knows its tokens by their ids
        plain = {"version": inner_json.get("version", "1.0"), "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "decoder": None}
        alone = {**plain, "model": letter, "post_processor": inner_json.get("post_processor"), "truncation": None, "padding": None}
        encoding = tokenizers.Tokenizer.from_str(json.dumps(alone)).encode("x")
        return encoding.ids[0] if encoding.special_tokens_mask[0] and encoding.ids[0] in self._by_id else None

    def _find(self, spellings: Sequence[str], role: str, default: int | None = None) -> int:
        named = self._token_name(role)
        for spelling in (*spellings, named):
            if spelling in self._added:
                return self._added[spelling]
        if default is None:
            raise UserError(f"this tokenizer names no {role}, and has none of {', '.join(spellings)}; its control tokens: {', '.join(self._added)}")
        return default


def _inside(pre_tokenizer: dict | None) -> dict | None:
    """The pre-tokenizer of text behind a control token: sentencepiece's space at the beginning is, by the scheme "first", that of the whole alone."""
    if pre_tokenizer and pre_tokenizer.get("type") == "Sequence":
        return {**pre_tokenizer, "pretokenizers": [_inside(part) for part in pre_tokenizer["pretokenizers"]]}
    return {**pre_tokenizer, "prepend_scheme": "never"} if pre_tokenizer and pre_tokenizer.get("prepend_scheme") == "first" else pre_tokenizer


def _encodable(text: str) -> str:
    """Python strings may hold lone surrogates (from JSON escapes), UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a JSON {type(value).__name__} where an object is expected")
    return value


def _default_template(template: object, where: Path) -> str | None:
    """The chat template of a configuration that may hold several by name; None where it holds none of them."""
    if isinstance(template, list) and all(isinstance(entry, dict) for entry in template):
        named = {str(entry.get("name")): entry.get("template") for entry in template}
        template = named.get("default", next(iter(named.values()), None))
    if template is not None and not isinstance(template, str):
        raise UserError(f"{where}: chat_template is neither text nor a list of templates with names")
    return template


def _token_bytes(inner: dict) -> list[bytes]:
    """By id, the bytes a token stands for; b"" for control tokens and gaps.

    Byte-level vocabularies write each byte as a character of their own; those made with sentencepiece (`byte_fallback`)
    write a space as U+2581 and lone bytes as <0x0A>.
    """
    vocabulary = inner["model"]["vocab"]
    controls = {token["id"] for token in inner["added_tokens"]}
    by_character = {char: byte for byte, char in _byte_characters().items()}
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    by_sentencepiece = bool(inner["model"].get("byte_fallback"))
    for token, token_id in vocabulary.items():
        if token_id in controls:
            continue
        if not by_sentencepiece:
            table[token_id] = bytes(by_character[char] for char in token)
        elif len(token) == 6 and token.startswith("<0x"):
            table[token_id] = bytes([int(token[3:5], 16)])
        else:
            table[token_id] = token.replace("\u2581", " ").encode()
    return table


def _byte_characters() -> dict[int, str]:
    """GPT-2's table: printable Latin-1 bytes as they are, the other 68 as U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
