import { networkInterfaces } from "node:os";

import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { askUDP, type UpstreamServer } from "./exchange.ts";
import { encodeName, encodeQuestion } from "./wire.ts";

const waitMs = 2000;

export interface LoopCheckOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** [0, 1) */
  readonly random: () => number;
  /** Told the address of a server whose questions come back to us. */
  readonly onLoop: (address: string) => void;
}

/**
 * A forwarder on this machine (dnsmasq, systemd-resolved, ...) may itself ask us. It is sent a name that nobody else
 * can know of: when that is asked for here, the circle is closed.
 */
export class LoopCheck {
  readonly #options: LoopCheckOptions;
  readonly #sent = new Map<string, string>();

  constructor(options: LoopCheckOptions) {
    this.#options = options;
  }

  /** Looks at those of the servers that run on this machine: others cannot reach us. */
  async check(servers: readonly UpstreamServer[], signal: AbortSignal): Promise<void> {
    const here = servers.filter(({ address }) => isLocal(address));
    await Promise.all(here.map((server) => this.#probe(server, signal)));
  }

  /** Whether this is one of our own questions. Whose it was is then asked no more. */
  recognise(name: string): boolean {
    const address = this.#sent.get(name);
    if (address === undefined) return false;
    this.#sent.delete(name);
    this.#options.logger.log(
      "error",
      "a name server of the host passes questions on to this one; it is not asked any more",
      { server: address },
    );
    this.#options.onLoop(address);
    return true;
  }

  async #probe(server: UpstreamServer, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const label = (): string => Math.floor(random() * 2 ** 48).toString(36);
    const name = `${label()}.${label()}`;
    const question = encodeName(name, "HINFO");
    const id = Math.floor(random() * 65_536);
    const recursion = 0x0100;
    const query = { id, passedFlags: recursion, question, name, type: "HINFO", edns: undefined };
    this.#sent.set(name, server.address);
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    const patience = clock.sleep(waitMs, either).then(
      () => stop.abort(new Error("no answer in time")),
      () => undefined,
    );
    try {
      await askUDP(server, { id, question, message: encodeQuestion(query, id) }, either);
    } catch {
      // Whether it answers is for the forwarder to find out.
    } finally {
      stop.abort();
      await patience;
      this.#sent.delete(name);
    }
  }
}

function isLocal(address: string): boolean {
  if (address.startsWith("127.") || address === "::1") return true;
  return Object.values(networkInterfaces()).some(
    (interfaces) => interfaces?.some((each) => each.address === address) ?? false,
  );
}
