import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { arch, availableParallelism, hostname, networkInterfaces, release } from "node:os";

import type { Clock } from "../../lib/clock.ts";
import { type IPFamily, ipFamily } from "../../lib/cidr.ts";
import type { HostAddress } from "./choose-node-ips.ts";
import type { MachineCapacity } from "./allocatable.ts";
import type { SignalReading, SignalReadings } from "./pressure.ts";

/** What of the machine does not change while it runs. */
export interface HostIdentity {
  readonly hostname: string;
  readonly machineID: string;
  readonly systemUUID: string;
  readonly bootID: string;
  readonly kernelVersion: string;
  readonly osImage: string;
  /** Go's name: `amd64`, `arm64`. */
  readonly architecture: string;
  readonly swapBytes: number;
}

/** What the node half asks of the machine. Faked in tests. */
export interface Host {
  identity(): HostIdentity;
  capacity(rootDir: string, maxPods: number): Promise<MachineCapacity>;
  /** Readings for {@link pressureNow}; `imageDir` is the runtime's directory when known. */
  signals(rootDir: string, imageDir: string | undefined): Promise<SignalReadings>;
  /** Addresses of interfaces that run: one whose cable is out is left out. */
  addresses(): readonly HostAddress[];
  /** Whether the address is this machine's, on an interface that runs or not. */
  hasAddress?(address: string): Promise<boolean>;
  /** Source addresses that the default routes select. */
  routeSources(): Promise<Partial<Record<IPFamily, string>>>;
}

