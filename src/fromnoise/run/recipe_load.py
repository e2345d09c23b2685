"""From a recipe's name and `key.sub=value` arguments to a checked `Recipe`, and back to TOML.

Every complaint names where the value came from (file and line, or the command line), the value, and what to write.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from fromnoise.run.errors import UserError
from fromnoise.run.recipe import Recipe

COMMAND_LINE = "command line"
FINISHED_MODEL = "hub.toml"  # the shipped recipe whose settings suit one
PATH_KEYS = ("data.path", "data.conversations", "data.preferences", "data.prompts", "reason.problems", "evaluate.reward_sets")  # and data.sources.*.path
OPTIONS = ("run_dir", "rerun", "dry_run", "quiet", "allow_different_numerics")  # of the command line, easily taken for settings
SHORTHAND = {"prepare": "data.path", "sft": "data.conversations", "prefer": "data.preferences", "reward": "data.preferences"}


def recipes_folder() -> Path:
    """The recipes that ship with the package: inside it when installed, beside `src` in a checkout."""
    installed = Path(str(resources.files("fromnoise"))) / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def shipped_recipes() -> list[str]:
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def load_recipe(name_or_path: str | Path | None, overrides: Sequence[str | tuple[str, Any]] = (), verb: str | None = None) -> Recipe:
    """Defaults, then the recipe, then each `key.sub=value` (or key and value) of `overrides`, checked.

    name_or_path: a shipped recipe's name, a TOML file, a run folder (its resolved recipe), or None for defaults alone; where `from`
    is given they are those of recipes/hub.toml, without its world: rates and rows for models made from noise would harm a finished one.
    verb: what `data=PATH` stands for depends on the stage: documents, conversations or pairs.
    Raises UserError: no such recipe, broken TOML, unknown key (the nearest one is suggested), wrong type or value.
    """
    tree, source, text = {}, "recipe", ""
    origins: dict[str, str] = {}
    changes: dict[str, Any] = {}

    def where(dotted: str) -> str:
        for key in origins:
            if dotted == key or dotted.startswith(key + "."):
                return COMMAND_LINE
        line = line_of(text, dotted)
        return f"{source}, line {line}" if line else source

    given = [parse_override(argument, verb) if isinstance(argument, str) else argument for argument in overrides]
    given = [one for setting in given for one in one_by_one(*setting)]
    path = find_recipe(str(name_or_path)) if name_or_path is not None else None
    unnamed = {}
    if path is None and dict(given).get("from") is not None:
        path, unnamed = recipes_folder() / FINISHED_MODEL, {"name": Recipe().name, "data": {"world": False}}
    if path is not None:
        source, text = str(path), _read(path)
        try:
            tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path}: not valid TOML: {error}") from None
        tree.setdefault("name", path.stem)
        _overlay(tree, unnamed)
        _resolve_paths(tree, path.parent, where)
    for key, value in given:
        _insert(tree, key, value)
        _insert(changes, key, value)
        origins[key] = COMMAND_LINE
    _resolve_paths(changes, Path.cwd(), where)
    _overlay(tree, changes)
    check_keys(changes, Recipe, lambda dotted: COMMAND_LINE)  # before the whole: of a mistyped section `where` would ask the file
    check_keys(tree, Recipe, where)
    # Laid over the defaults as a whole, so that `sft.optimizer.muon_lr=0.002` leaves sft's other optimizer settings as
    # they are: validated alone, the section would fall back to the defaults of its class, which are pretraining's.
    merged = Recipe().model_dump(by_alias=True)
    _overlay(merged, tree)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise UserError("\n".join(_describe(entry, tree, where) for entry in error.errors())) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable, or name another recipe") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: byte {error.object[error.start]:#04x} is not UTF-8, as TOML must be; save the recipe as UTF-8") from None


def find_recipe(name: str) -> Path:
    """The TOML file that `name` stands for."""
    path = Path(os.path.expanduser(name))  # of a user who is not there the name stays as it is
    if path.is_dir():
        resolved = path / "recipe.toml"
        if resolved.is_file():
            return resolved
        raise UserError(f"{path}: a folder without recipe.toml, so not a run folder")
    if path.suffix == ".toml" or path.is_file():
        if path.is_file():
            return path
        raise UserError(f"{path}: no such recipe file")
    shipped = recipes_folder() / f"{name}.toml"
    if shipped.is_file():
        return shipped
    names = shipped_recipes()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UserError(f"no recipe called {name!r}.{hint} Shipped recipes: {', '.join(names)}; or give the path of a .toml file.")


def parse_override(argument: str, verb: str | None = None) -> tuple[str, Any]:
    """`pretrain.tokens=5e6` as ("pretrain.tokens", 5000000.0). The value is read as TOML where it is TOML, else as text."""
    if not _is_utf_8(argument):
        raise UserError(f"{COMMAND_LINE}: {argument!r} is not UTF-8, as a recipe is; rename the file, or name the folder it is in")
    key, equals, raw = argument.partition("=")
    key, raw = key.strip(), raw.strip()
    if not equals or not key:
        raise UserError(f"{argument!r}: write key.sub=value, for example pretrain.tokens=1_000_000")
    if key == "data":
        key = SHORTHAND.get(verb or "", "data.path")
    annotation = _annotation(key)
    wants = {type(None)} if annotation is None else set(_leaves(annotation))
    if raw.lower() in ("none", "null") and type(None) in wants:
        return key, None
    never_text = wants & {int, float, bool, dict}
    if wants & {str} and not never_text and not raw.startswith(("[", '"', "'")):
        return key, [raw] if tuple in wants else raw
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        if tuple in wants and raw.startswith("["):  # a shell takes the quotes that it is given
            raise UserError(f"{COMMAND_LINE}: {argument!r}: not a list as TOML writes it; for a shell write {_list_of(wants, key)}") from None
        return key, raw
    return key, value if isinstance(value, (str, int, float, bool, list, dict)) else raw


def _list_of(wants: set, key: str) -> str:
    """An example of a list on the command line."""
    return f"""'{key}=["one", "another"]'""" if str in wants else f"'{key}=[1, 2]'"


def one_by_one(key: str, value: Any) -> list[tuple[str, Any]]:
    """A section given as a whole by its settings: `("prefer.bias", {"polite": 1})` as `[("prefer.bias.polite", 1)]`, so that those left out
    stay as the recipe has them. Anything else as it is."""
    if not isinstance(value, Mapping) or not is_section(key):
        return [(key, value)]
    return [one for name, item in value.items() for one in one_by_one(f"{key}.{name}", item)]


def is_section(dotted: str) -> bool:
    """Whether the key is a section of its own; a list of sections is not, nor a setting whose value is a table."""
    annotation = _annotation(dotted)
    return _section(annotation) is not None and typing.get_origin(annotation) is not tuple


def check_keys(tree: dict, model: type[BaseModel], where, prefix: str = "") -> None:
    """Refuse a key that no section has, naming the nearest one that some section has."""
    fields = _fields(model)
    for key, value in tree.items():
        dotted = prefix + key
        if key not in fields:
            raise UserError(f"{where(dotted)}: unknown key {dotted!r}.{_suggestion(dotted, key, fields, prefix)}")
        annotation = fields[key].annotation
        section = _section(annotation)
        if section is None:
            continue
        if not isinstance(value, list if typing.get_origin(annotation) is tuple else dict):
            raise UserError(f"{where(dotted)}: {dotted} = {value!r}: {_not_a_section(dotted, section, annotation)}")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                check_keys(item, section, where, dotted + ".")


def _suggestion(dotted: str, key: str, fields: dict, prefix: str) -> str:
    if dotted in OPTIONS:
        return f" It is no setting but an option, --{key.replace('_', '-')}."
    everywhere = list(all_keys())
    same_name = [other for other in everywhere if other.split(".")[-1] == key]
    if same_name:
        return f" Did you mean {same_name[0]!r}?"
    near = difflib.get_close_matches(key, fields, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {prefix + near[0]!r}?"
    near = difflib.get_close_matches(dotted, everywhere, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else f" Known here: {', '.join(sorted(fields))}."


def all_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every dotted key a recipe can hold."""
    for name, field in _fields(model).items():
        section = _section(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from all_keys(section, prefix + name + ".")


def line_of(text: str, dotted: str) -> int | None:
    """The line of a TOML text that sets a dotted key (or the nearest section above it), 1-based; None when it does not."""
    parts = [part for part in dotted.split(".") if not part.isdigit()]
    section: list[str] = []
    best, best_length = None, 0
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([\w.\-\"]+)\s*\]+", line)
        assignment = re.match(r"\s*([\w.\-\"]+)\s*=", line)
        if header:
            section = header[1].replace('"', "").split(".")
        found = section if header else section + assignment[1].replace('"', "").split(".") if assignment else None
        if found and found == parts[: len(found)] and len(found) > best_length:
            best, best_length = number, len(found)
    return best


def to_toml(recipe: Recipe) -> str:
    """The recipe in full as TOML, values that are None left out: what `runs/NAME/recipe.toml` holds."""
    lines: list[str] = []
    _write_table(lines, recipe.model_dump(mode="json", by_alias=True, exclude_none=True), "")
    return "\n".join(lines).strip() + "\n"


def _write_table(lines: list[str], table: dict, prefix: str) -> None:
    for key, value in table.items():
        if not isinstance(value, dict) and not _is_table_list(value):
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", key)  # a kind of prompt may be called anything
            lines.append(f"{key if bare else _toml(key)} = {_toml(value)}")
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]"]
            _write_table(lines, value, f"{prefix}{key}.")
        elif _is_table_list(value):
            for item in value:
                lines += ["", f"[[{prefix}{key}]]"]
                _write_table(lines, item, f"{prefix}{key}.")


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _fields(model: type[BaseModel]) -> dict:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _leaves(annotation: Any) -> Iterator[Any]:
    """The plain types an annotation is made of: `tuple[str, ...] | None` as tuple, str, NoneType; literals by their type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        yield from {type(argument) for argument in arguments}
    elif origin is typing.Annotated:
        yield from _leaves(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _leaves(argument)
    elif origin is not None:
        yield origin
        for argument in arguments:
            if argument is not Ellipsis:
                yield from _leaves(argument)
    else:
        yield annotation


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation is, or is a list of."""
    return next((leaf for leaf in _leaves(annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)), None)


def _annotation(dotted: str) -> Any:
    """The annotation of a dotted key, None when there is no such key (`check_keys` complains about that later)."""
    model: type[BaseModel] | None = Recipe
    annotation = None
    for part in dotted.split("."):
        field = _fields(model).get(part) if model else None
        if field is None:
            return None
        annotation = field.annotation
        model = _section(annotation)
    return annotation


def _insert(tree: dict, dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise UserError(f"{COMMAND_LINE}: {dotted} = {value!r}: {part!r} is a value or a list, not a section")
    tree[last] = value


def _overlay(tree: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _overlay(tree[key], value)
        else:
            tree[key] = value


def _is_utf_8(text: str) -> bool:
    """False for what an argument or a path holds of bytes that are not."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _resolve_paths(tree: dict, base: Path, where) -> None:
    """Make data paths absolute: those in a file are relative to it, those of the command line to the current folder."""

    def absolute(value: Any, key: str) -> Any:
        if isinstance(value, list):
            return [absolute(item, key) for item in value]
        if not isinstance(value, str):
            return value
        expanded = os.path.expanduser(os.path.expandvars(value))
        if not expanded.strip():  # joined to the folder it would be all of it
            raise UserError(f"{where(key)}: {key} = {value!r} names nothing; write a file or a folder (. for all of this one), or leave the key out")
        found = expanded if "://" in expanded else os.path.normpath(os.path.join(base.absolute(), expanded))
        if glob.has_magic(expanded) and found != expanded and not os.path.exists(found):  # a pattern, but the folder it begins in is none
            found = os.path.normpath(os.path.join(glob.escape(str(base.absolute())), expanded))
        if not _is_utf_8(found):
            raise UserError(f"{where(key)}: {key} = {value!r} lies in {found!r}, whose name is not UTF-8, as a recipe is; rename that folder")
        return found

    for dotted in PATH_KEYS:
        name, key = dotted.split(".")
        section = tree.get(name)
        if isinstance(section, dict) and key in section:
            section[key] = absolute(section[key], dotted)
    data = tree.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict) and "path" in source:
            source["path"] = absolute(source["path"], "data.sources.path")
    model = tree.get("from")  # a folder when there is one, else the id of a model on the Hub
    if isinstance(model, str) and (not model.strip() or (base / os.path.expanduser(model)).is_dir()):
        tree["from"] = absolute(model, "from")


def _describe(entry: dict, tree: dict, where) -> str:
    location = [str(part) for part in entry["loc"]]
    dotted = ".".join(location)
    value: Any = tree
    for part in entry["loc"]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = entry.get("input")
            break
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "missing":
        return f"{where(dotted)}: {dotted} is missing: {message}"
    if entry["type"] == "string_type":
        message = "must be text, in quotes"
    if entry["type"] == "tuple_type":
        of_text = str in _leaves(_annotation(dotted))
        message = f"must be a list, as [{_toml(value) if of_text else value}]" if isinstance(value, (str, int, float)) else "must be a list, in [ ]"
    shown = _toml(value) if isinstance(value, (str, int, float, bool, list)) and not _is_table_list(value) else repr(value)
    return f"{where(dotted)}: {dotted} = {shown}: {message[:1].lower()}{message[1:]}"


def _not_a_section(dotted: str, section: type[BaseModel], annotation: Any) -> str:
    fields = _fields(section)
    if typing.get_origin(annotation) is tuple:
        needed = " and ".join(name for name, field in fields.items() if field.is_required())
        return f"this is a list of sections, [[{dotted}]] in a recipe, each with {needed}"
    name, field = next(iter(fields.items()))
    return f"this is a section; set one of its keys, for example {dotted}.{name}={field.default}"
