import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { asRecord, isRecord, type JsonRecord, optionalString } from "../../lib/guard.ts";
import type { RuntimeFeature, RuntimeInfo } from "../types.ts";
import { allCapabilities, boundingSet } from "./capabilities.ts";
import type { DockerClient, EngineVersion } from "./client.ts";
import type { HostFacts } from "./container-config.ts";

/** What connect learnt: for callers, and for the translation of specs. */
export interface ProbedHost {
  readonly info: RuntimeInfo;
  readonly facts: HostFacts;
}

/** What is read outside the engine's API. */
export interface LocalFacts {
  /** Undefined when it cannot be read (a remote engine, no procfs). */
  readonly boundingCapabilities: ReadonlySet<string> | undefined;
  readonly appArmor: boolean;
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return undefined;
  }
}

/** The engine's own process by its pid file, else this one: both are started by the same init as a rule. */
async function probeLocal(socketPath: string): Promise<LocalFacts> {
  let status: string | undefined;
  const pid = (await readText(join(dirname(socketPath), "docker.pid")))?.trim();
  if (pid !== undefined && /^\d+$/.test(pid)) {
    const comm = await readText(`/proc/${pid}/comm`);
    if (comm?.startsWith("dockerd") === true) status = await readText(`/proc/${pid}/status`);
  }
  status ??= await readText("/proc/self/status");
  const appArmor = await readText("/sys/module/apparmor/parameters/enabled");
  return {
    boundingCapabilities: status === undefined ? undefined : boundingSet(status),
    appArmor: appArmor?.startsWith("Y") === true,
  };
}

/** Asks the engine and the host what they can do. */
export async function probeHost(client: DockerClient, signal: AbortSignal): Promise<ProbedHost> {
  const version = await client.version(signal);
  const [info, local] = await Promise.all([
    client.call({ op: "info", method: "GET", path: "/info" }, signal),
    probeLocal(client.socketPath),
  ]);
  return describeHost(version, info, local);
}

/** PURE part of {@link probeHost}: features and warnings from the engine's `GET /info`. */
export function describeHost(
  version: EngineVersion,
  response: unknown,
  local: LocalFacts,
): ProbedHost {
  const info = asRecord(response, "info");
  const runtimes: JsonRecord = isRecord(info["Runtimes"]) ? info["Runtimes"] : {};
  const handlers = Object.keys(runtimes);
  const bounding = runsRunc(info)
    ? (local.boundingCapabilities ?? allCapabilities)
    : // Another default runtime decides itself what it can give; only runc's rules are known.
      allCapabilities;
  const cgroupVersion = info["CgroupVersion"] === "2" ? 2 : 1;
  return {
    info: {
      name: version.name,
      version: version.version,
      apiVersion: `1.${version.api}`,
      cgroupDriver: info["CgroupDriver"] === "systemd" ? "systemd" : "cgroupfs",
      cgroupVersion,
      rootDir: optionalString(info["DockerRootDir"]) ?? "/var/lib/docker",
      handlers: ["", ...handlers],
      features: featuresOf(version, runtimes, bounding),
      warnings: warningsOf(version, info, bounding),
    },
    facts: {
      api: version.api,
      cgroupVersion,
      boundingCapabilities: bounding,
      appArmor: local.appArmor,
      handlers,
    },
  };
}

function runsRunc(info: JsonRecord): boolean {
  const name = optionalString(info["DefaultRuntime"]) ?? "runc";
  return name === "runc" || name === "io.containerd.runc.v2";
}

function featuresOf(
  version: EngineVersion,
  runtimes: JsonRecord,
  bounding: ReadonlySet<string>,
): ReadonlySet<RuntimeFeature> {
  const features = new Set<RuntimeFeature>(["stopSignal", "supplementalGroupsStrict"]);
  if (version.api >= 48) features.add("imageVolumes");
  const rro = Object.values(runtimes).some((runtime) => JSON.stringify(runtime).includes("rro"));
  if (version.api >= 44 && rro) features.add("recursiveReadOnlyMounts");
  if (bounding.has("SYS_RESOURCE")) features.add("negativeOomScoreAdj").add("privileged");
  return features;
}

function securityNames(info: JsonRecord): readonly string[] {
  const options = info["SecurityOptions"];
  return Array.isArray(options) ? options.map(String) : [];
}

function warningsOf(
  version: EngineVersion,
  info: JsonRecord,
  bounding: ReadonlySet<string>,
): string[] {
  const warnings: string[] = [];
  if (!bounding.has("SYS_RESOURCE")) {
    warnings.push(
      "The container engine lacks CAP_SYS_RESOURCE: negative OOM score adjustments are raised to 0 and privileged containers are refused",
    );
  }
  if (info["LiveRestoreEnabled"] !== true) {
    warnings.push(
      'Docker stops all containers when it restarts; set "live-restore": true in /etc/docker/daemon.json to keep them running',
    );
  }
  const seccomp = securityNames(info).find((option) => option.startsWith("name=seccomp"));
  if (seccomp === undefined) {
    warnings.push("The container engine has no seccomp: seccomp profiles are not applied");
  } else if (/profile=unconfined/.test(seccomp) && version.api < 42) {
    warnings.push(
      "The engine's default seccomp profile is unconfined: RuntimeDefault gives no protection; remove seccomp-profile from /etc/docker/daemon.json",
    );
  }
  const own = info["Warnings"];
  if (Array.isArray(own)) {
    for (const warning of own)
      warnings.push(`Docker: ${String(warning).replace(/^WARNING: /, "")}`);
  }
  return warnings;
}
