import { nameservers, pointsToResolved, resolvedFile } from "../../../dns/host-servers.ts";
import { type NameAnswer, askName } from "../ask-name.ts";
import { defineCheck, type Finding, judged, skipped } from "../check.ts";
import type { Machine } from "../machine.ts";

/** Of the special names: nobody has it, and every name server has an answer for it. */
const anyName = "remora.invalid";
const refused = 5;

interface HostNamesFacts {
  readonly path: string;
  /** Undefined: there is no such file. */
  readonly text: string | undefined;
  /** The file behind systemd-resolved's stub, where the first names that. */
  readonly behind: string | undefined;
  readonly own: readonly string[];
  readonly answers: readonly { readonly server: string; readonly answer: NameAnswer }[];
}

/** The servers that the node's name server would ask: those behind a stub, where there is one. */
export function serversBehind(text: string, behind: string | undefined): readonly string[] {
  const servers = nameservers(pointsToResolved(text) ? (behind ?? "") : text);
  return servers.filter((address) => !/^127\.0\.0\.5[34]$/.test(address));
}

async function readServers(
  machine: Machine,
): Promise<Pick<HostNamesFacts, "path" | "text" | "behind">> {
  const path = machine.site.dns?.resolvConf ?? "/etc/resolv.conf";
  return {
    path,
    text: path === "" ? "" : await machine.read(path),
    behind: await machine.read(resolvedFile),
  };
}

type HostNamesProblem =
  | "resolv-conf-missing"
  | "resolv-conf-loop"
  | "resolv-conf-stub"
  | "resolv-conf-long"
  | "resolver-silent"
  | "resolver-refuses";

/** resolv.conf(5) reads three servers; glibc before 2.26 six domains, pods up to 32. */
const mostServers = 3;
const mostDomains = 32;

export const hostNames = defineCheck<HostNamesProblem, HostNamesFacts>({
  id: "host-dns",
  title: "Name servers of the machine",
  group: "names",
  looks:
    "resolv.conf and what systemd-resolved has behind it: loops, limits, and whether each server answers",
  reference: "docs/networking.md",
  deadlineMs: 20_000,
  problems: {
    "resolv-conf-missing": {
      level: "error",
      means: "The machine has no name server.",
      cause:
        "/etc/resolv.conf is missing or names none: images cannot be pulled by name, and pods resolve names of the cluster only.",
      remedy:
        "systemctl restart systemd-resolved # or: echo 'nameserver 9.9.9.9' > /etc/resolv.conf",
    },
    "resolv-conf-loop": {
      level: "error",
      means: "The machine asks this node's cluster DNS, which would have to ask the machine.",
      cause:
        "resolv.conf names the address of the cluster's DNS. The agent leaves that server out; names outside of the cluster are resolved by the others, or by nobody.",
      remedy:
        "name another server in /etc/resolv.conf # of systemd-resolved: resolvectl dns; of NetworkManager: nmcli",
    },
    "resolv-conf-stub": {
      level: "error",
      means: "resolv.conf names systemd-resolved's stub, and there is no server behind it.",
      cause:
        "systemd-resolved does not run, or got no server from DHCP: 127.0.0.53 cannot be reached from pods, and has nothing to pass on to.",
      remedy: "systemctl restart systemd-resolved; resolvectl status",
    },
    "resolv-conf-long": {
      level: "warning",
      means: "resolv.conf has more than its readers take.",
      cause:
        "Three name servers count; pods take 32 search domains. What is beyond has no effect (CheckLimitsForResolvConf).",
      remedy: "shorten /etc/resolv.conf, or name another file with resolvConf in the configuration",
    },
    "resolver-silent": {
      level: "error",
      means: "A name server of the machine does not answer.",
      cause:
        "It is off, or a firewall drops what goes to its port 53. Each question waits for it first.",
      remedy:
        "dig @SERVER kubernetes.io # then: take it out of /etc/resolv.conf, or resolvectl dns",
    },
    "resolver-refuses": {
      level: "warning",
      means: "A name server of the machine refuses to answer.",
      cause: "It answers others only (REFUSED): an address in its list of clients is missing.",
      remedy: "take it out of /etc/resolv.conf, or allow this machine there",
    },
  },
  collect: async (machine, signal) => {
    const files = await readServers(machine);
    const own = machine.site.dns?.addresses ?? [];
    const servers = serversBehind(files.text ?? "", files.behind).filter(
      (server) => !own.includes(server),
    );
    const answers = await Promise.all(
      servers.map(async (server) => ({
        server,
        answer: await askName(server, anyName, machine, signal),
      })),
    );
    return { ...files, own, answers };
  },
  judge: ({ answers, behind, own, path, text }) => {
    if (path === "") return skipped("pods are told to use no name server of the machine");
    const listed = nameservers(text ?? "");
    if (listed.length === 0) {
      const why = text === undefined ? "is not there" : "names no server";
      return judged("", [{ problem: "resolv-conf-missing", text: `${path} ${why}` }]);
    }
    const findings: Finding<HostNamesProblem>[] = [];
    const servers = serversBehind(text ?? "", behind);
    if (servers.length === 0) {
      findings.push({
        problem: "resolv-conf-stub",
        text: `${path} names ${listed.join(", ")} only`,
      });
    }
    for (const server of servers.filter((address) => own.includes(address))) {
      findings.push({
        problem: "resolv-conf-loop",
        text: `${path} names ${server}, which this node answers on`,
      });
    }
    const domains =
      /^\s*(?:search|domain)\s+(.*)$/m
        .exec(text ?? "")?.[1]
        ?.trim()
        .split(/\s+/) ?? [];
    const lines = (text ?? "").match(/^\s*nameserver\s/gm)?.length ?? 0;
    if (lines > mostServers || domains.length > mostDomains) {
      findings.push({
        problem: "resolv-conf-long",
        text: `${path} has ${lines} name servers and ${domains.length} search domains`,
      });
    }
    for (const { answer, server } of answers) {
      if (answer.kind === "silent") {
        findings.push({
          problem: "resolver-silent",
          text: `${server}: ${answer.text}`,
          remedy: `dig @${server} kubernetes.io # then: take it out of ${path}, or resolvectl dns`,
        });
      } else if (answer.rcode === refused) {
        findings.push({ problem: "resolver-refuses", text: `${server} answers REFUSED` });
      }
    }
    return judged(servers.join(", "), findings);
  },
});

