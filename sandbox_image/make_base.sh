#!/usr/bin/env bash
# Makes a local base image (Python 3.11 on Debian 12) from this machine's own apt sources, where no registry answers.
# usage: make_base.sh TAG
# The image holds this machine's CA bundle, and its pip index settings when it has any: keep it local, never push it.
set -euo pipefail
tag=$1
pip_conf=$(mktemp)
trap 'rm -f "$pip_conf"' EXIT
echo "[global]" >"$pip_conf"
for key in index-url extra-index-url trusted-host; do
  value=$(python3 -m pip config get "global.$key" 2>/dev/null | tr ' ' '\n' | grep -v '^file:' | tr '\n' ' ' || true)
  [ -z "${value// /}" ] || echo "$key = $value" >>"$pip_conf"
done

# The extract variant only unpacks (seconds instead of a minute); the hooks do what its maintainer scripts would have.
hook=extract-hook
sources=/etc/apt/sources.list.d/debian.sources
[ -e "$sources" ] || sources=http://deb.debian.org/debian
mmdebstrap --quiet --variant=extract \
  --include=base-files,base-passwd,libc-bin,dash,coreutils,bash,sed,grep,findutils,tar,gzip,mawk \
  --include=libstdc++6,libgcc-s1,python3,python3-pip,python3-distutils,ca-certificates \
  --aptopt='Acquire::Check-Valid-Until "false"' \
  --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --"$hook"='mkdir -p "$1/etc/ssl/certs" "$1/usr/local/bin" "$1/tmp" "$1/root"' \
  --"$hook"='cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"' \
  --"$hook"="cp $pip_conf \"\$1/etc/pip.conf\"; chmod 644 \"\$1/etc/pip.conf\"" \
  --"$hook"='[ -s "$1/etc/passwd" ] || cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"' \
  --"$hook"='[ -s "$1/etc/group" ] || cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"' \
  --"$hook"='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
  --"$hook"='for p in python python3; do ln -sf /usr/bin/python3 "$1/usr/local/bin/$p"; done' \
  --"$hook"='chroot "$1" /sbin/ldconfig || true' \
  --"$hook"='[ -e "$1/usr/bin/awk" ] || ln -s mawk "$1/usr/bin/awk"' \
  bookworm - "$sources" \
  | docker import \
    -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
    -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
    -c 'CMD ["python3"]' - "$tag"
