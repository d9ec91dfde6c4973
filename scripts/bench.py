#!/usr/bin/env python3
"""Measures ichor as whole processes between real counterparts, and writes the figures into docs/performance.md.

Everything runs on loopback and in a temporary folder. Receivers and senders are measured in turn within one run,
because the speed of a machine drifts; the middle of three runs is quoted.

    scripts/bench.py                                   print the tables
    scripts/bench.py --write docs/performance.md       put them between the markers of that file
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
DICOM_WEB_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
WEIGHTS = ROOT / "models/demo/demo.safetensors"
RUNS = 3
QUIET_PERIOD_S = 1.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tool(name: str) -> str:
    """An executable on the path, or among the system's daemons."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        sys.exit(f"bench: {name} is missing; run `make setup`")
    return path


def wait_for(what: str, limit_s: float, ask: Callable[[], bool], pause_s: float = 0.02) -> None:
    begun = time.monotonic()
    while not ask():
        if time.monotonic() - begun > limit_s:
            sys.exit(f"bench: {what}: not within {limit_s} s")
        time.sleep(pause_s)


def plain_environment() -> dict[str, str]:
    """The environment in which DCMTK does as it does out of the box."""
    return {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}


@contextlib.contextmanager
def process(command: list[str], log: Path, nodelay: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server, and ends it."""
    # DCMTK leaves Nagle's algorithm on unless told otherwise, and is then a measure of delayed ACKs.
    environment = {**os.environ, "TCP_NODELAY": "1"} if nodelay else plain_environment()
    with log.open("ab") as sink:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def echoes(port: int, called: str) -> bool:
    command = [tool("echoscu"), "-aet", "STORESCU", "-aec", called, "-to", "2", "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def memory_mib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) // 1024
    raise ValueError(field)


class Bench:
    """The binary under test, a temporary folder, and the studies in it."""

    def __init__(self, ichor: Path, folder: Path) -> None:
        self.ichor, self.folder = str(ichor), folder

    def phantoms(self, name: str, *options: str) -> Path:
        folder = self.folder / name
        subprocess.run([self.ichor, "phantom", "--out", str(folder), *options], check=True, capture_output=True)
        return folder

    @contextlib.contextmanager
    def daemon(
        self,
        quiet_period_s: float,
        pacs_port: int | None = None,
        arguments: tuple[str, ...] = (),
        database: Path | None = None,
        sections: str = "",
    ) -> Iterator[tuple[int, Path, int]]:
        """`ichor serve`: yields its port, its configuration and its process id. `database` is copied first."""
        home = Path(tempfile.mkdtemp(dir=self.folder))
        if database is not None:
            shutil.copyfile(database, home / "ichor.db")
        port = free_port()
        text = f"""
[store]
database = "{home}/ichor.db"
blobs = "{home}/blobs"
[listen]
address = "127.0.0.1:{port}"
ae_title = "ICHOR"
max_associations_per_peer = 64
[[source]]
networks = ["127.0.0.0/8"]
quiet_period_s = {quiet_period_s}
[model]
weights = "{WEIGHTS}"
device = "cpu"
"""
        if pacs_port is not None:
            text += f"""
[[destination]]
name = "pacs"
kind = "c-store"
address = "127.0.0.1:{pacs_port}"
ae_title = "ORTHANC"
"""
        text += sections
        config = home / "ichor.toml"
        config.write_text(text)
        with process([self.ichor, "serve", "--config", str(config), *arguments], self.folder / "ichor.log") as running:
            wait_for("ichor serve", 60, lambda: echoes(port, "ICHOR"), 0.1)
            yield port, config, running.pid
        shutil.rmtree(home, ignore_errors=True)

    @contextlib.contextmanager
    def orthanc(self, nodelay: bool = True) -> Iterator[tuple[int, int, int]]:
        """Orthanc: yields its DICOM and its HTTP port, and its process id."""
        home = Path(tempfile.mkdtemp(dir=self.folder))
        dicom_port, http_port = free_port(), free_port()
        config = home / "orthanc.json"
        settings = {
            "StorageDirectory": str(home),
            "IndexDirectory": str(home),
            "HttpPort": http_port,
            "DicomPort": dicom_port,
            "DicomAet": "ORTHANC",
            "DicomAlwaysAllowStore": True,
            "AuthenticationEnabled": False,
        }
        config.write_text(json.dumps(settings))
        with process([tool("Orthanc"), str(config)], self.folder / "orthanc.log", nodelay) as running:
            wait_for("Orthanc", 30, lambda: echoes(dicom_port, "ORTHANC"), 0.1)
            yield dicom_port, http_port, running.pid
        shutil.rmtree(home, ignore_errors=True)

    @contextlib.contextmanager
    def storescp(self, nodelay: bool = True, arguments: tuple[str, ...] = ("--fork", "-pdu", "131072")) -> Iterator[tuple[int, int]]:
        """DCMTK's storescp: yields its port and its process id."""
        home = tempfile.mkdtemp(dir=self.folder)
        port = free_port()
        command = [tool("storescp"), "-od", home, "+xa", *arguments, str(port)]
        with process(command, self.folder / "storescp.log", nodelay) as running:
            wait_for("storescp", 30, lambda: echoes(port, "ANY-SCP"), 0.1)
            yield port, running.pid
        shutil.rmtree(home, ignore_errors=True)

    def send_by_storescu(self, port: int, called: str, files: list[str]) -> None:
        command = [tool("storescu"), "-aet", "STORESCU", "-aec", called, "-pdu", "131072", "127.0.0.1", str(port)]
        environment = {**os.environ, "TCP_NODELAY": "1"}
        subprocess.run([*command, *files], check=True, capture_output=True, env=environment)

    def send_by_ichor(self, port: int, called: str, files: list[str]) -> None:
        command = [self.ichor, "send", "--to", f"{called}@127.0.0.1:{port}", "--from", "STORESCU"]
        subprocess.run([*command, *files], check=True, capture_output=True)

    def studies(self, config: Path, *arguments: str) -> object:
        command = [self.ichor, "studies", arguments[0], "--config", str(config), *arguments[1:], "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def dicom_files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.dcm"))


