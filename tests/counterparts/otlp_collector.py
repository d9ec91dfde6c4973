"""A collector of OTLP/HTTP traces that reads what it gets with OpenTelemetry's own messages. Each request is a line of JSON in a
file, its body is appended to another as it came; it ends when it is killed.

    otlp_collector.py '{"port": 4318, "log": "collector.log", "raw": "bodies.bin", ...}'

Further keys: statuses (answers to the first requests, one after the other; "silent": none at all; "partial": 200 that refuses one
span), then 200.
"""

import base64
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

settings = json.loads(sys.argv[1])
statuses = list(settings.get("statuses", []))


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def span(one):
    return {
        "trace": one.trace_id.hex(),
        "span": one.span_id.hex(),
        "parent": one.parent_span_id.hex(),
        "name": one.name,
        "kind": one.kind,
        "start": one.start_time_unix_nano,
        "end": one.end_time_unix_nano,
        "attributes": attributes(one.attributes),
        "events": [{"name": event.name, "at": event.time_unix_nano} for event in one.events],
        "links": [{"trace": link.trace_id.hex(), "span": link.span_id.hex()} for link in one.links],
        "failed": one.status.code == 2,
        "words": one.status.message,
        "digest": base64.b64encode(one.SerializeToString(deterministic=True)).decode(),
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(settings["raw"], "ab") as raw:
            raw.write(body)
        request = ExportTraceServiceRequest.FromString(body)
        answer = statuses.pop(0) if statuses else 200
        resources = [attributes(one.resource.attributes) for one in request.resource_spans]
        spans = [span(each) for one in request.resource_spans for scope in one.scope_spans for each in scope.spans]
        line = {
            "path": self.path,
            "type": self.headers["Content-Type"],
            "authorization": self.headers.get("Authorization"),
            "answer": answer,
            "resources": resources,
            "spans": spans,
        }
        with open(settings["log"], "a", encoding="utf-8") as log:
            print(json.dumps(line), file=log, flush=True)
        if answer == "silent":
            time.sleep(30)
            return
        said = ExportTraceServiceResponse()
        if answer == "partial":
            said.partial_success.rejected_spans = 1
            said.partial_success.error_message = "one too many"
        said = said.SerializeToString()
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", settings["port"]), Handler)
print("listening", flush=True)
server.serve_forever()
