/** Parsers of what cgroupfs and procfs say. Pure; a missing figure is undefined, never a guess. */

/** Pressure stall figures of one line (KEP-4205): percentages over a window, and all of it in nanoseconds. */
export interface PressureLine {
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
  readonly totalNs: number;
}

export interface Pressure {
  readonly some: PressureLine;
  readonly full: PressureLine;
}

/** Bytes and operations of one block device. */
export interface DeviceIO {
  readonly major: number;
  readonly minor: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly reads: number;
  readonly writes: number;
}

export interface InterfaceCounters {
  readonly name: string;
  readonly rxBytes: number;
  readonly rxPackets: number;
  readonly rxErrors: number;
  readonly rxDropped: number;
  readonly txBytes: number;
  readonly txPackets: number;
  readonly txErrors: number;
  readonly txDropped: number;
}

/** What limits show that are none: v1 the largest count of whole pages, v2 `max`. As cAdvisor draws the line. */
const unlimited = 2 ** 62;

/** A file with one number. */
export function parseCount(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const trimmed = text.trim();
  if (trimmed === "") return undefined;
  const value = Number(trimmed);
  return Number.isFinite(value) ? value : undefined;
}

/** A file with one limit; undefined for none. */
export function parseLimit(text: string | undefined): number | undefined {
  const value = parseCount(text);
  return value === undefined || value < 0 || value > unlimited ? undefined : value;
}

/**
 * The value of `key` in a flat keyed file such as memory.stat. Looks for the line instead of splitting the whole text:
 * of its fifty lines four are wanted, hundreds of times per scrape.
 */
export function statValue(text: string, key: string): number | undefined {
  let at = 0;
  if (!text.startsWith(`${key} `)) {
    at = text.indexOf(`\n${key} `) + 1;
    if (at === 0) return undefined;
  }
  const start = at + key.length + 1;
  const end = text.indexOf("\n", start);
  return parseCount(text.slice(start, end < 0 ? undefined : end));
}

function pressureLine(text: string, name: "some" | "full"): PressureLine {
  const match = new RegExp(
    `^${name} avg10=(\\S+) avg60=(\\S+) avg300=(\\S+) total=(\\d+)`,
    "m",
  ).exec(text);
  const [, avg10, avg60, avg300, total] = match ?? [];
  return {
    avg10: Number(avg10 ?? 0),
    avg60: Number(avg60 ?? 0),
    avg300: Number(avg300 ?? 0),
    // The kernel counts microseconds.
    totalNs: Number(total ?? 0) * 1000,
  };
}

/** A `*.pressure` file. Old kernels have no `full` line for cpu: then it is zero. */
export function parsePressure(text: string | undefined): Pressure | undefined {
  if (text === undefined || !text.startsWith("some ")) return undefined;
  return { some: pressureLine(text, "some"), full: pressureLine(text, "full") };
}

type MutableIO = { -readonly [Key in keyof DeviceIO]: DeviceIO[Key] };

class Devices {
  readonly #all = new Map<string, MutableIO>();

  of(name: string): MutableIO | undefined {
    const match = /^(\d+):(\d+)$/.exec(name);
    if (match === null) return undefined;
    let found = this.#all.get(name);
    if (found === undefined) {
      const [major, minor] = [Number(match[1]), Number(match[2])];
      found = { major, minor, readBytes: 0, writeBytes: 0, reads: 0, writes: 0 };
      this.#all.set(name, found);
    }
    return found;
  }

  list(): readonly DeviceIO[] {
    return [...this.#all.values()];
  }
}

/** io.stat (v2): `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0` per device. */
export function parseIoStat(text: string | undefined): readonly DeviceIO[] {
  const devices = new Devices();
  for (const line of (text ?? "").split("\n")) {
    const [name = "", ...pairs] = line.split(" ");
    const device = devices.of(name);
    if (device === undefined) continue;
    const values = new Map(pairs.map((pair) => pair.split("=") as [string, string]));
    device.readBytes = Number(values.get("rbytes") ?? 0);
    device.writeBytes = Number(values.get("wbytes") ?? 0);
    device.reads = Number(values.get("rios") ?? 0);
    device.writes = Number(values.get("wios") ?? 0);
  }
  return devices.list();
}

/** blkio.throttle.io_service_bytes and blkio.throttle.io_serviced (v1): `8:0 Read 4096` per device and operation. */
export function parseBlkio(
  bytes: string | undefined,
  operations: string | undefined,
): readonly DeviceIO[] {
  const devices = new Devices();
  const add = (text: string | undefined, read: keyof MutableIO, write: keyof MutableIO): void => {
    for (const line of (text ?? "").split("\n")) {
      const [name = "", operation, value] = line.split(" ");
      const key = operation === "Read" ? read : operation === "Write" ? write : undefined;
      const device = key === undefined ? undefined : devices.of(name);
      if (device !== undefined && key !== undefined) device[key] += Number(value);
    }
  };
  add(bytes, "readBytes", "writeBytes");
  add(operations, "reads", "writes");
  return devices.list();
}

/** Loopback and links of containers, as cAdvisor leaves them out, and the host's ends of our own pods' interfaces. */
const ignoredInterfaces = /^(?:lo|veth|docker|nerdctl|rmv[0-9a-f]{11}$)/;

/** /proc/PID/net/dev without loopback and the host's ends of containers' links. */
export function parseNetDev(text: string | undefined): readonly InterfaceCounters[] {
  const out: InterfaceCounters[] = [];
  for (const line of (text ?? "").split("\n").slice(2)) {
    const colon = line.lastIndexOf(":");
    const name = line.slice(0, colon).trim();
    if (colon < 0 || ignoredInterfaces.test(name)) continue;
    const fields = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    const field = (at: number): number => fields[at] ?? 0;
    out.push({
      name,
      rxBytes: field(0),
      rxPackets: field(1),
      rxErrors: field(2),
      rxDropped: field(3),
      txBytes: field(8),
      txPackets: field(9),
      txErrors: field(10),
      txDropped: field(11),
    });
  }
  return out;
}

/** How many processes a cgroup.procs file lists, and which. */
export function parseProcs(text: string | undefined): readonly number[] {
  return (text ?? "")
    .split("\n")
    .filter((line) => line !== "")
    .map(Number);
}

/**
 * /proc/PID/cgroup: paths by controller (v1), and under the empty name the one of the unified hierarchy. Joint
 * controllers (`cpu,cpuacct`) are listed each for itself.
 */
export function parseProcCgroup(text: string): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  for (const line of text.split("\n")) {
    const first = line.indexOf(":");
    const second = line.indexOf(":", first + 1);
    if (first < 0 || second < 0) continue;
    const path = line.slice(second + 1).replace(/ \(deleted\)$/, "");
    for (const controller of line.slice(first + 1, second).split(",")) out.set(controller, path);
  }
  return out;
}
