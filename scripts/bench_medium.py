"""How fast the medium is made to keep slices, by whoever: no network, no reading, no index.

Each slice is written to a file, renamed into a folder, and the file, the folder and a line in a log are fsynced, in
this order; lines that wait together share one fsync. No receiver that answers after its bytes are safe is faster.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

# As much as SQLite appends to its log for one instance.
LINE = bytes(8192)
BLOCK = 128 << 10


class Log:
    """Group commit: whoever finds nobody at it writes and fsyncs the lines of all who wait."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
        self.turn = threading.Condition()
        self.asked = self.kept = 0
        self.busy = False

    def append(self) -> None:
        with self.turn:
            self.asked += 1
            mine = self.asked
            while self.kept < mine:
                if self.busy:
                    self.turn.wait()
                    continue
                upto, lines, self.busy = self.asked, self.asked - self.kept, True
                self.turn.release()
                try:
                    os.write(self.file, LINE * lines)
                    os.fdatasync(self.file)
                finally:
                    self.turn.acquire()
                    self.busy = False
                self.kept = upto
                self.turn.notify_all()


def keep(slices: list[bytes], folder: Path, log: Log, name: str) -> None:
    for number, slice_ in enumerate(slices):
        home = folder / f"{(number * 131) % 256:02x}"
        written = os.open(folder / f"{name}.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        for offset in range(0, len(slice_), BLOCK):
            os.write(written, memoryview(slice_)[offset : offset + BLOCK])
            os.posix_fadvise(written, offset, BLOCK, os.POSIX_FADV_DONTNEED)
        os.rename(folder / f"{name}.part", home / f"{name}-{number}")
        os.fsync(written)
        os.close(written)
        entry = os.open(home, os.O_RDONLY)
        os.fsync(entry)
        os.close(entry)
        log.append()


def rate(slices: list[bytes], folder: Path, threads: int) -> float:
    """Slices a second that so many threads bring onto the medium, into an empty folder."""
    for number in range(256):
        (folder / f"{number:02x}").mkdir(parents=True)
    log = Log(folder / "log")
    os.sync()
    workers = [
        threading.Thread(target=keep, args=(slices[part::threads], folder, log, f"t{part}")) for part in range(threads)
    ]
    begun = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - begun
    os.close(log.file)
    return len(slices) / seconds
