import type { JsonRecord } from "../../lib/guard.ts";
import type { Hardware } from "./hardware-types.ts";

/** Outside kubernetes.io on purpose: NodeRestriction lets a node set such labels on itself. */
const prefix = "feature.node.remora.io/";

/** Instruction sets that programs are built for; everything else a CPU can do is noise to a scheduler. */
const cpuFeatures = new Set([
  "adx",
  "aes",
  "amx_tile",
  "asimd",
  "atomics",
  "avx",
  "avx2",
  "avx512f",
  "avx512_bf16",
  "avx512_vnni",
  "bmi2",
  "crc32",
  "f16c",
  "fma",
  "sha_ni",
  "sha2",
  "sse4_2",
  "sve",
  "sve2",
]);

/** Any text as a label value (at most 63 of letters, digits, `-_.`), or empty when nothing is left of it. */
export function labelValue(text: string): string {
  const safe = text.replaceAll(/[^A-Za-z0-9_.]+/g, "-").slice(0, 63);
  return safe.replaceAll(/^[-_.]+|[-_.]+$/g, "");
}

const gpuVendors: readonly (readonly [RegExp, string])[] = [
  [/nvidia/i, "nvidia"],
  [/\bamd\b|advanced micro|\bati\b/i, "amd"],
  [/intel/i, "intel"],
];

function gpuVendor(gpu: { readonly vendor: string }): string | undefined {
  return gpuVendors.find(([pattern]) => pattern.test(gpu.vendor))?.[1];
}

/** Labels worth scheduling on. Only facts that stay the same from one start to the next. */
export function hardwareLabels(hardware: Hardware): Record<string, string> {
  const { cpu, disks, firmware, gpus, nics, virtualisation } = hardware;
  const labels: Record<string, string> = {};
  const add = (name: string, value: string): void => {
    const safe = labelValue(value);
    if (safe !== "") labels[`${prefix}${name}`] = safe;
  };
  add("cpu-vendor", cpu.vendor);
  add("cpu-model", cpu.model);
  add("cpu-family", cpu.family);
  for (const flag of cpu.flags) if (cpuFeatures.has(flag)) add(`cpu-${flag}`, "true");
  add("virtualisation", virtualisation);
  if (cpu.flags.includes("vmx") || cpu.flags.includes("svm")) add("virtualisation-host", "true");
  const vendors = gpus.map((gpu) => gpuVendor(gpu)).filter((vendor) => vendor !== undefined);
  if (vendors.length > 0) {
    add("gpu-count", String(vendors.length));
    for (const vendor of vendors) add(`gpu-${vendor}`, "true");
  }
  for (const { kind } of disks) if (kind !== "unknown") add(`disk-${kind}`, "true");
  const speeds = nics.filter((nic) => !nic.virtual).flatMap(({ speedMbps }) => speedMbps ?? []);
  if (speeds.length > 0) add("nic-speed-mbps", String(Math.max(...speeds)));
  add("firmware", firmware.kind);
  return labels;
}

/**
 * Merge patch that gives the node its hardware labels, removes those of hardware that is gone, and asserts `platform`;
 * undefined when all is so already.
 */
export function hardwareLabelPatch(
  hardware: Hardware,
  platform: Readonly<Record<string, string>>,
  have: Readonly<Record<string, string>>,
): JsonRecord | undefined {
  const wanted = { ...hardwareLabels(hardware), ...platform };
  const labels: Record<string, string | null> = {};
  for (const [key, value] of Object.entries(wanted)) if (have[key] !== value) labels[key] = value;
  for (const key of Object.keys(have)) {
    if (key.startsWith(prefix) && wanted[key] === undefined) labels[key] = null;
  }
  return Object.keys(labels).length === 0 ? undefined : { metadata: { labels } };
}
