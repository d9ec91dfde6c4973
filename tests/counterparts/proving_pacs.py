"""A PACS of pynetdicom that keeps, or loses, what it accepts; commits itself, late, never or not at all; and answers queries
for what it has. It writes what happens to a file, one JSON object a line, and ends when its standard input does.

    proving_pacs.py '{"port": 11104, "log": "pacs.log", ...}'

Keys: port, log, lose (how many objects are accepted and dropped, from the first on; default 0), report ("same": on the
association of the request; "late": on an association of its own; "never"), report_to (port of ichor), after (seconds before
the report), refuse (contexts that are not accepted: "commitment", "find", or a SOP Class UID), abort (the association is
aborted at this store, counted from 1).
"""

import json
import sys
import threading
import time

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, StoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel as COMMITMENT
from pynetdicom.sop_class import StorageCommitmentPushModelInstance as INSTANCE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from pynetdicom.sop_class import Verification

settings = json.loads(sys.argv[1])
refused = settings.get("refuse", [])
kept = {}
stores = 0
lock = threading.Lock()


def note(what, **more):
    with lock, open(settings["log"], "a", encoding="utf-8") as log:
        print(json.dumps({"what": what, **more}), file=log, flush=True)


def store(event):
    global stores
    stores += 1
    instance = str(event.request.AffectedSOPInstanceUID)
    if stores == settings.get("abort"):
        note("aborted", instance=instance)
        event.assoc.abort()
        return 0x0110
    loses = stores <= settings.get("lose", 0)
    note("store", instance=instance, association=id(event.assoc), lost=loses)
    if not loses:
        kept[instance] = event.dataset.SOPClassUID
    return 0x0000


def information(request):
    answer = Dataset()
    answer.TransactionUID = request.TransactionUID
    good, bad = [], []
    for item in request.ReferencedSOPSequence:
        reference = Dataset()
        reference.ReferencedSOPClassUID = item.ReferencedSOPClassUID
        reference.ReferencedSOPInstanceUID = item.ReferencedSOPInstanceUID
        if item.ReferencedSOPInstanceUID in kept:
            good.append(reference)
        else:
            reference.FailureReason = 0x0112
            bad.append(reference)
    if good:
        answer.ReferencedSOPSequence = good
    if bad:
        answer.FailedSOPSequence = bad
    return answer, 2 if bad else 1


def report(association, request):
    time.sleep(settings.get("after", 0.1))
    answer, kind = information(request)
    own = None
    if settings["report"] == "late":
        ae = AE(ae_title="ORTHANC")
        ae.add_requested_context(COMMITMENT)
        role = build_role(COMMITMENT, scp_role=True)
        own = association = ae.associate("127.0.0.1", settings["report_to"], ae_title="ICHOR", ext_neg=[role])
        if not association.is_established:
            note("report", error="no association")
            return
    status, _ = association.send_n_event_report(answer, kind, COMMITMENT, INSTANCE)
    note("report", status=status.get("Status"), kind=kind)
    if own:
        own.release()


def action(event):
    request = event.action_information
    note("asked", transaction=str(request.TransactionUID), instances=len(request.ReferencedSOPSequence))
    if settings.get("report", "same") != "never":
        threading.Thread(target=report, args=(event.assoc, request), daemon=True).start()
    return 0x0000, None


def find(event):
    wanted = str(event.identifier.SOPInstanceUID)
    note("find", instance=wanted, found=wanted in kept)
    if wanted in kept:
        match = Dataset()
        match.QueryRetrieveLevel = "IMAGE"
        match.StudyInstanceUID = event.identifier.StudyInstanceUID
        match.SeriesInstanceUID = event.identifier.SeriesInstanceUID
        match.SOPInstanceUID = wanted
        yield 0xFF00, match


settings.setdefault("report", "same")
server = AE(ae_title="ORTHANC")
for context in StoragePresentationContexts:
    if context.abstract_syntax not in refused:
        server.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
if "1.2.840.10008.5.1.4.1.1.66.4" not in refused:
    server.add_supported_context("1.2.840.10008.5.1.4.1.1.66.4", ALL_TRANSFER_SYNTAXES)
server.add_supported_context(Verification)
if "commitment" not in refused:
    server.add_supported_context(COMMITMENT)
if "find" not in refused:
    server.add_supported_context(FIND)
handlers = [
    (evt.EVT_C_STORE, store),
    (evt.EVT_N_ACTION, action),
    (evt.EVT_C_FIND, find),
    (evt.EVT_ACCEPTED, lambda event: note("association", contexts=len(event.assoc.accepted_contexts))),
]
server.start_server(("127.0.0.1", settings["port"]), block=False, evt_handlers=handlers)
print("listening", flush=True)
sys.stdin.read()
server.shutdown()
