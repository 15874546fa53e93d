#!/bin/sh
# install.sh [--prefix DIR]: installs Remora from this directory, or another version over the one that is there. The
# prefix is /usr/local unless it is given. Files below /etc that exist stay as they are. Nothing is started; a running
# service goes over to this version, and its pods keep running.
# PREFIX/lib/remora/install.sh --remove: stops the services and removes the program. Pods keep running and their state
# stays: `remora uninstall` removes both, before. What is in /etc/remora stays too.
set -eu
umask 022

prefix=
remove=
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) [ $# -ge 2 ] || { echo "install.sh: --prefix needs a directory" >&2; exit 2; }; prefix=$2; shift 2 ;;
    --prefix=*) prefix=${1#*=}; shift ;;
    --remove) remove=1; shift ;;
    -h | --help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
    *) echo "install.sh: $1 is not understood; there are --prefix DIR and --remove" >&2; exit 2 ;;
  esac
done
here=$(dirname "$(readlink -f "$0")")
# The installed copy knows where it is.
if [ -z "$prefix" ] && [ -e "$here/installed-files" ]; then prefix=${here%/lib/remora}; fi
prefix=${prefix:-/usr/local}
case $prefix in
  /*[!/]) ;;
  *) echo "install.sh: --prefix $prefix is not an absolute path" >&2; exit 2 ;;
esac
# For packagers: where the root of the machine is for now.
destdir=${DESTDIR:-}
[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || { echo "install.sh: must run as root. Try: sudo $0" >&2; exit 1; }

list=$prefix/lib/remora/installed-files
units="remora.service remora-up.service"

if [ -n "$remove" ]; then
  [ -e "$destdir$list" ] || { echo "install.sh: nothing is installed below $prefix (there is no $list)" >&2; exit 1; }
  # shellcheck disable=SC2086
  [ -n "$destdir" ] || [ ! -d /run/systemd/system ] || systemctl disable --now $units || true
  # The list is the last one to go: a removal that was interrupted can be repeated.
  while IFS= read -r path; do
    [ "$path" = "$list" ] || rm -f "$destdir$path"
  done <"$destdir$list"
  rm -f "$destdir$list"
  # Directories that are nobody else's.
  for directory in lib/remora share/doc/remora; do
    [ ! -d "$destdir$prefix/$directory" ] || find "$destdir$prefix/$directory" -depth -type d -empty -delete
  done
  [ -n "$destdir" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
  exit 0
fi

[ ! -e "$here/installed-files" ] || { echo "install.sh: this is the installed copy; it knows --remove" >&2; exit 2; }

# State that a newer version has written is refused before anything is replaced: the program that understands it is there.
known=@STATE_SCHEMA@
for directory in /var/lib/remora /var/lib/kubelet; do
  marker=$destdir$directory/remora.json
  [ -r "$marker" ] || continue
  schema=$(sed -n 's/^ *"schema": *\([0-9][0-9]*\),*$/\1/p' "$marker" | head -n 1)
  [ "${schema:-0}" -gt "$known" ] || continue
  writer=$(sed -n 's/^ *"version": *"\([^"]*\)",*$/\1/p' "$marker" | head -n 1)
  echo "install.sh: $directory was written by remora ${writer:-of a newer version} (state schema $schema), and this is remora @VERSION@, which knows schema $known. Nothing was changed." >&2
  exit 1
done

new=$(mktemp)
trap 'rm -f "$new"' EXIT

# place FILE TARGET: beside the target first, so that a running program keeps its own and nobody sees half of a file.
place() {
  mkdir -p "$destdir$(dirname "$2")"
  cp -P "$1" "$destdir$2.new"
  # -T: a link to a directory is replaced, not entered.
  mv -fT "$destdir$2.new" "$destdir$2"
  echo "$2" >>"$new"
}

place "$here/install.sh" "$prefix/lib/remora/install.sh"
for part in bin lib share; do
  (cd "$here" && find "$part" ! -type d | LC_ALL=C sort) >"$new.part"
  while IFS= read -r path; do place "$here/$path" "$prefix/$path"; done <"$new.part"
  rm -f "$new.part"
done
for path in "$here"/systemd/*; do
  unit=$(mktemp)
  sed "s|/usr/bin/remora|$prefix/bin/remora|g; s|/usr/lib/remora|$prefix/lib/remora|g" "$path" >"$unit"
  chmod 644 "$unit"
  place "$unit" "/etc/systemd/system/${path##*/}"
  rm -f "$unit"
done
for path in default/remora remora/config.yaml remora/remora.env; do
  [ ! -e "$destdir/etc/$path" ] || continue
  mkdir -p "$destdir$(dirname "/etc/$path")"
  cp "$here/etc/$path" "$destdir/etc/$path"
done

# What the version before had and this one has not.
again=
echo "$list" >>"$new"
if [ -e "$destdir$list" ]; then
  again=1
  while IFS= read -r path; do
    grep -qxF "$path" "$new" || rm -f "$destdir$path"
  done <"$destdir$list"
fi
cp "$new" "$destdir$list.new"
chmod 644 "$destdir$list.new"
mv -f "$destdir$list.new" "$destdir$list"

if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  for unit in $units; do
    timeout 90 systemctl try-restart "$unit" ||
      echo "install.sh: $unit is not ready yet after its restart; see: systemctl status $unit" >&2
  done
fi
[ -z "$again" ] || exit 0
for program in dockerd nft iptables conntrack ip nsenter; do
  command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] || [ -x "/sbin/$program" ] ||
    echo "install.sh: $program is missing; Remora needs it" >&2
done
cat <<END
Remora is installed below $prefix; nothing runs yet. There are two ways to go on:
  a cluster on this machine:  systemctl enable --now remora-up
  a node of another cluster:  write how to get there into /etc/remora/config.yaml or
                              /etc/remora/remora.env, then: systemctl enable --now remora
END
