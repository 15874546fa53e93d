import { join } from "node:path";

import type { Clock } from "../../../lib/clock.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { ExecResult } from "../../../lib/exec.ts";
import type { Logger } from "../../../lib/log.ts";
import { type HostPrograms, MissingProgramError, runChecked } from "../host-programs.ts";
import { writeKernelFile } from "../kernel-write.ts";
import { VolumeError } from "../payload.ts";
import {
  devicePathPattern,
  interfaceSettings,
  type IscsiAccess,
  type IscsiDisk,
  transportOf,
} from "./disk.ts";
import {
  deviceLink,
  deviceName,
  type KernelPaths,
  lunDevices,
  multipathDevice,
  portalHosts,
} from "../kernel-devices.ts";
import { chapKeys, chapSettings, recordDirectories, writeCredentials } from "./records.ts";

export interface SessionDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly programs: HostPrograms;
  readonly kernel?: KernelPaths;
  /** Where open-iscsi's records may be; default: where distributions have them. */
  readonly records?: readonly string[];
}

/** What logging in takes besides the disk. */
export interface Credentials extends Pick<IscsiAccess, "chapDiscovery" | "chapSession"> {
  /** Keys and values of the Secret. */
  readonly secret: Readonly<Record<string, string>>;
}

const iscsiadmMs = 150_000;
const deviceWaitMs = 30_000;
const multipathWaitMs = 10_000;
const pollMs = 1_000;
const maxAttempts = 5;
/** With this many paths a disk is used although others are missing, once they were tried this often. */
const enoughPaths = 2;
const enoughAttempts = 2;

/** iscsiadm(8): the session is there already. */
const sessionExists = 15;
/** iscsiadm(8): no such session, no such record. */
const notThere = [2, 21];

function output({ stderr, stdout }: ExecResult): string {
  return `${stdout}${stderr}`.trim();
}

/** Sessions with iSCSI targets, by open-iscsi's iscsiadm; what there is, the kernel tells. */
export class IscsiSessions {
  readonly #deps: SessionDeps;

  constructor(deps: SessionDeps) {
    this.#deps = deps;
  }

