#!/bin/sh
# Cargo's RUSTC_WRAPPER for the fuzz targets: adds libFuzzer's coverage to our crates, the targets and dicom-ul, and to
# nothing else. Both flags are stable, so no nightly and no cargo-fuzz is needed.
rustc=$1
shift
name=
previous=
for argument; do
  if [ "$previous" = --crate-name ]; then name=$argument; fi
  previous=$argument
done
case " $ICHOR_FUZZ_TARGETS ichor_core ichor_ct ichor_decode ichor_dicomweb ichor_dimse dicom_ul " in
  *" $name "*)
    exec "$rustc" "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$rustc" "$@"
