#!/usr/bin/env python3
"""The configuration reference: deploy/ichor.toml as a table, with the defaults that the program itself says.

    configuration.py --ichor PROGRAM [--write]

Words come from the comments of deploy/ichor.toml. Each key that stands there is taken out once and the rest given to
``ichor config check --json``: what the program then has in its place is the default; if it refuses, the key is needed.
Without ``--write`` the checked-in docs/configuration.md is held against what comes out.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "deploy/ichor.toml"
REFERENCE = ROOT / "docs/configuration.md"

HEADER = re.compile(r"(# )?(\[\[?)([a-z_.]+)\]\]?$")
KEY = re.compile(r"(# )?([a-z][a-z0-9_]*) = (.+)$")
ABSENT = object()
TOP = ""
"""The section of keys that stand before every section."""

INTRODUCTION = """\
# Configuration

Every key of `ichor.toml`. This file is generated from the comments of [`deploy/ichor.toml`](../deploy/ichor.toml), which shows all of
it in one place, and from the program, which says the defaults: change that file, not this one (`tests/papers/configuration.py`).

The format is [TOML](https://toml.io). Unknown keys are refused with their line; relative paths are relative to the folder of the file.
`ichor config check FILE` checks a file, `ichor config check --json FILE` prints everything that is in force, and `ichor doctor` looks
at what it names. A changed file counts from the next start; some of it on SIGHUP already ([operations](operations.md#change-the-configuration)).

A section in double brackets may stand any number of times. *needed*: there is no default; *none*: left out, it is not there or means
what its words say. What begins with a kind (`c-store:`, `hl7:`) belongs to that kind only.
"""


@dataclass
class Key:
    names: list[str]
    values: list[str]
    lines: list[int]
    words: list[str]
    is_shown_only: bool
    """Commented out in the file."""


@dataclass
class Section:
    name: str
    is_list: bool
    words: list[str]
    is_shown_only: bool
    keys: list[Key] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


class Wrong(Exception):
    """The file is not of the form that is read here."""


def paragraphs(comment: list[str]) -> list[list[str]]:
    """Parts of a comment, which an empty line of comment ends."""
    parts: list[list[str]] = [[]]
    for line in comment:
        if line == "#":
            parts.append([])
        else:
            parts[-1].append(line.removeprefix("#").removeprefix(" "))
    return [part for part in parts if part]


def read(text: str) -> list[Section]:
    sections: dict[str, Section] = {}
    current: Section | None = None
    comment: list[str] = []
    for number, line in enumerate(text.splitlines()):
        if not line.strip():
            # Prose before the first section is this file's own.
            comment = []
        elif found := HEADER.fullmatch(line):
            name, is_list = found[3], found[2] == "[["
            current = sections.setdefault(name, Section(name, is_list, [], bool(found[1])))
            if not current.words:
                current.words = [" ".join(part) for part in paragraphs(comment)]
            comment = []
        elif found := KEY.fullmatch(line):
            if current is None:
                current = sections.setdefault(TOP, Section(TOP, False, [], False))
            add(current, found, number, comment)
            comment = []
        elif line.startswith("#"):
            comment.append(line)
        else:
            raise Wrong(f"line {number + 1}: neither comment, section nor key: {line}")
    return list(sections.values())


def add(section: Section, found: re.Match[str], number: int, comment: list[str]) -> None:
    name, value, is_shown_only = found[2], found[3], bool(found[1])
    if known := next((key for key in section.keys if name in key.names), None):
        # A list shows several entries; the first that speaks counts.
        if not known.words and comment:
            known.words = words(comment)
        return
    parts = paragraphs(comment)
    if not section.keys and len(parts) > 1:
        section.words += [" ".join(part) for part in parts[:-1]]
        comment = ["# " + line for line in parts[-1]]
    if not comment and section.keys:
        # One comment for several keys.
        last = section.keys[-1]
        if last.lines[-1] == number - 1 and last.is_shown_only == is_shown_only:
            last.names.append(name)
            last.values.append(value)
            last.lines.append(number)
            return
    section.keys.append(Key([name], [value], [number], words(comment), is_shown_only))


def words(comment: list[str]) -> list[str]:
    """The lines of a comment, those of a list each for itself."""
    lines: list[str] = []
    for line in comment:
        line = line.removeprefix("#").removeprefix(" ")
        if line.startswith("  ") and (entry := re.fullmatch(r"  ([a-z-]+)  +(.+)", line)):
            lines.append(f"`{entry[1]}`: {entry[2]}")
        elif lines:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return lines


def value_of(text: str) -> object:
    return tomllib.loads(f"x = {text}")["x"]


def kind(name: str, text: str) -> str:
    value = value_of(text)
    match value:
        case bool():
            return "true or false"
        case int() | float():
            unit = None if "_per_" in name else re.search(r"_(s|mib|kib|mm|ml|percent|degrees|years|days)$", name)
            number = "whole number" if isinstance(value, int) else "number"
            units = {"s": "s", "mib": "MiB", "kib": "KiB", "mm": "mm", "ml": "mL", "percent": "%", "degrees": "°", "years": "years", "days": "days"}
            return f"{number}, {units[unit[1]]}" if unit else number
        case str():
            return "path" if name in PATHS or name.endswith("_file") else "text"
        case list():
            return "list of texts"
        case dict():
            return "table of texts"
    raise Wrong(f"{name}: a value of no known type: {text}")


PATHS = {"database", "blobs", "weights", "path"}


class Program:
    """Asks the program what it makes of a file."""

    def __init__(self, ichor: Path, scratch: Path) -> None:
        self.ichor, self.scratch = ichor, scratch

    def config(self, lines: list[str]) -> dict | None:
        """The configuration in force; nothing if it is refused."""
        file = self.scratch / "ichor.toml"
        file.write_text("\n".join(lines) + "\n")
        asked = subprocess.run([self.ichor, "config", "check", "--json", file], capture_output=True, text=True, timeout=60)
        return json.loads(asked.stdout)["config"] if asked.returncode == 0 else None


def place(lines: list[str], number: int) -> list[tuple[str, int | None]]:
    """The section of a line, as a way through the configuration: each name with its place in a list."""
    counts: dict[str, int] = {}
    current = ""
    for line in lines[:number]:
        if (found := HEADER.fullmatch(line)) and not found[1]:
            current = found[3]
            if found[2] == "[[":
                counts[current] = counts.get(current, -1) + 1
    way, name = [], ""
    for part in current.split(".") if current else []:
        name = f"{name}.{part}" if name else part
        way.append((part, counts.get(name)))
    return way


def look_up(config: dict, way: list[tuple[str, int | None]], key: str) -> object:
    at: object = config
    for name, index in way:
        at = at.get(name, ABSENT) if isinstance(at, dict) else ABSENT
        if index is not None and isinstance(at, list):
            at = at[index]
    found = at.get(key, ABSENT) if isinstance(at, dict) else ABSENT
    return ABSENT if found is None else found


def same(a: object, b: object) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and float(a) == float(b)
    return a == b


def toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return "[" + ", ".join(toml(item) for item in value) + "]"
        case dict():
            return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    raise Wrong(f"a value of no known type: {value!r}")


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def code(text: str) -> str:
    return f"`{cell(text)}`"


def defaults(program: Program, lines: list[str], key: Key) -> tuple[list[str], list[str]]:
    """Default and example of each name of a row."""
    found, examples = [], []
    for name, text, number in zip(key.names, key.values, key.lines):
        config = program.config(lines) if key.is_shown_only else without(program, lines, number, key.lines)
        default = ABSENT if config is None else look_up(config, place(lines, number), name)
        if default is ABSENT and not key.is_shown_only and text in ("true", "false"):
            # A switch that is off is not written.
            default = value_of(text)
        if config is None:
            found.append("*needed*")
        elif default is ABSENT:
            found.append("*none*")
        else:
            found.append(code(toml(default)))
        if config is None or default is ABSENT or not same(default, value_of(text)):
            examples.append(text)
    return found, examples


def without(program: Program, lines: list[str], number: int, row: list[int]) -> dict | None:
    """What the program makes of a file without a key; nothing if it cannot do without. Keys that only go together are taken
    out together, and sections that speak of what the key decides may go first."""
    for taken, cut in (({number}, False), (set(row), False), (set(row), True)):
        rest = ["" if at in taken else line for at, line in enumerate(lines)]
        if cut:
            rest = without_dependents(rest, number)
        if (config := program.config(rest)) is not None:
            return config
    return None


def without_dependents(lines: list[str], number: int) -> list[str]:
    """Without the sections of a destination and the rules, but for that of the line."""
    kept, skips, own = [], False, "".join(f".{name}" for name, _ in place(lines, number))
    for line in lines:
        if (found := HEADER.fullmatch(line)) and not found[1]:
            skips = f".{found[3]}" != own and (found[3].startswith("destination.") or found[3] in ("rule", "forward"))
        kept.append("" if skips else line)
    return kept


def render(program: Program, text: str) -> str:
    lines = text.splitlines()
    if program.config(lines) is None:
        raise Wrong(f"{SOURCE} is refused by the program")
    out = [INTRODUCTION]
    for section in read(text):
        brackets = ("[[", "]]") if section.is_list else ("[", "]")
        out.append("## At the top\n" if section.name == TOP else f"## `{brackets[0]}{section.name}{brackets[1]}`\n")
        out += [f"{part}\n" for part in section.words]
        if not section.keys:
            continue
        out.append("| key | value | default | |\n|---|---|---|---|")
        for key in section.keys:
            found, examples = (["*none*"], key.values) if section.is_shown_only else defaults(program, lines, key)
            if len(set(found)) == 1:
                found = found[:1]
            names = "<br>".join(code(name) for name in key.names)
            kinds = "<br>".join(dict.fromkeys(kind(name, value) for name, value in zip(key.names, key.values)))
            said = "<br>".join(cell(line) for line in key.words)
            if examples:
                said += ("<br>" if said else "") + "Such as " + ", ".join(code(example) for example in examples) + "."
            out.append(f"| {names} | {kinds} | {'<br>'.join(found)} | {said} |")
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ichor", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ichor-configuration-") as scratch:
        made = render(Program(arguments.ichor.resolve(), Path(scratch)), SOURCE.read_text())
    if arguments.write:
        REFERENCE.write_text(made)
    if REFERENCE.read_text() != made:
        print("docs/configuration.md has drifted from deploy/ichor.toml or the program: "
              "python3 tests/papers/configuration.py --ichor target/release/ichor --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
