"""Makes one multi-frame CT image of a folder of single-frame ones: Legacy Converted Enhanced CT by highdicom, or the same
frames as Enhanced CT.

    multi_frame.py legacy|enhanced FOLDER OUT
"""

import sys
from pathlib import Path

import highdicom
import pydicom
from pydicom.uid import EnhancedCTImageStorage

kind, folder, out = sys.argv[1:]
sources = [pydicom.dcmread(path) for path in sorted(Path(folder).glob("*.dcm"))]
image = highdicom.legacy.LegacyConvertedEnhancedCTImage(
    legacy_datasets=sources,
    series_instance_uid=f"{sources[0].SeriesInstanceUID[:60]}.9",
    series_number=9,
    sop_instance_uid=f"{sources[0].SOPInstanceUID[:60]}.9",
    instance_number=1,
)
if kind == "enhanced":
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
image.save_as(out)
