import type { HostAlias } from "../../api/types.gen.ts";

function aliasLines(aliases: readonly HostAlias[]): string {
  if (aliases.length === 0) return "";
  const lines = aliases.map(({ ip, hostnames = [] }) => `${ip}\t${hostnames.join("\t")}\n`);
  return `\n# Entries added by HostAliases.\n${lines.join("")}`;
}

/** /etc/hosts of a pod with its own network. */
export function managedHostsFile(pod: {
  readonly ips: readonly string[];
  readonly hostname: string;
  readonly domain: string;
  readonly aliases: readonly HostAlias[];
}): string {
  const names = pod.domain === "" ? pod.hostname : `${pod.hostname}.${pod.domain}\t${pod.hostname}`;
  return [
    "# Kubernetes-managed hosts file.\n",
    "127.0.0.1\tlocalhost\n",
    "::1\tlocalhost ip6-localhost ip6-loopback\n",
    "fe00::0\tip6-localnet\n",
    "fe00::0\tip6-mcastprefix\n",
    "fe00::1\tip6-allnodes\n",
    "fe00::2\tip6-allrouters\n",
    ...pod.ips.map((ip) => `${ip}\t${names}\n`),
    aliasLines(pod.aliases),
  ].join("");
}

/** /etc/hosts of a pod on the node's network: the node's file and the pod's aliases. */
export function hostNetworkHostsFile(nodeHosts: string, aliases: readonly HostAlias[]): string {
  return `# Kubernetes-managed hosts file (host network).\n${nodeHosts}${aliasLines(aliases)}`;
}
