import { parseCount } from "./cgroup-text.ts";
import type { KernelFiles } from "./kernel-files.ts";

/** What of the machine does not change while it runs. */
export interface MachineFacts {
  readonly machineID: string;
  readonly systemUUID: string;
  readonly bootID: string;
  readonly kernelVersion: string;
  readonly osImage: string;
  readonly engineVersion: string;
  readonly cpuCores: number;
  readonly physicalCores: number;
  readonly sockets: number;
  /** `/dev/sda`; empty when nobody can tell. */
  readonly deviceName: (major: number, minor: number) => string;
  /** What the filesystems of the kubelet's and the engine's directories are on. */
  readonly nodeDevice: MountedDevice;
  readonly engineDevice: MountedDevice;
}

export interface MountedDevice {
  /** `/dev/sda1`, or what a filesystem without a device calls itself. */
  readonly name: string;
  readonly major: number;
  readonly minor: number;
}

/** Name of a block device, as cAdvisor writes it. */
export function blockDeviceName(files: KernelFiles, major: number, minor: number): string {
  const uevent = files.text(`/sys/dev/block/${major}:${minor}/uevent`) ?? "";
  const name = /^DEVNAME=(.+)$/m.exec(uevent)?.[1];
  return name === undefined ? "" : `/dev/${name}`;
}

/** What the mount is of that holds a path: the one with the longest mount point, the last of equals. */
export function mountedDevice(files: KernelFiles, path: string): MountedDevice {
  let best = "";
  let device = { name: "", major: 0, minor: 0 };
  for (const line of (files.text("/proc/self/mountinfo") ?? "").split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const point = (before.split(" ")[4] ?? "").replaceAll(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCodePoint(Number.parseInt(octal, 8)),
    );
    const holds = point === "/" || path === point || path.startsWith(`${point}/`);
    if (point === "" || !holds || point.length < best.length) continue;
    best = point;
    const [major = 0, minor = 0] = (before.split(" ")[2] ?? "").split(":").map(Number);
    device = { name: after.split(" ")[1] ?? "", major, minor };
  }
  return device;
}

/** Processors that are online, their cores and their packages. */
export function cpuTopology(
  files: KernelFiles,
): Pick<MachineFacts, "cpuCores" | "physicalCores" | "sockets"> {
  const root = "/sys/devices/system/cpu";
  const cores = new Set<string>();
  const sockets = new Set<string>();
  let online = 0;
  for (const name of files.names(root)) {
    if (!/^cpu\d+$/.test(name) || files.text(`${root}/${name}/online`)?.trim() === "0") continue;
    online += 1;
    const id = (file: string): number =>
      parseCount(files.text(`${root}/${name}/topology/${file}`)) ?? 0;
    const socket = id("physical_package_id");
    sockets.add(String(socket));
    cores.add(`${socket} ${id("core_id")}`);
  }
  return { cpuCores: online, physicalCores: cores.size, sockets: sockets.size };
}
