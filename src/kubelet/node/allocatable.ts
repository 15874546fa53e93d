import { parseQuantity } from "../../api/quantity.ts";
import { ParseError, SetupError } from "../../lib/errors.ts";

/** What the machine has. */
export interface MachineCapacity {
  readonly cpuMillicores: number;
  readonly memoryBytes: number;
  readonly ephemeralStorageBytes: number;
  readonly maxPods: number;
  /** Page size in bytes to total bytes of pre-allocated pages. */
  readonly hugePages: ReadonlyMap<number, number>;
}

export interface Reservations {
  readonly kubeReserved: Readonly<Record<string, string>>;
  readonly systemReserved: Readonly<Record<string, string>>;
  /** Hard eviction thresholds: `memory.available: 100Mi`, `nodefs.available: 10%`. */
  readonly evictionHard: Readonly<Record<string, string>>;
}

const nanosPerUnit = 1_000_000_000n;

/** A configured amount (`500m`, `1Gi`, `1e9`), never negative, in plain units. @throws {ParseError} */
export function parseAmount(text: string, path: string): number {
  const { nanos } = parseQuantity(text, path);
  if (nanos < 0n) throw new ParseError(path, "a quantity that is not negative");
  // Apart, so that whole bytes stay exact.
  return Number(nanos / nanosPerUnit) + Number(nanos % nanosPerUnit) / Number(nanosPerUnit);
}

/** A threshold: an amount, or a percentage of `capacity`. Bytes (or whatever unit the signal has). */
export function thresholdValue(text: string, capacity: number, path: string): number {
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text);
  if (percent === null) return parseAmount(text, path);
  // Single precision, as upstream keeps percentages: else allocatable differs from its by some bytes.
  return Math.floor(capacity * Math.fround(Number(percent[1]) / 100));
}

/** Bytes as the API writes them: the largest binary suffix that divides the number. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let index = 0;
  const suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
  while (value !== 0 && value % 1024 === 0 && index < suffixes.length - 1) {
    value /= 1024;
    index += 1;
  }
  return `${value}${suffixes[index] ?? ""}`;
}

/** Thousandths of a core as the API writes them: `2`, `1500m`. */
export function formatCpu(millicores: number): string {
  return millicores % 1000 === 0 ? String(millicores / 1000) : `${millicores}m`;
}

/** `status.capacity`. */
export function computeCapacity(machine: MachineCapacity): Record<string, string> {
  return {
    cpu: formatCpu(machine.cpuMillicores),
    "ephemeral-storage": formatBytes(machine.ephemeralStorageBytes),
    ...hugePageEntries(machine),
    memory: formatBytes(machine.memoryBytes),
    pods: String(machine.maxPods),
  };
}

function hugePageEntries(machine: MachineCapacity): Record<string, string> {
  const entries = [...machine.hugePages].map(
    ([pageBytes, totalBytes]) =>
      [`hugepages-${formatBytes(pageBytes)}`, formatBytes(totalBytes)] as const,
  );
  return Object.fromEntries(entries);
}

/** What is kept from pods, by resource, in the units of {@link MachineCapacity}. @throws {ParseError} */
function keptFromPods(
  machine: MachineCapacity,
  { evictionHard, kubeReserved, systemReserved }: Reservations,
): Readonly<Record<"cpu" | "memory" | "ephemeral-storage", number>> {
  const reserved = (resource: string): number =>
    parseAmount(kubeReserved[resource] ?? "0", `kubeReserved.${resource}`) +
    parseAmount(systemReserved[resource] ?? "0", `systemReserved.${resource}`);
  const threshold = (signal: string, capacity: number): number =>
    thresholdValue(evictionHard[signal] ?? "0", capacity, `evictionHard["${signal}"]`);
  return {
    cpu: Math.round(reserved("cpu") * 1000),
    memory: reserved("memory") + threshold("memory.available", machine.memoryBytes),
    "ephemeral-storage":
      reserved("ephemeral-storage") + threshold("nodefs.available", machine.ephemeralStorageBytes),
  };
}

/**
 * Refuses to keep more from pods than there is, as the kubelet does: a limit of nothing would end every pod of the node.
 *
 * @throws {SetupError} in the kubelet's words; {@link ParseError} for an amount that is not a quantity.
 */
export function checkReservations(machine: MachineCapacity, reservations: Reservations): void {
  const kept = keptFromPods(machine, reservations);
  const rows = [
    ["cpu", formatCpu(kept.cpu), formatCpu(machine.cpuMillicores), machine.cpuMillicores],
    ["memory", formatBytes(kept.memory), formatBytes(machine.memoryBytes), machine.memoryBytes],
    [
      "ephemeral-storage",
      formatBytes(kept["ephemeral-storage"]),
      formatBytes(machine.ephemeralStorageBytes),
      machine.ephemeralStorageBytes,
    ],
  ] as const;
  const bad = rows.flatMap(([resource, reservation, capacity, limit]) =>
    kept[resource] <= limit
      ? []
      : [
          ` Resource "${resource}" has a reservation of ${reservation} but capacity of ${capacity}. Expected capacity >= reservation.`,
        ],
  );
  if (bad.length === 0) return;
  throw new SetupError(
    `invalid Node Allocatable configuration.${bad.join("")} Lower kubeReserved, systemReserved or evictionHard`,
  );
}

/**
 * `status.allocatable`: capacity without what is reserved for the system, for Kubernetes' own daemons, and for the hard
 * eviction thresholds, at least 0. Pre-allocated huge pages are no longer ordinary memory.
 *
 * @throws {ParseError} for an amount that is not a quantity.
 */
export function computeAllocatable(
  machine: MachineCapacity,
  reservations: Reservations,
): Record<string, string> {
  const kept = keptFromPods(machine, reservations);
  const hugeBytes = [...machine.hugePages.values()].reduce((sum, bytes) => sum + bytes, 0);
  const memory = machine.memoryBytes - hugeBytes - kept.memory;
  const storage = machine.ephemeralStorageBytes - kept["ephemeral-storage"];
  const cpu = machine.cpuMillicores - kept.cpu;
  return {
    cpu: formatCpu(Math.max(cpu, 0)),
    "ephemeral-storage": formatBytes(Math.max(Math.floor(storage), 0)),
    ...hugePageEntries(machine),
    memory: formatBytes(Math.max(Math.floor(memory), 0)),
    pods: String(machine.maxPods),
  };
}
