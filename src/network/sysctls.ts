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

/** Told of what belongs to the machine before it is changed, so that it can be given back one day. */
export interface SettingsWitness {
  /** @param name Below `/proc/sys/net`, such as `ipv4/ip_forward`; an absolute path for what is elsewhere. */
  sysctl(name: string, former: string, value: string): Promise<void>;
  /** A kernel module that is about to be loaded. */
  module(name: string): Promise<void>;
}

/**
 * Sets a `net` sysctl unless it has the value already.
 *
 * @param witness For settings that are not of an interface of ours.
 * @returns Whether it had another one.
 * @throws {SetupError} when it may not be written.
 */
export async function ensureSysctl(
  name: string,
  value: string,
  witness?: SettingsWitness,
): Promise<boolean> {
  const current = await readSysctl(name);
  if (current === value) return false;
  if (current !== undefined) await witness?.sysctl(name, current, value);
  try {
    await writeFile(join(root, name), value);
    return true;
  } catch (error) {
    throw new SetupError(
      `net.${name.replaceAll("/", ".")} is ${current ?? "missing"} and cannot be set to ${value}: run remora as root on the host, or set it there with sysctl`,
      { cause: error },
    );
  }
}

/** What the kernel's settings depend on. */
export interface ForwardingNode {
  readonly v4: boolean;
  readonly v6: boolean;
  readonly bridge: string;
  /** Interface of the default route. */
  readonly uplink: string | undefined;
}

/** Settings that let the node pass packets between pods and the world, kept against others. */
export class Forwarding {
  readonly #logger: Logger;
  /** Settings that were found changed: told once. */
  readonly #told = new Set<string>();
  readonly #witness: SettingsWitness | undefined;
  #made = "";

  constructor(logger: Logger, witness?: SettingsWitness) {
    this.#logger = logger;
    this.#witness = witness;
  }

  /**
   * Sets what is not as pods need it. The bridge has to exist.
   *
   * @throws {SetupError} when a setting may not be written.
   */
  async ensure(node: ForwardingNode): Promise<void> {
    const repair = this.#made === node.bridge;
    const set = async (name: string, value: string): Promise<void> => {
      const witness = name.includes(`/${node.bridge}/`) ? undefined : this.#witness;
      if (!(await ensureSysctl(name, value, witness)) || !repair || this.#told.has(name)) return;
      this.#told.add(name);
      this.#logger.log("warn", "a kernel setting that pods need was changed and is set again", {
        setting: `net.${name.replaceAll("/", ".")}`,
        value,
      });
    };
    if (node.v4) {
      await set("ipv4/ip_forward", "1");
      // Setting the one above sets these; somebody may have taken them back one by one.
      for (const device of [node.bridge, node.uplink]) {
        const name = `ipv4/conf/${device ?? ""}/forwarding`;
        if (device !== undefined && (await readSysctl(name)) !== undefined) await set(name, "1");
      }
      // For host ports on 127.0.0.1; the guard chain keeps pods away from the node's loopback.
      await set(`ipv4/conf/${node.bridge}/route_localnet`, "1");
    }
    if (node.v6) {
      if ((await readSysctl("ipv6/conf/all/forwarding")) !== "1") await this.#keepAdvertisements();
      await set("ipv6/conf/all/forwarding", "1");
    }
    this.#made = node.bridge;
  }

  /** A forwarding node stops listening to router advertisements, and so loses its own default route, unless told to go on. */
  async #keepAdvertisements(): Promise<void> {
    for (const device of await readdir(join(root, "ipv6/conf"))) {
      const name = `ipv6/conf/${device}/accept_ra`;
      if (device !== "all" && device !== "lo" && (await readSysctl(name)) === "1") {
        await ensureSysctl(name, "2", this.#witness);
        this.#logger.log("info", "router advertisements stay accepted while IPv6 is forwarded", {
          device,
        });
      }
    }
  }
}

/** Settings that keep pods from working and that no setting of one interface can outweigh, as sentences for people. */
export async function hostileSettings(): Promise<readonly string[]> {
  return (await readSysctl("ipv4/conf/all/arp_ignore")) === "8"
    ? [
        "net.ipv4.conf.all.arp_ignore is 8, so the node tells no pod where its gateway is: set it to 0, 1 or 2",
      ]
    : [];
}
