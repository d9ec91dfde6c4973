#!/usr/bin/env bash
# Makes the Python environment of the tests in the cache, from tests/requirements.txt with its digests.
# `setup_python.sh --path` prints its interpreter and changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=tests/requirements.txt
cache="${ICHOR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/cache}/.cache}/ichor}"
# One environment per set of requirements and interpreter: a change of either makes a new one, none is changed in place.
python="$(python3 -c 'import sys; print(sys.executable)')"
key="$( (cat "$requirements"; "$python" -VV; echo "$python") | sha256sum | cut -c1-12)"
target="$cache/test-python-$key"

if [ "${1:-}" = --path ]; then
  echo "$target/bin/python"
  exit 0
fi

say() { echo "python: $*"; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "python: the tests need Python 3.11 or later, $python is $("$python" --version 2>&1)" >&2
  exit 1
fi

mkdir -p "$cache"
exec 9>"$target.lock"
flock 9
if [ -e "$target/complete" ]; then
  say "ready in $target"
  exit 0
fi

rm -rf "$target"
install=(install --quiet --no-input --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r "$requirements")
say "installing $requirements into $target"
if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  "$python" -m venv "$target"
  "$target/bin/python" -m pip "${install[@]}"
elif "$python" -m pip --version >/dev/null 2>&1; then
  # Without the venv module: the packages in a folder, and a wrapper that puts it on the path.
  "$python" -m pip "${install[@]}" --target "$target/packages"
  mkdir -p "$target/bin"
  printf '#!/bin/sh\nPYTHONPATH=%q exec %q "$@"\n' "$target/packages" "$python" >"$target/bin/python"
  chmod +x "$target/bin/python"
else
  echo "python: $python has neither venv nor pip; install them (Debian, Ubuntu: apt-get install python3-venv)" >&2
  exit 1
fi
"$target/bin/python" -c 'import fhir.resources, highdicom, oidc_provider_mock, opentelemetry.proto.trace.v1.trace_pb2, pydicom, pynetdicom, safetensors, websocket'
touch "$target/complete"
say "ready in $target"
