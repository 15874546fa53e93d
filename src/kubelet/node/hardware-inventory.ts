import { readFileSync, writeFileSync } from "node:fs";

/** Flags (x86) or features (ARM) of the first processor. */
function cpuFlags(): string {
  const match = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"));
  return match?.[1] ?? "";
}

/**
 * Body of the inventory child: asks the machine for everything and writes one JSON object to standard output. It runs
 * in a process of its own because the library costs 9 MB and starts programs, for figures that are read once.
 */
export async function writeHardwareInventory(): Promise<void> {
  const { default: inventory } = await import("systeminformation");
  const [system, bios, cpu, memory, disks, graphics, nics, os] = await Promise.all([
    inventory.system(),
    inventory.bios(),
    inventory.cpu(),
    inventory.mem(),
    inventory.diskLayout(),
    inventory.graphics(),
    inventory.networkInterfaces(),
    inventory.osInfo(),
  ]);
  const report = { system, bios, cpu, memory, disks, graphics, nics, os, cpuFlags: cpuFlags() };
  writeFileSync(1, JSON.stringify(report));
}
