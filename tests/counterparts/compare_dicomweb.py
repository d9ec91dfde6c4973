"""Asks ichor and Orthanc the same by DICOMweb, with dicomweb-client, and says where they differ.

compare_dicomweb.py ICHOR_URL TOKEN ORTHANC_URL  prints what was compared, as JSON; any difference is an error.
"""

import http.client
import io
import json
import sys

import numpy
import PIL.Image
import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_2000 = ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"]
# Attributes of PS3.18 tables 10.6.3-3 to -5 that both must give where the object has them.
STUDY = ["00080020", "00080030", "00080050", "00080061", "00080090", "00100010", "00100020", "00100030", "00100040",
         "0020000D", "00200010", "00201206", "00201208"]
SERIES = ["00080060", "0008103E", "0020000E", "00200011", "00201209"]
INSTANCE = ["00080016", "00080018", "00200013", "00280010", "00280011", "00280100", "00280008"]
differences = []
compared = {"queries": 0, "results": 0, "instances": 0, "attributes": 0, "frames": 0, "pictures": 0, "pixels": 0}


def client(url, token=None):
    session = requests.Session()
    session.trust_env = False
    headers = {"Authorization": f"Bearer {token}"} if token else None
    return DICOMwebClient(url=url, session=session, headers=headers)


