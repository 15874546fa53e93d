import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { SetupError, errorCode } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

const root = "/proc/sys/net";

/** The value of a `net` sysctl of this process's network namespace; undefined when the kernel has none. */
export async function readSysctl(name: string): Promise<string | undefined> {
  try {
    return (await readFile(join(root, name), "utf8")).trim();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Sets a `net` sysctl unless it has the value already.
 *
 * @throws {SetupError} when it may not be written.
 */
export async function ensureSysctl(name: string, value: string): Promise<void> {
  const current = await readSysctl(name);
  if (current === value) return;
  try {
    await writeFile(join(root, name), value);
  } catch (error) {
    throw new SetupError(
      `net.${name.replaceAll("/", ".")} is ${current ?? "missing"} and cannot be set to ${value}: run remora as root on the host, or set it there with sysctl`,
      { cause: error },
    );
  }
}

/** Lets the node pass packets between interfaces. */
export async function ensureForwarding(
  families: { readonly v4: boolean; readonly v6: boolean },
  logger: Logger,
): Promise<void> {
  if (families.v4) await ensureSysctl("ipv4/ip_forward", "1");
  if (!families.v6 || (await readSysctl("ipv6/conf/all/forwarding")) === "1") return;
  // A forwarding node stops listening to router advertisements, and so loses its own default route, unless told to go on.
  for (const device of await readdir(join(root, "ipv6/conf"))) {
    const name = `ipv6/conf/${device}/accept_ra`;
    if (device !== "all" && device !== "lo" && (await readSysctl(name)) === "1") {
      await ensureSysctl(name, "2");
      logger.log("info", "router advertisements stay accepted while IPv6 is forwarded", { device });
    }
  }
  await ensureSysctl("ipv6/conf/all/forwarding", "1");
}
