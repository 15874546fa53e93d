import { RuntimeError } from "../errors.ts";
import type {
  ContainerConfig,
  LinuxSecurityContext,
  LinuxUser,
  PodSandboxConfig,
  SandboxRecord,
  SecurityProfile,
} from "../types.ts";
import { allCapabilities } from "./capabilities.ts";
import { limitFields } from "./container-limits.ts";
import { label, ownerLabels, type Owner, podLabels } from "./labels.ts";
import { checkMounts, mountEntries } from "./mounts.ts";

/** What the translation needs to know of engine and host. */
export interface HostFacts {
  /** Minor of API 1.x in use. */
  readonly api: number;
  readonly cgroupVersion: 1 | 2;
  /** Names without `CAP_` that the engine can give to a container. */
  readonly boundingCapabilities: ReadonlySet<string>;
  readonly appArmor: boolean;
  /** Beside what is masked everywhere: what this machine's processors tell about its load. */
  readonly maskedPaths?: readonly string[];
  /** Handlers of `info.Runtimes`. */
  readonly handlers: readonly string[];
}

/** Body of `POST /containers/create`. */
export type CreateBody = Readonly<Record<string, unknown>>;

/** A user as the engine takes it, with groups; see image-accounts.ts for where it comes from. */
export interface ProcessUser {
  /** `uid`, `uid:gid`, or empty for the image's own. */
  readonly user: string;
  readonly groups: readonly string[];
  /** What comes of it, where that is known. */
  readonly identity?: LinuxUser | undefined;
}

// The engine's own lists differ by version, so they are always sent.
const maskedPaths = [
  "/proc/asound",
  "/proc/acpi",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
];
const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/** Detach keys that nobody types: ctrl-p ctrl-q would otherwise end a session. */
export const detachKeys = "ctrl-^,ctrl-^,ctrl-^,ctrl-^";

function checkHandler(handler: string, host: HostFacts): void {
  if (handler === "" || handler === "docker" || host.handlers.includes(handler)) return;
  throw new RuntimeError(
    "InvalidSpec",
    `no runtime for "${handler}" is configured; the engine has: ${host.handlers.join(", ")}`,
  );
}

function runtimeOf(handler: string): { readonly Runtime?: string } {
  return handler === "" || handler === "docker" ? {} : { Runtime: handler };
}

/** cgroup namespaces: kubelets on cgroup v1 hosts show the host's, on v2 a private one. */
function cgroupnsMode(host: HostFacts, privileged: boolean): "host" | "private" {
  return host.cgroupVersion === 2 && !privileged ? "private" : "host";
}

/** A negative adjustment needs CAP_SYS_RESOURCE; without it the start would fail. */
function oomScoreAdj(wanted: number, host: HostFacts): number {
  return host.boundingCapabilities.has("SYS_RESOURCE") ? wanted : Math.max(0, wanted);
}

/**
 * The sandbox: a network namespace that libnetwork never hears of (NetworkDisabled), a shareable IPC namespace, and a
 * pause process with no rights at all.
 *
 * @throws {RuntimeError} `InvalidSpec` when the runtime handler is unknown.
 */
export function sandboxCreateBody(
  config: PodSandboxConfig,
  options: { readonly owner: Owner; readonly pauseImage: string; readonly host: HostFacts },
): CreateBody {
  const { owner, host } = options;
  const { metadata } = config;
  checkHandler(config.runtimeHandler, host);
  const ownNetwork = config.network === "pod";
  return {
    Image: options.pauseImage,
    ...(ownNetwork ? { Hostname: config.hostname, NetworkDisabled: true } : {}),
    OpenStdin: false,
    Tty: false,
    Healthcheck: { Test: ["NONE"] },
    Labels: {
      ...config.labels,
      ...podLabels(metadata, "POD", "podsandbox"),
      ...ownerLabels(owner),
      [label.attempt]: String(metadata.attempt),
      [label.record]: config.record,
      [label.ipc]: config.ipc,
      ...(config.cgroupParent === undefined ? {} : { [label.cgroupParent]: config.cgroupParent }),
      ...(config.runtimeHandler === "" ? {} : { [label.runtimeHandler]: config.runtimeHandler }),
    },
    HostConfig: {
      NetworkMode: ownNetwork ? "none" : "host",
      ...(ownNetwork ? {} : { UTSMode: "host" }),
      IpcMode: config.ipc === "node" ? "host" : "shareable",
      ...(config.pid === "node" ? { PidMode: "host" } : {}),
      CgroupnsMode: cgroupnsMode(host, false),
      ...(config.shmBytes === undefined || config.ipc === "node"
        ? {}
        : { ShmSize: config.shmBytes }),
      ...(Object.keys(config.sysctls).length === 0 ? {} : { Sysctls: config.sysctls }),
      ...(config.cgroupParent === undefined ? {} : { CgroupParent: config.cgroupParent }),
      ...runtimeOf(config.runtimeHandler),
      ReadonlyRootfs: true,
      CapDrop: ["ALL"],
      // No filter to compile: a third of the sandbox's start time, for a program that makes four system calls.
      SecurityOpt: ["no-new-privileges", "seccomp=unconfined"],
      MaskedPaths: maskedPaths,
      ReadonlyPaths: readonlyPaths,
      CpuShares: 2,
      OomScoreAdj: oomScoreAdj(-998, host),
      LogConfig: { Type: "none" },
      RestartPolicy: { Name: "no" },
      Init: false,
    },
  };
}

