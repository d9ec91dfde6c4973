"""A party of its own at a UPS-RS service: schedules, claims, reports, finishes and cancels workitems, and hears of them.

    ups.py BASE TOKEN lifecycle      the way of one workitem, with every wrong turn; prints nothing if all answers are right
    ups.py BASE TOKEN race COUNT     so many claim the same workitem at once: exactly one may succeed
    ups.py BASE TOKEN schedule UID CODE STUDY [PRIORITY [URL]]   schedules a workitem for a study, to be had from a URL
    ups.py BASE TOKEN cancel UID     asks for the cancellation of a workitem; its performer must be there to hear of it
    ups.py BASE TOKEN search QUERY   prints the answer's data sets as JSON
    ups.py BASE TOKEN get UID        prints the data set as JSON
    ups.py BASE TOKEN hear SUBSCRIBER COUNT [deaf|SECONDS]  prints so many reports from the event channel as JSON, each
                                     waited for so long (20); deaf: and breaks the connection before it has answered the
                                     server's Ping
    ups.py BASE TOKEN listen SUBSCRIBER STATUS  opens the event channel: the server must answer with this status
    ups.py BASE TOKEN subscribe SUBSCRIBER      subscribes to the worklist

Ends with 1 and the reason where an answer is not what PS3.18 chapter 11 says.
"""

import json
import sys
import threading
import uuid

import requests
import websocket

BASE, TOKEN, COMMAND, *REST = sys.argv[1:]
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/dicom+json", "Accept": "application/dicom+json"}
WORKLIST = "1.2.840.10008.5.1.4.34.5"


def uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def one(vr, value):
    return {"vr": vr, "Value": [value]}


def scheduled(code="110005", study="1.2.3", priority="MEDIUM", url=None):
    source = {"0040E025": one("SQ", {"00081190": one("UR", url)})} if url else {}
    return {
        "00741000": one("CS", "SCHEDULED"),
        "00741200": one("CS", priority),
        "00741204": one("LO", "a step of the tests"),
        "00404005": one("DT", "20260102030405"),
        "00404041": one("CS", "READY"),
        "00404018": one("SQ", {"00080100": one("SH", code), "00080102": one("SH", "99TEST"), "00080104": one("LO", code)}),
        "00100020": one("LO", "P-UPS"),
        "00404021": one("SQ", {"0040E020": one("CS", "DICOM"), "0020000D": one("UI", study), **source}),
    }  # fmt: skip


def ask(method, path, body=None, wanted=200, warning=None, data=None, headers=None):
    data = data if data is not None else (json.dumps(body).encode() if body is not None else None)
    answer = requests.request(method, BASE + path, data=data, headers=headers or HEADERS, timeout=20)
    said = answer.headers.get("Warning", "")
    if answer.status_code != wanted or (warning and warning not in said):
        sys.exit(f"{method} {path}: {answer.status_code} ({said}) {answer.text}, wanted {wanted} {warning or ''}")
    if warning and not said.startswith("299 "):
        sys.exit(f"{method} {path}: no Warning of code 299: {said}")
    return answer


def state(name, word, transaction=None, **more):
    body = {"00741000": one("CS", word)}
    if transaction:
        body["00081195"] = one("UI", transaction)
    return ask("PUT", f"/workitems/{name}/state", body, **more)


MISSING = "The Transaction UID is missing."
INCORRECT = "The Transaction UID is incorrect."
INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."


