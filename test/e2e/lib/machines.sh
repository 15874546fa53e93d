#!/bin/bash
# machines.sh - "machines" for end-to-end tests, made of Linux namespaces.
#
#   machines.sh up [N] [dockerd options...]  switch + N nodes (default 2), with a dockerd each
#   machines.sh add I                        one more machine
#   machines.sh dockerd I [options...]       (re)start the dockerd of node I
#   machines.sh exec I CMD...                run CMD on node I (all its namespaces and cgroups)
#   machines.sh client CMD...                run CMD on the outside client (on the switch, not a node)
#   machines.sh control CMD...               run CMD in the control-plane namespace
#   machines.sh docker I ARGS...             docker CLI against node I
#   machines.sh cut I / restore I            unplug / replug the cable of node I (it sees the carrier go)
#   machines.sh mute I / unmute I            the switch drops all frames of node I (it notices nothing)
#   machines.sh crash I                      kill -9 dockerd + its containerd (containers live on)
#   machines.sh poweroff I / boot I          kill everything on node I / start it again (then: dockerd I)
#   machines.sh status                       what is there
#   machines.sh down                         remove all of it
#
# Layout. One namespace is the switch: bridge br0, gateway address .254, and NO way out.
# It has no link to the machine's own network namespace, so no packet of a test can
# leave. Nodes have a default route to .254 (a node needs one: connect() to a
# service address looks up a route before the OUTPUT chain can rewrite it), and the
# switch answers everything unknown with "unreachable".
#
# A node has its own net, mount, pid, uts, ipc and cgroup namespace. Its pid 1 is a bash
# that only reaps. /run, /var/lib/docker, /var/lib/kubelet, ... are directories under
# $STATE/nodeI, so the docker socket is reachable from the host as $STATE/nodeI/run/docker.sock
# (unix sockets with a path do not care about network namespaces).
#
# Needs: root, iproute2, util-linux, dockerd + containerd, bash. No systemd.

set -euo pipefail

PFX=${E2E_PREFIX:-rmh}                     # netns are called $PFX-sw, $PFX-n1, ...
STATE=${E2E_STATE:-/tmp/$PFX}              # keep it short: unix socket paths end at 107 bytes
CG=${E2E_CGROUP:-$PFX}                     # cgroup directory in every hierarchy
NODE4=${E2E_NODE4:-172.30.0}               # node I has $NODE4.I/24
NODE6=${E2E_NODE6:-fd00:30}                # node I has $NODE6::I/64
DIRS="/run /var/lib/docker /var/lib/kubelet /var/lib/remora /var/log/pods /var/log/containers /etc/remora /etc/docker /etc/cni /opt/cni"

die() { echo "machines.sh: $*" >&2; exit 1; }
ns() { echo "$PFX-$1"; }
nsx() { local n=$1; shift; nsenter --net="/run/netns/$(ns "$n")" "$@"; }
initpid() { cat "$STATE/node$1/init.pid" 2>/dev/null || echo 0; }
alive() { [ "$1" -gt 1 ] 2>/dev/null && kill -0 "$1" 2>/dev/null; }

# --- network ---------------------------------------------------------------------------

mkns() {   # name: a bare namespace with lo up
  ip netns add "$(ns "$1")"
  nsx "$1" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
  nsx "$1" ip link set lo up
}

plug() {   # name index: a veth from namespace `name` (eth0) to the switch
  ip -n "$(ns sw)" link add "p-$1" type veth peer name eth0 netns "$(ns "$1")"
  ip -n "$(ns sw)" link set "p-$1" master br0 up
  ip -n "$(ns "$1")" link set eth0 up
  ip -n "$(ns "$1")" addr add "$NODE4.$2/24" dev eth0
  ip -n "$(ns "$1")" -6 addr add "$NODE6::$2/64" dev eth0 nodad
  ip -n "$(ns "$1")" route add default via "$NODE4.254"
  ip -n "$(ns "$1")" -6 route add default via "$NODE6::fe"
}

