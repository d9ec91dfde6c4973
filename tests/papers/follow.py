#!/usr/bin/env python3
"""Follows a tutorial: runs its shell blocks in order, in a fresh folder, and holds the outputs shown against those that come.

    follow.py DOCUMENT --path FOLDER_OF_ICHOR [--home REPOSITORY] [--keep FOLDER]

A block marked ``sh`` is run; a block marked ``text`` right after it is what it prints, on standard output and standard
error together. ``…`` stands for anything within a line, and a line that holds nothing else for any lines. A comment
``<!-- not run: why -->`` before a block leaves it out, ``<!-- exit N -->`` says how its last command ends (0 if not said).
Ports of the document are replaced by free ones, and put back in what is printed.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK_LIMIT_S = 180.0
COMMENT = re.compile(r"<!--\s*(not run|exit)\b:?\s*(.*?)\s*-->")
PORT = re.compile(r"(?<=[:\s])(2762|4242|8042|9110|11112)\b")


class Wrong(Exception):
    """The document and the world disagree."""


@dataclass
class Block:
    line: int
    text: str
    status: int = 0
    expected: list[str] | None = None


def read(document: str) -> tuple[list[Block], int]:
    """The blocks that are run, and how many are left out."""
    blocks: list[Block] = []
    left_out = 0
    said: tuple[str, str] | None = None
    fence: tuple[str, int] | None = None
    body: list[str] = []
    follows = False
    for number, line in enumerate(document.splitlines(), 1):
        if fence is None:
            if line.startswith("```"):
                fence, body = (line[3:].strip(), number), []
            elif found := COMMENT.fullmatch(line.strip()):
                said = (found[1], found[2])
            elif line.strip() and not line.startswith("#"):
                follows = follows and not line.strip()
            continue
        if line != "```":
            body.append(line)
            continue
        (kind, begun), fence = fence, None
        if kind == "sh":
            follows = said is None or said[0] == "exit"
            if follows:
                blocks.append(Block(begun, "\n".join(body) + "\n", int(said[1]) if said else 0))
            else:
                left_out += 1
        elif kind == "text":
            if not follows or blocks[-1].expected is not None:
                raise Wrong(f"line {begun}: output without a command before it")
            blocks[-1].expected = body
        elif kind == "":
            raise Wrong(f"line {begun}: a block says what it is: sh, text, ...")
        said = None
    if fence is not None:
        raise Wrong(f"line {fence[1]}: a block that does not end")
    return blocks, left_out


def pattern(expected: list[str]) -> re.Pattern[str]:
    """What output fits: runs of spaces are one."""
    parts = []
    for line in expected:
        if line.strip() == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            words = re.sub(r"\s+", " ", line.rstrip())
            parts.append(r"[^\n]*?".join(re.escape(piece) for piece in words.split("…")) + "\n")
    return re.compile("".join(parts))


def plain(text: str) -> str:
    lines = [re.sub(r"\s+", " ", line.rstrip()) for line in text.splitlines()]
    return "".join(line + "\n" for line in lines)


def free_ports(wanted: list[str]) -> dict[str, str]:
    """A free port on loopback for each, below those that the system hands out of its own accord."""
    ports: dict[str, str] = {}
    candidate = 15_000 + os.getpid() % 1_000 * 15
    for port in wanted:
        while True:
            candidate = candidate + 1 if candidate < 30_000 else 15_000
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", candidate))
                except OSError:
                    continue
            ports[port] = str(candidate)
            break
    return ports


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class Shell:
    """One shell for all blocks, as a reader has one; it and what it started end with it."""

    def __init__(self, folder: Path, notes: Path, environment: dict[str, str]) -> None:
        self.notes = notes
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder, env=environment, stdin=subprocess.PIPE, text=True, start_new_session=True,
        )

    def run(self, number: int, text: str) -> tuple[int, str]:
        """Exit status of the last command, and the output."""
        script, output, status = (self.notes / f"{number:02}.{end}" for end in ("sh", "out", "status"))
        script.write_text(text)
        assert self.process.stdin is not None
        self.process.stdin.write(f". {script} > {output} 2>&1; echo $? > {status}.new; mv {status}.new {status}\n")
        self.process.stdin.flush()
        begun = time.monotonic()
        while not status.exists():
            if self.process.poll() is not None:
                raise Wrong(f"the shell ended\n{output.read_text()}")
            if time.monotonic() - begun > BLOCK_LIMIT_S:
                raise Wrong(f"not done within {BLOCK_LIMIT_S:.0f} s; so far:\n{output.read_text()}")
            time.sleep(0.05)
        return int(status.read_text()), output.read_text()

    def end(self) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if alive(self.process.pid):
                os.killpg(self.process.pid, sign)
                for _ in range(100):
                    self.process.poll()
                    if not alive(self.process.pid):
                        break
                    time.sleep(0.05)
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def follow(document: str, folder: Path, notes: Path, environment: dict[str, str]) -> tuple[int, int]:
    """Runs the document. How many blocks were run, and how many outputs were held against the document."""
    blocks, left_out = read(document)
    if not blocks:
        raise Wrong("no block to run")
    ports = free_ports(sorted({found for block in blocks for found in PORT.findall(block.text)}))
    back = {found: port for port, found in ports.items()}
    shell = Shell(folder, notes, environment)
    held = 0
    try:
        for number, block in enumerate(blocks, 1):
            text = PORT.sub(lambda found: ports[found[1]], block.text)
            try:
                status, output = shell.run(number, text)
            except Wrong as wrong:
                raise Wrong(f"line {block.line}: {wrong}") from None
            for found, port in back.items():
                output = re.sub(rf"\b{found}\b", port, output)
            print(f"line {block.line}: exit {status}, {len(output.splitlines())} lines", flush=True)
            if status != block.status:
                raise Wrong(f"line {block.line}: exit {status}, not {block.status}:\n{output}")
            if block.expected is None and output.strip():
                raise Wrong(f"line {block.line}: prints what the document does not show:\n{output}")
            if block.expected is not None:
                held += 1
                if not pattern(block.expected).fullmatch(plain(output)):
                    shown = "\n".join(block.expected)
                    raise Wrong(f"line {block.line}: the document shows\n{shown}\n--- and this came\n{output}")
    finally:
        shell.end()
    print(f"{len(blocks)} blocks run, {held} outputs held against the document, {left_out} blocks left out")
    return len(blocks), held


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("document", type=Path)
    parser.add_argument("--path", type=Path, required=True, help="folder of ichor")
    parser.add_argument("--home", type=Path, help="the repository; absent: that of the document")
    parser.add_argument("--keep", type=Path, help="work here, and leave everything")
    arguments = parser.parse_args()
    home = (arguments.home or arguments.document.parent.parent).resolve()
    environment = dict(os.environ)
    environment["PATH"] = f"{arguments.path.resolve()}:{environment['PATH']}:/usr/sbin"
    environment["ICHOR_HOME"] = str(home)
    environment.pop("ICHOR_CONFIG", None)
    with tempfile.TemporaryDirectory(prefix="ichor-follow-") as scratch:
        base = arguments.keep.resolve() if arguments.keep else Path(scratch)
        folder, notes = base / "reader", base / "notes"
        folder.mkdir(parents=True)
        notes.mkdir()
        try:
            follow(arguments.document.read_text(), folder, notes, environment)
        except Wrong as wrong:
            print(f"{arguments.document}: {wrong}", file=sys.stderr)
            for log in sorted(folder.glob("*.log")):
                print(f"--- end of {log.name}", file=sys.stderr)
                print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
