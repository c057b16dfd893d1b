#!/usr/bin/env bash
# Runs a command beside a Docker engine of its own, on a Debian without engine and without image registry:
#   tests/compose/engine.sh env TURNPOOL_ENGINE=1 .venv/bin/python -m pytest -m engine tests/compose
# Needs root, unshare, apt and pip. Engine, containers and network live in namespaces that end with the
# command. Nothing is installed: packages are unpacked into a folder, which later runs use again.
#
# The images that the Dockerfile and compose.yaml name are stand-ins made of Debian's packages. The one for
# Python brings the pinned wheels along, as there is no way out of the private network.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$HERE/../.." && pwd)
STATE=${TURNPOOL_ENGINE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/turnpool-engine}
ROOT=$STATE/root # the unpacked packages
BASE=$STATE/base # a small Debian with Python and redis-cli
SUITE=bookworm
PYTHON_IMAGE=$(sed -n 's/^ARG PYTHON_IMAGE=//p' "$REPO/compose/Dockerfile")
VALKEY_IMAGE=$(sed -n 's/^ *image: \(valkey.*\)/\1/p' "$REPO/compose/compose.yaml")

fetch_packages() {
  [ -e "$STATE/packages.done" ] && return
  mkdir -p "$STATE/debs" "$ROOT"
  (cd "$STATE/debs" && apt-get -qq download docker.io containerd runc tini debootstrap \
    iptables libip6tc2 libnetfilter-conntrack3 libnfnetlink0 libnftnl11)
  for package in "$STATE"/debs/*.deb; do dpkg -x "$package" "$ROOT"; done
  ln -sf xtables-nft-multi "$ROOT/usr/sbin/iptables"
  ln -sf xtables-nft-multi "$ROOT/usr/sbin/ip6tables"
  touch "$STATE/packages.done"
}

fetch_base() {
  [ -e "$STATE/base.done" ] && return
  rm -rf "$BASE"
  DEBOOTSTRAP_DIR=$ROOT/usr/share/debootstrap "$ROOT/usr/sbin/debootstrap" --variant=minbase \
    --include=python3,python3-pip,python3-venv,redis-tools,libgomp1 "$SUITE" "$BASE" >"$STATE/debootstrap.log"
  rm -f "$BASE"/usr/lib/python3*/EXTERNALLY-MANAGED
  : >"$BASE/etc/apt/sources.list" # what the Dockerfile installs is there already
  rm -rf "$BASE"/var/cache/apt/archives/*.deb "$BASE"/var/lib/apt/lists/*
  ln -s /usr/bin/python3 "$BASE/usr/local/bin/python"
  ln -s /usr/bin/redis-cli "$BASE/usr/local/bin/valkey-cli"
  chroot "$BASE" useradd --uid 999 --user-group valkey
  install -d -o 999 -g 999 "$BASE/data"
  touch "$STATE/base.done"
}

fetch_wheels() {
  mkdir -p "$BASE/wheels" "$BASE/etc/uv"
  for pins in uv image model; do
    cmp -s "$REPO/requirements/$pins.txt" "$BASE/wheels/$pins.txt" && continue
    # All that is pinned, whatever its marker says: the base has a Python of its own.
    sed 's/ ; .* \\$/ \\/' "$REPO/requirements/$pins.txt" >"$STATE/$pins.txt"
    "$REPO/.venv/bin/python" -m pip --quiet --disable-pip-version-check download --no-deps --require-hashes \
      --only-binary :all: --ignore-requires-python --requirement "$STATE/$pins.txt" --dest "$BASE/wheels"
    cp "$REPO/requirements/$pins.txt" "$BASE/wheels/"
  done
  printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$BASE/etc/pip.conf"
  printf 'no-index = true\nfind-links = ["/wheels"]\n' >"$BASE/etc/uv/uv.toml"
  cp "$("$REPO/.venv/bin/python" -c \
    'from turnpool.local.valkey import server_binary; print(server_binary())')" "$BASE/usr/local/bin/valkey-server"
}

import_image() { # NAME TAR-OPTION... : the base as an image
  local name=$1
  shift
  docker image inspect "$name" >/dev/null 2>&1 && docker image rm --force "$name" >/dev/null
  tar --directory "$BASE" --create "$@" . |
    docker import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' --change 'CMD ["python"]' - "$name"
}

serve() {
  mount --make-rprivate /
  mount -t tmpfs tmpfs /run
  ip link set lo up
  dockerd --data-root "$STATE/docker" >"$STATE/dockerd.log" 2>&1 &
  for _ in $(seq 100); do
    docker version >/dev/null 2>&1 && return
    sleep 0.2
  done
  tail "$STATE/dockerd.log" >&2
  exit 1
}

export PATH=$ROOT/usr/bin:$ROOT/usr/sbin:$PATH LD_LIBRARY_PATH=$ROOT/usr/lib/x86_64-linux-gnu
export XTABLES_LIBDIR=$LD_LIBRARY_PATH/xtables
if [ "${1-}" != --inside ]; then
  mkdir -p "$STATE"
  fetch_packages
  fetch_base
  fetch_wheels
  exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" --inside "$@"
fi
shift
serve
import_image "$PYTHON_IMAGE" --exclude ./data
import_image "$VALKEY_IMAGE" --exclude ./wheels
unset LD_LIBRARY_PATH XTABLES_LIBDIR # dockerd has them; the command need not
"$@"