def settle() -> None:
    """Lets what earlier steps left in memory reach the medium: a receiver's fsync does not pay for the copy of a database."""
    os.sync()
    time.sleep(1.0)


def timed(action: Callable[[], None]) -> float:
    settle()
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def receiving(bench: Bench) -> list[str]:
    """Slices a second, by receiver and sender, 400 slices of 512 × 512 on one association, and on four."""
    files = dicom_files(bench.phantoms("receive", "--count", "10", "--slices", "40", "--matrix", "512", "--seed", "500"))
    senders = {"storescu": bench.send_by_storescu, "ichor send": bench.send_by_ichor}
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(RUNS):
        # A fresh receiver a run: the same objects again would be duplicates.
        for sender, send in senders.items():
            with bench.daemon(quiet_period_s=3600) as (port, _, _):
                rates.setdefault(("ichor", sender), []).append(len(files) / timed(lambda: send(port, "ICHOR", files)))
            with bench.storescp() as (port, _):
                rates.setdefault(("DCMTK storescp", sender), []).append(
                    len(files) / timed(lambda: send(port, "ANY-SCP", files))
                )
            with bench.orthanc() as (port, _, _):
                rates.setdefault(("Orthanc", sender), []).append(len(files) / timed(lambda: send(port, "ORTHANC", files)))
        with bench.daemon(quiet_period_s=3600) as (port, _, _):
            rates.setdefault(("ichor", "4 × storescu"), []).append(len(files) / timed(lambda: four_at_once(port, files)))
    columns = ["storescu", "ichor send", "4 × storescu"]
    lines = [f"| receiver | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for receiver in ["ichor", "DCMTK storescp", "Orthanc"]:
        cells = [
            f"{statistics.median(rates[receiver, column]):.0f}" if (receiver, column) in rates else ""
            for column in columns
        ]
        lines.append(f"| {receiver} | {' | '.join(cells)} |")
    return lines


def four_at_once(port: int, files: list[str]) -> None:
    command = [tool("storescu"), "-aet", "STORESCU", "-aec", "ICHOR", "-pdu", "131072", "127.0.0.1", str(port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    running = [
        subprocess.Popen([*command, *files[part::4]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        for part in range(4)
    ]
    if any(one.wait() for one in running):
        sys.exit("bench: storescu failed")


def segmentations(http_port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/series?expand", timeout=20) as answer:
        return sum(series["MainDicomTags"].get("Modality") == "SEG" for series in json.load(answer))


def turnaround(bench: Bench) -> list[str]:
    """From the last slice to the Segmentation in the PACS, 32-slice studies, and the daemon's memory."""
    times: list[float] = []
    negatives = 0
    with bench.orthanc() as (dicom_port, http_port, _):
        with bench.daemon(QUIET_PERIOD_S, dicom_port) as (port, config, pid):
            idle = memory_mib(pid, "VmRSS:")
            for seed in range(700, 706):
                options = ["--seed", str(seed), "--positive", "true", "--slices", "32", "--matrix", "512"]
                files = dicom_files(bench.phantoms(f"study-{seed}", *options))
                before = segmentations(http_port)
                bench.send_by_storescu(port, "ICHOR", files)
                sent = time.monotonic()

                def ended() -> bool:
                    return segmentations(http_port) > before or bool(
                        len(bench.studies(config, "list", "--positive=false")) > negatives
                    )

                wait_for("a result", 120, ended)
                if segmentations(http_port) > before:
                    times.append(time.monotonic() - sent - QUIET_PERIOD_S)
                else:
                    negatives += 1
            after, peak = memory_mib(pid, "VmRSS:"), memory_mib(pid, "VmHWM:")
    if not times:
        sys.exit("bench: no study was called positive")
    return [
        "| figure | value |",
        "|---|---:|",
        f"| end of the quiet period → Segmentation in Orthanc, median of {len(times)} | {statistics.median(times):.2f} s |",
        f"| the same, longest | {max(times):.2f} s |",
        f"| studies with a bleed that were called negative | {negatives} |",
        f"| resident memory, model loaded, before the first study | {idle} MiB |",
        f"| resident memory after the last | {after} MiB |",
        f"| most resident memory | {peak} MiB |",
    ]


def machine() -> str:
    """The processor, in words."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.machine()}"


def revision() -> str:
    found = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, check=False)
    return found.stdout.decode().strip() or "unknown"


def put_between_markers(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    page = path.read_text()
    if begin not in page or end not in page:
        sys.exit(f"bench: {path} has no {begin} … {end}")
    replaced = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: f"{begin}\n{text}\n{end}", page, flags=re.S)
    path.write_text(replaced)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ichor", type=Path, default=ROOT / "target/release/ichor", help="the binary to measure")
    parser.add_argument("--divan", type=Path, help="output of `cargo bench`, put below the tables")
    parser.add_argument("--write", type=Path, help="Markdown file with the markers")
    options = parser.parse_args()
    if not options.ichor.exists():
        sys.exit(f"bench: {options.ichor} is missing; run `make build`")
    with tempfile.TemporaryDirectory(prefix="ichor-bench-") as folder:
        bench = Bench(options.ichor.resolve(), Path(folder))
        lines = [f"{time.strftime('%Y-%m-%d')}, revision {revision()}, {machine()}.", ""]
        lines += ["Slices received a second (400 slices of 512 × 512, median of three runs):", "", *receiving(bench), ""]
        lines += ["From the last slice to the PACS (32 slices of 512 × 512):", "", *turnaround(bench)]
    if options.divan:
        # Beside divan's tables cargo prints what it builds and the empty runs of the unit test harness.
        tables = [line.rstrip() for line in options.divan.read_text().splitlines() if re.search("[│├╰╭]", line)]
        lines += ["", "Inside the crates:", "", "```text", *tables, "```"]
    text = "\n".join(lines)
    print(text)
    if options.write:
        put_between_markers(options.write, text)


if __name__ == "__main__":
    main()