def plain(value):
    """A value in the form that both have in common: numbers may be written as text (PS3.18 F.2.3)."""
    if isinstance(value, dict):
        if set(value) <= {"Alphabetic", "Ideographic", "Phonetic"}:
            return "=".join(value.get(form, "") for form in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=^ ")
        return data_set(value)
    if value is None:
        return ""
    try:
        return float(value)
    except ValueError:
        return value.strip()


def data_set(json_set):
    plain_set = {}
    for tag, attribute in json_set.items():
        values = [plain(value) for value in attribute.get("Value", [])]
        if any(value not in ("", {}) for value in values):
            plain_set[tag] = values
    return plain_set


def differ(what, one, other):
    if one != other:
        differences.append(f"{what}: ichor {one!r}, Orthanc {other!r}"[:600])


def compare_results(what, mine, theirs, key, tags):
    compared["queries"] += 1
    mine, theirs = ({data_set(item)[key][0]: data_set(item) for item in items} for items in (mine, theirs))
    differ(f"{what}: which", sorted(mine), sorted(theirs))
    for uid in set(mine) & set(theirs):
        compared["results"] += 1
        for tag in tags:
            one, other = mine[uid].get(tag), theirs[uid].get(tag)
            if tag == "00080061":
                one, other = sorted(one or []), sorted(other or [])
            differ(f"{what}: {tag} of {uid}", one, other)
    return mine


def unquoted(orthanc, filters):
    """What Orthanc finds: it takes no percent signs in queries, and dicomweb-client writes stars and carets with them."""
    connection = http.client.HTTPConnection(orthanc.host, orthanc.port)
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    connection.request("GET", f"/dicom-web/studies?{query}", headers={"Accept": "application/dicom+json"})
    return json.loads(connection.getresponse().read() or b"[]")


def compare_searches(ichor, orthanc, studies):
    first = studies[0]
    name, patient = first["00100010"][0], first["00100020"][0]
    date = f"{int(first['00080020'][0])}" if "00080020" in first else "20260101"
    uids = [study["0020000D"][0] for study in studies]
    for filters in [
        {},
        {"PatientID": patient if isinstance(patient, str) else f"{int(patient)}"},
        {"PatientName": name.split(" ")[0].lower() + "*"},
        {"PatientName": name[:3] + "*"},
        {"PatientName": "*" + name[-2:]},
        {"PatientName": "?" + name[1:4] + "*"},
        {"PatientName": "nobody"},
        {"StudyDate": date},
        {"StudyDate": f"{date}-"},
        {"StudyDate": f"-{date}"},
        {"StudyDate": "19000101-19000102"},
        {"StudyInstanceUID": uids[-1]},
        {"0020000D": uids[0]},
        {"ModalitiesInStudy": "SEG"},
        {"ModalitiesInStudy": "MR"},
        {"StudyTime": "000000-235959"},
    ]:
        theirs = unquoted(orthanc, filters) if "PatientName" in filters else orthanc.search_for_studies(search_filters=filters)
        compare_results(f"studies {filters}", ichor.search_for_studies(search_filters=filters), theirs, "0020000D", STUDY)
    for uid in uids:
        for filters in [{}, {"Modality": "CT"}, {"Modality": "SEG"}, {"SeriesNumber": "1"}]:
            asked = [each.search_for_series(uid, search_filters=filters) for each in (ichor, orthanc)]
            series = compare_results(f"series of {uid} {filters}", *asked, "0020000E", SERIES)
            if not filters:
                for one in series:
                    asked = [each.search_for_instances(uid, one) for each in (ichor, orthanc)]
                    compare_results(f"instances of {one}", *asked, "00080018", INSTANCE)
        asked = [each.search_for_instances(uid, search_filters={"InstanceNumber": "3"}) for each in (ichor, orthanc)]
        compare_results(f"instances 3 of {uid}", *asked, "00080018", INSTANCE)
    asked = [each.search_for_series(search_filters={"Modality": "SEG"}) for each in (ichor, orthanc)]
    compare_results("series of all studies", *asked, "0020000E", SERIES)
    pages = [ichor.search_for_studies(limit=1, offset=offset)[0] for offset in range(len(uids))]
    differ("pages", sorted(data_set(page)["0020000D"][0] for page in pages), sorted(uids))


def compare_metadata(mine, theirs):
    mine, theirs = ({item["00080018"]["Value"][0]: item for item in items} for items in (mine, theirs))
    differ("metadata: which", sorted(mine), sorted(theirs))
    for uid in set(mine) & set(theirs):
        one, other = data_set(mine[uid]), data_set(theirs[uid])
        for tag in sorted(set(one) | set(other)):
            # The character set is that of the answer; groups 2 and 0 are the file's own.
            if tag == "00080005" or tag[:4] in ("0000", "0002"):
                continue
            compared["attributes"] += 1
            differ(f"metadata: {tag} of {uid}", one.get(tag), other.get(tag))
        if "Rows" in pydicom.Dataset.from_json(without_bulk(mine[uid])):
            differ(f"metadata: pixels of {uid}", "BulkDataURI" in mine[uid].get("7FE00010", {}), True)


def without_bulk(item):
    return {tag: attribute for tag, attribute in item.items() if "BulkDataURI" not in attribute}


def compare_instances(ichor, orthanc, study):
    stored = (("application/dicom", "*"),)
    mine, theirs = (each.retrieve_study(study, media_types=stored) for each in (ichor, orthanc))
    mine, theirs = ({str(item.SOPInstanceUID): item for item in items} for items in (mine, theirs))
    differ(f"instances of {study}", sorted(mine), sorted(theirs))
    plain_ones = {str(i.SOPInstanceUID): i for i in ichor.retrieve_study(study, media_types=(("application/dicom", EXPLICIT),))}
    differ(f"transcoded instances of {study}", sorted(plain_ones), sorted(mine))
    for uid in set(mine) & set(theirs):
        compared["instances"] += 1
        one, other, transcoded = mine[uid], theirs[uid], plain_ones[uid]
        differ(f"transfer syntax of {uid}", one.file_meta.TransferSyntaxUID, other.file_meta.TransferSyntaxUID)
        differ(f"transfer syntax of transcoded {uid}", transcoded.file_meta.TransferSyntaxUID, EXPLICIT)
        for element in other:
            differ(f"{element.tag} of {uid}", str(one.get(element.tag)), str(element))
            if element.keyword != "PixelData":
                differ(f"{element.tag} of transcoded {uid}", str(transcoded.get(element.tag)), str(element))
        if "PixelData" in one:
            compared["pixels"] += 1
            differ(f"pixel data of {uid}", one.PixelData == other.PixelData, True)
            same = numpy.array_equal(transcoded.pixel_array, other.pixel_array)
            differ(f"decoded pixels of {uid}", same, True)
    return mine


def compare_frames(ichor, orthanc, study, instances):
    native = (("application/octet-stream", EXPLICIT),)
    for uid, instance in list(instances.items())[:: max(1, len(instances) // 4)]:
        if "PixelData" not in instance or instance.BitsAllocated == 1:
            continue
        frames = list(range(1, min(3, int(instance.get("NumberOfFrames", 1))) + 1))
        place = (study, str(instance.SeriesInstanceUID), uid)
        mine = ichor.retrieve_instance_frames(*place, frames, media_types=native)
        # Orthanc has no decoder of its own for JPEG 2000.
        if instance.file_meta.TransferSyntaxUID not in JPEG_2000:
            theirs = orthanc.retrieve_instance_frames(*place, frames, media_types=native)
            differ(f"frames of {uid}", [len(frame) for frame in mine], [len(frame) for frame in theirs])
            differ(f"frames of {uid} are the same", mine == theirs, True)
        whole = instance.pixel_array.reshape(int(instance.get("NumberOfFrames", 1)), -1)
        differ(f"frames of {uid} are the pixels", mine[0] == whole[0].tobytes(), True)
        compared["frames"] += len(frames)
        if instance.Modality != "CT":
            continue
        window = {"window": "40,80,linear"}
        picture = ichor.retrieve_instance_rendered(*place, media_types=("image/png",), params=window)
        picture = numpy.asarray(PIL.Image.open(io.BytesIO(picture)), dtype=float)
        hu = instance.pixel_array * float(instance.RescaleSlope) + float(instance.RescaleIntercept)
        wanted = numpy.clip((hu - 39.5) / 79 + 0.5, 0, 1) * 255
        differ(f"picture of {uid}: levels off", bool(numpy.abs(picture - wanted).max() <= 0.51), True)
        jpeg = ichor.retrieve_instance_rendered(*place, media_types=("image/jpeg",), params=window)
        jpeg = numpy.asarray(PIL.Image.open(io.BytesIO(jpeg)), dtype=float)
        differ(f"JPEG of {uid}: levels off in the mean", bool(numpy.abs(jpeg - wanted).mean() < 4), True)
        compared["pictures"] += 2


def main():
    ichor_url, token, orthanc_url = sys.argv[1:]
    ichor, orthanc = client(ichor_url, token), client(orthanc_url)
    studies = [data_set(item) for item in ichor.search_for_studies()]
    compare_searches(ichor, orthanc, studies)
    for study in studies:
        uid = study["0020000D"][0]
        compare_metadata(ichor.retrieve_study_metadata(uid), orthanc.retrieve_study_metadata(uid))
        instances = compare_instances(ichor, orthanc, uid)
        compare_frames(ichor, orthanc, uid, instances)
        one = next(i for i in instances.values() if i.Modality == "CT" and "PixelData" in i)
        metadata = ichor.retrieve_instance_metadata(uid, str(one.SeriesInstanceUID), str(one.SOPInstanceUID))
        # dicomweb-client says a Host without its port, and URLs in answers are made of that.
        path = metadata["7FE00010"]["BulkDataURI"].split("/dicom-web", 1)[1]
        bulk = ichor.retrieve_bulkdata(ichor_url + path)
        differ(f"bulk data of {uid}", bulk[0] == one.pixel_array.tobytes(), True)
    if differences:
        print("\n".join(differences[:40]), file=sys.stderr)
        print(f"{len(differences)} differences", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(compared))


main()
