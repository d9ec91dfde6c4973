"""Reads a segmentation with highdicom and compares it with what the test expects.

usage: read_with_highdicom.py SEG EXPECTED.json

EXPECTED.json: {"rows", "columns", "sources": [{"uid", "position", "orientation", "spacing", "mask": FILE or null}]},
one entry a source slice; mask files hold rows x columns bytes, non-zero for mask.
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

    assert seg.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    assert seg.number_of_segments == 1
    description = seg.get_segment_description(1)
    assert description.segmented_property_type == hd.sr.CodedConcept("50960005", "SCT", "Hemorrhage")
    assert description.segmented_property_category.value == "49755003"
    assert description.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert description.algorithm_identification.name == description.SegmentAlgorithmName
    assert description.tracking_uid and description.tracking_id

    # The sources that the object names are those that were analysed.
    referenced = {uid for _, _, uid in seg.get_source_image_uids()}
    assert referenced == {s["uid"] for s in sources}, referenced

    # Masks, by source instance: empty where there is no frame.
    masks = [
        np.fromfile(s["mask"], dtype=np.uint8).reshape(shape) != 0 if s["mask"] else np.zeros(shape, bool)
        for s in sources
    ]
    pixels = seg.get_pixels_by_source_instance(
        [s["uid"] for s in sources], assert_missing_frames_are_empty=True, combine_segments=True
    )
    assert pixels.shape == (len(sources), *shape), pixels.shape
    for source, got, want in zip(sources, pixels, masks):
        assert np.array_equal(got != 0, want), f"mask of {source['uid']} differs"

    # Geometry, frame by frame.
    shared = seg.SharedFunctionalGroupsSequence[0]
    by_uid = {s["uid"]: (s, m) for s, m in zip(sources, masks)}
    frames = seg.pixel_array.reshape(-1, *shape)
    assert len(frames) == len(seg.PerFrameFunctionalGroupsSequence) == sum(m.any() for m in masks)
    for pixel_array, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence):
        uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        source, mask = by_uid[uid]
        assert np.array_equal(pixel_array != 0, mask), f"frame of {uid} differs"
        group = lambda name: getattr(groups if name in groups else shared, name)[0]  # noqa: E731
        got = {
            "position": group("PlanePositionSequence").ImagePositionPatient,
            "orientation": group("PlaneOrientationSequence").ImageOrientationPatient,
            "spacing": group("PixelMeasuresSequence").PixelSpacing,
        }
        for name, values in got.items():
            difference = np.abs(np.array(values, float) - np.array(source[name])).max()
            assert difference <= 1e-6, f"{name} of {uid} is off by {difference}"
    print(f"ok: {len(frames)} frames")


main()
