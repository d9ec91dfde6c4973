#!/usr/bin/env python3
"""Asks a listening ichor what it negotiates, and holds it against the tables of docs/conformance.md.

    negotiation.py --port PORT [--calling AE]

Every SOP class of DICOM that pydicom names is proposed, in associations of 128 contexts: what the tables list is accepted,
and nothing else is. Every listed SOP class is proposed in every transfer syntax of DICOM. Needs pynetdicom.
"""

import argparse
import re
import sys
from pathlib import Path

from pydicom.uid import UID_dictionary
from pynetdicom import AE, build_context

STATEMENT = Path(__file__).resolve().parents[2] / "docs/conformance.md"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
CONTEXTS = 128
UID = re.compile(r"`(\d+(?:\.\d+)+)`")


def table(name: str) -> list[str]:
    lines = iter(STATEMENT.read_text().splitlines())
    for line in lines:
        if line == f"<!-- table: {name} -->":
            break
    else:
        raise SystemExit(f"no table {name}")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        if found := UID.search(line):
            rows.append(found[1])
    if not rows:
        raise SystemExit(f"the table {name} is empty")
    return rows


def accepted(port: int, calling: str, pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these pairs of SOP class and transfer syntax are accepted, each proposed in a context of its own."""
    found = set()
    for first in range(0, len(pairs), CONTEXTS):
        ae = AE(calling)
        part = pairs[first : first + CONTEXTS]
        association = ae.associate(
            "127.0.0.1", port, ae_title="ICHOR", contexts=[build_context(sop_class, [syntax]) for sop_class, syntax in part]
        )
        if not association.is_established and not association.rejected_contexts:
            raise SystemExit("no association")
        found |= {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        if association.is_established:
            association.release()
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--calling", default="SCANNER")
    arguments = parser.parse_args()
    storage, services, syntaxes = table("storage"), table("services"), table("transfer-syntaxes")
    classes = sorted(uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class")
    unknown = [uid for uid in storage + services if uid not in classes]
    # A class that is newer than this pydicom is asked for all the same.
    classes += unknown
    wanted = {(uid, IMPLICIT) for uid in storage + services}
    got = accepted(arguments.port, arguments.calling, [(uid, IMPLICIT) for uid in classes])
    faults = [f"accepted and not listed: {uid}" for uid, _ in sorted(got - wanted)]
    faults += [f"listed and not accepted: {uid}" for uid, _ in sorted(wanted - got)]

    all_syntaxes = sorted({uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"} | set(syntaxes))
    wanted = {(uid, syntax) for uid in storage for syntax in syntaxes}
    wanted |= {(uid, syntax) for uid in services for syntax in (EXPLICIT, IMPLICIT)}
    pairs = [(uid, syntax) for uid in storage + services for syntax in all_syntaxes]
    got = accepted(arguments.port, arguments.calling, pairs)
    faults += [f"accepted and not listed: {uid} in {syntax}" for uid, syntax in sorted(got - wanted)]
    faults += [f"listed and not accepted: {uid} in {syntax}" for uid, syntax in sorted(wanted - got)]
    print("\n".join(faults), file=sys.stderr)
    print(f"{len(classes)} SOP classes, {len(pairs)} pairs with transfer syntaxes asked for, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
