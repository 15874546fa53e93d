import { existsSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

import { agentDefaults } from "../../config/agent-config.ts";
import { isCidr } from "../../lib/cidr.ts";
import { optionalString } from "../../lib/guard.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import type { AgentFacts } from "../../proxy/explain/model.ts";
import { credentialPaths } from "../join/credential-files.ts";
import { type LockHolder, machineLockHolder } from "../instance-lock.ts";
import { upNetworks } from "../node-configuration.ts";
import { readPlaces } from "../places.ts";
import { askAgent } from "../service/agent-facts.ts";

/** A credential towards the API server, and whose it is. */
export interface Identity {
  readonly name: "node" | "proxy" | "administrator";
  readonly kubeconfig: string;
}

/** Where the agent of this machine works, or would if it were started. */
export interface Site {
  readonly mode: "up" | "run";
  /** Undefined: none runs. */
  readonly pid: number | undefined;
  /** An agent has worked here. */
  readonly used: boolean;
  /** `--state-dir` of `up`, `--root-dir` of `run`. */
  readonly stateDir: string;
  readonly rootDir: string;
  readonly nodeName: string;
  readonly dockerSocket: string;
  /** Where the agent's metrics are, HOST:PORT. */
  readonly metricsAddress: string;
  readonly identities: readonly Identity[];
  /** What its Service proxy says of itself, or why it says nothing. */
  readonly facts: AgentFacts | undefined;
  readonly factsMissing: string;
  readonly bridge: string;
  /** Networks of all pods; a guess where nobody can know yet. */
  readonly clusterCIDRs: readonly string[];
  readonly serviceCIDRs: readonly string[];
  /** How the name server of this node was set up last; undefined when it was not. */
  readonly dns:
    | {
        readonly addresses: readonly string[];
        readonly domain: string;
        readonly resolvConf: string;
      }
    | undefined;
}

export interface SiteFlags {
  readonly stateDir?: string;
  readonly rootDir?: string;
  readonly kubeconfig?: string;
  readonly dockerSocket?: string;
  /** Metrics address of the agent. */
  readonly agent: string;
}

const upDirectory = "/var/lib/remora";
const runDirectory = "/var/lib/kubelet";

/** Which directory an agent works in, has worked in, or would: flags first, then who runs, then what is there. Pure. */
export function chooseDirectory(
  flags: Pick<SiteFlags, "stateDir" | "rootDir">,
  holder: LockHolder | undefined,
  isThere: (path: string) => boolean,
): { readonly mode: Site["mode"]; readonly directory: string } {
  if (flags.rootDir !== undefined) return { mode: "run", directory: flags.rootDir };
  if (flags.stateDir !== undefined) return { mode: "up", directory: flags.stateDir };
  if (holder !== undefined) {
    const mode = holder.flag === "--root-dir" ? "run" : "up";
    return { mode, directory: holder.directory };
  }
  if (isThere(join(upDirectory, "kubelet", "places.json"))) {
    return { mode: "up", directory: upDirectory };
  }
  const ran = isThere(join(runDirectory, "places.json"));
  return ran ? { mode: "run", directory: runDirectory } : { mode: "up", directory: upDirectory };
}

/** The value of a flag in a command line as /proc has it. Pure. */
export function flagOf(cmdline: string, flag: string): string | undefined {
  const words = cmdline.split("\0");
  for (const [index, word] of words.entries()) {
    if (word === `--${flag}`) return words[index + 1];
    if (word.startsWith(`--${flag}=`)) return word.slice(flag.length + 3);
  }
  return undefined;
}

function nodeKubeconfigs(site: {
  readonly mode: Site["mode"];
  readonly stateDir: string;
  readonly rootDir: string;
  readonly cmdline: string;
}): readonly string[] {
  if (site.mode === "up") return [join(site.stateDir, "control-plane", "node.conf")];
  const given = flagOf(site.cmdline, "kubeconfig");
  return [
    join(site.rootDir, "rotated.kubeconfig"),
    ...(given === undefined ? [] : [given]),
    credentialPaths(site.rootDir).kubeconfig,
    "/etc/kubernetes/kubelet.conf",
  ];
}

function identitiesOf(
  site: Parameters<typeof nodeKubeconfigs>[0],
  proxy: string,
  admin: string | undefined,
): readonly Identity[] {
  const found: Identity[] = [];
  const node = nodeKubeconfigs(site).find((path) => existsSync(path));
  if (node !== undefined) found.push({ name: "node", kubeconfig: node });
  const ofProxy = [
    proxy,
    flagOf(site.cmdline, "proxy-kubeconfig") ?? "",
    site.mode === "up" ? join(site.stateDir, "control-plane", "proxy.conf") : "",
  ].find((path) => path !== "" && existsSync(path));
  const forProxy = ofProxy ?? node;
  if (forProxy !== undefined) found.push({ name: "proxy", kubeconfig: forProxy });
  const administrator = [
    admin ?? "",
    site.mode === "up" ? join(site.stateDir, "control-plane", "admin.conf") : "",
  ].find((path) => path !== "" && (path === admin || existsSync(path)));
  if (administrator !== undefined) {
    found.push({ name: "administrator", kubeconfig: administrator });
  }
  return found;
}

function parseDns(text: string | undefined): Site["dns"] {
  if (text === undefined) return undefined;
  try {
    const value = JSON.parse(text) as {
      addresses?: unknown;
      domain?: unknown;
      resolvConf?: unknown;
    };
    return {
      addresses: Array.isArray(value.addresses) ? value.addresses.map(String) : [],
      domain: optionalString(value.domain) ?? "cluster.local",
      resolvConf: optionalString(value.resolvConf) ?? "/etc/resolv.conf",
    };
  } catch {
    return undefined;
  }
}

/** Networks that the agent says, then those that its command line says, then those that `up` makes. */
function networksOf(
  facts: AgentFacts | undefined,
  cmdline: string,
): Pick<Site, "clusterCIDRs" | "serviceCIDRs"> {
  const services = (facts?.families ?? []).flatMap(({ serviceCIDRs }) => serviceCIDRs);
  const pods = (facts?.families ?? []).flatMap(({ local }) =>
    local.kind === "cidrs" ? local.cidrs : [],
  );
  const said = (flag: string): readonly string[] =>
    (flagOf(cmdline, flag) ?? "").split(",").filter(isCidr);
  const first = (...lists: readonly (readonly string[])[]): readonly string[] =>
    lists.find(({ length }) => length > 0) ?? [];
  return {
    clusterCIDRs: first(said("cluster-cidr"), pods, upNetworks.clusterCIDRs),
    serviceCIDRs: first(services, said("service-cidr"), upNetworks.serviceCIDRs),
  };
}

/** Finds out where the agent of this machine works. Never fails: what is not there is part of the answer. */
export async function findSite(flags: SiteFlags, signal: AbortSignal): Promise<Site> {
  const holder = await machineLockHolder().catch(() => undefined);
  const { mode, directory } = chooseDirectory(flags, holder, existsSync);
  const pid = holder?.directory === directory ? holder.pid : undefined;
  const rootDir = mode === "up" ? join(directory, "kubelet") : directory;
  const cmdline =
    pid === undefined ? "" : ((await readIfThere(`/proc/${pid}/cmdline`).catch(() => "")) ?? "");
  const places = await readPlaces(rootDir).catch(() => undefined);
  const asked = await askAgent(flags.agent, signal);
  // Another agent's answer says nothing about this one.
  const facts = pid === undefined ? undefined : asked.facts;
  const settings = await readIfThere(join(rootDir, "dns", "settings.json")).catch(() => undefined);
  return {
    mode,
    pid,
    used: existsSync(join(rootDir, "places.json")),
    stateDir: directory,
    rootDir,
    nodeName: facts?.nodeName ?? places?.nodeName ?? hostname().toLowerCase(),
    dockerSocket: flags.dockerSocket ?? places?.dockerSocket ?? agentDefaults.dockerSocket,
    metricsAddress: flags.agent,
    identities: identitiesOf(
      { mode, stateDir: directory, rootDir, cmdline },
      facts?.kubeconfig ?? "",
      flags.kubeconfig,
    ),
    facts,
    factsMissing: "why" in asked ? asked.why : "no agent runs on this machine",
    bridge: "remora0",
    ...networksOf(facts, cmdline),
    dns: parseDns(settings),
  };
}
