#!/bin/sh
# examples/busybox.sh DIR: makes DIR a root directory of 3 MB with a shell, a web server and a web client: Debian's
# busybox and the libraries that it needs. It is the base of the example images, so that they need no other image.
# Nothing is installed on this machine: a package that is not there is fetched and unpacked only.
#   BUSYBOX=/path/to/busybox takes that program instead of Debian's.
set -eu
umask 022
[ $# = 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
die() { echo "busybox.sh: $*" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# Not what PATH finds: that may be busybox-static, whose wget crashes when it looks up a name.
program=${BUSYBOX:-$(dpkg -L busybox 2>/dev/null | grep '/bin/busybox$' || true)}
if [ -z "$program" ]; then
  command -v dpkg-deb >/dev/null || die "needs Debian's package busybox; without apt give BUSYBOX=/path/to/busybox"
  deb=$(find /var/cache/apt/archives -maxdepth 1 -name "busybox_*_$(dpkg --print-architecture).deb" 2>/dev/null | sort | tail -n 1)
  if [ -z "$deb" ]; then
    # apt fetches as the user _apt, who must be able to write here.
    chmod 755 "$scratch"
    ! id _apt >/dev/null 2>&1 || [ "$(id -u)" != 0 ] || chown _apt "$scratch"
    # Without a network the answer is to come in seconds.
    apt() { apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 "$@"; }
    fetch() { (cd "$scratch" && apt download busybox 2>"$scratch/log"); }
    fetch || { apt update >/dev/null 2>&1 || true; fetch; } ||
      die "no busybox: install Debian's package of it, or give BUSYBOX=/path/to/busybox (apt-get download: $(tail -n 1 "$scratch/log"))"
    deb=$(echo "$scratch"/busybox_*.deb)
  fi
  dpkg-deb -x "$deb" "$scratch/unpacked"
  program=$scratch/unpacked/bin/busybox
  [ -e "$program" ] || program=$scratch/unpacked/usr/bin/busybox
fi

rm -rf "$1"
mkdir -p "$1/bin" "$1/etc" "$1/tmp"
chmod 1777 "$1/tmp"
cp "$program" "$1/bin/busybox"
for applet in $("$program" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
done
# "name => /path (address)" and "/path (address)"; a static program has none.
for library in $(ldd "$program" 2>/dev/null | sed -n 's/.*[[:space:]]\(\/[^ ]*\) (.*/\1/p'); do
  mkdir -p "$1$(dirname "$library")"
  cp -L "$library" "$1$library"
done
echo 'hosts: files dns' >"$1/etc/nsswitch.conf"
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$1/etc/passwd"
