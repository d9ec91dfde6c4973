#!/usr/bin/env python3
"""Measures ichor's receiver beside others: DCMTK's storescp, dicom-rs's dicom-storescp and Orthanc.

The same 400 slices of 512 × 512 go to each in turn, three rounds, interleaved; each receiver is started anew for each
measurement. ichor fsyncs and commits before each answer, and analyses while it receives; the others do neither. Figures
are to be compared within one run. The last line of the output is JSON with the medians.

    scripts/bench_receive.py                                   print the tables
    scripts/bench_receive.py --write docs/performance.md       put them between the markers of that file
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bench_medium
from bench import (
    ROOT,
    RUNS,
    Bench,
    dicom_files,
    echoes,
    free_port,
    machine,
    memory_mib,
    plain_environment,
    process,
    put_between_markers,
    revision,
    settle,
    timed,
    tool,
    wait_for,
)

BEGIN, END = "<!-- receive: begin -->", "<!-- receive: end -->"
QUIET_S = 3600.0
MILLION = 1_000_000
SLICES_A_STUDY = 40
# Rounds of the comparison of indexes: a ratio near 1 wants many.
INDEX_ROUNDS = 9

# A receiver that is running: its port, the AE title it is called by, and its process id.
Running = tuple[int, str, int]


def storescu(port: int, called: str, files: list[str], nodelay: bool, pdu: bool) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TCP_NODELAY": "1"} if nodelay else plain_environment()
    options = ["-pdu", "131072"] if pdu else []
    command = [tool("storescu"), "-aet", "STORESCU", "-aec", called, *options, "127.0.0.1", str(port), *files]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def finished(sender: subprocess.Popen[bytes]) -> None:
    _, errors = sender.communicate()
    if sender.returncode != 0 or b"E:" in errors:
        sys.exit(f"bench: storescu failed: {errors.decode(errors='replace')[-2000:]}")


class Receivers:
    """The receivers, each started anew in an empty folder."""

    def __init__(self, bench: Bench, dicom_rs: str | None) -> None:
        self.bench, self.dicom_rs = bench, dicom_rs

    @contextlib.contextmanager
    def start(self, name: str, nodelay: bool) -> Iterator[Running]:
        match name:
            case "ichor":
                with self.bench.daemon(QUIET_S) as (port, _, pid):
                    yield port, "ICHOR", pid
            case "ichor --receive-only":
                with self.bench.daemon(QUIET_S, arguments=("--receive-only",)) as (port, _, pid):
                    yield port, "ICHOR", pid
            case "DCMTK storescp":
                with self.bench.storescp(nodelay, ("-pdu", "131072") if nodelay else ()) as (port, pid):
                    yield port, "ANY-SCP", pid
            case "DCMTK storescp --fork":
                with self.bench.storescp(nodelay) as (port, pid):
                    yield port, "ANY-SCP", pid
            case "Orthanc":
                with self.bench.orthanc(nodelay) as (port, _, pid):
                    yield port, "ORTHANC", pid
            case "dicom-storescp":
                home, port = tempfile.mkdtemp(dir=self.bench.folder), free_port()
                command = [str(self.dicom_rs), "-o", home, "-p", str(port)]
                with process(command, self.bench.folder / "dicom-storescp.log", nodelay) as running:
                    wait_for("dicom-storescp", 30, lambda: echoes(port, "STORE-SCP"), 0.1)
                    yield port, "STORE-SCP", running.pid
                shutil.rmtree(home, ignore_errors=True)
            case other:
                raise ValueError(other)


class Figures:
    """Rates in slices a second, and resident memory in MiB, by case and receiver."""

    def __init__(self) -> None:
        self.rates: dict[tuple[str, str], list[float]] = {}
        self.memory: dict[tuple[str, str], int] = {}

    def add(self, case: str, receiver: str, rate: float, pid: int) -> None:
        self.rates.setdefault((case, receiver), []).append(rate)
        peak = memory_mib(pid, "VmHWM:")
        self.memory[case, receiver] = max(peak, self.memory.get((case, receiver), 0))

    def median(self, case: str, receiver: str) -> float | None:
        rates = self.rates.get((case, receiver))
        return statistics.median(rates) if rates else None


ONE_STOCK, ONE_NODELAY, EIGHT = "storescu as it comes", "storescu, TCP_NODELAY", "8 × storescu, TCP_NODELAY"
MEDIUM = "no receiver: written and fsynced"
RECEIVERS = ["ichor", "ichor --receive-only", "DCMTK storescp", "DCMTK storescp --fork", "dicom-storescp", "Orthanc", MEDIUM]


def one_association(receivers: Receivers, figures: Figures, files: list[str], names: list[str]) -> None:
    for case, nodelay in [(ONE_STOCK, False), (ONE_NODELAY, True)]:
        for name in names:
            with receivers.start(name, nodelay) as (port, called, pid):
                seconds = timed(lambda: finished(storescu(port, called, files, nodelay, nodelay)))
                figures.add(case, name, len(files) / seconds, pid)


def eight_associations(receivers: Receivers, figures: Figures, files: list[str], fairness: list[float]) -> None:
    for name in ["ichor", "ichor --receive-only", "DCMTK storescp --fork"]:
        with receivers.start(name, True) as (port, called, pid):
            settle()
            begun = time.monotonic()
            running = [storescu(port, called, files[part::8], True, True) for part in range(8)]
            ended: list[float] = []
            while running:
                for sender in [sender for sender in running if sender.poll() is not None]:
                    ended.append(time.monotonic() - begun)
                    running.remove(sender)
                    finished(sender)
                time.sleep(0.002)
            figures.add(EIGHT, name, len(files) / max(ended), pid)
            if name == "ichor":
                shares = [1 / seconds for seconds in ended]
                fairness.append(min(shares) / statistics.mean(shares))


def medium_alone(bench: Bench, figures: Figures, files: list[str]) -> None:
    slices = [Path(file).read_bytes() for file in files]
    for case, threads in [(ONE_NODELAY, 1), (EIGHT, 8)]:
        folder = Path(tempfile.mkdtemp(dir=bench.folder))
        settle()
        figures.rates.setdefault((case, MEDIUM), []).append(bench_medium.rate(slices, folder, threads))
        shutil.rmtree(folder)


def many_associations(receivers: Receivers, small: list[str], large: list[str]) -> dict[str, int]:
    """Most resident memory while 64 associations send at once, without the model, by the size of the slices."""
    peaks = {}
    for what, files in [("128 × 128 (33 KB)", small), ("512 × 512 (525 KB)", large)]:
        with receivers.start("ichor --receive-only", True) as (port, called, pid):
            for sender in [storescu(port, called, files[part::64], True, True) for part in range(64)]:
                finished(sender)
            peaks[what] = memory_mib(pid, "VmHWM:")
    return peaks


def million_instances(bench: Bench) -> Path:
    """A database with a million instances of ended studies, as ichor would have written them; kept between runs."""
    migrations = sorted((ROOT / "migrations").glob("*.sql"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in migrations) + Path(__file__).read_bytes()).hexdigest()
    target = ROOT / "target/bench" / f"million-{key[:16]}.db"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_suffix(".part")
    with bench.daemon(QUIET_S, arguments=("--receive-only",)) as (_, config, _):
        subprocess.run([bench.ichor, "studies", "list", "--config", str(config)], check=True, capture_output=True)
        source = sqlite3.connect(config.parent / "ichor.db")
        made.unlink(missing_ok=True)
        copy = sqlite3.connect(made)
        source.backup(copy)
        source.close()
    numbers = random.Random(7)
    studies, day = MILLION // SLICES_A_STUDY, 86_400_000
    now = int(time.time() * 1000)
    with copy:
        for study in range(1, studies + 1):
            at = now - (studies - study) * 5 * 60_000 - day
            copy.execute(
                "INSERT INTO study (id, study_instance, patient_id, patient_name, accession_number, study_date, source_ae,"
                " status, version, received_at, last_instance_at, instances, bytes, result_version, positive, probability,"
                " volume_ml, analysed_at) VALUES (?,?,?,?,?,?,?,'analysed',1,?,?,?,?,1,?,?,?,?)",
                (
                    study,
                    f"2.25.1{study:09d}",
                    f"P{study // 2}",
                    f"NAME^{study}",
                    f"A{study}",
                    time.strftime("%Y%m%d", time.gmtime(at / 1000)),
                    f"CT{study % 5}",
                    at,
                    at + 30_000,
                    SLICES_A_STUDY,
                    SLICES_A_STUDY * 527_000,
                    study % 20 == 0,
                    numbers.random(),
                    float(study % 20 == 0),
                    at + 60_000,
                ),
            )
            copy.execute(
                "INSERT INTO series (id, study_id, series_instance, modality) VALUES (?,?,?,'CT')",
                (study, study, f"2.25.2{study:09d}"),
            )
            rows = []
            for slice_ in range(SLICES_A_STUDY):
                number = (study - 1) * SLICES_A_STUDY + slice_ + 1
                blob = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).hexdigest()
                uid = f"2.25.3{numbers.getrandbits(100)}{number}"
                name = f"{blob[:2]}/{blob[2:4]}/{blob}"
                rows.append((number, study, study, uid, at + slice_ * 50, name, 527_000, numbers.randbytes(32)))
            copy.executemany(
                "INSERT INTO instance (id, study_id, series_id, sop_instance, sop_class, transfer_syntax, source_ae,"
                " received_at, own, blob, size, digest)"
                " VALUES (?,?,?,?,'1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1','CT1',?,0,?,?,?)",
                rows,
            )
            for kind in ("study-opened", "closed", "analysis-started", "series-chosen", "analysed"):
                copy.execute("INSERT INTO event (at, kind, text, detail, study_id) VALUES (?,?,?,'{}',?)", (at, kind, kind, study))
    copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy.close()
    made.rename(target)
    return target


def large_index(bench: Bench) -> dict[str, float]:
    """Receive rates with an empty index and with one of a million instances, and the time of the admin's questions. Both
    run side by side and are sent the same slices in turn, new ones in each round."""
    rounds = []
    for number in range(INDEX_ROUNDS):
        seed = str(1000 + 10 * number)
        rounds.append(
            dicom_files(bench.phantoms(f"index-{number}", "--count", "5", "--slices", "40", "--matrix", "512", "--seed", seed))
        )
    rates: dict[str, list[float]] = {"empty": [], "million": []}
    listed: list[float] = []
    explained: list[float] = []
    only = ("--receive-only",)
    with (
        bench.daemon(QUIET_S, arguments=only) as (empty, _, _),
        bench.daemon(QUIET_S, arguments=only, database=million_instances(bench)) as (million, config, _),
    ):
        for number, files in enumerate(rounds):
            pair = [("empty", empty), ("million", million)]
            for name, port in pair if number % 2 == 0 else reversed(pair):
                rates[name].append(len(files) / timed(lambda: finished(storescu(port, "ICHOR", files, True, True))))
            listed.append(timed(lambda: bench.studies(config, "list")))
            explained.append(timed(lambda: bench.studies(config, "why", "A12345")))
    return {
        "empty": statistics.median(rates["empty"]),
        "million": statistics.median(rates["million"]),
        "ratio": statistics.median(m / e for m, e in zip(rates["million"], rates["empty"], strict=True)),
        "list_ms": statistics.median(listed) * 1000,
        "why_ms": statistics.median(explained) * 1000,
    }


def table(figures: Figures) -> list[str]:
    cases = [ONE_STOCK, ONE_NODELAY, EIGHT]
    lines = [f"| receiver | {' | '.join(cases)} | most resident |", "|---|" + "---:|" * (len(cases) + 1)]
    for receiver in RECEIVERS:
        medians = [figures.median(case, receiver) for case in cases]
        if not any(medians):
            continue
        peak = max((mib for (_, name), mib in figures.memory.items() if name == receiver), default=None)
        # A forking receiver's memory is its children's.
        memory = "" if peak is None or "fork" in receiver else f"{peak} MiB"
        lines.append(f"| {receiver} | {' | '.join('' if m is None else f'{m:.0f}' for m in medians)} | {memory} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ichor", type=Path, default=ROOT / "target/release/ichor", help="the binary to measure")
    parser.add_argument("--dicom-storescp", default=os.environ.get("ICHOR_DICOM_STORESCP"), help="dicom-rs's receiver")
    parser.add_argument("--write", type=Path, help="Markdown file with the markers")
    options = parser.parse_args()
    if not options.ichor.exists():
        sys.exit(f"bench: {options.ichor} is missing; run `make build`")
    if options.dicom_storescp is None:
        print("bench: without dicom-storescp, which `make bench-receive` installs: its row stays empty", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="ichor-bench-") as folder:
        bench = Bench(options.ichor.resolve(), Path(folder))
        receivers, figures, fairness = Receivers(bench, options.dicom_storescp), Figures(), []
        large = ["--count", "10", "--slices", "40", "--matrix", "512", "--seed", "500"]
        files = dicom_files(bench.phantoms("receive", *large))
        small = dicom_files(bench.phantoms("small", "--count", "10", "--slices", "40", "--matrix", "128", "--seed", "600"))
        names = ["ichor", "ichor --receive-only", "DCMTK storescp", "Orthanc"]
        if options.dicom_storescp is not None:
            names.insert(3, "dicom-storescp")
        for _ in range(RUNS):
            one_association(receivers, figures, files, names)
            eight_associations(receivers, figures, files, fairness)
            medium_alone(bench, figures, files)
        peaks = many_associations(receivers, small, files)
        index = large_index(bench)
    ratio: Callable[[str, str], float | None] = lambda case, other: (
        None
        if figures.median(case, other) is None
        else round((figures.median(case, "ichor") or 0.0) / (figures.median(case, other) or 1.0), 2)
    )
    bars = {
        "stock: ichor / DCMTK (bar 10)": ratio(ONE_STOCK, "DCMTK storescp"),
        "stock: ichor / dicom-rs (bar 2)": ratio(ONE_STOCK, "dicom-storescp"),
        "NODELAY: ichor / Orthanc (bar 2)": ratio(ONE_NODELAY, "Orthanc"),
        "NODELAY: ichor / DCMTK (bar 0.5)": ratio(ONE_NODELAY, "DCMTK storescp"),
        "8 associations: ichor / DCMTK --fork (bar 1)": ratio(EIGHT, "DCMTK storescp --fork"),
        "8 associations: slowest / mean (bar 0.5)": round(min(fairness), 2),
        "64 associations: most resident MiB (bar 150)": max(peaks.values()),
        "million instances / empty (bar 0.9)": round(index["ratio"], 2),
        "million instances: list, ms, process and all (bar 50)": round(index["list_ms"]),
        "million instances: why, ms, process and all (bar 50)": round(index["why_ms"]),
    }
    lines = [
        f"{time.strftime('%Y-%m-%d')}, revision {revision()}, {machine()}.",
        "",
        "Slices received a second, 400 slices of 512 × 512 (525 KB each), median of three rounds:",
        "",
        *table(figures),
        "",
        "| bar | measured |",
        "|---|---:|",
        *[f"| {bar} | {'not measured' if value is None else value} |" for bar, value in bars.items()],
        "",
        "Most resident memory, 64 associations at once, without the model: "
        + ", ".join(f"{mib} MiB with slices of {what}" for what, mib in peaks.items())
        + ".",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        put_between_markers(options.write, text, BEGIN, END)
    medians = {f"{case} | {name}": round(statistics.median(all_), 1) for (case, name), all_ in figures.rates.items()}
    print(json.dumps({"slices_per_second": medians, "index": index, "resident_mib": peaks, "bars": bars}))


if __name__ == "__main__":
    main()
