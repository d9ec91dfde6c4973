#!/usr/bin/env bash
# Installs the Debian packages that are missing: `setup_apt.sh build` what a build needs, `setup_apt.sh test` what the
# tests need besides. Installs only as root; otherwise it names the command to run. Starts no service.
set -euo pipefail

say() { echo "packages: $*"; }

# need PROBE PACKAGE: notes the package unless the probe, a command line, succeeds.
missing=()
need() {
  if ! bash -c "$1" >/dev/null 2>&1; then missing+=("$2"); fi
}

case "${1:-}" in
  build)
    what=build
    need 'command -v c++' g++
    need 'command -v make' make
    need 'command -v cmake' cmake # CharLS, the JPEG-LS codec, is built by it
    need 'command -v python3' python3
    need 'python3 -m pip --version' python3-pip
    ;;
  test)
    what="test suite"
    need 'command -v storescu && command -v storescp && command -v dcmodify' dcmtk
    need 'command -v Orthanc || test -x /usr/sbin/Orthanc' orthanc
    need 'test -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so' orthanc-dicomweb
    need 'command -v dciodvfy' dicom3tools
    need 'command -v curl' curl
    need 'command -v jq' jq
    need 'command -v gdcmconv' libgdcm-tools
    need 'command -v ojph_compress' openjph-tools
    need 'python3 -c "import venv, ensurepip"' python3-venv
    need 'command -v chromium' chromium
    need 'command -v xmllint' libxml2-utils
    need 'command -v rsyslogd || test -x /usr/sbin/rsyslogd' rsyslog
    need 'test -e /usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so || test -e /usr/lib/aarch64-linux-gnu/rsyslog/lmnsd_gtls.so' rsyslog-gnutls
    need 'command -v node' nodejs
    need 'command -v npm' npm
    ;;
  *)
    echo "usage: $0 build|test" >&2
    exit 2
    ;;
esac

if [ ${#missing[@]} -eq 0 ]; then
  say "everything for the $what is there"
  exit 0
fi

line="apt-get install --yes --no-install-recommends ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  echo "packages: the $what needs what Debian calls: ${missing[*]}; install them with this system's package manager" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "packages: the $what needs packages that only root can install; run: sudo $line" >&2
  exit 1
fi

# Some packages start a server when they are installed (Orthanc listens on 4242 and 8042): forbid it for the while.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
say "installing ${missing[*]}"
apt-get update --quiet
# shellcheck disable=SC2086
$line --quiet -o Acquire::Retries=3 </dev/null

if [[ " ${missing[*]} " == *" orthanc "* ]] && command -v systemctl >/dev/null; then
  # The tests start an Orthanc of their own; the system's is not wanted at the next boot either.
  systemctl disable orthanc >/dev/null 2>&1 || say "the system's Orthanc service could not be disabled; it is not running"
fi
say "installed"
