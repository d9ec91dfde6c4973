"""Validates FHIR transactions with fhir.resources (R4B, whose DiagnosticReport, Observation, ImagingStudy and Device are R4's).

    read_fhir.py FILE...

Prints nothing if each file is a Bundle whose resources, data types, cardinalities and required codes are valid and whose
references within the Bundle lead somewhere. Ends with 1 and the reason if not, and with 77 where there is no fhir.resources.
"""

import json
import sys

try:
    from fhir.resources.R4B import get_fhir_model_class
except ImportError as error:
    print(error)
    sys.exit(77)

# Required bindings (R4), which the classes do not check.
STATUS = {
    "DiagnosticReport": {
        "registered", "partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled",
        "entered-in-error", "unknown",
    },
    "Observation": {
        "registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown",
    },
    "ImagingStudy": {"registered", "available", "cancelled", "entered-in-error", "unknown"},
    "Device": {"active", "inactive", "entered-in-error", "unknown"},
}  # fmt: skip
DEVICE_NAME = {
    "udi-label-name", "user-friendly-name", "patient-reported-name", "manufacturer-name", "model-name", "other",
}  # fmt: skip


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def judge(bundle: dict) -> None:
    get_fhir_model_class("Bundle").model_validate(bundle)
    assert bundle["type"] == "transaction", bundle["type"]
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls), "a fullUrl stands twice"
    for entry in bundle["entry"]:
        resource, request = entry["resource"], entry["request"]
        kind = resource["resourceType"]
        get_fhir_model_class(kind).model_validate(resource)
        assert resource["status"] in STATUS[kind], f"{kind}.status {resource['status']}"
        assert "extension" not in json.dumps(resource), "an extension"
        assert resource["identifier"], "no identifier"
        for name in resource.get("deviceName", []):
            assert name["type"] in DEVICE_NAME, name
        if kind == "Observation":
            # obs-6: dataAbsentReason only where there is no value.
            values = [name for name in resource if name.startswith("value")]
            assert len(values) + ("dataAbsentReason" in resource) == 1, f"{kind}: {values}"
        search = request["url"].split("?")[1] if request["method"] == "PUT" else request["ifNoneExist"]
        name, _, value = search.partition("=")
        system, _, identifier = value.partition("%7C")
        assert name == "identifier", f"{search} is no condition"
        own = [(one.get("system"), one["value"]) for one in resource["identifier"]]
        assert (system, identifier) in own, f"{search} does not find {own}"
        for reference in references(resource):
            assert reference in urls, f"{kind} refers to {reference}, which is not there"


for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        bundle = json.load(file)
    try:
        judge(bundle)
    except Exception as error:  # whatever it raises is its verdict
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
