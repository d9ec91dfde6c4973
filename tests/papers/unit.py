#!/usr/bin/env python3
"""The daemon does its work behind the filter on system calls of deploy/ichor.service.

    unit.py --ichor PROGRAM

It receives a synthetic study, half of it compressed so that decoders run, analyses it and delivers to a folder. Exits with 77
where the tools for it are missing (systemd-analyze, libseccomp, dcmcjpls).
"""

import argparse
import ctypes.util
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from follow import free_ports

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/ichor.service"
LIMIT_S = 60.0
MISSING = 77
# In hundredths, as systemd-analyze counts; the unit had 350 before it was hardened.
MOST_EXPOSURE = 25


def wait_for(what: str, ask) -> None:
    begun = time.monotonic()
    while not ask():
        if time.monotonic() - begun > LIMIT_S:
            raise SystemExit(f"{what}: not within {LIMIT_S:.0f} s")
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def study(ichor: Path, folder: Path) -> Path:
    """A synthetic study, every second slice compressed."""
    made = folder / "phantoms"
    subprocess.run([ichor, "phantom", "--out", made, "--positive", "true"], check=True, capture_output=True)
    for slice_file in sorted(made.rglob("*.dcm"))[::2]:
        subprocess.run(["dcmcjpls", slice_file, slice_file], check=True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ichor", type=Path, required=True)
    ichor = parser.parse_args().ichor.resolve()
    if not all(map(shutil.which, ("systemd-analyze", "dcmcjpls"))) or ctypes.util.find_library("seccomp") is None:
        print("systemd-analyze, libseccomp or dcmcjpls is missing", file=sys.stderr)
        return MISSING
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}", UNIT],
        check=True, stdout=subprocess.DEVNULL,
    )
    with tempfile.TemporaryDirectory(prefix="ichor-unit-") as scratch:
        folder = Path(scratch)
        slices, out = study(ichor, folder), folder / "out"
        out.mkdir()
        port = int(free_ports(["dicom"])["dicom"])
        config, log = folder / "ichor.toml", folder / "ichor.log"
        config.write_text(
            f'[store]\ndatabase = "ichor.db"\nblobs = "blobs"\nmin_free_mib = 16\n\n[listen]\naddress = "127.0.0.1:{port}"\n'
            'ae_title = "ICHOR"\n\n[[source]]\nquiet_period_s = 1.0\n\n'
            f'[model]\nweights = "{ROOT}/models/demo/demo.safetensors"\ndevice = "cpu"\n\n'
            '[[destination]]\nname = "out"\nkind = "folder"\npath = "out"\n'
        )
        filtered = [sys.executable, Path(__file__).parent / "filtered.py", UNIT]
        with log.open("w") as errors:
            daemon = subprocess.Popen([*filtered, ichor, "serve", "--config", config], stderr=errors)
        try:
            wait_for("the port is open", lambda: daemon.poll() is not None or listens(port))
            subprocess.run([ichor, "send", "--to", f"ICHOR@127.0.0.1:{port}", slices], check=True, capture_output=True)
            wait_for("a Segmentation in the folder", lambda: daemon.poll() is not None or any(out.rglob("*.dcm")))
            if daemon.poll() is not None:
                raise SystemExit(f"the daemon ended with {daemon.returncode}:\n{log.read_text()}")
            why = subprocess.run([ichor, "studies", "list", "--json", "--config", config], check=True, capture_output=True)
            if b'"analysed"' not in why.stdout or "decoder" in log.read_text():
                raise SystemExit(f"{why.stdout.decode()}\n{log.read_text()}")
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=30)
        if daemon.returncode != 0:
            raise SystemExit(f"the daemon ended with {daemon.returncode}:\n{log.read_text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
