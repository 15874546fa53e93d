import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { ExecResult } from "../../../src/lib/exec.ts";
import { addDisk, type Place, result } from "./fixture.ts";

/** What one iSCSI target offers. */
export interface Target {
  readonly iqn: string;
  /** `address:port` of those portals that answer. */
  readonly portals: readonly string[];
  /** Device names by LUN, one for each portal. */
  readonly luns: ReadonlyMap<number, readonly string[]>;
  /** Password that it asks for at login. */
  readonly password?: string;
}

/**
 * open-iscsi and the kernel's initiator as far as they can be seen: records in files, sessions in sysfs, links of udev.
 */
export class FakeInitiator {
  readonly records: string;
  readonly #place: Place;
  readonly #targets: readonly Target[];
  #hosts = 0;

  constructor(place: Place, targets: readonly Target[]) {
    this.#place = place;
    this.#targets = targets;
    this.records = join(place.sys, "../iscsi");
    mkdirSync(this.records, { recursive: true });
    place.disks.scripts.push((argv) => this.#run(argv));
  }

  /** Portals with a session. */
  sessions(): readonly string[] {
    return this.#sessions().map(({ portal }) => portal);
  }

  /** Text of all records. */
  recordTexts(): readonly string[] {
    return filesBelow(this.records).map((file) => readFileSync(file, "utf8"));
  }

  #sessions(): readonly { host: number; iqn: string; portal: string; path: string }[] {
    const hosts = join(this.#place.sys, "class/iscsi_host");
    return names(hosts).map((name) => {
      const host = Number(name.slice("host".length));
      const path = join(hosts, name, "device", `session${host}`);
      const at = join(path, `connection${host}:0/iscsi_connection/connection${host}:0`);
      const read = (file: string): string => readFileSync(file, "utf8").trim();
      return {
        host,
        path,
        iqn: read(join(path, `iscsi_session/session${host}/targetname`)),
        portal: `${read(join(at, "address"))}:${read(join(at, "port"))}`,
      };
    });
  }

  #run(argv: readonly string[]): ExecResult | undefined {
    if (argv[0] === "sh") return this.#kernelWrite(argv.at(-1) ?? "", argv[4] ?? "");
    if (argv[0] !== "iscsiadm") return undefined;
    const option = (name: string): string => argv[argv.indexOf(name) + 1] ?? "";
    const has = (name: string): boolean => argv.includes(name);
    const portal = has("-p") ? option("-p") : "";
    switch (option("-m")) {
      case "iface":
        return result(
          0,
          has("show")
            ? "iface.iscsi_ifacename = default\niface.transport_name = tcp\niface.initiatorname = <empty>\n"
            : "",
        );
      case "discoverydb":
        return this.#discovery(portal, has("--discover"), has("delete"));
      default:
        return this.#node(option("-T"), portal, option("-I"), {
          has,
          value: [option("-n"), option("-v")],
        });
    }
  }

  #discovery(portal: string, discover: boolean, remove: boolean): ExecResult {
    const directory = join(this.records, "send_targets", portal.replace(":", ","));
    if (remove) {
      rmSync(directory, { recursive: true, force: true });
      return result(0);
    }
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "st_config"), "# BEGIN RECORD\n# END RECORD\n", { flag: "a" });
    if (!discover) return result(0);
    const found = this.#targets.filter((target) => target.portals.includes(portal));
    if (found.length === 0) return result(8, "", "connection timed out");
    for (const { iqn } of found) {
      const at = join(this.records, "nodes", iqn, `${portal.replace(":", ",")},1`);
      mkdirSync(at, { recursive: true });
      writeFileSync(join(at, "default"), "# BEGIN RECORD\nnode.name = x\n# END RECORD\n");
    }
    return result(0);
  }

  #node(
    iqn: string,
    portal: string,
    iface: string,
    given: { readonly has: (name: string) => boolean; readonly value: readonly string[] },
  ): ExecResult {
    const { has, value } = given;
    const record = join(this.records, "nodes", iqn, `${portal.replace(":", ",")},1`);
    if (has("--login")) return this.#login(iqn, portal, join(record, iface));
    if (has("--logout")) return this.#logout(iqn, portal);
    if (names(record).length === 0) return result(21, "", "No records found");
    if (has("delete")) rmSync(record, { recursive: true });
    else if (has("update")) {
      const file = join(record, names(record)[0] ?? "");
      writeFileSync(
        file,
        readFileSync(file, "utf8").replace("# END", `${value.join(" = ")}\n# END`),
      );
    }
    return result(0);
  }

  #login(iqn: string, portal: string, record: string): ExecResult {
    const target = this.#targets.find((each) => each.iqn === iqn);
    const text = readFileSync(record, "utf8");
    const password = /^node\.session\.auth\.password = (.*)$/m.exec(text)?.[1];
    if (target?.password !== password) return result(24, "", "authorization failure");
    this.#hosts += 1;
    const host = this.#hosts;
    const session = join(this.#place.sys, `class/iscsi_host/host${host}/device/session${host}`);
    const at = join(session, `connection${host}:0/iscsi_connection/connection${host}:0`);
    mkdirSync(join(session, `iscsi_session/session${host}`), { recursive: true });
    writeFileSync(join(session, `iscsi_session/session${host}/targetname`), `${iqn}\n`);
    mkdirSync(at, { recursive: true });
    const [address = "", port = ""] = portal.split(":");
    for (const kind of ["", "persistent_"]) {
      writeFileSync(join(at, `${kind}address`), `${address}\n`);
      writeFileSync(join(at, `${kind}port`), `${port}\n`);
    }
    mkdirSync(join(this.#place.sys, `class/scsi_host/host${host}`), { recursive: true });
    return result(0);
  }

  #logout(iqn: string, portal: string): ExecResult {
    const session = this.#sessions().find((each) => each.iqn === iqn && each.portal === portal);
    if (session === undefined) return result(21, "", "No matching sessions found");
    rmSync(join(this.#place.sys, `class/iscsi_host/host${session.host}`), { recursive: true });
    return result(0);
  }

  /** What the kernel does when sysfs is written to. */
  #kernelWrite(file: string, text: string): ExecResult {
    const scanned = /class\/scsi_host\/host(\d+)\/scan$/.exec(file)?.[1];
    if (scanned !== undefined) this.#scan(Number(scanned), Number(text.split(" ")[2]));
    const removed = /block\/(\w+)\/device\/delete$/.exec(file)?.[1];
    if (removed !== undefined) this.#remove(removed);
    return result(0);
  }

  #scan(host: number, lun: number): void {
    const session = this.#sessions().find((each) => each.host === host);
    const target = this.#targets.find(({ iqn }) => iqn === session?.iqn);
    const at = target?.portals.indexOf(session?.portal ?? "") ?? -1;
    const device = target?.luns.get(lun)?.[at];
    if (session === undefined || target === undefined || device === undefined) return;
    const block = join(session.path, `target${host}:0:0/${host}:0:0:${lun}/block/${device}`);
    if (names(join(block, "..")).length > 0) return;
    mkdirSync(block, { recursive: true });
    mkdirSync(join(this.#place.sys, "block", device), { recursive: true });
    const link = `disk/by-path/ip-${session.portal}-iscsi-${target.iqn}-lun-${lun}`;
    addDisk(this.#place, device, link);
  }

  #remove(device: string): void {
    for (const { host, path } of this.#sessions()) {
      const target = join(path, `target${host}:0:0`);
      for (const lun of names(target)) {
        if (names(join(target, lun, "block")).includes(device)) {
          rmSync(join(target, lun), { recursive: true });
        }
      }
    }
    rmSync(join(this.#place.sys, "block", device), { recursive: true });
    rmSync(join(this.#place.dev, device));
    const links = join(this.#place.dev, "disk/by-path");
    for (const name of names(links)) {
      // A link to nothing: udev takes it away.
      if (!filesBelow(links).includes(join(links, name))) rmSync(join(links, name));
    }
  }
}

function names(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Files below a directory that can be read, links followed. */
function filesBelow(directory: string): readonly string[] {
  return names(directory).flatMap((name) => {
    const path = join(directory, name);
    const inside = names(path);
    if (inside.length > 0) return filesBelow(path);
    try {
      readFileSync(path);
      return [path];
    } catch {
      return [];
    }
  });
}
