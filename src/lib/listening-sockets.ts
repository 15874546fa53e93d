import { open } from "node:fs/promises";

import { formatIP, type IPFamily } from "./cidr.ts";

/** A socket of this network namespace that waits for strangers. */
export interface ListeningSocket {
  readonly protocol: "TCP" | "UDP";
  readonly family: IPFamily;
  /** `0.0.0.0` and `::` stand for all addresses. */
  readonly ip: string;
  readonly port: number;
  /** Who opened it. */
  readonly uid: number;
}

/** States in /proc/net (include/net/tcp_states.h): TCP_LISTEN, and TCP_CLOSE, which unconnected UDP sockets are in. */
const waiting = { TCP: "0A", UDP: "07" } as const;

/** The kernel prints addresses as 32-bit words in the byte order of the machine, which is little endian wherever we run. */
function addressOf(hex: string): { readonly family: IPFamily; readonly ip: string } | undefined {
  if (!/^(?:[0-9A-F]{8}|[0-9A-F]{32})$/.test(hex)) return undefined;
  const bytes = [...Buffer.from(hex, "hex")];
  const ordered: number[] = [];
  for (let at = 0; at < bytes.length; at += 4)
    ordered.push(...bytes.slice(at, at + 4).toReversed());
  const value = BigInt(`0x${Buffer.from(ordered).toString("hex")}`);
  if (ordered.length === 4) return { family: "IPv4", ip: formatIP(value, "IPv4") };
  // An IPv6 socket that was given an IPv4 address.
  if (value >> 32n === 0xffffn)
    return { family: "IPv4", ip: formatIP(value & 0xffffffffn, "IPv4") };
  return { family: "IPv6", ip: formatIP(value, "IPv6") };
}

/** Reads the text of /proc/net/tcp, tcp6, udp or udp6; lines that are no sockets are left out. */
export function parseListeningSockets(
  text: string,
  protocol: ListeningSocket["protocol"],
): readonly ListeningSocket[] {
  return text.split("\n").flatMap((line): ListeningSocket[] => {
    const [, local = "", remote = "", state, , , , uid = ""] = line.trim().split(/\s+/);
    if (state !== waiting[protocol] || !/^0+:0000$/.test(remote)) return [];
    const [hex = "", portHex = ""] = local.split(":");
    const address = addressOf(hex);
    const port = Number.parseInt(portHex, 16);
    if (address === undefined || !(port > 0)) return [];
    return [{ protocol, ...address, port, uid: Number(uid) }];
  });
}

const files = [
  ["tcp", "TCP"],
  ["tcp6", "TCP"],
  ["udp", "UDP"],
  ["udp6", "UDP"],
] as const;

const chunkBytes = 65_536;

/**
 * The text of one file. Of TCP only the beginning: the kernel lists sockets that listen first, and a busy machine has
 * megabytes of connections behind them.
 */
async function readTable(path: string, protocol: ListeningSocket["protocol"]): Promise<string> {
  const file = await open(path, "r");
  try {
    const chunk = Buffer.alloc(chunkBytes);
    let text = "";
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, chunkBytes);
      text += chunk.toString("latin1", 0, bytesRead);
      if (bytesRead === 0 || (protocol === "TCP" && hasOtherState(text))) return text;
    }
  } finally {
    await file.close();
  }
}

/** Whether the last whole line is of a socket that does something else than listen. */
function hasOtherState(text: string): boolean {
  const end = text.lastIndexOf("\n");
  const line = text.slice(text.lastIndexOf("\n", end - 1) + 1, Math.max(end, 0));
  const [number = "", , , state] = line.trim().split(/\s+/);
  return /^\d+:$/.test(number) && state !== waiting.TCP;
}

/** All of this machine. What the kernel does not have (IPv6 is off) counts as none. */
export async function readListeningSockets(): Promise<readonly ListeningSocket[]> {
  const lists = await Promise.all(
    files.map(async ([name, protocol]) => {
      const text = await readTable(`/proc/net/${name}`, protocol).catch(() => "");
      return parseListeningSockets(text, protocol);
    }),
  );
  return lists.flat();
}

/**
 * Whether what is sent to the address reaches the socket. One of all IPv6 addresses takes IPv4 too, unless its program
 * forbade that, which /proc does not say.
 */
export function listensOn(
  socket: ListeningSocket,
  target: {
    readonly family: IPFamily;
    readonly ip: string;
    readonly port: number;
    readonly protocol: string;
  },
): boolean {
  if (socket.port !== target.port || socket.protocol !== target.protocol) return false;
  if (socket.ip === "::") return true;
  return socket.family === target.family && (socket.ip === target.ip || socket.ip === "0.0.0.0");
}