/** First line of a small procfs or sysfs file; undefined when it cannot be read. */
function readLine(path: string): string | undefined {
  try {
    const text = readFileSync(path, "utf8").split("\n")[0]?.trim();
    return text === "" ? undefined : text;
  } catch {
    return undefined;
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** Value of `name` in /proc/meminfo, bytes. */
export function meminfoBytes(meminfo: string, name: string): number {
  const start = `${name}:`;
  const line = meminfo.split("\n").find((candidate) => candidate.startsWith(start));
  return Number(line?.slice(start.length).trim().split(/\s+/)[0] ?? 0) * 1024;
}

/** PRETTY_NAME of an os-release file. */
export function prettyName(osRelease: string): string {
  const match = /^PRETTY_NAME=(?:"([^"]*)"|'([^']*)'|(.*))$/m.exec(osRelease);
  return match?.[1] ?? match?.[2] ?? match?.[3] ?? "Linux";
}

const goArchitectures: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386" };

/** Go's name of Node's `process.arch`. */
export function goArchitecture(arch: string): string {
  return goArchitectures[arch] ?? arch;
}

function readIdentity(): HostIdentity {
  const machineID = readLine("/etc/machine-id") ?? readLine("/var/lib/dbus/machine-id") ?? "";
  return {
    hostname: hostname(),
    machineID,
    systemUUID: readLine("/sys/class/dmi/id/product_uuid") ?? machineID,
    bootID: readLine("/proc/sys/kernel/random/boot_id") ?? "",
    kernelVersion: release(),
    osImage: prettyName(readText("/etc/os-release") || readText("/usr/lib/os-release")),
    architecture: goArchitecture(arch()),
    swapBytes: meminfoBytes(readText("/proc/meminfo"), "SwapTotal"),
  };
}

function readHugePages(): Map<number, number> {
  const pages = new Map<number, number>();
  const root = "/sys/kernel/mm/hugepages";
  let names: string[];
  try {
    names = readdirSync(root).toSorted();
  } catch {
    return pages;
  }
  for (const name of names) {
    const kilobytes = /^hugepages-(\d+)kB$/.exec(name)?.[1];
    if (kilobytes === undefined) continue;
    const pageBytes = Number(kilobytes) * 1024;
    pages.set(pageBytes, pageBytes * Number(readLine(`${root}/${name}/nr_hugepages`) ?? 0));
  }
  return pages;
}

async function diskSignals(directory: string, prefix: string): Promise<SignalReadings> {
  const { bsize, blocks, bavail, files, ffree } = await statfs(directory);
  const space: SignalReading = { available: bsize * bavail, capacity: bsize * blocks };
  return {
    [`${prefix}.available`]: space,
    // Filesystems without fixed inode tables (btrfs) report none at all.
    ...(files === 0 ? {} : { [`${prefix}.inodesFree`]: { available: ffree, capacity: files } }),
  };
}

function memorySignal(): SignalReading {
  const meminfo = readText("/proc/meminfo");
  // As upstream counts: what is not in the working set, so active file pages are not available.
  const available = meminfoBytes(meminfo, "MemFree") + meminfoBytes(meminfo, "Inactive(file)");
  return { available, capacity: meminfoBytes(meminfo, "MemTotal") };
}

function pidSignal(): SignalReading | undefined {
  const tasks = Number(/\/(\d+) /.exec(readText("/proc/loadavg"))?.[1]);
  const pidMax = Number(readLine("/proc/sys/kernel/pid_max"));
  const threadsMax = Number(readLine("/proc/sys/kernel/threads-max"));
  const capacity = Math.min(pidMax, threadsMax);
  return Number.isFinite(tasks) && Number.isFinite(capacity)
    ? { available: capacity - tasks, capacity }
    : undefined;
}

/** A UDP socket that is connected sends nothing, but the kernel has chosen its source address. */
async function routeSource(type: "udp4" | "udp6", target: string): Promise<string | undefined> {
  const socket = createSocket(type);
  try {
    socket.connect(53, target);
    await once(socket, "connect");
    const { address } = socket.address();
    return ipFamily(address) === undefined ? undefined : address;
  } catch {
    // No default route of this family.
    return undefined;
  } finally {
    socket.close();
  }
}

/** Only an own address can be bound. */
async function canBind(address: string): Promise<boolean> {
  const socket = createSocket(ipFamily(address) === "IPv6" ? "udp6" : "udp4");
  try {
    socket.bind(0, address);
    await once(socket, "listening");
    return true;
  } catch {
    return false;
  } finally {
    socket.close();
  }
}

type AddressFlags = Pick<HostAddress, "address" | "temporary" | "doubtful">;

/**
 * The machine we run on.
 *
 * @param flags What the kernel says of its addresses; Node does not tell. Default: nothing.
 */
export function systemHost(flags: () => readonly AddressFlags[] = () => []): Host {
  return {
    identity: readIdentity,
    capacity: async (rootDir, maxPods) => {
      const disk = await statfs(rootDir);
      return {
        cpuMillicores: onlineProcessors() * 1000,
        memoryBytes: meminfoBytes(readText("/proc/meminfo"), "MemTotal"),
        ephemeralStorageBytes: disk.bsize * disk.blocks,
        maxPods,
        hugePages: readHugePages(),
      };
    },
    signals: async (rootDir, imageDir) => {
      const pids = pidSignal();
      return {
        "memory.available": memorySignal(),
        ...(await diskSignals(rootDir, "nodefs")),
        ...(imageDir === undefined ? {} : await diskSignals(imageDir, "imagefs")),
        ...(pids === undefined ? {} : { "pid.available": pids }),
      };
    },
    addresses: () => {
      const known = new Map(flags().map((entry) => [entry.address, entry]));
      return Object.entries(networkInterfaces()).flatMap(([interfaceName, list]) =>
        (list ?? []).map(({ address }) => {
          const { temporary = false, doubtful = false } = known.get(address) ?? {};
          return { interfaceName, address, temporary, doubtful };
        }),
      );
    },
    hasAddress: canBind,
    routeSources: async () => {
      const [v4, v6] = await Promise.all([
        // Documentation addresses: hardly ever on a link of this host, so the default route decides.
        routeSource("udp4", "192.0.2.1"),
        routeSource("udp6", "2001:db8::1"),
      ]);
      return {
        ...(v4 === undefined ? {} : { IPv4: v4 }),
        ...(v6 === undefined ? {} : { IPv6: v6 }),
      };
    },
  };
}

/** Processors that are online, whatever affinity this process has been given. */
function onlineProcessors(): number {
  let count = 0;
  for (const part of readLine("/sys/devices/system/cpu/online")?.split(",") ?? []) {
    const [first = Number.NaN, last = first] = part.split("-").map(Number);
    count += last - first + 1;
  }
  return count > 0 ? count : availableParallelism();
}

/** RFC 3339 with whole seconds, as `metav1.Time` is written. */
export function apiTime(clock: Pick<Clock, "now">): string {
  return `${new Date(clock.now()).toISOString().slice(0, 19)}Z`;
}
