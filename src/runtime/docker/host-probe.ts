import { access, readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { asRecord, isRecord, type JsonRecord, optionalString } from "../../lib/guard.ts";
import type { RuntimeFeature, RuntimeInfo } from "../types.ts";
import { allCapabilities, boundingSet } from "./capabilities.ts";
import type { DockerClient, EngineVersion } from "./client.ts";
import type { HostFacts } from "./container-config.ts";
import { imageMountsSince } from "./mounts.ts";

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
  /** See {@link HostFacts.maskedPaths}. */
  readonly maskedPaths?: readonly string[];
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Counters of how often each processor was too hot: a hint at what others of this machine do. */
async function thermalThrottlePaths(): Promise<readonly string[]> {
  const root = "/sys/devices/system/cpu";
  const paths: string[] = [];
  for (const name of await readdir(root).catch(() => [])) {
    const path = join(root, name, "thermal_throttle");
    if (/^cpu\d+$/.test(name) && (await isThere(path))) paths.push(path);
  }
  return paths;
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
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
    maskedPaths: await thermalThrottlePaths(),
  };
}

/** Asks the engine and the host what they can do. */
export async function probeHost(client: DockerClient, signal: AbortSignal): Promise<ProbedHost> {
  const version = await client.version(signal);
  const [info, local] = await Promise.all([
    client.call({ op: "info", method: "GET", path: "/info" }, signal),
    probeLocal(client.socketPath),
  ]);
  const { facts, info: described } = describeHost(version, info, local);
  const { imageRootDir, ...rest } = described;
  const isHere = imageRootDir !== undefined && (await isThere(imageRootDir));
  return { facts, info: isHere ? described : rest };
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
  const rro = recursiveReadOnlyHandlers(version, info, runtimes);
  const cgroupVersion = info["CgroupVersion"] === "2" ? 2 : 1;
  const rootDir = optionalString(info["DockerRootDir"]) ?? "/var/lib/docker";
  const imageRootDir = containerdRootDir(info, rootDir);
  return {
    info: {
      name: version.name,
      version: version.version,
      apiVersion: `1.${version.api}`,
      cgroupDriver: info["CgroupDriver"] === "systemd" ? "systemd" : "cgroupfs",
      cgroupVersion,
      rootDir,
      ...(imageRootDir === undefined ? {} : { imageRootDir }),
      handlers: ["", ...handlers],
      features: featuresOf(version, info, { local, bounding }, rro),
      recursiveReadOnlyHandlers: rro,
      warnings: warningsOf(version, info, bounding),
    },
    facts: {
      api: version.api,
      cgroupVersion,
      boundingCapabilities: bounding,
      appArmor: local.appArmor,
      maskedPaths: local.maskedPaths ?? [],
      handlers,
    },
  };
}

/**
 * Where containerd keeps images for an engine that leaves them to it. The engine tells only how containerd is reached: one
 * that it starts itself has its state below the engine's, any other is taken to be where all distributions have it.
 */
function containerdRootDir(info: JsonRecord, rootDir: string): string | undefined {
  const status = info["DriverStatus"];
  const byContainerd =
    Array.isArray(status) &&
    status.some(
      (pair) => Array.isArray(pair) && String(pair[1]).startsWith("io.containerd.snapshotter."),
    );
  if (!byContainerd) return undefined;
  const containerd = isRecord(info["Containerd"]) ? info["Containerd"] : {};
  const address = optionalString(containerd["Address"]) ?? "";
  const own = address.endsWith("/docker/containerd/containerd.sock");
  return own ? join(rootDir, "containerd/daemon") : "/var/lib/containerd";
}

function runsRunc(info: JsonRecord): boolean {
  const name = optionalString(info["DefaultRuntime"]) ?? "runc";
  return name === "runc" || name === "io.containerd.runc.v2";
}

/** Handlers whose runtime says that it knows the mount option `rro` (OCI runtime features); the default one by both its names. */
function recursiveReadOnlyHandlers(
  version: EngineVersion,
  info: JsonRecord,
  runtimes: JsonRecord,
): ReadonlySet<string> {
  if (version.api < 44) return new Set();
  const names = Object.keys(runtimes).filter((name) => {
    const runtime = runtimes[name];
    const status = isRecord(runtime) && isRecord(runtime["status"]) ? runtime["status"] : {};
    return /"rro"/.test(optionalString(status["org.opencontainers.runtime-spec.features"]) ?? "");
  });
  const byDefault = names.includes(optionalString(info["DefaultRuntime"]) ?? "runc");
  return new Set([...names, ...(byDefault ? [""] : [])]);
}

function featuresOf(
  version: EngineVersion,
  info: JsonRecord,
  host: { readonly local: LocalFacts; readonly bounding: ReadonlySet<string> },
  rro: ReadonlySet<string>,
): ReadonlySet<RuntimeFeature> {
  const features = new Set<RuntimeFeature>(["stopSignal", "supplementalGroupsStrict"]);
  if (version.api >= imageMountsSince) features.add("imageMounts").add("imageVolumes");
  if (info["Driver"] === "overlay2") features.add("imageVolumes");
  if (rro.has("")) features.add("recursiveReadOnlyMounts");
  if (host.bounding.has("SYS_RESOURCE")) features.add("negativeOomScoreAdj").add("privileged");
  if (host.local.appArmor) features.add("appArmor");
  if (securityNames(info).some((name) => name.startsWith("name=selinux"))) features.add("seLinux");
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