switch_up() {
  mkdir -p "$STATE"
  mkns sw
  # A bridge port must not be filtered by the switch's own iptables.
  nsx sw sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 \
    net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip -n "$(ns sw)" link add br0 type bridge
  ip -n "$(ns sw)" link set br0 up
  ip -n "$(ns sw)" addr add "$NODE4.254/24" dev br0
  ip -n "$(ns sw)" -6 addr add "$NODE6::fe/64" dev br0 nodad
  ip -n "$(ns sw)" route add unreachable default
  ip -n "$(ns sw)" -6 route add unreachable default
  mkns cl; plug cl 200          # an outside client
  mkns cp; plug cp 250          # where the (fake) API server listens
}

# --- cgroups -----------------------------------------------------------------------------

hierarchies() {   # every mounted cgroup hierarchy that can hold processes
  awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts
}

cgroup_add() {    # path: make the cgroup everywhere
  local h
  for h in $(hierarchies); do
    mkdir -p "$h/$1"
    # v1 cpusets start empty and refuse processes until they are filled, parents first
    if [ -e "$h/$1/cpuset.cpus" ] && [ -e "$h/$1/cpuset.mems" ] && [ ! -e "$h/$1/cgroup.controllers" ]; then
      local p=$h part
      for part in ${1//\// }; do
        [ -s "$p/$part/cpuset.cpus" ] && grep -q . "$p/$part/cpuset.cpus" || cat "$p/cpuset.cpus" >"$p/$part/cpuset.cpus"
        grep -q . "$p/$part/cpuset.mems" || cat "$p/cpuset.mems" >"$p/$part/cpuset.mems"
        p=$p/$part
      done
    fi
  done
}

cgroup_enter() {  # path: move this shell there
  local h
  for h in $(hierarchies); do
    if [ -d "$h/$1/init" ]; then echo "$BASHPID" >"$h/$1/init/cgroup.procs"
    else echo "$BASHPID" >"$h/$1/cgroup.procs"; fi
  done
}

cgroup_delegate() {  # path: v2 only. A cgroup with processes of its own cannot give controllers to its
  # children (pods), so the processes move into a leaf.
  local h=/sys/fs/cgroup p c pid
  [ -e $h/cgroup.controllers ] || return 0
  mkdir -p "$h/$1/init"
  while grep -q . "$h/$1/cgroup.procs"; do
    for pid in $(cat "$h/$1/cgroup.procs"); do echo "$pid" >"$h/$1/init/cgroup.procs" 2>/dev/null || true; done
  done
  p=$h
  for c in ${1//\// } .; do
    for ctl in $(cat "$p/cgroup.controllers"); do echo "+$ctl" >"$p/cgroup.subtree_control" || true; done
    p=$p/$c
  done
}

cgroup_pids() { local h; for h in $(hierarchies); do
    [ -d "$h/$1" ] && find "$h/$1" -name cgroup.procs -exec cat {} + 2>/dev/null; done | sort -un; }

cgroup_del() { local h; for h in $(hierarchies); do
    [ -d "$h/$1" ] && find "$h/$1" -depth -type d -exec rmdir {} \; 2>/dev/null; done; true; }

# --- nodes ------------------------------------------------------------------------------

node_boot() {
  local i=$1 d=$STATE/node$1 p
  alive "$(initpid "$i")" && die "node $i is up"
  for p in $DIRS; do mkdir -p "$d$p"; done
  find "$d/run" -mindepth 1 -delete           # /run does not outlive a reboot
  cgroup_add "$CG/node$i"
  ( cgroup_enter "$CG/node$i"
    E2E_DIRS="$DIRS" E2E_ROOT="$d" E2E_NAME="node$i" exec setsid \
      nsenter --net="/run/netns/$(ns "n$i")" \
      unshare --mount --uts --ipc --cgroup --pid --fork --propagation private \
      bash "$(readlink -f "$0")" __init </dev/null >"$d/init.log" 2>&1 ) &
  for _ in $(seq 100); do [ -e "$d/run/booted" ] && break; sleep 0.05; done
  [ -e "$d/run/booted" ] || { cat "$d/init.log" >&2; die "node $i did not boot"; }
  cgroup_delegate "$CG/node$i"
}

node_init() {     # pid 1 of a node
  hostname "$E2E_NAME"
  # Let go of what the host has mounted (containers of its own Docker, their network namespaces,
  # secrets): a copy in our mount namespace would keep all of it alive.
  awk '$2 !~ "^/($|(proc|sys|dev)(/|$))" { print $2 }' /proc/mounts | tac |
    while read -r p; do umount -l "$(printf '%b' "$p")" || true; done
  mount -t proc proc /proc
  # A fresh sysfs shows the interfaces of this network namespace; cgroups go back on top.
  local list; list=$(awk '$3 ~ /^cgroup2?$/ { print $2, $3, $4 }' /proc/mounts)
  mount -t sysfs sysfs /sys
  case $list in
    *" cgroup "*)                              # v1 or hybrid
      mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
      echo "$list" | while read -r m t o; do
        mkdir -p "$m"
        if [ "$t" = cgroup2 ]; then mount -t cgroup2 cgroup2 "$m"
        else mount -t cgroup -o "${o#rw,relatime,}" cgroup "$m"; fi
      done ;;
    *) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
  esac
  local p
  for p in $E2E_DIRS; do mkdir -p "$p"; mount --bind "$E2E_ROOT$p" "$p"; done
  for p in /etc/resolv.conf /etc/hostname /etc/hosts; do mount --bind "$E2E_ROOT$p" "$p"; done
  # Volumes that the agent mounts must reach containers (mountPropagation): shared from here on.
  mount --make-rshared /
  trap 'exit 0' TERM
  touch /run/booted
  while :; do sleep 3600 & wait $! || true; done    # bash as pid 1 reaps orphans
}

