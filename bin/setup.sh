# Sourced by bin/remora and bin/test: brings this machine to the point where the pinned Node can run the rest.
# Everything is checked before it is installed, so a second start installs nothing and takes no time.

say() { echo "remora: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

need_root() {
  [ "$(id -u)" = 0 ] || die "must run as root (it programs network rules and mounts volumes). Try: sudo $0 $*"
}

# note KIND FIELD VALUE: writes down what is about to be changed on this machine, for `remora uninstall`.
note() {
  mkdir -p /var/lib/remora
  printf '{"kind":"%s","%s":"%s"}\n' "$1" "$2" "$3" >>/var/lib/remora/setup.jsonl
  sync /var/lib/remora/setup.jsonl 2>/dev/null || true
}

# apt_install WHY PACKAGE...: nothing that is installed may be removed for it.
apt_install() {
  why=$1; shift
  have apt-get || die "$* is missing ($why) and this machine has no apt-get. Install it by hand, then start again."
  say "installing $* ($why)"
  if [ -z "${apt_updated:-}" ]; then
    # A list that cannot be refreshed is not fatal: the packages may be known or cached already.
    apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed; trying with the lists that are there"
    apt_updated=1
  fi
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || note package name "$package"
  done
  log=$(mktemp)
  if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-remove --no-install-recommends "$@" >"$log" 2>&1; then
    tail -n 15 "$log" >&2; rm -f "$log"
    die "apt-get could not install $*. Install it by hand, then start again."
  fi
  rm -f "$log"
}

# want PROGRAM PACKAGE WHY: collects what is missing, so that apt runs once.
wanted=; reasons=
want() { have "$1" || { wanted="$wanted $2"; reasons="$reasons${reasons:+, }$2: $3"; }; }
install_wanted() {
  # shellcheck disable=SC2086
  [ -z "$wanted" ] || apt_install "$reasons" $wanted
  wanted=; reasons=
}

docker_socket=${REMORA_DOCKER_SOCKET:-/var/run/docker.sock}
docker_answers() { "$root/bin/node" -e '
  const r = require("node:http").get({ socketPath: process.argv[1], path: "/_ping", timeout: 3000 }, (s) => process.exit(s.statusCode === 200 ? 0 : 1));
  r.on("error", () => process.exit(1)); r.on("timeout", () => process.exit(1));' "$docker_socket"; }

# install_tools: what the agent drives on the machine.
install_tools() {
  # Any engine will do: Docker CE, Debian's, a socket somebody else provides.
  have dockerd || [ -S "$docker_socket" ] || want dockerd docker.io "the container engine"
  want nft nftables "Service rules"
  want iptables iptables "the accept rule beside Docker's own firewall rules"
  want conntrack conntrack "ends stale UDP flows"
  want ip iproute2 "pod network interfaces"
  want nsenter util-linux "enters a pod's network namespace"
  install_wanted
}

# npm_ci OPTION...: installs package-lock.json. npm before 10 cannot read it (Debian's 9.2 refuses its overrides), so such
# a one only fetches the two archives with which the rest is done: the pinned Node and a current npm.
npm_ci() {
  major=$(npm --version 2>/dev/null | cut -d. -f1)
  if [ "${major:-0}" -ge 10 ]; then
    (cd "$root" && npm ci --no-audit --no-fund --loglevel=error "$@")
    return
  fi
  case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) die "there is no pinned Node for $(uname -m)" ;;
  esac
  node_version=$(sed -n "s/.*\"node-linux-$arch\": \"\(.*\)\".*/\1/p" "$root/package.json")
  scratch=$(mktemp -d)
  (
    cd "$scratch" &&
      npm pack --silent "node-linux-$arch@$node_version" npm@11.19.1 >/dev/null &&
      mkdir node npm && tar -xzf node-linux-*.tgz -C node && tar -xzf npm-*.tgz -C npm &&
      cd "$root" && PATH=$scratch/node/package/bin:$PATH \
        "$scratch/node/package/bin/node" "$scratch/npm/package/bin/npm-cli.js" ci --no-audit --no-fund --loglevel=error "$@"
  )
  npm_status=$?
  rm -rf "$scratch"
  return $npm_status
}

pinned_node() { "$root/bin/node" -e 0 2>/dev/null; }

# install_node MODE: the pinned Node and the libraries, through npm. MODE is "production" or "all".
install_node() {
  stamp=$root/node_modules/.remora-$1
  cmp -s "$root/package-lock.json" "$stamp" 2>/dev/null && pinned_node && return
  # The complete tree serves production too.
  [ "$1" = production ] && cmp -s "$root/package-lock.json" "$root/node_modules/.remora-all" 2>/dev/null && pinned_node && return
  # Somebody ran npm themselves: their tree is as good as ours.
  [ ! -e "$root/node_modules/.remora-production" ] && [ ! -e "$root/node_modules/.remora-all" ] &&
    [ "$root/node_modules/.package-lock.json" -nt "$root/package-lock.json" ] && pinned_node && return
  # Debian keeps libatomic apart; the pinned Node links it.
  [ -e /usr/lib/x86_64-linux-gnu/libatomic.so.1 ] || [ -e /usr/lib/aarch64-linux-gnu/libatomic.so.1 ] ||
    ldconfig -p 2>/dev/null | grep -q libatomic.so.1 || apt_install "the pinned Node links it" libatomic1
  have npm || apt_install "only to fetch the pinned Node and the libraries" nodejs npm
  say "fetching the pinned Node and the libraries of package-lock.json"
  omit=; [ "$1" = production ] && omit=--omit=dev
  log=$(mktemp)
  # shellcheck disable=SC2086
  if ! npm_ci $omit >"$log" 2>&1; then
    head -n 15 "$log" >&2; rm -f "$log"
    die "npm could not install the libraries into $root. Check the network (or npm's registry setting), then start again."
  fi
  rm -f "$log"
  "$root/bin/node" -e 0 || die "the pinned Node does not run on this machine (see above)"
  cp "$root/package-lock.json" "$stamp"
}

# start_docker [DOCKERD_OPTION...]: sets docker_started=1 when this call started the engine itself.
start_docker() {
  docker_started=
  docker_answers && return
  have dockerd || die "nothing answers on $docker_socket and there is no dockerd to start. Start your engine, then try again."
  if [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1; then
    say "starting docker.service (no engine was running)"
    note engine name docker.service
    systemctl start docker.service || die "docker.service did not start; see: journalctl -u docker.service"
  else
    say "starting dockerd (no engine was running); its log: /var/log/dockerd.log"
    mkdir -p /run/remora
    [ -e /var/log/dockerd.log ] || note file path /var/log/dockerd.log
    setsid dockerd --pidfile /run/remora/dockerd.pid "$@" >>/var/log/dockerd.log 2>&1 </dev/null &
    docker_started=1
  fi
  tries=0
  until docker_answers; do
    tries=$((tries + 1))
    [ $tries -lt 150 ] || { tail -n 5 /var/log/dockerd.log >&2 2>/dev/null; die "dockerd did not answer on $docker_socket within 30 s"; }
    sleep 0.2
  done
}
