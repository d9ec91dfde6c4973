#!/usr/bin/env bash
# Builds the viewer of the tests in the cache: the npm packages of tests/judges/viewer/package-lock.json, each held against
# its digest there, and the page that is bundled from them. `setup_viewer.sh --path` prints its folder and changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

sources=tests/judges/viewer
cache="${ICHOR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/cache}/.cache}/ichor}"
# One folder per lock, page and Node: a change of any makes a new one, none is changed in place.
node="$(command -v node || true)"
files=(package.json package-lock.json page.html page.js judge.js)
key="$( (cat scripts/setup_viewer.sh "${files[@]/#/$sources/}"; "${node:-true}" --version) | sha256sum | cut -c1-12)"
target="$cache/test-viewer-$key"

if [ "${1:-}" = --path ]; then
  echo "$target"
  exit 0
fi

say() { echo "viewer: $*"; }

if [ -z "$node" ] || ! command -v npm >/dev/null; then
  echo "viewer: node and npm are missing; install them (Debian, Ubuntu: apt-get install nodejs npm)" >&2
  exit 1
fi
if ! "$node" -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; then
  echo "viewer: the tests need Node 18 or later, $node is $("$node" --version)" >&2
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
mkdir -p "$target/page"
for file in "${files[@]}"; do cp "$sources/$file" "$target/"; done
say "installing $sources/package-lock.json into $target"
cd "$target"
# No package runs a script of its own here. Some ask for a newer Node than the bundle of their code needs.
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --engine-strict=false
# The loader's worker is a file of its own beside the page. What a browser has not is asked for on Node only.
node_modules/.bin/esbuild page.js node_modules/@cornerstonejs/dicom-image-loader/dist/esm/decodeImageFrameWorker.js \
  --bundle --format=esm --entry-names='[name]' --outdir=page --log-level=error \
  --external:fs --external:path --external:module --external:worker_threads
cp page.html page/
touch complete
say "ready in $target"