def lifecycle():
    name, transaction = uid(), uid()
    # Without a right to be here.
    ask("GET", "/workitems", wanted=401, headers={"Accept": "*/*"})
    # Creation.
    answer = ask("POST", f"/workitems?workitem={name}", [scheduled()], wanted=201)
    assert answer.headers["Content-Location"].endswith(f"/workitems/{name}"), answer.headers
    ask("POST", f"/workitems?{name}", [scheduled()], wanted=409)
    ask("POST", "/workitems", [scheduled()], wanted=201)
    ask("POST", "/workitems", data=b"{ no json", wanted=400, warning="no JSON")
    ask("POST", "/workitems", data=b"[]", wanted=400)
    ask("POST", "/workitems", {**scheduled(), "00741000": one("CS", "COMPLETED")}, wanted=400, warning="SCHEDULED")
    ask("POST", "/workitems", {**scheduled(), "00081195": one("UI", uid())}, wanted=400, warning="Transaction UID")
    ask("POST", "/workitems?workitem=../etc", scheduled(), wanted=400)
    ask("POST", "/workitems", data=b"x" * (100 << 10), wanted=413)
    ask("POST", "/workitems", scheduled(), wanted=415, headers={**HEADERS, "Content-Type": "application/dicom+xml"})
    # Retrieval and search.
    found = ask("GET", f"/workitems/{name}").json()
    assert len(found) == 1 and found[0]["00080018"]["Value"] == [name], found
    assert found[0]["00741202"]["Value"], "the server's Worklist Label"
    ask("GET", "/workitems/1.2.9", wanted=404)
    ask("GET", f"/workitems/{name}", wanted=406, headers={**HEADERS, "Accept": "application/dicom+xml"})
    ask("DELETE", f"/workitems/{name}", wanted=405)
    ask("GET", "/workitems/1/2/3/4", wanted=404)
    found = ask("GET", f"/workitems?ProcedureStepState=SCHEDULED&SOPInstanceUID={name}").json()
    assert [item["00080018"]["Value"][0] for item in found] == [name]
    assert ask("GET", "/workitems?PatientID=nobody", wanted=204).text == ""
    ask("GET", "/workitems?limit=1", warning="additional results")
    ask("GET", "/workitems?fuzzymatching=true", warning="fuzzymatching")
    ask("GET", "/workitems?NoSuchKey=1", wanted=400)
    # Subscription, and what is heard at once.
    answer = ask("POST", f"/workitems/{name}/subscribers/TESTER", wanted=201)
    place = answer.headers["Content-Location"]
    assert place.startswith("ws://") and place.endswith("/subscribers/TESTER"), place
    ask("POST", "/workitems/1.2.9/subscribers/TESTER", wanted=404)
    ask("POST", f"/workitems/{WORKLIST}.1/subscribers/TESTER", wanted=403, warning="Filtered Worklist Subscriptions are not supported.")
    ask("GET", "/subscribers/TESTER", wanted=400)
    channel = websocket.create_connection(place, header=[f"Authorization: Bearer {TOKEN}"], timeout=20)
    hear(channel, name, 1, "SCHEDULED")
    # Wrong turns before anybody has claimed it.
    state(name, "COMPLETED", transaction, wanted=409, warning=INCONSISTENT)
    state(name, "CANCELED", transaction, wanted=409, warning=INCONSISTENT)
    state(name, "SCHEDULED", transaction, wanted=409, warning=INCONSISTENT)
    state(name, "IN PROGRESS", wanted=400, warning=MISSING)
    state(name, "DONE", transaction, wanted=400)
    state("1.2.9", "IN PROGRESS", transaction, wanted=404)
    ask("POST", f"/workitems/{name}", {"00741204": one("LO", "another label")})
    ask("POST", f"/workitems/{name}", {"00741000": one("CS", "IN PROGRESS")}, wanted=400)
    # Claimed.
    state(name, "IN PROGRESS", transaction)
    hear(channel, name, 1, "IN PROGRESS")
    state(name, "IN PROGRESS", uid(), wanted=409, warning=INCONSISTENT)
    found = ask("GET", f"/workitems/{name}").json()[0]
    assert transaction not in json.dumps(found), "the transaction UID is the performer's secret"
    assert found["00741204"]["Value"] == ["another label"] and found["00741000"]["Value"] == ["IN PROGRESS"]
    # Progress.
    progress = {"00741002": one("SQ", {"00741004": one("DS", "50")})}
    ask("POST", f"/workitems/{name}", progress, wanted=400, warning=MISSING)
    ask("POST", f"/workitems/{name}?transaction-uid={uid()}", progress, wanted=409, warning=INCORRECT)
    ask("POST", f"/workitems/{name}?transaction-uid={transaction}", progress)
    assert hear(channel, name, 3)["00741002"]["Value"][0]["00741004"]["Value"] == ["50"]
    # Somebody else wants it canceled; the performer hears of it.
    ask("POST", f"/workitems/{name}/cancelrequest", {"00741238": one("LT", "no need")}, wanted=202)
    assert hear(channel, name, 2)["00741238"]["Value"] == ["no need"]
    # Finished, once it is said what was done.
    state(name, "COMPLETED", transaction, wanted=409, warning=INCONSISTENT)
    done = {"00741216": one("SQ", {"00404050": one("DT", "20260102"), "00404051": one("DT", "20260102"), "00404033": {"vr": "SQ"}})}
    ask("POST", f"/workitems/{name}?{transaction}", done)
    state(name, "COMPLETED", uid(), wanted=409, warning=INCORRECT)
    state(name, "COMPLETED", transaction)
    hear(channel, name, 1, "COMPLETED")
    state(name, "COMPLETED", transaction, warning="The UPS is already in the requested state of COMPLETED.")
    state(name, "CANCELED", transaction, wanted=409, warning=INCONSISTENT)
    ask("POST", f"/workitems/{name}?transaction-uid={transaction}", progress, wanted=409)
    ask("POST", f"/workitems/{name}/cancelrequest", wanted=409, warning="already COMPLETED")
    # Canceled before it was begun, and by its performer.
    other = uid()
    ask("POST", f"/workitems?workitem={other}", scheduled(), wanted=201)
    ask("POST", f"/workitems/{other}/cancelrequest", wanted=202)
    ask("POST", f"/workitems/{other}/cancelrequest", wanted=202, warning="already in the requested state of CANCELED.")
    state(other, "IN PROGRESS", transaction, wanted=409)
    third = uid()
    ask("POST", f"/workitems?workitem={third}", scheduled(), wanted=201)
    state(third, "IN PROGRESS", transaction)
    ask("POST", f"/workitems/{third}/cancelrequest", wanted=409, warning="The performer cannot be contacted.")
    state(third, "CANCELED", transaction)
    # The end of subscriptions.
    ask("DELETE", f"/workitems/{name}/subscribers/TESTER")
    ask("DELETE", f"/workitems/{name}/subscribers/TESTER", wanted=404)
    ask("POST", f"/workitems/{WORKLIST}/subscribers/GLOBAL?deletionlock=true", wanted=201)
    ask("POST", f"/workitems/{WORKLIST}/subscribers/GLOBAL/suspend")
    ask("POST", f"/workitems/{WORKLIST}/subscribers/GLOBAL/suspend", wanted=404)
    ask("POST", f"/workitems/{WORKLIST}/subscribers/A%20TITLE%20THAT%20IS%20TOO%20LONG", wanted=400)
    channel.close()


