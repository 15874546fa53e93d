import type { RealMachine } from "./machine.ts";

/** One line for each thing of a machine, in the order of the alphabet; the first word says what it is. */
export type Traces = readonly string[];

/**
 * Everything on a machine that an agent or its package could leave behind: rules, interfaces, routes, mounts, cgroups,
 * units, containers, images, files, users, processes, settings of the kernel. Options of the cgroup mount are left out: old
 * versions of runc change them for privileged containers.
 */
export async function traces(machine: RealMachine): Promise<Traces> {
  const text = await machine.sh(`
    nft --stateless list ruleset | sed 's/^/rule /'
    ip -o link | sed 's/^[0-9]*: \\([^:@]*\\).*/interface \\1/'
    ip -o route show table all | grep -v ' dev eth[0-9] ' | sed 's/ expires .*//; s/^/route /'
    ip rule | sed 's/^/policy /'
    sed '/^cgroup2 /s/ rw.*//; /binfmt_misc/d; s/^/mount /' /proc/mounts
    find /sys/fs/cgroup -type d -name 'kubepods*' | sed 's/^/cgroup /'
    systemctl list-units --all --plain --no-legend 'kubepods*' 'docker-*' 'remora*' | sed 's/^/unit /'
    systemctl list-unit-files --plain --no-legend 'remora*' | sed 's/^/unit file /'
    ls /run/systemd/transient /run/systemd/system.control 2>/dev/null | grep kubepods | sed 's/^/unit file /'
    docker ps -aq --no-trunc | sed 's/^/container /'
    docker images --format 'image {{.Repository}}:{{.Tag}}'
    docker network ls --format 'network {{.Name}}'
    docker volume ls --format 'volume {{.Name}}'
    cut -d: -f1 /etc/passwd | sed 's/^/user /'
    cut -d: -f1 /etc/group | sed 's/^/group /'
    dpkg-query -W -f 'package \${Package} \${db:Status-Status}\\n'
    find /etc -xdev -path /etc/ssl/certs -prune -o ! -type d ! -name ld.so.cache ! -name '*-' ! -path '/etc/alternatives/*' ! -name initiatorname.iscsi -printf 'file %p %s %l\\n'
    find /usr /lib -xdev -iname '*remora*' -printf 'file %p\\n' 2>/dev/null
    ls -d /var/lib/remora /var/lib/kubelet /run/remora* /var/log/pods/* /var/log/containers/* /root/.kube/* 2>/dev/null |
      sed 's/^/file /'
    for each in ipv4.ip_forward ipv6.conf.all.forwarding ipv6.conf.eth0.accept_ra ipv4.conf.all.route_localnet \\
      netfilter.nf_conntrack_tcp_timeout_close_wait netfilter.nf_conntrack_tcp_be_liberal; do
      sysctl "net.$each" 2>/dev/null | sed 's/^/setting /'
    done
    ps -eo comm,args | grep -e remora -e pause | grep -v -e grep -e 'sh -euc' | sed 's/^/process /'
    true`);
  return text
    .split("\n")
    .map((line) => line.trim())
    .toSorted();
}