  /**
   * Logs in where needed and waits for the disk.
   *
   * @returns The device: that of multipathd where there are several paths.
   * @throws {VolumeError}
   */
  async attach(disk: IscsiDisk, credentials: Credentials, signal: AbortSignal): Promise<string> {
    const iface = ["-m", "iface", "-I", disk.initialIface, "-o", "show"];
    const shown = await this.#checked(iface, signal);
    const transport = transportOf(shown);
    if (transport === undefined) {
      throw new VolumeError(`could not parse iface file for ${disk.iface}`);
    }
    if (disk.initiatorName !== "") await this.#cloneInterface(disk, shown, signal);
    const found = new Map<string, string>();
    let problem = "";
    for (let attempt = 1; attempt <= maxAttempts; attempt += 1) {
      for (const portal of disk.portals.filter((each) => !found.has(each))) {
        try {
          const at = { disk, portal, transport };
          found.set(portal, await this.#attachPath(at, credentials, signal));
        } catch (error) {
          signal.throwIfAborted();
          problem = errorMessage(error);
        }
      }
      if (found.size === 0) {
        if (disk.initiatorName !== "") {
          await this.#iscsiadm(["-m", "iface", "-I", disk.iface, "-o", "delete"], signal);
        }
        throw new VolumeError(`failed to get any path for iscsi disk, last err seen:\n${problem}`);
      }
      if (found.size === disk.portals.length) break;
      if (found.size >= enoughPaths && attempt >= enoughAttempts) break;
    }
    if (problem !== "") {
      this.#deps.logger.log("warn", "iSCSI disk is used without all its paths", {
        target: disk.iqn,
        paths: found.size,
        error: problem,
      });
    }
    return this.#device([...found.values()], disk.portals.length > 1, signal);
  }

  /**
   * Takes the disk away from this machine, and logs out unless another volume of the node is on the same target.
   *
   * @throws {ExecError}
   */
  async detach(disk: IscsiDisk, lastOfTarget: boolean, signal: AbortSignal): Promise<void> {
    await this.#removeDevices(disk, signal);
    if (!lastOfTarget) return;
    try {
      await this.#logout(disk, signal);
    } catch (error) {
      const hosts = portalHosts(disk.iqn, this.#deps.kernel ?? {});
      // After open-iscsi was removed from the machine there may be nothing left to log out of.
      const done = !disk.portals.some((portal) => hosts.has(portal));
      if (!(error instanceof MissingProgramError && done)) throw error;
    }
  }

  async #logout(disk: IscsiDisk, signal: AbortSignal): Promise<void> {
    for (const portal of disk.portals) {
      const node = ["-m", "node", "-p", portal, "-T", disk.iqn, "-I", disk.iface];
      await this.#checked([...node, "--logout"], signal, notThere);
      // The record goes with it, and so do credentials in it.
      await this.#checked([...node, "-o", "delete"], signal, notThere);
    }
    if (disk.initiatorName === "") return;
    await this.#checked(["-m", "iface", "-I", disk.iface, "-o", "delete"], signal, notThere);
  }

  async #iscsiadm(args: readonly string[], signal: AbortSignal): Promise<ExecResult> {
    return this.#deps.programs.run(["iscsiadm", ...args], iscsiadmMs, signal);
  }

  async #checked(
    args: readonly string[],
    signal: AbortSignal,
    allowed: readonly number[] = [],
  ): Promise<string> {
    const result = await this.#iscsiadm(args, signal);
    if (result.exitCode === 0 || allowed.includes(result.exitCode ?? -1)) return result.stdout;
    throw new VolumeError(`iscsi: iscsiadm failed (${result.exitCode ?? "?"}): ${output(result)}`);
  }

  /** An interface like the one that the volume names, with an initiator name of its own. */
  async #cloneInterface(disk: IscsiDisk, shown: string, signal: AbortSignal): Promise<void> {
    const { iface, initialIface, initiatorName } = disk;
    if (iface === initialIface) {
      throw new VolumeError(`iscsi: cannot clone iface with same name: ${iface}`);
    }
    const settings = new Map(interfaceSettings(shown));
    settings.set("iface.initiatorname", initiatorName);
    const target = ["-m", "iface", "-I", iface, "-o"];
    await this.#checked([...target, "new"], signal, [sessionExists]);
    for (const [name, value] of [...settings].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      await this.#checked([...target, "update", "-n", name, "-v", value], signal, [sessionExists]);
    }
  }

  /** One portal's device. */
  async #attachPath(
    at: { readonly disk: IscsiDisk; readonly portal: string; readonly transport: string },
    credentials: Credentials,
    signal: AbortSignal,
  ): Promise<string> {
    const { disk, portal, transport } = at;
    const { clock, kernel = {}, programs } = this.#deps;
    let host = portalHosts(disk.iqn, kernel).get(portal);
    if (host === undefined) {
      await this.#login(disk, portal, credentials, signal);
      host = portalHosts(disk.iqn, kernel).get(portal);
    }
    if (host === undefined) {
      throw new VolumeError(`no session for portal ${portal} after logging in`);
    }
    // One LUN alone: devices that nobody asked for would be left behind by nobody's removal.
    const scan = join(kernel.sys ?? "/sys", `class/scsi_host/host${host}/scan`);
    await writeKernelFile(programs, scan, `0 0 ${disk.lun}`, signal);
    const directory = join(kernel.dev ?? "/dev", "disk/by-path");
    const pattern = devicePathPattern(portal, disk, transport);
    const until = clock.monotonic() + deviceWaitMs;
    for (;;) {
      const link = deviceLink(directory, pattern);
      if (link !== undefined) return link;
      if (clock.monotonic() >= until) {
        const seconds = deviceWaitMs / 1000;
        throw new VolumeError(
          `Timed out waiting for device at path ${join(directory, pattern.source)} after ${seconds}s`,
        );
      }
      await clock.sleep(pollMs, signal);
    }
  }

  async #login(
    { iface, iqn }: IscsiDisk,
    portal: string,
    { chapDiscovery, chapSession, secret }: Credentials,
    signal: AbortSignal,
  ): Promise<void> {
    const directories = this.#deps.records ?? recordDirectories;
    const discovery = ["-m", "discoverydb", "-t", "sendtargets", "-p", portal, "-I", iface];
    // Fails where there is one already, which serves as well.
    await this.#iscsiadm([...discovery, "-o", "new"], signal);
    if (chapDiscovery) {
      const method = ["-n", "discovery.sendtargets.auth.authmethod", "-v", "CHAP"];
      await this.#checked([...discovery, "-o", "update", ...method], signal);
      const settings = chapSettings(chapKeys.discovery, secret);
      await writeCredentials(directories, { portal, iface }, settings);
    }
    const discovered = await this.#iscsiadm([...discovery, "--discover"], signal);
    if (discovered.exitCode !== 0) {
      await this.#iscsiadm([...discovery, "-o", "delete"], signal);
      throw new VolumeError(
        `iscsi: failed to sendtargets to portal ${portal} output: ${output(discovered)}`,
      );
    }
    const node = ["-m", "node", "-p", portal, "-T", iqn, "-I", iface];
    const update = async (name: string, value: string): Promise<ExecResult> =>
      this.#iscsiadm([...node, "-o", "update", "-n", name, "-v", value], signal);
    // Otherwise the kernel finds all LUNs of the target at once, and keeps them.
    const manual = await update("node.session.scan", "manual");
    if (manual.exitCode !== 0) {
      this.#deps.logger.log("warn", "open-iscsi cannot keep other disks of the target away", {
        target: iqn,
        output: output(manual),
      });
    }
    if (chapSession) {
      await this.#checked(
        [...node, "-o", "update", "-n", "node.session.auth.authmethod", "-v", "CHAP"],
        signal,
      );
      const settings = chapSettings(chapKeys.session, secret);
      await writeCredentials(directories, { iqn, portal, iface }, settings);
    }
    const login = await this.#iscsiadm([...node, "--login"], signal);
    if (login.exitCode !== 0 && login.exitCode !== sessionExists) {
      await this.#iscsiadm([...node, "-o", "delete"], signal);
      throw new VolumeError(`iscsi: failed to attach disk: Error: ${output(login)}`);
    }
    // After a restart of the machine a target that is gone must not hold up its start.
    await update("node.startup", "manual");
  }

  async #device(paths: readonly string[], several: boolean, signal: AbortSignal): Promise<string> {
    const { clock, kernel = {} } = this.#deps;
    const until = clock.monotonic() + multipathWaitMs;
    for (;;) {
      for (const path of paths) {
        const above = multipathDevice(path, kernel);
        if (above !== undefined) return above;
      }
      if (!several || clock.monotonic() >= until) break;
      await clock.sleep(pollMs, signal);
    }
    const [first] = paths;
    if (first === undefined) throw new VolumeError("iscsi: the disk has no path");
    return first;
  }

  async #removeDevices(disk: IscsiDisk, signal: AbortSignal): Promise<void> {
    const { kernel = {}, logger, programs } = this.#deps;
    const { dev = "/dev", sys = "/sys" } = kernel;
    const names = lunDevices(disk, kernel);
    const above = names.flatMap((name) => multipathDevice(join(dev, name), kernel) ?? []);
    const tell = (msg: string, error: unknown): void => {
      signal.throwIfAborted();
      logger.log("warn", msg, { target: disk.iqn, error: errorMessage(error) });
    };
    for (const device of new Set(above)) {
      await runChecked(programs, ["multipath", "-f", device], deviceWaitMs, signal).catch(
        (error: unknown) => tell("multipath device could not be removed", error),
      );
    }
    for (const name of names) {
      const path = join(sys, "block", deviceName(join(dev, name)) ?? name, "device/delete");
      await writeKernelFile(programs, path, "1", signal).catch((error: unknown) =>
        tell("device of an iSCSI disk could not be removed", error),
      );
    }
  }
}
