"""Compares a Secondary Capture, as pydicom and DCMTK read it, with a picture computed here from HU and mask.

usage: compare_capture.py CAPTURE PICTURE.ppm HU MASK ROWS COLUMNS
"""

import io
import sys
from pathlib import Path

try:
    import numpy as np
    import pydicom
except ImportError as error:
    print(f"skip: {error}")
    sys.exit(77)


def main() -> None:
    capture, picture, hu, mask = sys.argv[1:5]
    rows, columns = int(sys.argv[5]), int(sys.argv[6])
    hu = np.fromfile(hu, dtype="<i2").reshape(rows, columns).astype(float)
    mask = np.fromfile(mask, dtype=np.uint8).reshape(rows, columns) != 0
    data = pydicom.dcmread(capture)
    pixels = data.pixel_array
    scale = -(-512 // max(rows, columns))
    assert pixels.shape[0] >= rows * scale and pixels.shape[1] == columns * scale + 64, pixels.shape
    assert [float(mm) * scale for mm in data.PixelSpacing] == [0.4882812, 0.4785156], data.PixelSpacing

    grey = np.clip((hu - 39.5) / 79 + 0.5, 0, 1) * 255
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    share = np.where(inner, 0.25, np.where(mask, 1.0, 0.0))[..., None]
    want = grey[..., None] * (1 - share) + np.array([255, 64, 64]) * share
    want = np.repeat(np.repeat(want, scale, axis=0), scale, axis=1)
    got = pixels[: rows * scale, : columns * scale].astype(float)
    assert np.abs(got - want).max() <= 0.5 + 1e-9, np.abs(got - want).max()
    assert mask.any() and (got[..., 0] - got[..., 1]).max() > 100, "the contour is red"

    # The strip: as many bands as slices, red from the threshold on, the third one marked.
    strip = pixels[: rows * scale, columns * scale :].astype(int)
    for index, probability in enumerate([0.02, 0.31, 0.93, 0.88, 0.47, 0.05]):
        line = strip[int((index + 0.5) * rows * scale / 6)]
        bar = line[8:]
        red = (bar[:, 0] == 255) & (bar[:, 1] == 64)
        shown = red if probability >= 0.5 else (bar == 120).all(axis=1)
        # The threshold's line crosses longer bars.
        length = int(shown.sum()) + int(probability > 0.5)
        assert abs(length - max(1, round(probability * 50))) <= 1, (index, length)
        assert red.any() == (probability >= 0.5), index
        assert (line[2:6] == 255).all() == (index == 2), index
    words = pixels[rows * scale :]
    assert (words == 230).all(axis=2).sum() > 200, "there are words below"
    assert (words[:2] == 0).all(), "and some room before them"

    if Path(picture).exists():
        raw = io.BytesIO(Path(picture).read_bytes())
        assert raw.readline().strip() == b"P6"
        width, height = map(int, raw.readline().split())
        raw.readline()
        dcmtk = np.frombuffer(raw.read(), dtype=np.uint8).reshape(height, width, 3)
        assert np.array_equal(dcmtk, pixels), "DCMTK sees other pixels"
    print("ok")


main()
