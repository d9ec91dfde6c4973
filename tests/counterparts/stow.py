"""Stores DICOM files by STOW-RS with dicomweb-client.

stow.py URL TOKEN STUDY_UID|- FILE...  prints the SOP Instance UIDs that the server references as stored, as JSON.
"""

import json
import sys

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient


def main():
    url, token, study, *files = sys.argv[1:]
    session = requests.Session()
    session.trust_env = False
    client = DICOMwebClient(url=url, session=session, headers={"Authorization": f"Bearer {token}"})
    answer = client.store_instances(
        [pydicom.dcmread(file) for file in files], study_instance_uid=None if study == "-" else study
    )
    stored = answer.get("ReferencedSOPSequence", [])
    print(json.dumps([str(item.ReferencedSOPInstanceUID) for item in stored]))


main()
