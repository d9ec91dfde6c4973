"""A task manager of its own: a UPS-RS server on pydicom data sets, strict by PS3.4 Annex CC, which can be told to misbehave.

    task_manager.py '{"port": 8000, "token": "…"}'      prints "listening" and serves until it is killed

Beside `/workitems` it has, for the test alone:

    POST /control/workitem      schedules the data set in the body (DICOM JSON)
    POST /control/do            {"drop": "state"}: does the next such request and breaks the connection without an answer;
                                {"status": 503}: answers everything so until {"status": 0}; {"lie": "uid" | "huge" | "scheduled"};
                                {"forget": UID}; {"steal": UID}: somebody else claims it; {"hold": "state"}: waits before doing
                                {"mute": [UID, …]}: never answers for these; {"refuse": {UID: 409}}: takes the claim and
                                nothing after it
    GET /control/all            every workitem with its state, its Transaction UID and what was said of it
    GET /control/log            every request with its answer, and what was wrong with it
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

config.settings.reading_validation_mode = config.RAISE
config.settings.writing_validation_mode = config.RAISE

OPTIONS = json.loads(sys.argv[1])
LOCK = threading.RLock()
ITEMS, LOG, FINAL = {}, [], ("COMPLETED", "CANCELED")
DO = {"drop": None, "status": 0, "lie": None, "hold": None, "mute": [], "refuse": {}}

INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
INCORRECT = "The Transaction UID is incorrect."
MISSING = "The Transaction UID is missing."


class Refusal(Exception):
    def __init__(self, status, words):
        super().__init__(words)
        self.status = status


class Item:
    def __init__(self, data):
        self.data, self.transaction, self.updates = data, None, []

    @property
    def state(self):
        return self.data.ProcedureStepState


def read(body):
    """A data set, every value of the VR that the dictionary has for it."""
    sets = json.loads(body)
    sets = sets if isinstance(sets, list) else [sets]
    if len(sets) != 1:
        raise Refusal(400, f"{len(sets)} data sets")
    try:
        data = Dataset.from_json(sets[0])
        for element in data.iterall():
            if element.VR != dictionary_VR(element.tag):
                raise Refusal(400, f"{element.tag} is {element.VR}")
            str(element.value)
        data.is_little_endian, data.is_implicit_VR = True, False
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(buffer, data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(400, f"no data set: {error}") from error
    return data


def check_completed(data):
    """What PS3.4 table CC.2.5-3 asks of a workitem that is COMPLETED."""
    performed = data.get("UnifiedProcedureStepPerformedProcedureSequence")
    if not performed or len(performed) != 1:
        raise Refusal(409, f"{INCONSISTENT} no performed procedure")
    item = performed[0]
    for keyword in ("PerformedStationNameCodeSequence", "PerformedWorkitemCodeSequence"):
        codes = item.get(keyword)
        if not codes or not all(code.get(name) for code in codes for name in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")):
            raise Refusal(409, f"{INCONSISTENT} {keyword}")
    start, end = item.get("PerformedProcedureStepStartDateTime"), item.get("PerformedProcedureStepEndDateTime")
    if not start or not end or str(start) > str(end):
        raise Refusal(409, f"{INCONSISTENT} {start} to {end}")
    if "OutputInformationSequence" not in item:
        raise Refusal(409, f"{INCONSISTENT} no Output Information Sequence")
    for output in item.OutputInformationSequence:
        if output.TypeOfInstances != "DICOM" or not output.StudyInstanceUID or not output.SeriesInstanceUID or not output.ReferencedSOPSequence:
            raise Refusal(409, f"{INCONSISTENT} an output that names nothing")


def check_canceled(data):
    progress = data.get("ProcedureStepProgressInformationSequence")
    if not progress or not progress[0].get("ProcedureStepCancellationDateTime"):
        raise Refusal(409, f"{INCONSISTENT} when it was canceled")
    if not progress[0].get("ProcedureStepDiscontinuationReasonCodeSequence"):
        raise Refusal(409, f"{INCONSISTENT} why it was canceled")


def change_state(item, data):
    """PS3.4 table CC.1.1-2."""
    wanted, shown = data.get("ProcedureStepState"), data.get("TransactionUID")
    if not shown or not UID(shown).is_valid:
        raise Refusal(400, MISSING)
    if set(data.keys()) != {0x00741000, 0x00081195}:
        raise Refusal(400, "only state and Transaction UID change a state")
    match (item.state, wanted):
        case ("SCHEDULED", "IN PROGRESS"):
            item.transaction = shown
        case ("IN PROGRESS", "COMPLETED" | "CANCELED"):
            if shown != item.transaction:
                raise Refusal(409, INCORRECT)
            (check_completed if wanted == "COMPLETED" else check_canceled)(item.data)
        case ("COMPLETED", "COMPLETED") | ("CANCELED", "CANCELED"):
            return f"The UPS is already in the requested state of {wanted}."
        case _:
            raise Refusal(409, INCONSISTENT)
    item.data.ProcedureStepState = wanted
    return None


def update(item, data, query):
    shown = query.get("transaction-uid")
    if item.state in FINAL:
        raise Refusal(409, INCONSISTENT)
    if item.state == "SCHEDULED":
        if shown or "TransactionUID" in data:
            raise Refusal(409, INCONSISTENT)
    elif not shown:
        raise Refusal(400, MISSING)
    elif shown != item.transaction or data.get("TransactionUID", shown) != shown:
        raise Refusal(409, INCORRECT)
    if "TransactionUID" in data:
        del data.TransactionUID
    for keyword in ("ProcedureStepState", "SOPInstanceUID", "SOPClassUID", "PatientID", "PatientName"):
        if keyword in data:
            raise Refusal(400, f"{keyword} may not be set")
    item.data.update(data)
    item.updates.append(data.to_json_dict())


def matches(item, query):
    known = {"ProcedureStepState": item.state, "WorklistLabel": item.data.get("WorklistLabel")}
    for key, value in query.items():
        if key in ("limit", "offset", "includefield"):
            continue
        if "." in key:
            sequence, inner = key.split(".")
            found = [str(code.get(inner)) for code in item.data.get(sequence, [])]
            if value not in found:
                return False
        elif key in known:
            if known[key] != value:
                return False
        else:
            raise Refusal(400, f"no such key {key}")
    return True


def lied(found):
    """The answer to a search, perhaps not true."""
    if DO["lie"] == "uid":
        return [{**one, "00080018": {"vr": "UI", "Value": ["../../etc/passwd"]}} for one in found] + [
            {**one, "00080018": {"vr": "UI", "Value": ["2.25.404"]}} for one in found
        ]
    if DO["lie"] == "scheduled":
        return [{**one, "00741000": {"vr": "CS", "Value": ["SCHEDULED"]}} for one in found]
    return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value=None, warning=None):
        body = b"" if value is None else (value if isinstance(value, bytes) else json.dumps(value).encode())
        self.send_response(status)
        if warning:
            self.send_header("Warning", f"299 tasks: {warning}")
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def control(self, path, body):
        with LOCK:
            if path == "/control/workitem":
                data = read(body)
                ITEMS[data.SOPInstanceUID] = Item(data)
            elif path == "/control/do":
                wish = json.loads(body)
                if uid := wish.pop("forget", None):
                    del ITEMS[uid]
                if uid := wish.pop("steal", None):
                    ITEMS[uid].data.ProcedureStepState, ITEMS[uid].transaction = "IN PROGRESS", generate_uid()
                DO.update(wish)
            elif path == "/control/all":
                every = {
                    uid: {
                        "state": item.state,
                        "transaction": item.transaction,
                        "updates": item.updates,
                        "data": item.data.to_json_dict(),
                    }
                    for uid, item in ITEMS.items()
                }
                return self.answer(200, every)
            elif path == "/control/log":
                return self.answer(200, LOG)
        return self.answer(200, {})

    def serve(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path.startswith("/control/"):
            return self.control(url.path, body)
        query, parts = dict(parse_qsl(url.query)), url.path.strip("/").split("/")
        kind = "state" if parts[-1] == "state" else ("update" if self.command == "POST" else "get")
        if DO["hold"] == kind:
            while DO["hold"] == kind:
                time.sleep(0.02)
        if kind == "get" and len(parts) == 2:
            while parts[1] in DO["mute"]:
                time.sleep(0.02)
        drop, value, warning = False, None, None
        with LOCK:
            try:
                if OPTIONS.get("token") and self.headers.get("Authorization") != f"Bearer {OPTIONS['token']}":
                    raise Refusal(401, "who are you?")
                if DO["status"]:
                    raise Refusal(DO["status"], "out of order")
                if kind != "get" and self.headers.get("Content-Type") != "application/dicom+json":
                    raise Refusal(415, "application/dicom+json is taken")
                value, warning = self.do(parts, kind, query, body)
                status = 200
                if DO["drop"] == kind:
                    DO["drop"], drop = None, True
            except Refusal as refusal:
                status, warning = refusal.status, str(refusal)
            LOG.append({"method": self.command, "path": self.path, "status": status, "words": warning, "dropped": drop})
        if drop:
            self.close_connection = True
            self.connection.close()
            return None
        if DO["lie"] == "huge" and kind == "get":
            return self.answer(200, b"[" + b'{"00080018":{"vr":"UI","Value":["1.2"]}},' * (1 << 18) + b"{}]")
        return self.answer(status, value, warning)

    def do(self, parts, kind, query, body):
        match (self.command, parts):
            case ("GET", ["workitems"]):
                found = [item.data.to_json_dict() for item in ITEMS.values() if DO["lie"] == "scheduled" or matches(item, query)]
                first = int(query.get("offset", 0))
                return lied(found[first : first + int(query.get("limit", len(found)))]), None
            case ("GET", ["workitems", uid]):
                return [self.item(uid).data.to_json_dict()], None
            case ("PUT" | "POST", ["workitems", uid, *_]) if uid in DO["refuse"] and self.item(uid).state != "SCHEDULED":
                raise Refusal(DO["refuse"][uid], "this is not taken")
            case ("PUT", ["workitems", uid, "state"]):
                return None, change_state(self.item(uid), read(body))
            case ("POST", ["workitems", uid]):
                return None, update(self.item(uid), read(body), query)
        raise Refusal(404, "there is no such resource")

    def item(self, uid):
        if uid not in ITEMS:
            raise Refusal(404, "there is no such workitem")
        return ITEMS[uid]

    do_GET = do_POST = do_PUT = do_DELETE = serve


server = ThreadingHTTPServer(("127.0.0.1", OPTIONS["port"]), Handler)
server.daemon_threads = True
print("listening", flush=True)
server.serve_forever()
