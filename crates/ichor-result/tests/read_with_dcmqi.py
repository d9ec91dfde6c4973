"""Lets dcmqi turn a BINARY segmentation into volumes and compares them with the labels.

usage: read_with_dcmqi.py SEG EXPECTED.json

EXPECTED.json: {"labels": FILE, "shape": [slices, rows, columns], "spacing": [slice, row, column], "origin": [x, y, z]},
the slices in the order of their position.
"""

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import dcmqi  # noqa: F401
    import numpy as np
except ImportError as error:
    print(f"skip: {error}")
    sys.exit(77)

PROGRAM = [sys.executable, "-c", "import sys, dcmqi; sys.exit(dcmqi.segimage2itkimage())"]


def read_nrrd(path: Path):
    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    sizes = [int(n) for n in fields["sizes"].split()]
    kinds = {"unsigned char": "u1", "uchar": "u1", "uint8": "u1", "short": "<i2", "unsigned short": "<u2", "uint16": "<u2"}
    data = gzip.decompress(body) if fields["encoding"] == "gzip" else body
    axes = np.array([[float(x) for x in axis.strip("()").split(",")] for axis in fields["space directions"].split()])
    origin = np.array([float(x) for x in fields["space origin"].strip("()").split(",")])
    # LPS is DICOM's space.
    assert fields["space"] == "left-posterior-superior", fields["space"]
    return np.frombuffer(data, kinds[fields["type"]]).reshape(sizes[::-1]), axes, origin


expected = json.loads(Path(sys.argv[2]).read_text())
labels = np.fromfile(expected["labels"], np.uint8).reshape(expected["shape"])
origin = np.array(expected["origin"])
with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
        [*PROGRAM, "--inputDICOM", sys.argv[1], "--outputDirectory", folder, "--outputType", "nrrd", "--prefix", "s"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    volumes = sorted(Path(folder).glob("s-*.nrrd"))
    # One volume a segment, or merged ones: either way each value is a segment's number, or 1.
    found = np.zeros(labels.shape, np.uint8)
    for path in volumes:
        volume, axes, start = read_nrrd(path)
        spacing = np.linalg.norm(axes, axis=1)[::-1]
        assert np.allclose(spacing, expected["spacing"], atol=1e-4), spacing
        # The volume reaches over the slices that have frames: its place in the series is that of its origin.
        first = int(round((start - origin)[2] / expected["spacing"][0]))
        assert np.allclose(start[:2], origin[:2], atol=1e-3), start
        part = found[first : first + len(volume)]
        number = int(path.stem.split("-")[1])
        values = np.unique(volume[volume > 0])
        part[volume > 0] = volume[volume > 0] if len(values) > 1 or values[0] != 1 else number
    assert np.array_equal(found, labels), f"{(found != labels).sum()} voxels differ"
    print(f"dcmqi: {len(volumes)} volumes agree, {(found > 0).sum()} voxels")
