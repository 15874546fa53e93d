import { parseQuantity } from "../../api/quantity.ts";
import { ParseError } from "../../lib/errors.ts";

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
  const reserved = (resource: string): number => {
    const { kubeReserved, systemReserved } = reservations;
    return (
      parseAmount(kubeReserved[resource] ?? "0", `kubeReserved.${resource}`) +
      parseAmount(systemReserved[resource] ?? "0", `systemReserved.${resource}`)
    );
  };
  const threshold = (signal: string, capacity: number): number =>
    thresholdValue(reservations.evictionHard[signal] ?? "0", capacity, `evictionHard["${signal}"]`);
  const hugeBytes = [...machine.hugePages.values()].reduce((sum, bytes) => sum + bytes, 0);
  const memory =
    machine.memoryBytes -
    hugeBytes -
    reserved("memory") -
    threshold("memory.available", machine.memoryBytes);
  const storage =
    machine.ephemeralStorageBytes -
    reserved("ephemeral-storage") -
    threshold("nodefs.available", machine.ephemeralStorageBytes);
  const cpu = machine.cpuMillicores - Math.round(reserved("cpu") * 1000);
  return {
    cpu: formatCpu(Math.max(cpu, 0)),
    "ephemeral-storage": formatBytes(Math.max(Math.floor(storage), 0)),
    ...hugePageEntries(machine),
    memory: formatBytes(Math.max(Math.floor(memory), 0)),
    pods: String(machine.maxPods),
  };
}
