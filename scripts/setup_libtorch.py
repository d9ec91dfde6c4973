#!/usr/bin/env python3
"""Puts libtorch 2.11.0 (CPU) into the cache and links it into the checkout as `.libtorch`.

The library comes out of three wheels, checked against the digests below, so that nothing is needed but Python and pip.
Running it again is quick and changes nothing; an interrupted run goes on with the wheels that it had already fetched;
two runs at once wait for each other.

    scripts/setup_libtorch.py            set up, if need be
    scripts/setup_libtorch.py --check    say whether it is set up, change nothing
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

if os.name == "posix":
    import fcntl

VERSION = "2.11.0"
NAME = f"libtorch-{VERSION}-cpu"
CHECKOUT = Path(__file__).resolve().parent.parent
MANIFEST = "setup.json"
# Raised whenever the layout below changes: a folder of another layout is made anew.
LAYOUT = 1

# The wheel's own libtorch.so needs libtorch_cuda.so; a linker script in its place asks for the CPU library alone.
LINKER_SCRIPT = "INPUT(libtorch_cpu.so)\n"

# pip does not derive older platform tags from a newer one when the platform is given, so all are named.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (17, 18, 24, 25, 26, 27, 28)] + ["manylinux2014_x86_64"]

MIB = 1 << 20
WHEELS_BYTES = 520 * MIB
UNPACKED_BYTES = 510 * MIB
SPARE_BYTES = 170 * MIB


@dataclass(frozen=True)
class Wheel:
    """One wheel, and which of its members go where: {member or folder/ in the wheel: place in libtorch}."""

    package: str
    version: str
    sha256: str
    members: dict[str, str]

    @property
    def prefix(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-"

    @property
    def licences(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}.dist-info/licenses/"


# Small ones first: a wrong index or a dead network shows at once, not after 500 MiB.
WHEELS = [
    # libtorch_cpu.so names these two as needed, even on a machine without a GPU.
    Wheel(
        "nvidia-cuda-runtime",
        "13.0.96",
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        {"nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13"},
    ),
    Wheel(
        "nvidia-cuda-cupti",
        "13.0.85",
        "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        {"nvidia/cu13/lib/libcupti.so.13": "lib/libcupti.so.13"},
    ),
    Wheel(
        "torch",
        VERSION,
        "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
        {
            "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
            "torch/lib/libc10.so": "lib/libc10.so",
            "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
            "torch/include/": "include/",
        },
    ),
]


class SetupError(Exception):
    """Something that the person at the keyboard has to put right; the text says what."""


def say(text: str) -> None:
    print(f"libtorch: {text}", flush=True)


def cache_folder() -> Path:
    """The documented cache: $ICHOR_CACHE, else ichor in the XDG cache folder."""
    own = os.environ.get("ICHOR_CACHE")
    if own:
        return Path(own).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME")
    base = Path(xdg) if xdg else Path("~/.cache").expanduser()
    return base.absolute() / "ichor"


def check_machine() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "amd64"):
        raise SetupError(
            f"the pinned libtorch is for Linux on x86_64, this is {sys.platform} on {platform.machine()}; "
            f"set LIBTORCH to a libtorch {VERSION} for this machine and run again"
        )


def check_pip() -> list[str]:
    """The command that runs pip under this Python."""
    command = [sys.executable, "-m", "pip"]
    found = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SetupError(f"{sys.executable} has no pip; install it (Debian, Ubuntu: apt-get install python3-pip)")
    return command


def check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"{folder} has {free // MIB} MiB free and {needed // MIB} MiB are needed; "
            "make room, or set ICHOR_CACHE to a folder on a larger disk"
        )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(4 * MIB):
            digest.update(block)
    return digest.hexdigest()


def is_complete(target: Path) -> bool:
    """Whether the folder is one that this script finished, with every library at its recorded size."""
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        if manifest["layout"] != LAYOUT or manifest["wheels"] != {w.package: w.sha256 for w in WHEELS}:
            return False
        sizes: dict[str, int] = manifest["sizes"]
        return all((target / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an advisory lock on `path`; a second run waits for the first."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at work, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetched(wheel: Wheel, downloads: Path) -> Path | None:
    """The wheel in the download folder, if its digest is right; a wrong one is deleted."""
    for path in sorted(downloads.glob(f"{wheel.prefix}*.whl")):
        if sha256_of(path) == wheel.sha256:
            return path
        say(f"{path.name} is damaged, fetching it again")
        path.unlink()
    return None


def fetch(wheel: Wheel, downloads: Path, pip: list[str]) -> Path:
    """Downloads one wheel through pip, unless it is there already."""
    if path := fetched(wheel, downloads):
        say(f"{path.name} is there already")
        return path
    say(f"fetching {wheel.package} {wheel.version}")
    with tempfile.TemporaryDirectory(dir=downloads) as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        command = [*pip, "download", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
        for tag in PLATFORMS:
            command += ["--platform", tag]
        command += ["--dest", scratch, "--requirement", str(requirements)]
        if subprocess.run(command, check=False).returncode != 0:
            raise SetupError(
                f"pip could not fetch {wheel.package} {wheel.version} (its message is above); "
                "check the network and the package index that pip is set to, and run again"
            )
        for path in Path(scratch).glob("*.whl"):
            path.rename(downloads / path.name)
    if path := fetched(wheel, downloads):
        return path
    raise SetupError(f"pip fetched no {wheel.package} {wheel.version} with the expected digest")


def place_of(member: str, wheel: Wheel) -> str | None:
    """Where a wheel's member goes below libtorch, or None if it is not wanted."""
    if member.endswith("/"):
        return None
    if member.startswith(wheel.licences):
        return f"licenses/{wheel.package}/{member.removeprefix(wheel.licences)}"
    for source, place in wheel.members.items():
        if member == source:
            return place
        if source.endswith("/") and member.startswith(source):
            return place + member.removeprefix(source)
    return None


