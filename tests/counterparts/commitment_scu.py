"""pynetdicom as a user of Storage Commitment: sends files, asks for their commitment, prints what it hears as JSON.

    commitment_scu.py '{"port": 11112, "files": [...], ...}'

Keys: port, files, extra (identifiers to ask for besides), listen (port of an own provider for reports, or absent),
close (abort right after the answer to N-ACTION), answers (statuses for reports, in order; 0 afterwards; null: none),
action_type, instance, transaction, reports (how many to wait for), patience (seconds).
"""

import faulthandler
import json
import sys
import threading
import time

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel as COMMITMENT

settings = json.loads(sys.argv[1])
# Whatever hangs is shown, and fails the test instead of holding it up.
faulthandler.dump_traceback_later(settings.get("patience", 20) + 40, exit=True)
answers = list(settings.get("answers", []))
reports = []


def heard(event):
    answer = answers.pop(0) if answers else 0
    information = event.event_information
    reports.append(
        {
            "event_type": event.event_type,
            "instance": event.request.AffectedSOPInstanceUID,
            "transaction": information.TransactionUID,
            "own_association": event.assoc.is_acceptor,
            "committed": [item.ReferencedSOPInstanceUID for item in information.get("ReferencedSOPSequence", [])],
            "failed": {
                item.ReferencedSOPInstanceUID: item.FailureReason for item in information.get("FailedSOPSequence", [])
            },
        }
    )
    if answer is None:
        event.assoc.abort()
        return 0x0000, None
    return answer, None


handlers = [(evt.EVT_N_EVENT_REPORT, heard)]
server = None
if settings.get("listen"):
    listener = AE(ae_title="CT1")
    listener.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    server = listener.start_server(("127.0.0.1", settings["listen"]), block=False, evt_handlers=handlers)

ae = AE(ae_title="CT1")
ae.add_requested_context(CTImageStorage)
ae.add_requested_context(COMMITMENT)
association = ae.associate("127.0.0.1", settings["port"], ae_title="ICHOR", evt_handlers=handlers)
assert association.is_established, "no association"

request = Dataset()
request.TransactionUID = settings.get("transaction") or generate_uid()
request.ReferencedSOPSequence = []


def refer(instance):
    item = Dataset()
    item.ReferencedSOPClassUID = CTImageStorage
    item.ReferencedSOPInstanceUID = instance
    request.ReferencedSOPSequence.append(item)


for file in settings["files"]:
    data_set = dcmread(file)
    assert association.send_c_store(data_set).Status == 0x0000
    refer(data_set.SOPInstanceUID)
for instance in settings.get("extra", []):
    refer(instance)

status, _ = association.send_n_action(
    request, settings.get("action_type", 1), COMMITMENT, settings.get("instance", "1.2.840.10008.1.20.1.1")
)
if settings.get("close"):
    association.abort()
deadline = time.monotonic() + settings.get("patience", 20)
while len(reports) < settings.get("reports", 1) and time.monotonic() < deadline:
    time.sleep(0.02)
alive = False
if association.is_established:
    # The association goes on after a report.
    again = settings["files"][:1]
    alive = bool(again) and association.send_c_store(dcmread(again[0])).Status == 0x0000
    # pynetdicom waits without end for its reactor if that ends just now, because we hang up.
    release = threading.Thread(target=association.release, daemon=True)
    release.start()
    release.join(10)
# The answer to the last report is on its way.
time.sleep(0.5)
if server:
    server.shutdown()
print(
    json.dumps(
        {
            "action": status.get("Status"),
            "comment": status.get("ErrorComment"),
            "transaction": request.TransactionUID,
            "reports": reports,
            "alive": alive,
        }
    )
)
