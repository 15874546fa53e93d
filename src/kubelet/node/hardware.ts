import { readlinkSync } from "node:fs";

import { deadline } from "../../lib/clock.ts";
import { ParseError } from "../../lib/errors.ts";
import { exec } from "../../lib/exec.ts";
import { parseHardware } from "./hardware-parse.ts";
import type { Hardware } from "./hardware-types.ts";

const deadlineMs = 30_000;

/** Reads the machine's inventory. */
export type HardwareReader = (signal: AbortSignal) => Promise<Hardware>;

export interface ReadHardwareOptions {
  /** Program that runs `writeHardwareInventory`; default: this Node on hardware-child.ts beside this file. */
  readonly argv?: readonly [string, ...string[]];
}

function childArgv(): [string, string] {
  // The Node that runs us, whatever PATH says.
  const node = readlinkSync("/proc/self/exe");
  // The bundle has its own copy beside it.
  const suffix = import.meta.url.endsWith(".cjs") ? "cjs" : "ts";
  return [node, new URL(`hardware-child.${suffix}`, import.meta.url).pathname];
}

/**
 * Takes the machine's inventory in a short-lived child process, at most 30 s.
 *
 * @throws {ExecError} the child failed; {@link ParseError} its report is no JSON object; `AbortError` too late.
 */
export async function readHardware(
  signal: AbortSignal,
  options: ReadHardwareOptions = {},
): Promise<Hardware> {
  const text = await exec(options.argv ?? childArgv(), { signal: deadline(signal, deadlineMs) });
  let report: unknown;
  try {
    report = JSON.parse(text);
  } catch (error) {
    throw new ParseError("hardware", "a JSON report", { cause: error });
  }
  return parseHardware(report);
}

function gibibytes(bytes: number | undefined): string {
  return bytes === undefined ? "unknown size" : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function orUnknown(text: string): string {
  return text === "" ? "unknown" : text;
}

/** The inventory as text for people, one line each. */
export function hardwareLines(hardware: Hardware): string[] {
  const { cpu, disks, firmware, gpus, nics, system } = hardware;
  const maker = [system.manufacturer, system.model].filter((part) => part !== "").join(" ");
  return [
    `System:          ${orUnknown(maker)}`,
    `Virtualisation:  ${hardware.virtualisation}`,
    `Firmware:        ${[firmware.kind, firmware.vendor, firmware.version, firmware.date].filter((part) => part !== "").join(" ")}`,
    `CPU:             ${orUnknown(cpu.model)}, ${cpu.cores ?? "unknown number of"} cores`,
    `CPU features:    ${orUnknown(cpu.flags.toSorted().join(" "))}`,
    `Memory:          ${gibibytes(hardware.memoryBytes)}`,
    ...section("Disks:", disks, (disk) =>
      [disk.device, disk.kind, gibibytes(disk.sizeBytes), disk.model]
        .filter((part) => part !== "")
        .join(" "),
    ),
    ...section("GPUs:", gpus, (gpu) => `${gpu.vendor} ${gpu.model}`.trim()),
    ...section("Network:", nics, (nic) => {
      const speed = nic.speedMbps === undefined ? "unknown speed" : `${nic.speedMbps} Mbit/s`;
      return `${nic.name} ${nic.mac} ${speed}${nic.virtual ? " virtual" : ""}`;
    }),
  ];
}

function section<T>(title: string, items: readonly T[], line: (item: T) => string): string[] {
  const texts = items.length === 0 ? ["none found"] : items.map((item) => line(item));
  return texts.map((text, index) => `${(index === 0 ? title : "").padEnd(17)}${text}`);
}

/** {@link hardwareLines} of this machine, for `remora node`. */
export async function describeHardware(
  signal: AbortSignal,
  options: ReadHardwareOptions = {},
): Promise<string[]> {
  return hardwareLines(await readHardware(signal, options));
}