def unpack(wheel: Wheel, path: Path, target: Path) -> dict[str, int]:
    """Unpacks the wanted members and returns the size of each library among them."""
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        wanted = [(info, place) for info in archive.infolist() if (place := place_of(info.filename, wheel))]
        total = sum(info.file_size for info, _ in wanted)
        done = shown = 0
        for info, place in wanted:
            if ".." in PurePosixPath(place).parts:
                raise SetupError(f"{path.name} holds a member that leads outside: {info.filename}")
            file = target / place
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, file.open("wb") as sink:
                while block := source.read(4 * MIB):
                    sink.write(block)
                    done += len(block)
                    if done - shown >= 100 * MIB:
                        shown = done
                        say(f"unpacking {wheel.package}: {done // MIB} of {total // MIB} MiB")
            if place.startswith("lib/"):
                sizes[place] = info.file_size
    missing = {place for place in wheel.members.values() if not (target / place).exists()}
    if missing:
        raise SetupError(f"{path.name} does not hold {', '.join(sorted(missing))}")
    return sizes


def build(cache: Path, target: Path, pip: list[str]) -> None:
    """Fetches, unpacks beside the target and renames into place last, so that a half-made target never exists."""
    downloads = cache / "downloads"
    downloads.mkdir(exist_ok=True)
    there = sum(path.stat().st_size for path in downloads.glob("*.whl"))
    check_disk(cache, max(WHEELS_BYTES - there, 0) + UNPACKED_BYTES + SPARE_BYTES)

    paths = [fetch(wheel, downloads, pip) for wheel in WHEELS]
    partial = cache / f"{NAME}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    sizes: dict[str, int] = {}
    for wheel, path in zip(WHEELS, paths):
        sizes |= unpack(wheel, path, partial)

    (partial / "lib" / "libtorch.so").write_text(LINKER_SCRIPT)
    sizes["lib/libtorch.so"] = len(LINKER_SCRIPT)
    (partial / "build-version").write_text(f"{VERSION}+cpu\n")
    manifest = {"layout": LAYOUT, "wheels": {w.package: w.sha256 for w in WHEELS}, "sizes": sizes}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")

    outdated = cache / f"{NAME}.old"
    shutil.rmtree(outdated, ignore_errors=True)
    if target.exists():
        target.rename(outdated)
    partial.rename(target)
    shutil.rmtree(outdated, ignore_errors=True)
    for path in paths:
        path.unlink()
    with contextlib.suppress(OSError):
        downloads.rmdir()


def link(target: Path, name: Path) -> None:
    """Makes `name` a symbolic link to the target, replacing an older link but nothing else."""
    if name.is_symlink():
        if Path(os.readlink(name)) == target:
            return
        name.unlink()
    elif name.exists():
        raise SetupError(f"{name} is there and is not a link; move it away")
    name.symlink_to(target, target_is_directory=True)


def set_up(check_only: bool) -> None:
    if given := os.environ.get("LIBTORCH"):
        if not (Path(given) / "lib").is_dir():
            raise SetupError(f"LIBTORCH is set to {given}, which has no lib folder")
        say(f"LIBTORCH is set, using {given}")
        return
    cache = cache_folder()
    target = cache / NAME
    if check_only:
        if not is_complete(target):
            raise SetupError(f"{target} is not there or not complete; run `make setup`")
        say(f"{target} is complete")
        return
    check_machine()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"cannot make the cache folder {cache}: {error.strerror}; set ICHOR_CACHE") from error
    with locked(cache / f"{NAME}.lock"):
        if not is_complete(target):
            build(cache, target, check_pip())
    link(target, CHECKOUT / ".libtorch")
    say(f"ready in {target}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="say whether it is set up, change nothing")
    options = parser.parse_args()
    try:
        set_up(options.check)
    except SetupError as error:
        print(f"libtorch: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"libtorch: {error}; the next run goes on from here", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlibtorch: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
