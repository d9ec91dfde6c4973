"""Validates HL7 v2 messages with hl7apy, strictly, and prints their fields as JSON.

    read_hl7.py FILE...

Prints one list with, for each file, the segments in order: name and fields, each as the receiver reads it. Ends with 1 and
the reason if a message breaks the standard's structure, and with 77 where there is no hl7apy.
"""

import json
import sys

try:
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message
except ImportError as error:
    print(error)
    sys.exit(77)

ESCAPES = {"\\F\\": "|", "\\S\\": "^", "\\T\\": "&", "\\R\\": "~", "\\.br\\": "\n", "\\E\\": "\\"}


def read(field: str) -> str:
    text, rest = "", field
    while rest:
        escape = next((name for name in ESCAPES if rest.startswith(name)), None)
        text += ESCAPES[escape] if escape else rest[0]
        rest = rest[len(escape) if escape else 1 :]
    return text


read_messages = []
for path in sys.argv[1:]:
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    try:
        message = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
        message.validate()
    except Exception as error:  # whatever it raises is its verdict
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    segments = []
    for segment in text.strip("\r").split("\r"):
        name, *fields = segment.split("|")
        if name == "MSH":
            fields.insert(0, "|")
        segments.append([name, [read(field) for field in fields]])
    read_messages.append(segments)
print(json.dumps(read_messages))
