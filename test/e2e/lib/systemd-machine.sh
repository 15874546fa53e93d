#!/bin/bash
# systemd-machine.sh - a "machine" that boots systemd and Docker's own unit, in a second.
#
#   systemd-machine.sh up DIR            boot it; all that it writes lies in DIR
#   systemd-machine.sh exec DIR CMD...   run CMD in it
#   systemd-machine.sh down DIR          end it and remove DIR
#
# Its root is this machine's own under an overlay, so it has the same programs, and nothing here is changed. Its network
# namespace has no way out: an address, and a default route to nowhere, which a node needs for connect() to a Service.
# It has this machine's kernel and cgroup layout; test/vm has what differs.
#
# Needs: root, systemd, systemd-container, docker.io.

set -euo pipefail

cmd=${1:-}; dir=${2:-}
[ -n "$dir" ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
name=$(basename "$dir")
root=$dir/root
checkout=$(readlink -f "$(dirname "$(readlink -f "$0")")/../../..")

hierarchies() { awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts; }

leader() {   # pid 1 of the machine, seen from here
  local pid; pid=$(cat "$dir/pid")
  awk '{ print $1 }' "/proc/$pid/task/$pid/children" 2>/dev/null
}

inside() { local pid; pid=$(leader); exec nsenter -t "${pid:?the machine is down}" --all -- "$@"; }

prepare_root() {
  mkdir -p "$dir"/{upper,work,root,docker}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$root"
  # What this machine may have of its own.
  rm -rf "$root"/etc/{fstab,remora,cni,docker} "$root"/var/lib/{remora,kubelet} "$root"/var/log/{journal,pods,containers} "$root/root/.kube"
  echo "$name" >"$root/etc/hostname"
  mkdir -p "$root/etc/docker"
  # A root without CAP_SYS_RESOURCE (bit 24) needs a more modest runc: see runc-lowcap.
  if [ $((0x$(awk '/^CapEff/ { print $2 }' /proc/self/status) >> 24 & 1)) = 0 ]; then
    echo '{ "bridge": "none", "live-restore": true, "default-runtime": "lowcap",
      "runtimes": { "lowcap": { "path": "'"$checkout"'/test/e2e/lib/runc-lowcap" } } }'
  else
    echo '{ "bridge": "none", "live-restore": true }'
  fi >"$root/etc/docker/daemon.json"
}

enter_cgroups() {
  local h f
  for h in $(hierarchies); do
    mkdir -p "$h/$name"
    # v1 cpusets start empty and refuse processes until they are filled
    if [ -e "$h/$name/cpuset.mems" ] && [ ! -e "$h/$name/cgroup.controllers" ]; then
      for f in cpus mems; do cat "$h/cpuset.$f" >"$h/$name/cpuset.$f"; done
    fi
    echo "$BASHPID" >"$h/$name/cgroup.procs"
  done
}

up() {
  prepare_root
  local caps=
  [ $((0x$(awk '/^CapEff/ { print $2 }' /proc/self/status) >> 24 & 1)) = 1 ] || caps=--drop-capability=CAP_SYS_RESOURCE
  # Docker cannot put its overlays on an overlay. The machine's /tmp is its own, and a checkout may lie there.
  ( enter_cgroups
    exec setsid systemd-nspawn -q --directory="$root" --machine="$name" --register=no --keep-unit --boot \
      --private-network --bind="$dir/docker:/var/lib/docker" --bind-ro="$checkout" --capability=all $caps \
      --system-call-filter="add_key keyctl bpf" --resolv-conf=off --timezone=off --link-journal=no --console=pipe \
      systemd.unit=basic.target </dev/null >"$dir/console" 2>&1 ) &
  echo $! >"$dir/pid"
  local pid state
  for _ in $(seq 300); do
    pid=$(leader || true)
    state=$([ -z "$pid" ] || nsenter -t "$pid" --all systemctl is-system-running 2>/dev/null || true)
    case $state in running | degraded) break ;; esac
    sleep 0.1
  done
  case ${state:-} in running | degraded) ;; *) cat "$dir/console" >&2; echo "it did not boot" >&2; exit 1 ;; esac
  # nspawn mounts the v1 hierarchies and the settings of the kernel read-only
  ( inside sh -ec '
      for m in /sys/fs/cgroup /sys/fs/cgroup/* /proc/sys; do ! mountpoint -q $m || mount -o remount,bind,rw $m; done
      ip link set lo up
      ip link add eth0 type veth peer name cable
      ip address add 172.30.9.1/24 dev eth0
      ip link set eth0 up; ip link set cable up
      ip route add default via 172.30.9.254
      systemctl start docker' )
}

down() {
  local pid; pid=$(leader || true)
  [ -z "$pid" ] || kill -9 "$pid" || true    # pid 1 of its namespace: everything goes
  pid=$(cat "$dir/pid" 2>/dev/null || true)
  for _ in $(seq 100); do [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  ! mountpoint -q "$root" || umount "$root"
  local h
  for h in $(hierarchies); do
    [ ! -d "$h/$name" ] || find "$h/$name" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
  rm -rf --one-file-system "$dir"
}

case $cmd in
  up) up ;;
  exec) shift 2; inside "$@" ;;
  down) down ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
