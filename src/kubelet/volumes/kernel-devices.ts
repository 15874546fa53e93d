import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";

/** Roots of the kernel's own file systems. */
export interface KernelPaths {
  /** Default `/sys`. */
  readonly sys?: string;
  /** Default `/dev`. */
  readonly dev?: string;
}

export function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch {
    // Not there: no such devices.
    return [];
  }
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    // Sessions come and go while they are looked at.
    return undefined;
  }
}

function portalName(address: string, port: string): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

interface Session {
  readonly host: number;
  readonly path: string;
}

/** Sessions of this machine with a target, from /sys/class/iscsi_host. */
function sessions(sys: string, iqn: string): readonly Session[] {
  const hosts = join(sys, "class/iscsi_host");
  return namesIn(hosts).flatMap((name) => {
    const number = /^host(\d+)$/.exec(name)?.[1];
    if (number === undefined) return [];
    const device = join(hosts, name, "device");
    return namesIn(device)
      .filter((session) => session.startsWith("session"))
      .filter(
        (session) => text(join(device, session, "iscsi_session", session, "targetname")) === iqn,
      )
      .map((session) => ({ host: Number(number), path: join(device, session) }));
  });
}

/** SCSI hosts of a target's sessions by portal, both as asked for and as the target answered. */
export function portalHosts(iqn: string, { sys = "/sys" }: KernelPaths): Map<string, number> {
  const out = new Map<string, number>();
  for (const { host, path } of sessions(sys, iqn)) {
    for (const connection of namesIn(path)) {
      if (!connection.startsWith("connection")) continue;
      const at = join(path, connection, "iscsi_connection", connection);
      for (const kind of ["", "persistent_"]) {
        const address = text(join(at, `${kind}address`));
        const port = text(join(at, `${kind}port`));
        if (address !== undefined && port !== undefined) out.set(portalName(address, port), host);
      }
    }
  }
  return out;
}

/** Names such as `sdb` of the devices that are a LUN of a target. */
export function lunDevices(
  { iqn, lun }: { readonly iqn: string; readonly lun: number },
  { sys = "/sys" }: KernelPaths,
): readonly string[] {
  return sessions(sys, iqn).flatMap(({ host, path }) =>
    namesIn(join(path, `target${host}:0:0/${host}:0:0:${lun}/block`)).slice(0, 1),
  );
}

/** The multipath device above a device; undefined when it has none. */
export function multipathDevice(
  device: string,
  { sys = "/sys", dev = "/dev" }: KernelPaths,
): string | undefined {
  const name = deviceName(device);
  if (name === undefined) return undefined;
  const block = join(sys, "block");
  const above = namesIn(block).find(
    (each) => each.startsWith("dm-") && existsSync(join(block, each, "slaves", name)),
  );
  return above === undefined ? undefined : join(dev, above);
}

/** Names of the devices below a multipath device. */
export function slaveDevices(device: string, { sys = "/sys" }: KernelPaths): readonly string[] {
  const name = deviceName(device);
  return name === undefined ? [] : namesIn(join(sys, "block", name, "slaves"));
}

/** `sdb` of whatever leads to /dev/sdb; undefined when nothing is there. */
export function deviceName(device: string): string | undefined {
  try {
    return realpathSync(device).split("/").at(-1);
  } catch {
    return undefined;
  }
}

/** The entry of a directory of udev's links that matches; undefined until udev has made it. */
export function deviceLink(directory: string, pattern: RegExp): string | undefined {
  const name = namesIn(directory)
    .toSorted()
    .find((each) => pattern.test(each));
  return name === undefined ? undefined : join(directory, name);
}
