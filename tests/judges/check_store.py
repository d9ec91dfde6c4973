"""Looks at a store from outside: SQLite and files, without any of ichor's own code.

    check_store.py DATABASE BLOBS ACKNOWLEDGED

ACKNOWLEDGED holds a line for each instance that was answered with success: SOP Instance UID and the SHA-256 of its data
set, and "other" behind that if something else is known by the UID. Prints what is wrong, a line each; nothing if all is well.
"""

import hashlib
import sqlite3
import struct
import sys
from collections import Counter
from pathlib import Path


def data_set_digest(path: Path) -> str:
    """SHA-256 of what follows the File Meta Information (PS3.10 7.1)."""
    data = path.read_bytes()
    assert data[128:132] == b"DICM" and data[132:138] == b"\x02\0\0\0UL", f"{path} is no Part 10 file"
    (length,) = struct.unpack("<I", data[140:144])
    return hashlib.sha256(data[144 + length :]).hexdigest()


def main() -> None:
    database, blobs, acknowledged = (Path(argument) for argument in sys.argv[1:])
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    problems = [f"integrity: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    problems += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
    instances = connection.execute("SELECT sop_instance, blob, size FROM instance").fetchall()
    conflicts = connection.execute(
        "SELECT i.sop_instance, c.blob, c.size FROM conflict c JOIN instance i ON i.id = c.instance_id"
    ).fetchall()
    objects = connection.execute("SELECT sop_instance, blob, size FROM object").fetchall()
    maps = connection.execute("SELECT 'maps of ' || analysis_id, blob, size FROM attribution_map").fetchall()

    named = Counter(blob for _, blob, _ in instances + conflicts + objects + maps)
    for uid, blob, size in objects + maps:
        path = blobs / blob
        if not path.is_file() or path.stat().st_size != size:
            problems.append(f"{uid}: its file is missing or of another size")
    problems += [f"{blob} belongs to {count} rows" for blob, count in named.items() if count > 1]
    problems += [f"{uid} is there {n} times" for uid, n in Counter(uid for uid, _, _ in instances).items() if n > 1]
    digests: dict[str, list[str]] = {}
    for uid, blob, size in instances + conflicts:
        path = blobs / blob
        if not path.is_file():
            problems.append(f"{uid}: its file is missing")
        elif path.stat().st_size != size:
            problems.append(f"{uid}: {path.stat().st_size} bytes instead of {size}")
        else:
            digests.setdefault(uid, []).append(data_set_digest(path))
    files = {str(path.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file() and path.stat().st_size > 0}
    problems += [f"{file} belongs to no row" for file in sorted(files - set(named))]

    first = {uid: found[0] for uid, found in digests.items()}
    for line in acknowledged.read_text().splitlines():
        uid, digest, *other = line.split()
        if uid not in digests:
            problems.append(f"{uid} was acknowledged and is not there")
        elif other and digest not in digests[uid]:
            problems.append(f"{uid} was acknowledged with other content, which is not kept")
        elif not other and first[uid] != digest:
            problems.append(f"{uid}: what came first is not what is kept under it")
    counted = dict(connection.execute("SELECT study_id, COUNT(*) FROM instance WHERE own = 0 GROUP BY study_id"))
    for study, said in connection.execute("SELECT id, instances FROM study"):
        if counted.get(study, 0) != said:
            problems.append(f"study {study} says {said} instances and has {counted.get(study, 0)}")
    print("\n".join(problems), end="")


if __name__ == "__main__":
    main()
