import { readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";

import type { ConntrackSettings } from "../config/types.ts";
import { errorCode, errorMessage } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

/** What the settings of connection tracking depend on, and where they are. */
export interface ConntrackIO {
  /** Processors of this machine, whatever this process may use of them. */
  readonly cores: number;
  /** Undefined when there is no such file. */
  read(path: string): Promise<string | undefined>;
  write(path: string, text: string): Promise<void>;
}

/** This machine. */
export const systemConntrackIO: ConntrackIO = {
  cores: cpus().length,
  read: async (path) => {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
  },
  write: async (path, text) => {
    await writeFile(path, text);
  },
};

const sysctls = "/proc/sys/net/netfilter";
const hashSizePath = "/sys/module/nf_conntrack/parameters/hashsize";
const beLiberalPath = `${sysctls}/nf_conntrack_tcp_be_liberal`;
/** Upstream's bound for machines with many processors: a tracked connection takes about 300 bytes. */
const mostConnections = 1_048_576;
/** Connections for each slot of the hash table. */
const perSlot = 4;

/** The number of connections that the kernel shall track; undefined: whatever it does is right (`maxPerCore: 0`). */
export function conntrackMax(
  { maxPerCore, min }: Pick<ConntrackSettings, "maxPerCore" | "min">,
  cores: number,
): number | undefined {
  if (maxPerCore <= 0) return undefined;
  const scaled = maxPerCore * cores;
  return scaled > mostConnections ? mostConnections : Math.max(scaled, min);
}

/** A kernel setting that is wanted. */
interface Wanted {
  readonly path: string;
  readonly value: number;
  /** The field of KubeProxyConfiguration. */
  readonly field: string;
  /** More is as good. */
  readonly atLeast: boolean;
}

function seconds(ms: number): number {
  return Math.max(1, Math.trunc(ms / 1000));
}

function wantedSysctls(settings: ConntrackSettings, cores: number): readonly Wanted[] {
  const max = conntrackMax(settings, cores);
  const timeouts = [
    ["tcpEstablishedTimeout", "tcp_timeout_established", settings.tcpEstablishedTimeoutMs],
    ["tcpCloseWaitTimeout", "tcp_timeout_close_wait", settings.tcpCloseWaitTimeoutMs],
    ["udpTimeout", "udp_timeout", settings.udpTimeoutMs],
    ["udpStreamTimeout", "udp_timeout_stream", settings.udpStreamTimeoutMs],
  ] as const;
  return [
    ...(max === undefined
      ? []
      : [
          {
            path: `${sysctls}/nf_conntrack_max`,
            value: max,
            field: "maxPerCore",
            atLeast: settings.onlyRaiseMax === true,
          },
        ]),
    ...timeouts
      .filter(([, , ms]) => ms > 0)
      .map(([field, name, ms]) => ({
        path: `${sysctls}/nf_conntrack_${name}`,
        value: seconds(ms),
        field,
        atLeast: false,
      })),
    ...(settings.tcpBeLiberal
      ? [{ path: beLiberalPath, value: 1, field: "tcpBeLiberal", atLeast: false }]
      : []),
  ];
}

/** The hash table only grows, as upstream does it: whoever made it larger had a reason. */
function hashSize(max: number): Wanted {
  const value = Math.trunc(max / perSlot);
  return { path: hashSizePath, value, field: "maxPerCore", atLeast: true };
}

/** As sysctl(8) and people name it. */
function nameOf(path: string): string {
  return path.startsWith("/proc/sys/")
    ? path.slice("/proc/sys/".length).replaceAll("/", ".")
    : path;
}

/** @returns What is wrong, when it is not as wanted and cannot be made so. */
async function ensure(
  { path, value, field, atLeast }: Wanted,
  io: ConntrackIO,
  logger: Logger,
): Promise<string | undefined> {
  let current: string | undefined;
  try {
    current = (await io.read(path))?.trim();
    if (current === String(value) || (atLeast && Number(current) > value)) return undefined;
    if (current === undefined) {
      return `${nameOf(path)} is not there (conntrack.${field}): the kernel does not track connections yet`;
    }
    await io.write(path, String(value));
    logger.log("info", "connection tracking set", { setting: nameOf(path), from: current, value });
    return undefined;
  } catch (error) {
    const what = `${nameOf(path)} is ${current ?? "not readable"} and cannot be set to ${value}`;
    const none = field === "maxPerCore" ? "0" : "0s";
    const orNot =
      field === "tcpBeLiberal" ? "" : `, or leave it alone with conntrack.${field}: ${none}`;
    return `${what} (${errorCode(error) ?? errorMessage(error)}): set it on the host${orNot}`;
  }
}

/**
 * Sets the kernel's connection tracking as KubeProxyConfiguration `conntrack` says. Writes only what differs. What may
 * not be written (in a container, in a network namespace of its own) is logged and is no reason to end: Services work
 * without it.
 *
 * @returns One sentence for each setting that is not as wanted, for an event.
 */
export async function applyConntrackSettings(
  settings: ConntrackSettings,
  io: ConntrackIO,
  logger: Logger,
): Promise<readonly string[]> {
  const troubles: string[] = [];
  for (const wanted of wantedSysctls(settings, io.cores)) {
    const trouble = await ensure(wanted, io, logger);
    if (trouble !== undefined) troubles.push(trouble);
    else if (wanted.field === "maxPerCore") {
      const slots = await ensure(hashSize(wanted.value), io, logger);
      if (slots !== undefined) troubles.push(slots);
    }
  }
  for (const trouble of troubles) {
    logger.log("warn", "connection tracking is not as configured", { trouble });
  }
  return troubles;
}

/** Whether the kernel lets packets pass that fit no window: then nothing needs to be dropped as INVALID. */
export async function conntrackIsLiberal(io: ConntrackIO): Promise<boolean> {
  try {
    const value = (await io.read(beLiberalPath))?.trim() ?? "0";
    return value !== "0";
  } catch {
    return false;
  }
}
