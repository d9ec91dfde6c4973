#!/usr/bin/env python3
"""Holds the documents against what they speak of.

    check.py --ichor PROGRAM [--write]

- every relative link in a Markdown file leads to a file, and its fragment to a heading;
- every document is in the index, docs/README.md;
- the figures of the model card are those of models/demo/evaluation.json (``--write`` puts them in);
- limits in the conformance statement are the defaults of docs/configuration.md;
- messages that docs/troubleshooting.md quotes stand in the program's source;
- commands that the documents name are commands of the program;
- the deployment copies what exists, and its ports are those of its configurations.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {"target", ".libtorch", ".git", "node_modules"}
LINK = re.compile(r"(?<!`)\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\(([^()\s]+(?:\([^()]*\))?)\)")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def markdown() -> list[Path]:
    found = [path for path in ROOT.rglob("*.md") if not SKIPPED & set(path.relative_to(ROOT).parts)]
    assert len(found) > 10, found
    return sorted(found)


def prose(text: str) -> str:
    """Without what stands in fences and in backticks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda code: " " * len(code[0]), text)


def anchor(heading: str) -> str:
    """The fragment of a heading, as GitHub makes it."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    return {anchor(found[1]) for found in re.finditer(r"^#+ (.+)$", text, flags=re.M)}


def links(text: str) -> list[str]:
    """Where a document leads to; a link may be shown as code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    text = re.sub(r"`([^`\n]*)`", lambda code: code[0] if "](" not in code[1] else "", text)
    images = re.findall(r'<img[^>]*\ssrc="([^"]+)"', text)
    return LINK.findall(text) + images


