"""What in deploy/ must agree: sources that the container copies, ports, names and paths of its configurations."""

import json
import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path


class Wrong(Exception):
    """A file is not of the form that is read here."""


def yaml(text: str) -> dict:
    """The part of YAML that compose.yml is written in: nested maps, lists of scalars, JSON in place of a value."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if line:
            lines.append((number, len(line) - len(line.lstrip()), line.strip()))
    value, rest = block(lines, 0)
    if rest:
        raise Wrong(f"line {rest[0][0]}: not understood")
    return value


def block(lines: list, indent: int) -> tuple:
    if lines and lines[0][2].startswith("- "):
        items = []
        while lines and lines[0][1] == indent and lines[0][2].startswith("- "):
            items.append(scalar(lines[0][2][2:]))
            lines = lines[1:]
        return items, lines
    found = {}
    while lines and lines[0][1] == indent:
        number, _, text = lines[0]
        split = re.fullmatch(r"([\w.-]+):(?: (.*))?", text)
        if not split or split[1] in found:
            raise Wrong(f"line {number}: not understood, or twice: {text}")
        lines = lines[1:]
        if split[2]:
            found[split[1]] = scalar(split[2])
        elif lines and lines[0][1] > indent:
            found[split[1]], lines = block(lines, lines[0][1])
        else:
            found[split[1]] = None
    return found, lines


def scalar(text: str):
    if text[:1] in ('"', "["):
        return json.loads(text)
    return {"true": True, "false": False}.get(text, text)


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Containerfile, lines put together."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    joined = re.sub(r"\\\n\s*", " ", text)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages(text: str) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions(text):
        if instruction[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def copies(root: Path, stage: list) -> list[tuple[list[Path], str]]:
    """What a stage copies from the repository, and where to."""
    found = []
    for name, words in stage:
        if name == "COPY" and "--from=" not in words:
            *sources, to = words.split()
            found.append(([root / source for source in sources], to))
    return found


def ignored(root: Path) -> list[str]:
    return [line.strip("/") for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("/")]


def check_containerfile(root: Path, path: Path) -> list[str]:
    faults, name = [], path.relative_to(root)
    found = stages(path.read_text())
    for stage in found:
        for sources, _ in copies(root, stage):
            for source in sources:
                place = str(source.relative_to(root))
                if not source.exists():
                    faults.append(f"{name}: copies {place}, which is not there")
                if any(place == out or place.startswith(f"{out}/") for out in ignored(root)):
                    faults.append(f"{name}: copies {place}, which .dockerignore leaves out")
    for sources, to in copies(root, found[-1]):
        if to.startswith("/usr/local/bin/") and not all(source.stat().st_mode & 0o111 for source in sources if source.exists()):
            faults.append(f"{name}: {to} cannot be executed")
    last = dict(found[-1])
    if last.get("USER") in (None, "root", "0"):
        faults.append(f"{name}: runs as root")
    if "ENTRYPOINT" not in last or "VOLUME" not in last:
        faults.append(f"{name}: no ENTRYPOINT, or no VOLUME")
    return faults


def check_build(root: Path) -> list[str]:
    """What the building stage copies is a whole workspace, with everything that `make build` runs."""
    stage = stages((root / "deploy/Containerfile").read_text())[0]
    with tempfile.TemporaryDirectory(prefix="ichor-context-") as scratch:
        context = Path(scratch)
        for sources, to in copies(root, stage):
            for source in sources:
                into = context / to / source.name if to.endswith("/") else context / to
                if source.is_dir():
                    shutil.copytree(source, into, dirs_exist_ok=True)
                else:
                    into.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(source, into)
        faults = []
        asked = subprocess.run(
            ["cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1"],
            cwd=context, capture_output=True, text=True, timeout=120,
        )
        if asked.returncode != 0:
            faults.append(f"deploy/Containerfile: cargo does not take what is copied: {asked.stderr}")
        else:
            for package in json.loads(asked.stdout)["packages"]:
                for target in package["targets"]:
                    if not Path(target["src_path"]).exists():
                        faults.append(f"deploy/Containerfile: {target['src_path']} is not copied")
        for sources in re.findall(r'include_(?:str|bytes)!\("((?:\.\./)+[^"]+)"\)', in_service(context)):
            wanted = re.sub(r"^(\.\./)+", "", sources)
            if not any(path.exists() for path in [context / wanted, *context.glob(f"crates/*/{wanted}")]):
                faults.append(f"deploy/Containerfile: {wanted} is built in and not copied")
        makefile = (context / "Makefile").read_text()
        for script in set(re.findall(r"scripts/\w+\.\w+", makefile.split("build: setup-build")[0] + setup_build(makefile))):
            if not (context / script).exists():
                faults.append(f"deploy/Containerfile: {script} is not copied")
    return faults


def in_service(context: Path) -> str:
    """Sources up to their tests: those include what a build does not need."""
    texts = []
    for path in context.glob("crates/*/src/**/*.rs"):
        if path.name not in ("tests.rs",) and "tests" not in path.parts:
            texts.append(path.read_text().split("#[cfg(test)]")[0])
    return "\n".join(texts)


def setup_build(makefile: str) -> str:
    return makefile.split("\nsetup-build:")[1].split("\n\n")[0]


def port(address: str) -> str:
    return address.rsplit(":", 1)[1]


def published(service: dict) -> dict[str, str]:
    """Ports of a service, inside by outside. All are on loopback."""
    found = {}
    for line in service["ports"]:
        split = re.fullmatch(r"127\.0\.0\.1:(\d+):(\d+)", line)
        if not split:
            raise Wrong(f"port {line!r} is not on loopback")
        found[split[2]] = split[1]
    return found


def check_compose(root: Path, ichor: Path) -> list[str]:
    deploy, faults = root / "deploy", []
    compose = yaml((deploy / "compose.yml").read_text())
    services, volumes = compose["services"], compose["volumes"]
    pacs = json.loads((deploy / "orthanc/orthanc.json").read_text())
    own = tomllib.loads((deploy / "container/ichor.toml").read_text())
    checked = subprocess.run([ichor, "config", "check", deploy / "container/ichor.toml"], capture_output=True, text=True)
    if checked.returncode != 0:
        faults.append(checked.stderr)

    def agree(what: str, *values: object) -> None:
        if len(set(values)) != 1:
            faults.append(f"deploy: {what} differ: {', '.join(map(repr, values))}")

    title, host, there = pacs["DicomModalities"]["ichor"]
    destination = own["destination"][0]
    agree("ports of ichor", str(there), port(own["listen"]["address"]))
    agree("titles of ichor", title, own["listen"]["ae_title"])
    agree("hosts of ichor", host, "ichor")
    agree("ports of Orthanc", destination["address"], f"orthanc:{pacs['DicomPort']}")
    agree("titles of Orthanc", destination["ae_title"], pacs["DicomAet"])
    if pacs["DicomAet"] not in [source.get("ae_title") for source in own["source"]]:
        faults.append("deploy: Orthanc is no [[source]]")
    for service, wanted in (("orthanc", [str(pacs["DicomPort"]), str(pacs["HttpPort"])]),
                            ("ichor", [port(own["listen"]["address"]), port(own["admin"]["address"])])):
        if sorted(published(services[service])) != sorted(wanted):
            faults.append(f"deploy/compose.yml: {service} opens {published(services[service])}, and listens on {wanted}")
    if own["admin"]["url"] != f"http://localhost:{published(services['ichor'])[port(own['admin']['address'])]}":
        faults.append("deploy: admin.url is not where the port is opened")
    health = services["ichor"]["healthcheck"]["test"]
    agree("ports of health", health[2], port(own["admin"]["address"]), dict(stages((deploy / "Containerfile").read_text())[-1])["HEALTHCHECK"].split('"')[3])
    for name, service in services.items():
        if not (deploy / service["build"]["context"] / service["build"]["dockerfile"]).exists():
            faults.append(f"deploy/compose.yml: {name}: there is no {service['build']['dockerfile']}")
        if service.get("read_only") is not True or service.get("cap_drop") != ["ALL"]:
            faults.append(f"deploy/compose.yml: {name} may write its root, or has capabilities")
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith(".") and not (deploy / source).exists() or not source.startswith(".") and source not in volumes:
                faults.append(f"deploy/compose.yml: {name}: there is no {source}")
    stores = [Path(own["store"]["database"]).parent, Path(own["store"]["blobs"]).parent]
    mounts = [mount.split(":")[1] for mount in services["ichor"]["volumes"]]
    if any(str(folder) not in mounts for folder in stores):
        faults.append("deploy/compose.yml: the store of ichor is on no volume")
    if not any(mount.endswith(pacs["StorageDirectory"]) for mount in services["orthanc"]["volumes"]):
        faults.append("deploy/compose.yml: the store of Orthanc is on no volume")
    return faults


def faults(root: Path, ichor: Path) -> list[str]:
    found = []
    for name in ("deploy/Containerfile", "deploy/orthanc/Containerfile"):
        found += check_containerfile(root, root / name)
    found += check_build(root)
    found += check_compose(root, ichor)
    first, second = (root / "deploy/orthanc/route.lua").read_text(), (root / "docs/first-hour.md").read_text()
    if first.split("\n", 1)[1] not in second:
        found.append("deploy/orthanc/route.lua is not the script of docs/first-hour.md")
    return found
