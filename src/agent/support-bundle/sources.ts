import { request } from "node:http";
import { join } from "node:path";

import { readYamlDocument } from "../../api/yaml.ts";
import { PODS } from "../../api/resources.ts";
import { listObjects } from "../../api/objects.ts";
import { ParseError } from "../../lib/errors.ts";
import { isRecord } from "../../lib/guard.ts";
import { remoraVersion } from "../version.ts";
import { getJSONOnSocket } from "../doctor/engine-socket.ts";
import { asIdentity } from "../doctor/identity.ts";
import type { Machine } from "../doctor/machine.ts";
import { listProcesses } from "../doctor/processes.ts";
import { flagOf } from "../doctor/site.ts";
import { snapshotOf } from "../doctor/snapshot.ts";
import { secretsOfEnvironment } from "./known-secrets.ts";
import { reducedContainers, reducedEngineInfo, reducedNode, reducedPod } from "./objects.ts";
import { secretValues, withoutSecrets, wordsWithoutSecrets } from "./secret-keys.ts";

/** One file of a bundle, and where it comes from. */
export interface Source {
  readonly name: string;
  /** For people. */
  readonly what: string;
  /** Which end counts when it is too long. */
  readonly keep: "head" | "tail";
  /** It is text that anybody may have written: whatever looks like a key is taken out. */
  readonly guess: boolean;
  /**
   * @param found Takes secrets that were seen, so that they are looked for everywhere.
   * @returns The text; undefined when there is nothing of it on this machine.
   */
  collect(
    machine: Machine,
    signal: AbortSignal,
    found: (secrets: readonly string[]) => void,
  ): Promise<string | undefined>;
}

function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

/** Files, one after the other, each behind its name. */
function files(name: string, what: string, paths: readonly string[]): Source {
  return {
    name,
    what,
    keep: "head",
    guess: true,
    collect: async (machine) => {
      const parts: string[] = [];
      for (const path of paths) {
        const text = await machine.read(path);
        if (text !== undefined && text.trim() !== "") parts.push(`# ${path}\n${text.trimEnd()}\n`);
      }
      return parts.length === 0 ? undefined : parts.join("\n");
    },
  };
}

/** What programs print, one after the other, each behind its command line. */
function programs(
  name: string,
  what: string,
  commands: readonly (readonly [string, ...string[]])[],
  options: { readonly keep?: Source["keep"]; readonly guess?: boolean } = {},
): Source {
  return {
    name,
    what,
    keep: options.keep ?? "head",
    guess: options.guess ?? false,
    collect: async (machine, signal) => {
      const parts: string[] = [];
      for (const argv of commands) {
        const result = await machine.run(argv, { signal });
        if (result === undefined) continue;
        const said = result.exitCode === 0 ? result.stdout : result.stderr;
        parts.push(`# ${argv.join(" ")}\n${said.trimEnd()}\n`);
      }
      return parts.length === 0 ? undefined : parts.join("\n");
    },
  };
}

/** A configuration without what is secret by its name; one that nobody can read is left out. */
function configuration(
  name: string,
  what: string,
  pathOf: (machine: Machine) => Promise<string>,
): Source {
  return {
    name,
    what,
    keep: "head",
    guess: true,
    collect: async (machine, _signal, found) => {
      const path = await pathOf(machine);
      const text = path === "" ? undefined : await machine.read(path);
      if (text === undefined) return undefined;
      const { stringify } = await import("yaml");
      const parts: string[] = [];
      for (const one of text.split(/^---[ \t]*$/m)) {
        if (one.trim() === "") continue;
        const value: unknown = (await readYamlDocument(one, path)).toJS();
        found(secretValues(value));
        parts.push(stringify(withoutSecrets(value)));
      }
      return `# ${path}\n${parts.join("---\n")}`;
    },
  };
}

async function commandLine({ site, ...machine }: Machine): Promise<string> {
  return site.pid === undefined ? "" : ((await machine.read(`/proc/${site.pid}/cmdline`)) ?? "");
}

/** What this is, and where the agent works. */
const about: Source = {
  name: "about.json",
  what: "versions, and where the agent works",
  keep: "head",
  guess: true,
  collect: async (machine) => {
    const { identities, ...site } = machine.site;
    const line = await commandLine(machine);
    return json({
      remora: remoraVersion,
      node: process.version,
      architecture: process.arch,
      kernel: (await machine.read("/proc/sys/kernel/osrelease"))?.trim(),
      system: /^PRETTY_NAME="?([^"\n]*)/m.exec((await machine.read("/etc/os-release")) ?? "")?.[1],
      time: new Date(machine.clock.now()).toISOString(),
      site,
      commandLine: wordsWithoutSecrets(line.split("\0").filter((word) => word !== "")),
      identities: identities.map(({ kubeconfig, name }) => ({ name, kubeconfig })),
    });
  },
};