def check_links() -> list[str]:
    faults, count = [], 0
    for document in markdown():
        for target in links(document.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            path, _, fragment = target.partition("#")
            at = (document.parent / unquote(path)).resolve() if path else document
            if not at.exists():
                faults.append(f"{document.relative_to(ROOT)}: {target} leads nowhere")
            elif fragment and at.suffix == ".md" and fragment not in anchors(at):
                faults.append(f"{document.relative_to(ROOT)}: {target}: there is no such heading")
    if count < 50:
        faults.append(f"{count} relative links found: the reader of links is broken")
    return faults


def check_index() -> list[str]:
    index = ROOT / "docs/README.md"
    listed = {(index.parent / target.partition("#")[0]).resolve() for target in links(index.read_text())}
    return [
        f"docs/README.md does not list {path.name}"
        for path in sorted((ROOT / "docs").glob("*.md"))
        if path != index and path.resolve() not in listed
    ] + ([] if "docs/README.md" in links((ROOT / "README.md").read_text()) else ["README.md does not lead to docs/README.md"])


def interval(entry: dict, digits: int) -> str:
    bounds = entry.get("interval")
    return f"{bounds['low']:.{digits}f} to {bounds['high']:.{digits}f}" if bounds else ""


def figures() -> str:
    found = json.loads((ROOT / "models/demo/evaluation.json").read_text())
    counts, served = found["counts"], found["thresholds"]["served"]
    rows = [
        ("test studies (positive)", f"{counts['studies']} ({counts['positive_studies']})", "", ""),
        ("test slices (bleeding)", f"{counts['slices']} ({counts['bleeding_slices']})", "", ""),
    ]

    def curve(name: str, entry: dict, floor: dict | None = None) -> None:
        rows.append((name, f"{entry['auc']:.3f}", interval(entry, 3), f"{floor['auc']:.3f}" if floor else ""))

    def mean(name: str, entry: dict, floor: dict | None = None) -> None:
        rows.append((name, f"{entry['mean']:.3f}", interval(entry, 3), f"{floor['mean']:.3f}" if floor else ""))

    curve("AUC of slices", found["slices"]["auc"], found["slices_by_consistent_brightness"])
    curve("AUC of slices, each by itself", found["lone_slices"], found["slices_by_brightness"])
    for name in ("sensitivity", "specificity", "f1"):
        rows.append((f"{'F1' if name == 'f1' else name} of slices", f"{found['slices'][name]:.3f}", "", ""))
    curve("AUC of studies", found["studies"]["auc"])
    for name in ("sensitivity", "specificity", "f1"):
        rows.append((f"{'F1' if name == 'f1' else name} of studies", f"{found['studies'][name]:.3f}", "", ""))
    mean(f"Dice of the served map ({served}), raw", found["maps"][served]["dice"])
    mean(f"Dice of the served map ({served}), refined", found["refined"][served]["dice"], found["brightness"]["dice"])
    mean("Dice as served, slices not called count 0", found["served"]["dice"], found["brightness"]["dice"])
    mean("IoU as served, slices not called count 0", found["served"]["iou"], found["brightness"]["iou"])
    rows.append(("expected calibration error of slices", f"{found['calibration']['slices']:.3f}", "", ""))
    rows.append(("expected calibration error of studies", f"{found['calibration']['studies']:.3f}", "", ""))
    volume = found["volume"]
    rows.append(("error of volume, mL", f"{volume['error_ml']['mean']:.1f} ± {volume['error_ml']['sd']:.1f}", "", ""))
    rows.append(("absolute error of volume, mL", f"{volume['absolute_error_ml']['mean']:.1f}", "", ""))
    table = [f"`{found['model']}`: {found['notice']}.", "", "| figure | value | 95 % interval | brightness rule |", "|---|---:|---:|---:|"]
    return "\n".join(table + [f"| {' | '.join(row)} |" for row in rows])


def check_figures(write: bool) -> list[str]:
    card = ROOT / "docs/model-card.md"
    before, rest = card.read_text().split(BEGIN)
    shown, after = rest.split(END)
    wanted = f"\n{figures()}\n"
    if write:
        card.write_text(before + BEGIN + wanted + END + after)
    elif shown != wanted:
        return ["docs/model-card.md has other figures than models/demo/evaluation.json: tests/papers/check.py --write"]
    return []


def defaults() -> dict[str, str]:
    """Defaults by key, of the generated reference."""
    found: dict[str, str] = {}
    section = ""
    for line in (ROOT / "docs/configuration.md").read_text().splitlines():
        if heading := re.fullmatch(r"## `\[+([a-z_.]+)\]+`", line):
            section = heading[1]
        elif line.startswith("| `"):
            names, _, values, *_ = (cell.strip() for cell in line.strip("|").split(" | "))
            keys = re.findall(r"`([^`]+)`", names)
            each = values.split("<br>")
            for place, key in enumerate(keys):
                found[f"{section}.{key}"] = each[place if len(each) > 1 else 0].strip("`")
    return found


def check_limits() -> list[str]:
    known, faults, count = defaults(), [], 0
    lines = iter((ROOT / "docs/conformance.md").read_text().splitlines())
    for line in lines:
        if line != "<!-- table: limits -->":
            continue
        for row in lines:
            if not row.startswith("|"):
                break
            if found := re.search(r"\| `([a-z_.]+)` \| (\S+) \|$", row):
                count += 1
                if known.get(found[1]) != found[2]:
                    faults.append(f"docs/conformance.md: {found[1]} is {known.get(found[1])} by default, not {found[2]}")
    return faults if count >= 20 else [*faults, f"{count} limits in docs/conformance.md: the reader of the table is broken"]


def check_keys() -> list[str]:
    """Keys in backticks, with their section, are keys."""
    known = set(defaults())
    sections = {key.rsplit(".", 1)[0] for key in known}
    # What a document says for short.
    short = {"proof": "destination.proof", "segmentation": "destination.segmentation", "key_objects": "destination.key_objects",
             "report": "destination.report"}
    faults = []
    for name in ("conformance", "security", "operations", "troubleshooting", "ihe", "tls", "dicomweb", "worklist", "retention", "models",
                 "administration", "delivery", "monitoring"):
        for found in re.finditer(r"`([a-z_]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", (ROOT / f"docs/{name}.md").read_text()):
            key = found[1]
            section, _, last = key.rpartition(".")
            section = short.get(section, section)
            if section in sections and f"{section}.{last}" not in known and f"{section}.{last}" not in sections:
                faults.append(f"docs/{name}.md: there is no key {key}")
    return faults


def source() -> str:
    """The program's source, continued strings put together."""
    files = [*ROOT.glob("crates/*/src/**/*.rs"), *ROOT.glob("crates/*/templates/**/*")]
    text = "\n".join(path.read_text() for path in files if path.is_file())
    return re.sub(r"\\\n\s*", "", text).replace('\\"', '"')


def check_messages() -> list[str]:
    text, faults, count = source(), [], 0
    for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines():
        if not line.startswith("| `"):
            continue
        for message in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
            count += 1
            for part in re.split(r"…|\d+", message):
                if len(part.strip()) >= 4 and part.strip() not in text:
                    faults.append(f"docs/troubleshooting.md: the program does not say {part.strip()!r} (of {message!r})")
    return faults if count >= 20 else [*faults, f"{count} messages quoted: the reader of the table is broken"]


def check_commands(ichor: Path) -> list[str]:
    """Every `ichor ...` in the documents is a command, with options that it has."""
    known: dict[str, str] = {}

    def help_of(words: list[str]) -> str | None:
        key = " ".join(words)
        if key not in known:
            asked = subprocess.run([ichor, *words, "--help"], capture_output=True, text=True, timeout=60)
            known[key] = asked.stdout if asked.returncode == 0 else ""
        return known[key] or None

    faults = []
    for document in markdown():
        for line in command_lines(document.read_text()):
            # A manufacturer's model name, and a receiver as a table calls it.
            if line in ("hemorrhage analysis", "--receive-only"):
                continue
            command = []
            for word in re.findall(r"(?<!\S)[a-z][a-z-]*(?=\s|$)", line):
                if (not command or has_commands(help_of(command))) and help_of([*command, word]):
                    command.append(word)
                else:
                    break
            said = help_of(command)
            if not command and not line.startswith("-") or has_commands(said) and command and re.match(r"[a-z]+ [a-z]", line) and len(command) == 1:
                faults.append(f"{document.relative_to(ROOT)}: there is no command `ichor {line}`")
            for option in re.findall(r"(?<=\s)--[a-z-]+", f" {line}"):
                if option not in (said or ""):
                    faults.append(f"{document.relative_to(ROOT)}: ichor {' '.join(command)} has no {option}")
    if len([name for name in known if known[name]]) < 15:
        faults.append("few commands found in the documents: their reader is broken")
    return faults


def command_lines(text: str) -> list[str]:
    """What stands behind `ichor` in code, in a line and in blocks of shell."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    found = [part for line in lines for part in re.findall(r"(?:^\s*|\| |until |while |-u ichor )ichor ([^|;&#>]+)", line)]
    return [line.strip() for line in found + re.findall(r"`(?:sudo -u ichor )?ichor ([a-z-][^`]*)`", text)]


def has_commands(said: str | None) -> bool:
    return said is not None and "\nCommands:\n" in said


def check_deployment(ichor: Path) -> list[str]:
    import deployment

    return deployment.faults(ROOT, ichor)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ichor", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    ichor = arguments.ichor.resolve()
    faults = check_figures(arguments.write)
    for looked in (check_links, check_index, check_limits, check_keys, check_messages):
        faults += looked()
    faults += check_commands(ichor)
    faults += check_deployment(ichor)
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
