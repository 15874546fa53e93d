import { readlink } from "node:fs/promises";
import { join } from "node:path";

import type { Machine } from "./machine.ts";

/** A process of this machine. */
export interface ProcessFacts {
  readonly pid: number;
  /** Name of its program, at most 15 bytes. */
  readonly name: string;
  readonly argv: readonly string[];
  /** Whether it is in this process's network namespace; undefined where nobody may know. */
  readonly here: boolean | undefined;
}

async function namespaceOf(machine: Machine, pid: string): Promise<string | undefined> {
  return readlink(join(machine.root, "/proc", pid, "ns/net")).catch(() => undefined);
}

/** All processes that /proc shows. */
export async function listProcesses(machine: Machine): Promise<readonly ProcessFacts[]> {
  const own = await namespaceOf(machine, "self");
  const pids = (await machine.names("/proc")).filter((name) => /^\d+$/.test(name));
  const found: ProcessFacts[] = [];
  for (const pid of pids) {
    const name = (await machine.read(`/proc/${pid}/comm`))?.trim();
    if (name === undefined || name === "") continue;
    const cmdline = (await machine.read(`/proc/${pid}/cmdline`)) ?? "";
    const namespace = await namespaceOf(machine, pid);
    found.push({
      pid: Number(pid),
      name,
      argv: cmdline.split("\0").filter((word) => word !== ""),
      here: own === undefined || namespace === undefined ? undefined : own === namespace,
    });
  }
  return found;
}

/** A socket that listens, as /proc/net/tcp and the like have it. */
export interface Listener {
  readonly port: number;
  /** Canonical address; empty = all. */
  readonly address: string;
  readonly inode: string;
}

function hexAddress(hex: string): string {
  if (/^0+$/.test(hex)) return "";
  if (hex.length !== 8) return "[v6]";
  const bytes = [6, 4, 2, 0].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
  return bytes.join(".");
}

/** Sockets that listen (TCP), or are bound without a peer (UDP). Pure. */
export function parseListeners(table: string, protocol: "tcp" | "udp"): readonly Listener[] {
  // 0A is TCP_LISTEN; a UDP socket without a peer is in 07, TCP_CLOSE.
  const wanted = protocol === "tcp" ? "0A" : "07";
  return table.split("\n").flatMap((line) => {
    const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    const [address = "", port = ""] = local.split(":");
    if (state !== wanted || port === "") return [];
    return [{ port: Number.parseInt(port, 16), address: hexAddress(address), inode }];
  });
}

/** What listens in this network namespace. */
export async function listListeners(
  machine: Machine,
  protocol: "tcp" | "udp",
): Promise<readonly Listener[]> {
  const tables = await Promise.all(
    [protocol, `${protocol}6`].map((name) => machine.read(`/proc/self/net/${name}`)),
  );
  return tables.flatMap((table) => parseListeners(table ?? "", protocol));
}

/** The processes that hold sockets, by inode. Others' are seen by root alone. */
export async function ownersOf(
  machine: Machine,
  inodes: ReadonlySet<string>,
): Promise<ReadonlyMap<string, ProcessFacts>> {
  const found = new Map<string, ProcessFacts>();
  if (inodes.size === 0) return found;
  for (const process of await listProcesses(machine)) {
    for (const descriptor of await machine.names(`/proc/${process.pid}/fd`)) {
      const path = join(machine.root, "/proc", String(process.pid), "fd", descriptor);
      const target = await readlink(path).catch(() => "");
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode !== undefined && inodes.has(inode) && !found.has(inode)) found.set(inode, process);
    }
  }
  return found;
}