const snapshot: Source = {
  name: "snapshot.json",
  what: "what the agent tells of itself: pods, pulls, Services, usage, events",
  keep: "head",
  guess: true,
  collect: async (machine, signal) => {
    const said = await snapshotOf(machine, signal);
    return said === undefined ? undefined : json(said);
  },
};

const engine: Source = {
  name: "docker/engine.json",
  what: "docker info and version",
  keep: "head",
  guess: true,
  collect: async ({ site }, signal, found) => {
    const info = await getJSONOnSocket(site.dockerSocket, "/info", signal);
    found(secretValues(info));
    const version = await getJSONOnSocket(site.dockerSocket, "/version", signal);
    return json({ info: withoutSecrets(reducedEngineInfo(info)), version });
  },
};

const mostInspected = 500;

/** Values of environments as containers have them, those of Secrets among them: to look for, not to tell. */
async function environmentsOf(
  socket: string,
  list: unknown,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const ids = (Array.isArray(list) ? list : []).flatMap((one: unknown) =>
    isRecord(one) && typeof one["Id"] === "string" ? [one["Id"]] : [],
  );
  const found: string[] = [];
  for (const id of ids.slice(0, mostInspected)) {
    const path = `/containers/${encodeURIComponent(id)}/json`;
    // One that has just gone has nothing to hide any more.
    const said = await getJSONOnSocket(socket, path, signal).catch(() => undefined);
    signal.throwIfAborted();
    const config = isRecord(said) && isRecord(said["Config"]) ? said["Config"] : {};
    const entries: unknown = config["Env"];
    found.push(...secretsOfEnvironment(Array.isArray(entries) ? entries.map(String) : []));
  }
  return found;
}

const containers: Source = {
  name: "docker/containers.json",
  what: "names, images and states of all containers; no environments, commands and mounts",
  keep: "head",
  guess: false,
  collect: async ({ site }, signal, found) => {
    const list = await getJSONOnSocket(site.dockerSocket, "/containers/json?all=1", signal);
    found(await environmentsOf(site.dockerSocket, list, signal));
    return json(reducedContainers(list));
  },
};

const node: Source = {
  name: "cluster/node.json",
  what: "this machine's Node, without values of annotations",
  keep: "head",
  guess: true,
  collect: async (machine, signal) => {
    const [identity] = machine.site.identities;
    if (identity === undefined) return undefined;
    const path = `/api/v1/nodes/${encodeURIComponent(machine.site.nodeName)}`;
    return asIdentity(machine, identity, async (client) =>
      json(reducedNode(await client.request({ method: "GET", path, signal }))),
    );
  },
};

const pods: Source = {
  name: "cluster/pods.json",
  what: "the node's Pods, without commands, arguments, values of environments and annotations",
  keep: "head",
  guess: true,
  collect: async (machine, signal, found) => {
    const [identity] = machine.site.identities;
    if (identity === undefined) return undefined;
    return asIdentity(machine, identity, async (client) => {
      const { items } = await listObjects(client, PODS, {
        fieldSelector: `spec.nodeName=${machine.site.nodeName}`,
        signal,
      });
      // What is in an environment may be told again by a message.
      found(secretValues(items));
      return json(items.map(reducedPod));
    });
  },
};

const mostMetrics = 4 * 1024 * 1024;

const metrics: Source = {
  name: "metrics.txt",
  what: "the agent's metrics",
  keep: "head",
  guess: false,
  collect: async ({ site }, signal) => {
    if (site.pid === undefined) return undefined;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const url = `http://${site.metricsAddress}/metrics`;
    const outgoing = request(url, { agent: false, signal }, (incoming) => {
      let text = "";
      incoming.setEncoding("utf8");
      incoming.on("data", (chunk: string) => {
        text += chunk;
        if (text.length > mostMetrics)
          outgoing.destroy(new ParseError(url, "an answer with an end"));
      });
      incoming.on("error", reject);
      incoming.on("end", () => {
        if (incoming.statusCode === 200) resolve(text);
        else reject(new ParseError(url, `status 200 and not ${incoming.statusCode}`));
      });
    });
    outgoing.on("error", reject);
    outgoing.end();
    return promise;
  },
};

