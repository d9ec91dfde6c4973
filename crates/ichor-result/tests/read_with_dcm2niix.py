"""Lets dcm2niix convert the source series that the tests write, and compares size and spacing.

usage: read_with_dcm2niix.py FOLDER EXPECTED.json

EXPECTED.json: {"shape": [slices, rows, columns], "spacing": [slice, row, column]}.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import dcm2niix  # noqa: F401
except ImportError as error:
    print(f"skip: {error}")
    sys.exit(77)

expected = json.loads(Path(sys.argv[2]).read_text())
with tempfile.TemporaryDirectory() as folder:
    program = [sys.executable, "-c", "import sys, dcm2niix; sys.exit(dcm2niix.main(sys.argv[1:]))"]
    options = ["-z", "n", "-b", "n", "-f", "volume", "-o", folder, sys.argv[1]]
    ran = subprocess.run([*program, *options], capture_output=True, text=True)
    volumes = sorted(Path(folder).glob("*.nii"))
    assert len(volumes) == 1, f"{volumes}: {ran.stdout}{ran.stderr}"
    # NIfTI-1: dim[8] at byte 40, pixdim[8] at byte 76.
    header = volumes[0].read_bytes()[:348]
    dim, pixdim = struct.unpack("<8h", header[40:56]), struct.unpack("<8f", header[76:108])
    assert list(dim[1:4]) == expected["shape"][::-1], dim
    for found, wanted in zip(pixdim[1:4], expected["spacing"][::-1]):
        assert abs(found - wanted) < 1e-4, pixdim
    print(f"dcm2niix: {dim[1:4]} voxels of {pixdim[1:4]} mm")