function seccompOption(profile: SecurityProfile, host: HostFacts): string[] {
  switch (profile.kind) {
    case "unconfined":
      return ["seccomp=unconfined"];
    case "localhost":
      return [`seccomp=${profile.profile}`];
    case "runtimeDefault":
      // Before 1.42 there is no name for the built-in profile; the daemon's default has to do.
      return host.api >= 42 ? ["seccomp=builtin"] : [];
  }
}

function appArmorOption(profile: SecurityProfile | undefined, host: HostFacts): string[] {
  if (profile === undefined) return [];
  switch (profile.kind) {
    case "runtimeDefault":
      return [];
    case "unconfined":
      return host.appArmor ? ["apparmor=unconfined"] : [];
    case "localhost":
      // The engine would start the container unconfined and say nothing.
      if (!host.appArmor) {
        throw new RuntimeError(
          "Unsupported",
          "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        );
      }
      return [`apparmor=${profile.profile}`];
  }
}

function securityOptions(security: LinuxSecurityContext, host: HostFacts): string[] {
  const options: string[] = [];
  if (security.noNewPrivileges) options.push("no-new-privileges");
  if (security.privileged) return [...options, "label=disable", ...appArmorUnconfined(host)];
  options.push(...seccompOption(security.seccomp, host));
  options.push(...appArmorOption(security.appArmor, host));
  for (const key of ["user", "role", "type", "level"] as const) {
    const value = security.seLinux?.[key];
    if (value !== undefined && value !== "") options.push(`label=${key}:${value}`);
  }
  return options;
}

function appArmorUnconfined(host: HostFacts): string[] {
  return host.appArmor ? ["apparmor=unconfined"] : [];
}

function capabilityName(name: string): string {
  return name.toUpperCase().replace(/^CAP_/, "");
}

/** Engines before 1.42 refuse these by name. */
const newCapabilities: ReadonlySet<string> = new Set(["PERFMON", "BPF", "CHECKPOINT_RESTORE"]);

/** "All" can be no more than the engine itself has: asking for one too many fails the start. */
function everyCapability({ api, boundingCapabilities }: HostFacts): readonly string[] {
  const lacks = [...allCapabilities].filter((name) => !boundingCapabilities.has(name));
  if (lacks.every((name) => newCapabilities.has(name))) return ["ALL"];
  return [...boundingCapabilities].filter((name) => api >= 42 || !newCapabilities.has(name));
}

function capabilities(
  security: LinuxSecurityContext,
  host: HostFacts,
): { readonly CapAdd: readonly string[]; readonly CapDrop: readonly string[] } {
  const drop = security.dropCapabilities.map(capabilityName);
  const add: string[] = [];
  const dropsAll = drop.includes("ALL");
  for (const wanted of security.addCapabilities.map(capabilityName)) {
    if (wanted === "ALL") {
      // Dropping all wins: what is left are the names that were added one by one.
      if (dropsAll) continue;
      add.push(...everyCapability(host));
      continue;
    }
    if (!host.boundingCapabilities.has(wanted)) {
      throw new RuntimeError(
        "Unsupported",
        `capability ${wanted} cannot be added: the container engine on this host does not have it`,
      );
    }
    add.push(wanted);
  }
  // What is dropped by name stays dropped, also from ALL; the engine itself would let the addition win.
  return { CapAdd: [...new Set(add)].filter((name) => !drop.includes(name)), CapDrop: drop };
}

function checkPrivileged(security: LinuxSecurityContext, host: HostFacts): void {
  if (!security.privileged || host.boundingCapabilities.has("SYS_RESOURCE")) return;
  throw new RuntimeError(
    "Unsupported",
    "privileged containers cannot run on this host: the container engine lacks CAP_SYS_RESOURCE",
  );
}

function resources(config: ContainerConfig, host: HostFacts): Readonly<Record<string, unknown>> {
  const { resources } = config;
  return {
    ...limitFields(resources, resources.cpuPeriodMicros),
    ...(resources.pidsLimit > 0 ? { PidsLimit: resources.pidsLimit } : {}),
    OomScoreAdj: oomScoreAdj(resources.oomScoreAdj, host),
  };
}

function pidMode(config: ContainerConfig, sandbox: SandboxRecord): { readonly PidMode?: string } {
  if (config.targetContainerID !== undefined) {
    return { PidMode: `container:${config.targetContainerID}` };
  }
  switch (config.pid) {
    case "node":
      return { PidMode: "host" };
    case "pod":
      return { PidMode: `container:${sandbox.id}` };
    case "container":
      return {};
  }
}

function ipcMode(sandbox: SandboxRecord): string {
  return sandbox.labels[label.ipc] === "node" ? "host" : `container:${sandbox.id}`;
}

function checkEnv(config: ContainerConfig): void {
  for (const { name } of config.env) {
    if (name === "" || name.includes("=")) {
      throw new RuntimeError("InvalidSpec", `environment variable name "${name}" is not valid`);
    }
  }
}

/**
 * A container of a pod: joined to the sandbox's network and IPC. Keys that would repeat an engine default that changed
 * between versions are always sent; keys that are a 400 with a joined network (Hostname, DNS, ports) never are.
 *
 * @throws {RuntimeError} `InvalidSpec` or `Unsupported`, for good.
 */
export function containerCreateBody(
  config: ContainerConfig,
  options: {
    readonly owner: Owner;
    readonly sandbox: SandboxRecord;
    readonly host: HostFacts;
    readonly user: ProcessUser;
  },
): CreateBody {
  const { owner, sandbox, host, user } = options;
  const { security } = config;
  checkEnv(config);
  checkMounts(config.mounts, host);
  checkPrivileged(security, host);
  const handler = sandbox.labels[label.runtimeHandler] ?? "";
  const cgroupParent = sandbox.labels[label.cgroupParent];
  const masked = !security.privileged && !security.unmaskedProc;
  const identity = user.identity === undefined ? "" : JSON.stringify(user.identity);
  return {
    Image: config.imageID,
    ...(config.command === undefined || config.command.length === 0
      ? {}
      : { Entrypoint: config.command }),
    ...(config.args === undefined || config.args.length === 0 ? {} : { Cmd: config.args }),
    Env: config.env.map(({ name, value }) => `${name}=${value}`),
    ...(config.workingDir === undefined ? {} : { WorkingDir: config.workingDir }),
    ...(user.user === "" ? {} : { User: user.user }),
    OpenStdin: config.stdin,
    StdinOnce: config.stdin && config.stdinOnce,
    Tty: config.tty,
    ...(config.stopSignal === undefined ? {} : { StopSignal: config.stopSignal }),
    // Only a shutdown of the daemon reads it; ours pass the grace themselves.
    StopTimeout: Math.max(0, Math.ceil(config.terminationGracePeriodSeconds)),
    Healthcheck: { Test: ["NONE"] },
    Labels: {
      ...config.labels,
      ...podLabels(sandbox.metadata, config.name, "container"),
      ...ownerLabels(owner),
      [label.sandboxID]: sandbox.id,
      [label.logPath]: config.logPath,
      [label.attempt]: String(config.attempt),
      [label.specHash]: config.specHash,
      [label.record]: config.record,
      ...(identity === "" ? {} : { [label.user]: identity }),
    },
    HostConfig: {
      NetworkMode: `container:${sandbox.id}`,
      ...(sandbox.network === "node" ? { UTSMode: "host" } : {}),
      IpcMode: ipcMode(sandbox),
      ...pidMode(config, sandbox),
      CgroupnsMode: cgroupnsMode(host, security.privileged),
      ...(cgroupParent === undefined ? {} : { CgroupParent: cgroupParent }),
      ...runtimeOf(handler),
      ...resources(config, host),
      Privileged: security.privileged,
      ReadonlyRootfs: security.readOnlyRootFilesystem,
      ...(security.privileged ? {} : capabilities(security, host)),
      SecurityOpt: securityOptions(security, host),
      MaskedPaths: masked ? [...maskedPaths, ...(host.maskedPaths ?? [])] : [],
      ReadonlyPaths: masked ? readonlyPaths : [],
      ...(user.groups.length === 0 ? {} : { GroupAdd: user.groups }),
      Mounts: mountEntries(config.mounts, host),
      Devices: config.devices.map((device) => ({
        PathOnHost: device.hostPath,
        PathInContainer: device.containerPath,
        CgroupPermissions: device.permissions,
      })),
      LogConfig: {
        Type: "json-file",
        Config: {
          "max-size": String(config.logMaxBytes),
          // With one file Docker truncates it under its readers.
          "max-file": String(Math.max(2, config.logMaxFiles)),
        },
      },
      RestartPolicy: { Name: "no" },
      AutoRemove: false,
      Init: false,
    },
  };
}