const processes: Source = {
  name: "machine/processes.txt",
  what: "names and numbers of processes; no command lines",
  keep: "head",
  guess: false,
  collect: async (machine) => {
    const all = await listProcesses(machine);
    return all.map(({ name, pid }) => `${pid} ${name}\n`).join("");
  },
};

const unitNames = [
  "remora.service",
  "remora-up.service",
  "remora.socket",
  "docker.service",
] as const;

/** Units without what is set in their environments. */
const units: Source = {
  ...programs("machine/units.txt", "units of systemd with their drop-ins, and their states", [
    ["systemctl", "cat", ...unitNames],
    ["systemctl", "status", "--no-pager", "--lines=0", ...unitNames],
  ]),
  guess: true,
  collect: async (machine, signal) => {
    const parts: string[] = [];
    for (const argv of [
      ["systemctl", "cat", ...unitNames],
      ["systemctl", "show", ...unitNames, "--property=Id,ActiveState,SubState,Result,NRestarts"],
    ] as const) {
      const result = await machine.run(argv, { signal });
      if (result !== undefined) parts.push(`# ${argv.join(" ")}\n${result.stdout.trimEnd()}\n`);
    }
    if (parts.length === 0) return undefined;
    const text = parts.join("\n");
    return text.replaceAll(/^([ \t]*Environment=)[^\n]*(?:\\\n[^\n]*)*/gm, "$1[removed]");
  },
};

const agentUnits = ["-u", "remora.service", "-u", "remora-up.service"] as const;

/** All that a bundle is made of. */
export const sources: readonly Source[] = [
  about,
  snapshot,
  configuration("config/agent.yaml", "the agent's configuration", async (machine) => {
    const given = flagOf(await commandLine(machine), "config");
    return given ?? "/etc/remora/config.yaml";
  }),
  files("config/remora.env", "flags of the units", ["/etc/remora/remora.env"]),
  configuration("config/daemon.yaml", "configuration of the Docker Engine", () =>
    Promise.resolve("/etc/docker/daemon.json"),
  ),
  {
    ...files("config/places.txt", "where the agent left things, and whose the state is", []),
    collect: async (machine) => {
      const { rootDir, stateDir } = machine.site;
      const paths = [
        join(stateDir, "remora.json"),
        join(rootDir, "places.json"),
        join(rootDir, "dns", "settings.json"),
      ];
      const parts = await Promise.all(
        paths.map(async (path) => [path, await machine.read(path)] as const),
      );
      const there = parts.flatMap(([path, text]) =>
        text === undefined ? [] : [`# ${path}\n${text}`],
      );
      return there.length === 0 ? undefined : there.join("\n");
    },
  },
  files("machine/kernel.txt", "limits and state of the kernel", [
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/swaps",
    "/proc/cgroups",
    "/sys/fs/cgroup/cgroup.controllers",
    "/proc/sys/fs/file-nr",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/conf/all/rp_filter",
    "/proc/sys/net/netfilter/nf_conntrack_count",
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/proc/net/sockstat",
    "/etc/resolv.conf",
  ]),
  programs("machine/disks.txt", "free space and inodes", [
    ["df", "-hT"],
    ["df", "-hi"],
  ]),
  processes,
  units,
  programs("network/interfaces.txt", "interfaces, addresses, routes, neighbours", [
    ["ip", "-d", "addr"],
    ["ip", "rule"],
    ["ip", "route", "show", "table", "all"],
    ["ip", "-6", "route", "show", "table", "all"],
    ["ip", "neigh"],
  ]),
  programs("network/sockets.txt", "who listens", [["ss", "-lntup"]]),
  programs("network/nft.txt", "rules of nftables", [["nft", "list", "ruleset"]]),
  programs("network/iptables.txt", "rules of iptables, of both kinds", [
    ["iptables-save"],
    ["ip6tables-save"],
    ["iptables-legacy-save"],
    ["ip6tables-legacy-save"],
  ]),
  engine,
  containers,
  node,
  pods,
  metrics,
  programs(
    "logs/agent.txt",
    "the agent's last lines in the journal",
    [["journalctl", ...agentUnits, "-n", "5000", "--no-pager", "-o", "short-iso"]],
    { keep: "tail", guess: true },
  ),
  programs(
    "logs/docker.txt",
    "Docker's last lines in the journal",
    [["journalctl", "-u", "docker.service", "-n", "500", "--no-pager", "-o", "short-iso"]],
    { keep: "tail", guess: true },
  ),
  programs(
    "logs/kernel.txt",
    "the kernel's last lines",
    [["journalctl", "-k", "-n", "500", "--no-pager", "-o", "short-iso"]],
    { keep: "tail", guess: true },
  ),
];
