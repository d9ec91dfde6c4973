#!/usr/bin/env bash
# Makes the Python environment with torch and timm in the cache (about 5 GB), for `make bench-model` and for remaking the
# reference values of crates/ichor-model. `setup_model_python.sh --path` prints its interpreter and changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=scripts/model_requirements.txt
cache="${ICHOR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/cache}/.cache}/ichor}"
python="$(python3 -c 'import sys; print(sys.executable)')"
key="$( (cat "$requirements"; "$python" -VV; echo "$python") | sha256sum | cut -c1-12)"
target="$cache/model-python-$key"

if [ "${1:-}" = --path ]; then
  echo "$target/bin/python"
  exit 0
fi

mkdir -p "$cache"
exec 9>"$target.lock"
flock 9
if [ -e "$target/complete" ]; then
  echo "model python: ready in $target"
  exit 0
fi
rm -rf "$target"
echo "model python: installing $requirements into $target"
"$python" -m venv "$target"
"$target/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --only-binary=:all: -r "$requirements"
"$target/bin/python" -c 'import timm, torch; assert timm.__version__ == "0.9.12", timm.__version__'
touch "$target/complete"
echo "model python: ready in $target"
