import { readdirSync, readlinkSync } from "node:fs";
import { open } from "node:fs/promises";

import { canonicalIP } from "../../lib/cidr.ts";
import { SetupError } from "../../lib/errors.ts";
import { isWildcard } from "../../lib/listen-on.ts";
import type { PassedFd } from "./environment.ts";
import { type BoundSocket, findSockets } from "./socket-table.ts";

/** A socket that the service manager holds while we are not there, so that nobody is refused meanwhile. */
export interface HeldSocket extends BoundSocket {
  /** Descriptors of it that nobody has taken yet. Whoever takes one closes it. */
  readonly fds: number[];
}

/** Where something of ours wants to listen. */
export interface Place {
  readonly address: string;
  readonly port: number;
}

function sameAddress(held: string, wanted: string): boolean {
  if (isWildcard(held)) return isWildcard(wanted);
  return !isWildcard(wanted) && canonicalIP(held) === canonicalIP(wanted);
}

function written({ address, port }: Place): string {
  return `${address.includes(":") ? `[${address}]` : address}:${port}`;
}

/** The sockets that were passed to this process. */
export class HeldSockets {
  readonly #sockets: readonly HeldSocket[];
  readonly #taken = new Set<HeldSocket>();
  readonly #missed = new Set<string>();

  constructor(sockets: readonly HeldSocket[]) {
    this.#sockets = sockets;
  }

  /** Whether there is a TCP socket for this place: then it is no other program's, and need not be free. */
  holds(place: Place): boolean {
    return this.#find("tcp", place) !== undefined;
  }

  /**
   * A descriptor of the socket for this place; undefined when none was passed.
   *
   * @throws {SetupError} all were taken: only a new process gets more.
   */
  take(protocol: BoundSocket["protocol"], place: Place): number | undefined {
    const socket = this.#find(protocol, place);
    if (socket === undefined) {
      this.#missed.add(`${written(place)}/${protocol}`);
      return undefined;
    }
    this.#taken.add(socket);
    const fd = socket.fds.pop();
    if (fd === undefined) {
      throw new SetupError(
        `the socket ${written(socket)} (${protocol}) that systemd holds was closed here too often; a restart gets it anew`,
      );
    }
    return fd;
  }

  /**
   * Makes sure that what systemd holds does not keep us from where we want to listen.
   *
   * @param unit The socket unit, for the message.
   * @throws {SetupError} it holds the same port on other addresses.
   */
  refuseConflicts(places: readonly Place[], unit: string): void {
    for (const place of places) {
      if (this.holds(place)) continue;
      const other = this.#sockets.find(
        (held) =>
          held.protocol === "tcp" &&
          held.port === place.port &&
          (isWildcard(held.address) || isWildcard(place.address)),
      );
      if (other === undefined) continue;
      throw new SetupError(
        `${unit} holds ${written(other)}, but the configuration says ${written(place)}: give the socket that address (systemctl edit ${unit}: an empty ListenStream=, then ListenStream=${written(place)}), or do without it (systemctl mask --now ${unit})`,
      );
    }
  }

  /** What nobody has taken, such as `10.96.0.10:53/udp`: whoever asks there waits in vain while we run. */
  get unused(): readonly string[] {
    return this.#sockets
      .filter((socket) => !this.#taken.has(socket))
      .map((socket) => `${written(socket)}/${socket.protocol}`);
  }

  /** What was wanted and is not there, when others are: a restart closes it. */
  get missed(): readonly string[] {
    return this.#sockets.length === 0 ? [] : [...this.#missed];
  }

  #find(protocol: BoundSocket["protocol"], { address, port }: Place): HeldSocket | undefined {
    return this.#sockets.find(
      (held) =>
        held.protocol === protocol && held.port === port && sameAddress(held.address, address),
    );
  }
}

function inodeOf(fd: number): string | undefined {
  try {
    return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
  } catch {
    // It was closed.
    return undefined;
  }
}

/** All descriptors of these sockets: their copies too (systemd/as-service). */
function descriptorsOf(inodes: ReadonlySet<string>): ReadonlyMap<string, number[]> {
  const descriptors = new Map<string, number[]>();
  for (const name of readdirSync("/proc/self/fd")) {
    const inode = inodeOf(Number(name));
    if (inode === undefined || !inodes.has(inode)) continue;
    descriptors.set(inode, [...(descriptors.get(inode) ?? []), Number(name)]);
  }
  return descriptors;
}

const chunkBytes = 65_536;

/** Reads as far as needed: sockets that listen come first, and a busy machine has megabytes of connections behind them. */
async function findIn(
  path: string,
  protocol: BoundSocket["protocol"],
  inodes: ReadonlySet<string>,
): Promise<ReadonlyMap<string, BoundSocket>> {
  const found = new Map<string, BoundSocket>();
  const file = await open(path, "r").catch(() => undefined);
  // Without IPv6 there is no such file.
  if (file === undefined) return found;
  try {
    const chunk = Buffer.alloc(chunkBytes);
    let rest = "";
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, chunkBytes);
      const text = rest + chunk.toString("latin1", 0, bytesRead);
      const end = bytesRead === 0 ? text.length : text.lastIndexOf("\n") + 1;
      rest = text.slice(end);
      for (const [inode, socket] of findSockets(text.slice(0, end), protocol, inodes)) {
        found.set(inode, socket);
      }
      if (bytesRead === 0 || found.size === inodes.size) return found;
    }
  } finally {
    await file.close();
  }
}

/** Finds out what the passed descriptors are. Those that are no bound sockets of TCP or UDP are left alone. */
export async function openHeldSockets(passed: readonly PassedFd[]): Promise<HeldSockets> {
  const inodes = new Set(passed.flatMap(({ fd }) => inodeOf(fd) ?? []));
  if (inodes.size === 0) return new HeldSockets([]);
  const descriptors = descriptorsOf(inodes);
  const tables = await Promise.all(
    (["tcp", "udp"] as const).flatMap((protocol) =>
      [protocol, `${protocol}6`].map((name) => findIn(`/proc/self/net/${name}`, protocol, inodes)),
    ),
  );
  return new HeldSockets(
    tables.flatMap((table) =>
      [...table].map(([inode, socket]) => ({ ...socket, fds: descriptors.get(inode) ?? [] })),
    ),
  );
}
