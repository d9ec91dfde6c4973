#!/usr/bin/env python3
"""Runs a command behind the filter on system calls that a systemd unit names, as systemd would set it up.

    filtered.py UNIT COMMAND...

Needs systemd-analyze, which knows the sets, and libseccomp. What the filter forbids fails with the unit's
SystemCallErrorNumber (EPERM).
"""

import ctypes
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

ALLOW = 0x7FFF0000
ERRNO = 0x00050000


def members(name: str) -> set[str]:
    """The calls of a set, those of sets in it too."""
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in said.splitlines()[1:]]
    return set().union(*(members(line) for line in lines if line and not line.startswith("#")))


def allowed(unit: str) -> set[str]:
    calls: set[str] = set()
    for value in re.findall(r"^SystemCallFilter=(.*)$", unit, flags=re.M):
        named = set().union(*(members(name) for name in value.lstrip("~").split()))
        calls = calls - named if value.startswith("~") else calls | named
    if not calls:
        raise SystemExit("the unit has no filter")
    # What systemd always allows besides (its set @default).
    return calls | members("@default")


def main() -> None:
    unit, command = Path(sys.argv[1]).read_text(), sys.argv[2:]
    error = re.search(r"^SystemCallErrorNumber=(\w+)$", unit, flags=re.M)
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(ERRNO | (getattr(errno, error[1]) if error else errno.EPERM))
    for name in sorted(allowed(unit)):
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Some names are of other processors.
        if number >= 0 and library.seccomp_rule_add_array(context, ALLOW, number, 0, None) != 0:
            raise SystemExit(f"no rule for {name}")
    if library.seccomp_load(context) != 0:
        raise SystemExit("the filter cannot be loaded")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