def hear(channel, name, event, word=None):
    report = json.loads(channel.recv())
    told = (report["00001000"]["Value"][0], report["00001002"]["Value"][0], report.get("00741000", {}).get("Value", [None])[0])
    if told[:2] != (name, event) or (word and told[2] != word):
        sys.exit(f"heard {told}, not {(name, event, word)}")
    return report


def race(count):
    name, statuses = uid(), []
    ask("POST", f"/workitems?workitem={name}", scheduled(), wanted=201)
    start = threading.Barrier(count)

    def claim():
        body = {"00741000": one("CS", "IN PROGRESS"), "00081195": one("UI", uid())}
        start.wait()
        answer = requests.put(f"{BASE}/workitems/{name}/state", data=json.dumps(body), headers=HEADERS, timeout=20)
        statuses.append(answer.status_code)

    claimants = [threading.Thread(target=claim) for _ in range(count)]
    for claimant in claimants:
        claimant.start()
    for claimant in claimants:
        claimant.join()
    if sorted(statuses) != [200] + [409] * (count - 1):
        sys.exit(f"{statuses}")


if COMMAND == "lifecycle":
    lifecycle()
elif COMMAND == "race":
    race(int(REST[0]))
elif COMMAND == "schedule":
    ask("POST", f"/workitems?workitem={REST[0]}", scheduled(*REST[1:]), wanted=201)
elif COMMAND == "cancel":
    ask("POST", f"/workitems/{REST[0]}/cancelrequest", {"00741238": one("LT", "no need")}, wanted=202)
elif COMMAND == "search":
    answer = requests.get(f"{BASE}/workitems?{REST[0]}", headers=HEADERS, timeout=20)
    print(answer.text if answer.status_code == 200 else json.dumps([]))
elif COMMAND == "get":
    print(json.dumps(ask("GET", f"/workitems/{REST[0]}").json()[0]))
elif COMMAND == "subscribe":
    ask("POST", f"/workitems/{WORKLIST}/subscribers/{REST[0]}", wanted=201)
elif COMMAND == "listen":
    place = f"{BASE.replace('http', 'ws', 1)}/subscribers/{REST[0]}"
    try:
        websocket.create_connection(place, header=[f"Authorization: Bearer {TOKEN}"], timeout=20).close()
        status = 101
    except websocket.WebSocketBadStatusException as refused:
        status = refused.status_code
    if status != int(REST[1]):
        sys.exit(f"the channel of {REST[0]}: {status}, not {REST[1]}")
    if status == 403:
        for method, path in [("POST", ""), ("DELETE", ""), ("POST", "/suspend")]:
            ask(method, f"/workitems/{WORKLIST}/subscribers/{REST[0]}{path}", wanted=403, warning="another client's")
elif COMMAND == "hear":
    place = f"{BASE.replace('http', 'ws', 1)}/subscribers/{REST[0]}"
    patience = int(REST[2]) if REST[2:] and REST[2].isdigit() else 20
    channel = websocket.create_connection(place, header=[f"Authorization: Bearer {TOKEN}"], timeout=patience)
    print(json.dumps([json.loads(channel.recv()) for _ in range(int(REST[1]))]))
    # What was told counts as heard with the Pong to the Ping behind it, which the library sends.
    while "deaf" not in REST and channel.recv_data_frame(control_frame=True)[0] != websocket.ABNF.OPCODE_PING:
        pass
    channel.close() if "deaf" not in REST else channel.shutdown()
else:
    sys.exit(__doc__)
