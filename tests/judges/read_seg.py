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


def frame_of(frame) -> int | None:
    """Which frame of the source a frame was drawn on, if the source has several."""
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    return int(source.ReferencedFrameNumber) if "ReferencedFrameNumber" in source else None


sources = [(source_of(frame), frame_of(frame)) for frame in seg.PerFrameFunctionalGroupsSequence]
shared = seg.SharedFunctionalGroupsSequence[0]


def macro(frame, keyword: str):
    """A functional group's item, from the frame or, if it is the same for all, from the shared groups."""
    return getattr(frame if keyword in frame else shared, keyword)[0]


def segment_of(frame) -> int | None:
    """The segment of a frame; a frame of a label map shows all of them."""
    if seg.segmentation_type.value == "LABELMAP":
        return None
    return int(macro(frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)


numbers = [int(number) for number in seg.segment_numbers]
distinct = list(dict.fromkeys(sources))
how = {"segment_numbers": numbers, "combine_segments": False, "assert_missing_frames_are_empty": True}
if all(number is None for _, number in distinct):
    by_source = seg.get_pixels_by_source_instance([uid for uid, _ in distinct], **how)
else:
    (multi_frame,) = {uid for uid, _ in distinct}
    by_source = seg.get_pixels_by_source_frame(multi_frame, [number for _, number in distinct], **how)
assert by_source.shape == (len(distinct), seg.Rows, seg.Columns, len(numbers)), by_source.shape


def mask_of(frame, source: tuple[str, int | None]):
    """0 or 1, or in a label map the segments' numbers, as the frame's source image has them."""
    here = by_source[distinct.index(source)]
    segment = segment_of(frame)
    if segment is None:
        return (here != 0).astype(np.uint8) @ np.array(numbers, np.uint8)
    return here[..., numbers.index(segment)]


masks = np.stack([mask_of(frame, source) for frame, source in zip(seg.PerFrameFunctionalGroupsSequence, sources)])
assert masks.max() <= max(numbers)
Path(masks_path).write_bytes(masks.astype(np.uint8).tobytes())

frames = [
    {
        "source_sop_instance": source[0],
        "source_frame": source[1],
        "position": [float(x) for x in macro(frame, "PlanePositionSequence").ImagePositionPatient],
        "orientation": [float(x) for x in macro(frame, "PlaneOrientationSequence").ImageOrientationPatient],
        "spacing": [float(x) for x in macro(frame, "PixelMeasuresSequence").PixelSpacing],
        "segment": segment_of(frame),
        "pixels": int((mask != 0).sum()),
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
