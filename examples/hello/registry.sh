#!/bin/sh
# examples/hello/registry.sh USER PASSWORD: a registry on 127.0.0.1:5000 that knows one user, until Ctrl-C. What is
# pushed to it goes with it. Needs Debian's package docker-registry. Docker speaks plain HTTP to registries on loopback.
set -eu
[ $# = 2 ] || { sed -n '2,3s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command -v docker-registry >/dev/null || { echo "registry.sh: apt-get install docker-registry" >&2; exit 1; }
dir=$(mktemp -d)
trap 'kill "$registry" 2>/dev/null || true; wait "$registry" 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 0' INT TERM

# The registry takes bcrypt only; perl's crypt() makes it, so that no htpasswd is needed.
salt=$(head -c 64 /dev/urandom | base64 | tr -dc 'A-Za-z0-9' | head -c 21)
perl -e 'print "$ARGV[0]:", crypt($ARGV[1], "\$2y\$05\$$ARGV[2]."), "\n"' "$1" "$2" "$salt" >"$dir/htpasswd"
cat >"$dir/config.yml" <<CONFIG
version: 0.1
log: { level: warn }
storage: { filesystem: { rootdirectory: $dir/data } }
http: { addr: "127.0.0.1:5000" }
auth: { htpasswd: { realm: local, path: $dir/htpasswd } }
CONFIG
docker-registry serve "$dir/config.yml" &
registry=$!
wait "$registry"
