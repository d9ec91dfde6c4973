#!/usr/bin/env bash
# Builds the fuzz targets and runs each for a while, from the seeds in fuzz/seeds and what earlier runs found.
#
#   scripts/fuzz.sh SECONDS [TARGET …]
#
# Ends with 1 at the first finding, which lies in target/fuzz/artifacts then. What is found on the way is kept in
# target/fuzz/corpus. The last line of each target says how many inputs were tried.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET ...]}
shift
mapfile -t all < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^ichor-fuzz$')
targets=("${@:-${all[@]}}")

export ICHOR_FUZZ_TARGETS="${all[*]}"
export RUSTC_WRAPPER="$PWD/scripts/fuzz_rustc.sh"
export CARGO_TARGET_DIR="$PWD/target/fuzz/build"
# What is built here has other flags: it shares nothing with the workspace's own builds.
cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml

mkdir -p target/fuzz/artifacts
for target in "${targets[@]}"; do
  corpus=target/fuzz/corpus/$target
  mkdir -p "$corpus"
  folders=("$corpus")
  if [ -d "fuzz/seeds/$target" ]; then folders+=("fuzz/seeds/$target"); fi
  limits=(-timeout=20 -rss_limit_mb=2048)
  # What the daemon itself parses must not allocate from a declared length.
  if [ "$target" = decoder_caps ]; then limits+=(-malloc_limit_mb=64); fi
  log=target/fuzz/$target.log
  if ! "$CARGO_TARGET_DIR/release/$target" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="target/fuzz/artifacts/$target-" "${folders[@]}" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "fuzz: $target has a finding, see target/fuzz/artifacts" >&2
    exit 1
  fi
  echo "fuzz: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s, no finding"
done
