"""A provider of C-FIND (Study Root and Modality Worklist) of pynetdicom that answers what it is told to, whatever it is asked.
It writes each question to a file, one JSON object a line, and ends when its standard input does.

    answering_peer.py '{"port": 11104, "log": "peer.log", "STUDY": [[{"AccessionNumber": "A-1"}]], ...}'

Keys: port, log; STUDY, SERIES and WORKLIST: the answers to the first, second ... question of a level, each a list of matches,
the last one repeated; a match is attributes by keyword, in which "$study" is the Study Instance UID that was asked for;
status (instead of success at the end), hang (seconds before the answer), endless (the first match again and again), abort
(the association is aborted instead of an answer), raw (this text, Latin 1, as the accession number, called UTF-8). A C-MOVE
never ends unless it is canceled: MOVE, and CANCEL when that comes, stand in the file.
"""

import json
import sys
import threading
import time

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import CTImageStorage
from pynetdicom.sop_class import ModalityWorklistInformationFind as WORKLIST
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as MOVE
from pynetdicom.sop_class import Verification

settings = json.loads(sys.argv[1])
asked = {"STUDY": 0, "SERIES": 0, "WORKLIST": 0}
lock = threading.Lock()


def match(attributes, study):
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in attributes.items():
        setattr(made, keyword, study if value == "$study" else value)
    if "raw" in settings:
        made.SpecificCharacterSet = "ISO_IR 100"
        made.AccessionNumber = settings["raw"]
    return made


def find(event):
    query = event.identifier
    study = str(query.get("StudyInstanceUID", ""))
    level = str(query.get("QueryRetrieveLevel", "WORKLIST"))
    with lock:
        number = asked[level]
        asked[level] += 1
        step = (query.get("ScheduledProcedureStepSequence") or [Dataset()])[0]
        with open(settings["log"], "a", encoding="utf-8") as log:
            keys = {"station": str(step.get("ScheduledStationAETitle", "")), "patient": str(query.get("PatientID", ""))}
            print(json.dumps({"what": level, "study": study, **keys}), file=log, flush=True)
    time.sleep(settings.get("hang", 0))
    if settings.get("abort"):
        event.assoc.abort()
        return
    answers = settings.get(level, [[]])
    matches = answers[min(number, len(answers) - 1)]
    while settings.get("endless") and event.assoc.is_established:
        yield 0xFF00, match(matches[0], study)
    for attributes in matches:
        yield 0xFF00, match(attributes, study)
    if "status" in settings:
        yield settings["status"], None


def note(what, study):
    with lock, open(settings["log"], "a", encoding="utf-8") as log:
        print(json.dumps({"what": what, "study": study}), file=log, flush=True)


def move(event):
    study = str(event.identifier.StudyInstanceUID)
    note("MOVE", study)
    # Whoever is to get it must be there: this peer is.
    yield "127.0.0.1", settings["port"], {"contexts": [build_context(CTImageStorage)]}
    yield 7
    while event.assoc.is_established:
        # True once only.
        if event.is_cancelled:
            note("CANCEL", study)
            break
        time.sleep(0.02)
    yield 0xFE00, None


server = AE(ae_title="PEER")
for context in (FIND, MOVE, WORKLIST, Verification, CTImageStorage):
    server.add_supported_context(context)
server.start_server(("127.0.0.1", settings["port"]), block=False, evt_handlers=[(evt.EVT_C_FIND, find), (evt.EVT_C_MOVE, move)])
print("listening", flush=True)
sys.stdin.read()
server.shutdown()
