"""Reads a Segmentation with highdicom and prints what it says as JSON; the masks go to a file, one byte a pixel.

Each frame's mask is asked for by the source image that the object names for it, which is what a viewer does.

    read_seg.py SEG.dcm MASKS
"""

import json
import sys
from pathlib import Path

import highdicom
import numpy as np

seg_path, masks_path = sys.argv[1:]
seg = highdicom.seg.segread(seg_path)


def source_of(frame) -> str:
    return str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)


sources = [source_of(frame) for frame in seg.PerFrameFunctionalGroupsSequence]
shared = seg.SharedFunctionalGroupsSequence[0]


def macro(frame, keyword: str):
    """A functional group's item, from the frame or, if it is the same for all, from the shared groups."""
    return getattr(frame if keyword in frame else shared, keyword)[0]


masks = seg.get_pixels_by_source_instance(
    source_sop_instance_uids=sources,
    segment_numbers=[1],
    combine_segments=False,
    assert_missing_frames_are_empty=False,
)[..., 0]
assert masks.shape == (len(sources), seg.Rows, seg.Columns), masks.shape
assert set(np.unique(masks)) <= {0, 1}
Path(masks_path).write_bytes(masks.astype(np.uint8).tobytes())

frames = [
    {
        "source_sop_instance": source,
        "position": [float(x) for x in macro(frame, "PlanePositionSequence").ImagePositionPatient],
        "orientation": [float(x) for x in macro(frame, "PlaneOrientationSequence").ImageOrientationPatient],
        "spacing": [float(x) for x in macro(frame, "PixelMeasuresSequence").PixelSpacing],
        "pixels": int(mask.sum()),
    }
    for frame, source, mask in zip(seg.PerFrameFunctionalGroupsSequence, sources, masks)
]
segments = []
for number in seg.segment_numbers:
    description = seg.get_segment_description(number)
    algorithm = description.algorithm_identification
    segments.append(
        {
            "number": int(number),
            "label": description.segment_label,
            "property_type": description.segmented_property_type.meaning,
            "algorithm_type": description.algorithm_type.value,
            "algorithm_name": str(algorithm.name if algorithm else description.SegmentAlgorithmName),
            "algorithm_version": str(algorithm.version) if algorithm else "",
            "tracking_uid": str(description.tracking_uid or ""),
        }
    )
print(
    json.dumps(
        {
            "rows": int(seg.Rows),
            "columns": int(seg.Columns),
            "segmentation_type": seg.segmentation_type.value,
            "segments": segments,
            "frames": frames,
        }
    )
)
