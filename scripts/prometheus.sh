#!/usr/bin/env bash
# Puts prometheus and promtool into a folder, from Debian's or Ubuntu's package and without installing it.
set -euo pipefail
if [ $# -ne 1 ]; then
    echo "usage: $0 FOLDER" >&2
    exit 2
fi
if ! command -v apt-get >/dev/null; then
    echo "error: no apt-get here; get Prometheus from https://prometheus.io/download and put it on the PATH" >&2
    exit 2
fi
mkdir -p "$1"
folder="$(cd "$1" && pwd)"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
if ! timeout 5m apt-get download -qq prometheus 2>/dev/null; then
    timeout 5m apt-get update -qq # no package lists yet, or old ones
    timeout 5m apt-get download -qq prometheus
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/prometheus ./usr/bin/promtool
mv usr/bin/prometheus usr/bin/promtool "$folder"
"$folder/prometheus" --version | head -1
