"""Reads a structured report with highdicom and compares it with what the test expects.

usage: read_report_with_highdicom.py REPORT EXPECTED.json
"""

import json
import sys
from pathlib import Path

try:
    import highdicom as hd
    import pydicom
    from highdicom.sr import CodedConcept
except ImportError as error:
    print(f"skip: {error}")
    sys.exit(77)

HEMORRHAGE = CodedConcept("50960005", "SCT", "Hemorrhage")
VOLUME = CodedConcept("118565006", "SCT", "Volume")
ATTENUATION = CodedConcept("112031", "DCM", "Attenuation Coefficient")
LONG_AXIS = CodedConcept("103339001", "SCT", "Long Axis")
CERTAINTY = CodedConcept("111012", "DCM", "Certainty of Finding")
# CID 225: uncertainty of a measurement, above and below.
UPPER, LOWER = "371886008", "371885007"
MEAN, MAXIMUM = CodedConcept("373098007", "SCT", "Mean"), CodedConcept("56851009", "SCT", "Maximum")


def number(measurements, derivation=None):
    found = [m for m in measurements if derivation is None or m.derivation == derivation]
    assert len(found) == 1, found
    return found[0].value


def texts(item, found):
    for child in item.get("ContentSequence", []):
        if child.ValueType == "TEXT":
            found.append(child.TextValue)
        texts(child, found)
    return found


def images(item, found):
    for child in item.get("ContentSequence", []):
        if child.ValueType == "IMAGE" and "ConceptNameCodeSequence" not in child:
            found.append(child.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        images(child, found)
    return found


def main() -> None:
    report = hd.sr.srread(sys.argv[1])
    expected = json.loads(Path(sys.argv[2]).read_text())
    assert isinstance(report, hd.sr.Comprehensive3DSR), type(report)
    content = report.content
    assert isinstance(content, hd.sr.MeasurementReport), type(content)

    observers = content.get_observer_contexts(observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"))
    (observer,) = observers
    assert observer.observer_identifying_attributes.name == expected["model"]
    assert observer.observer_identifying_attributes.manufacturer_name == "ichor"

    groups = content.get_volumetric_roi_measurement_groups()
    plain = content.get_image_measurement_groups()
    studies = [g for g in plain if g.get_measurements(CERTAINTY)]
    if expected["probability"] is None:
        assert not studies and not groups
    else:
        (study,) = studies
        assert study.finding_type == HEMORRHAGE
        certainty = number(study.get_measurements(CERTAINTY))
        assert abs(certainty - 100 * expected["probability"]) <= 0.05 + 1e-9, certainty
        volumes = study.get_measurements(VOLUME)
        assert len(volumes) == (expected["study_volume"] is not None), volumes
        for volume in volumes:
            volume_ml, sd_ml = expected["study_volume"]
            assert abs(volume.value - volume_ml) <= 0.005 + 1e-9, volume.value
            properties = [
                item for item in volume[0].get("ContentSequence", []) if item.RelationshipType == "HAS PROPERTIES"
            ]
            concepts = {item.ConceptNameCodeSequence[0].CodeValue for item in properties}
            assert concepts == ({UPPER, LOWER} if sd_ml is not None else set()), concepts
            for item in properties:
                measured = item.MeasuredValueSequence[0]
                assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "mL", measured
                assert abs(float(measured.NumericValue) - sd_ml) <= 0.005 + 1e-9, measured
    if expected["segmentation"] is None:
        assert not groups
        groups = [g for g in plain if g not in studies]
    else:
        assert plain == studies
    assert len(groups) == len(expected["lesions"]), (len(groups), expected["lesions"])
    for group, lesion in zip(groups, expected["lesions"]):
        assert group.tracking_uid == lesion["tracking_uid"]
        assert group.tracking_identifier == lesion["tracking_id"]
        assert group.finding_type == HEMORRHAGE
        if expected["segmentation"] is not None:
            (found,) = content.get_volumetric_roi_measurement_groups(
                referenced_sop_instance_uid=expected["segmentation"], tracking_uid=lesion["tracking_uid"]
            )
            assert found is not None
            reference = [
                item
                for item in group[0].ContentSequence
                if item.ValueType == "IMAGE" and item.ConceptNameCodeSequence[0].CodeValue == "121191"
            ]
            (reference,) = reference
            assert reference.ReferencedSOPSequence[0].ReferencedSegmentNumber == lesion["number"]
        else:
            sources = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in group.source_images]
            assert sources == lesion["slices"], sources
        for name, code, derivation, digits in [
            ("volume_ml", VOLUME, None, 2),
            ("mean_hu", ATTENUATION, MEAN, 1),
            ("max_hu", ATTENUATION, MAXIMUM, 1),
            ("extent_mm", LONG_AXIS, None, 1),
        ]:
            value = number(group.get_measurements(code), derivation)
            assert abs(value - lesion[name]) <= 0.5 * 10**-digits + 1e-9, (name, value, lesion[name])

    evaluations = [
        item
        for item in report.ContentSequence
        if item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    ]
    (evaluations,) = evaluations
    verdict = evaluations.ContentSequence[0]
    assert verdict.ConceptNameCodeSequence[0].CodeValue == HEMORRHAGE.value
    assert verdict.ConceptCodeSequence[0].CodeValue == expected["presence"]
    said = texts(report, [])
    for words in expected["words"]:
        assert words in said, words
    # As it stands in the file: highdicom names images that have no name.
    assert images(pydicom.dcmread(sys.argv[1]), []) == expected["images"]
    print("ok")


main()