interface ClusterNamesFacts {
  readonly running: boolean;
  readonly domain: string;
  readonly answers: readonly {
    readonly server: string;
    readonly own: NameAnswer;
    /** To a name of the world, through this server and without it. */
    readonly world: NameAnswer;
  }[];
  readonly direct: boolean;
}

export const clusterNames = defineCheck({
  id: "cluster-dns",
  title: "Cluster DNS of this node",
  group: "names",
  looks: "whether the node's name server answers, for the cluster and for the world",
  reference: "docs/networking.md",
  deadlineMs: 20_000,
  problems: {
    "cluster-dns-silent": {
      level: "error",
      means: "The name server of this node does not answer.",
      cause:
        "Its thread ended or cannot listen: another program has port 53 of that address, or the address is not on the bridge.",
      remedy: "remora doctor --only ports,pod-network; journalctl -u 'remora*' | grep dns",
    },
    "cluster-dns-empty": {
      level: "error",
      means: "The name server of this node does not know kubernetes.default.",
      cause:
        "It has had no list of Services yet: the API server was not reached since the start, or the proxy's identity may not read Services.",
      remedy: "remora doctor --only api,permissions",
    },
    "cluster-dns-no-world": {
      level: "error",
      means:
        "The name server of this node finds no names outside of the cluster, and the machine does.",
      cause:
        "The machine's servers lead back to it (a loop), or were changed and are not yet read again.",
      remedy: "remora doctor --only host-dns # then: systemctl restart remora",
    },
  },
  collect: async (machine, signal): Promise<ClusterNamesFacts> => {
    const { dns, pid } = machine.site;
    const files = await readServers(machine);
    const own = dns?.addresses ?? [];
    const upstream = serversBehind(files.text ?? "", files.behind).filter(
      (server) => !own.includes(server),
    );
    const good = (answer: NameAnswer): boolean =>
      answer.kind === "answered" && [0, 3].includes(answer.rcode);
    const ask = (server: string, name: string): Promise<NameAnswer> =>
      askName(server, name, machine, signal);
    const running = pid !== undefined;
    const domain = dns?.domain ?? "";
    // A top-level name is asked for at the root, and so everywhere.
    const world = "org";
    const answers = await Promise.all(
      (running ? own : []).map(async (server) => ({
        server,
        own: await ask(server, `kubernetes.default.svc.${domain}`),
        world: await ask(server, world),
      })),
    );
    const direct = await Promise.all(upstream.slice(0, 3).map((server) => ask(server, world)));
    return { running, domain, answers, direct: direct.some(good) };
  },
  judge: ({ answers, direct, domain, running }) => {
    if (!running) return skipped("no agent runs");
    if (answers.length === 0) return skipped("the cluster's DNS is not answered on this node");
    const findings: Finding<"cluster-dns-silent" | "cluster-dns-empty" | "cluster-dns-no-world">[] =
      [];
    for (const { own, server, world } of answers) {
      if (own.kind === "silent") {
        findings.push({ problem: "cluster-dns-silent", text: `${server}: ${own.text}` });
        continue;
      }
      if (own.rcode !== 0 || own.records === 0) {
        findings.push({
          problem: "cluster-dns-empty",
          text: `${server} answers ${own.rcode} to kubernetes.default.svc.${domain}`,
        });
      }
      const found = world.kind === "answered" && [0, 3].includes(world.rcode);
      if (direct && !found) {
        findings.push({
          problem: "cluster-dns-no-world",
          text: `${server} ${world.kind === "silent" ? "is silent" : `answers ${world.rcode}`} to names of the world`,
        });
      }
    }
    return judged(answers.map(({ server }) => server).join(", "), findings);
  },
});
