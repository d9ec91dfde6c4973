"""Reads a segmentation of any type with highdicom and compares pixels, values and segments with what the test expects.

usage: read_forms_with_highdicom.py SEG EXPECTED.json

EXPECTED.json: {"type", "rows", "columns", "segments": [{"number", "tracking_uid"}], "sources": [{"uid", "position",
"labels": FILE, "values": FILE}]}: rows x columns bytes each, 0 for background, all sources of the series.
"""

import json
import sys
from pathlib import Path

try:
    import highdicom as hd
    import numpy as np
except ImportError as error:
    print(f"skip: {error}")
    sys.exit(77)


def main() -> None:
    seg = hd.seg.segread(sys.argv[1])
    expected = json.loads(Path(sys.argv[2]).read_text())
    shape = (expected["rows"], expected["columns"])
    sources = expected["sources"]
    uids = [source["uid"] for source in sources]

    def load(key):
        return np.stack([np.fromfile(source[key], dtype=np.uint8).reshape(shape) for source in sources])

    labels, values = load("labels"), load("values")
    kind = expected["type"]
    assert seg.segmentation_type.value == kind, seg.segmentation_type
    # Not number_of_segments, which takes the background of a label map off twice (0.28.2).
    assert list(seg.segment_numbers) == [s["number"] for s in expected["segments"]], seg.segment_numbers
    for segment in expected["segments"]:
        description = seg.get_segment_description(segment["number"])
        assert str(description.tracking_uid) == segment["tracking_uid"]
        assert description.segmented_property_type == hd.sr.CodedConcept("50960005", "SCT", "Hemorrhage")
        assert description.algorithm_type.value == "AUTOMATIC"

    numbers = [segment["number"] for segment in expected["segments"]]
    options = {"source_sop_instance_uids": uids, "assert_missing_frames_are_empty": True}
    if kind == "FRACTIONAL":
        # Values from 0 to 1.
        pixels = seg.get_pixels_by_source_instance(**options, rescale_fractional=True)
        for place, number in enumerate(numbers):
            want = np.where(labels == number, values / 255.0, 0.0)
            assert np.allclose(pixels[..., place], want, atol=1e-6), f"values of segment {number} differ"
    else:
        pixels = seg.get_pixels_by_source_instance(**options, combine_segments=False)
        for place, number in enumerate(numbers):
            assert np.array_equal(pixels[..., place] != 0, labels == number), f"segment {number} differs"
        combined = seg.get_pixels_by_source_instance(**options, combine_segments=True)
        assert np.array_equal(combined, labels), "combined segments differ"

    # Each frame lies where its source lies.
    where = {source["uid"]: source["position"] for source in sources}
    for groups in seg.PerFrameFunctionalGroupsSequence:
        uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.abs(position - np.array(where[uid])).max() <= 1e-6, uid
    print(f"ok: {kind}, {seg.NumberOfFrames} frames")


main()