node_pidfile() {  # find the pid of the node's pid 1, seen from here
  local i=$1 pid
  for pid in $(cgroup_pids "$CG/node$i"); do
    awk '/^NSpid:/ { exit !(NF == 3 && $3 == 1) }' "/proc/$pid/status" 2>/dev/null && { echo "$pid" >"$STATE/node$i/init.pid"; return; }
  done
  die "no pid 1 for node $i"
}

node_exec() {     # i cmd...
  local i=$1 pid; shift; pid=$(initpid "$i"); alive "$pid" || die "node $i is down"
  ( cgroup_enter "$CG/node$i"; exec nsenter -t "$pid" --all -- "$@" )
}

node_net() {      # fresh at every boot: rules, routes and conntrack do not outlive one
  mkns "n$1"; plug "n$1" "$1"
  # As on a fresh machine (a new namespace copies IPv4 settings from the host): Docker sets the
  # FORWARD policy to DROP only when it is the one to switch forwarding on.
  nsx "n$1" sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
}

node_add() {
  node_net "$1"
  mkdir -p "$STATE/node$1/etc"
  echo "nameserver $NODE4.250" >"$STATE/node$1/etc/resolv.conf"
  echo "node$1" >"$STATE/node$1/etc/hostname"
  printf '127.0.0.1 localhost\n::1 localhost\n%s node%s\n' "$NODE4.$1" "$1" >"$STATE/node$1/etc/hosts"
  node_boot "$1"; node_pidfile "$1"
}

