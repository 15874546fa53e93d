import type { Socket } from "node:net";

import { within } from "../../lib/clock.ts";
import { UnderWay } from "../../lib/under-way.ts";

/** How long an end waits for those who have connected and not asked yet. */
const patienceMs = 250;

type Peer = Pick<Socket, "remoteAddress" | "remotePort">;

/** Connections that have asked for nothing yet: nobody counts them as being answered, and who made them wants to ask. */
export class Newcomers {
  /** What says that one has asked, by the far end's address and port. */
  readonly #waiting = new Map<string, () => void>();
  readonly #underWay = new UnderWay();

  add(socket: Socket): void {
    const key = farEnd(socket);
    const through = this.#underWay.begin();
    this.#waiting.set(key, through);
    socket.once("close", () => {
      through();
      if (this.#waiting.get(key) === through) this.#waiting.delete(key);
    });
  }

  /** Its first request has come. */
  asked(peer: Peer): void {
    const key = farEnd(peer);
    this.#waiting.get(key)?.();
    this.#waiting.delete(key);
  }

  /** Resolves when each has asked or left, or has had the time to. */
  async settled(): Promise<void> {
    const never = new AbortController().signal;
    await within(never, patienceMs, async (limited) => this.#underWay.settled(limited));
  }
}

function farEnd({ remoteAddress = "", remotePort = 0 }: Peer): string {
  return `${remoteAddress} ${remotePort}`;
}