dockerd_start() { # i options...
  local i=$1 d=$STATE/node$1; shift
  [ $# -gt 0 ] || set -- ${E2E_DOCKERD_ARGS:---bridge=none --live-restore --insecure-registry $NODE4.250:5000 --insecure-registry $NODE4.250:5001}
  # A root without CAP_SYS_RESOURCE (bit 24) needs a more modest runc: see runc-lowcap.
  if [ $((0x$(awk '/^CapEff/ { print $2 }' /proc/self/status) >> 24 & 1)) = 0 ]; then
    set -- "$@" --add-runtime "lowcap=$(dirname "$(readlink -f "$0")")/runc-lowcap" --default-runtime lowcap
  fi
  rm -f "$d/run/docker.pid"
  node_exec "$i" setsid dockerd --exec-root=/run/docker --data-root=/var/lib/docker \
      --pidfile=/run/docker.pid -H unix:///run/docker.sock "$@" </dev/null >>"$d/dockerd.log" 2>&1 &
  for _ in $(seq 300); do
    curl -sf --max-time 2 --unix-socket "$d/run/docker.sock" http://d/_ping >/dev/null 2>&1 && return
    sleep 0.1
  done
  tail -20 "$d/dockerd.log" >&2; die "dockerd of node $i did not start"
}

crash() {         # kill -9 dockerd and the containerd it started (which dies with it anyway), nothing else
  local i=$1 f
  for f in docker.pid docker/containerd/containerd.pid; do
    [ -s "$STATE/node$i/run/$f" ] && node_exec "$i" kill -9 "$(cat "$STATE/node$i/run/$f")" 2>/dev/null || true
  done
}

poweroff() {      # killing pid 1 of a pid namespace kills all of it
  local i=$1 pid; pid=$(initpid "$i")
  alive "$pid" && kill -9 "$pid" || true
  for _ in $(seq 100); do [ -z "$(cgroup_pids "$CG/node$i")" ] && break; sleep 0.05; done
  cgroup_del "$CG/node$i"
  rm -f "$STATE/node$i/init.pid"
  ip -n "$(ns sw)" link del "p-n$i" 2>/dev/null || true
  ip netns del "$(ns "n$i")" 2>/dev/null || true
}

nodes() { local d; for d in "$STATE"/node*/; do [ -d "$d" ] && basename "$d" | sed s/node//; done; }

down() {
  local i n
  for i in $(nodes); do poweroff "$i"; done
  for i in "$STATE"/registry-*/pid; do [ -s "$i" ] && kill "$(cat "$i")" 2>/dev/null || true; done
  for n in $(ip netns list | awk '{print $1}' | grep "^$PFX-" || true); do ip netns del "$n"; done
  cgroup_del "$CG"
  grep -q " $STATE/" /proc/mounts && die "something is still mounted under $STATE"
  rm -rf --one-file-system "$STATE"
}

cmd=${1:-}; shift || true
case $cmd in
  __init)   node_init ;;
  up)       n=${1:-2}; shift || true; switch_up
            for i in $(seq "$n"); do node_add "$i"; dockerd_start "$i" "$@"; done ;;
  switch)   switch_up ;;
  add)      node_add "$1" ;;
  dockerd)  dockerd_start "$@" ;;
  exec)     node_exec "$@" ;;
  client)   nsx cl "$@" ;;
  control)  nsx cp "$@" ;;
  docker)   i=$1; shift; docker -H "unix://$STATE/node$i/run/docker.sock" "$@" ;;
  cut)      ip -n "$(ns sw)" link set "p-n$1" down ;;
  mute)     nsx sw bridge link set dev "p-n$1" state 0 ;;
  unmute)   nsx sw bridge link set dev "p-n$1" state 3 ;;
  restore)  ip -n "$(ns sw)" link set "p-n$1" up ;;
  crash)    crash "$1" ;;
  poweroff) poweroff "$1" ;;
  boot)     node_net "$1"; node_boot "$1"; node_pidfile "$1" ;;
  status)   for i in $(nodes); do echo "node$i init=$(initpid "$i") procs=$(cgroup_pids "$CG/node$i" | wc -l)"; done; ip netns list | grep "^$PFX-" || true ;;
  down)     down ;;
  *)        sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
