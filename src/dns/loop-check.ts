import { within } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { askUDP, type UpstreamServer } from "./exchange.ts";
import { outgoingQuestion } from "./upstream-question.ts";
import { encodeName } from "./wire.ts";

const waitMs = 2000;

export interface LoopCheckOptions {
  readonly logger: Logger;
  /** [0, 1) */
  readonly random: () => number;
  /** Told the address of a server whose questions come back to us. */
  readonly onLoop: (address: string) => void;
}

/**
 * A name server of the host may itself ask us, on this machine (dnsmasq, systemd-resolved, ...) or by way of another one
 * that does the same. It is sent a name that nobody else can know of: when that is asked for here, the circle is closed.
 */
export class LoopCheck {
  readonly #options: LoopCheckOptions;
  readonly #sent = new Map<string, string>();

  constructor(options: LoopCheckOptions) {
    this.#options = options;
  }

  async check(servers: readonly UpstreamServer[], signal: AbortSignal): Promise<void> {
    await Promise.all(servers.map((server) => this.#probe(server, signal)));
  }

  /** Whether this is one of our own questions. Whose it was is then asked no more. */
  recognise(name: string): boolean {
    // Hardly ever is one under way, and each question comes by here.
    const address = this.#sent.size === 0 ? undefined : this.#sent.get(name);
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
    const { random } = this.#options;
    const label = (): string => Math.floor(random() * 2 ** 48).toString(36);
    const name = `${label()}.${label()}`;
    const recursion = 0x0100;
    const question = encodeName(name, "HINFO");
    const query = { question, passedFlags: recursion, edns: undefined };
    // No EDNS and no mixed case: what is too old for these passes the question on all the same.
    const outgoing = outgoingQuestion(query, { edns: false, mixedCase: false }, random);
    this.#sent.set(name, server.address);
    try {
      await within(signal, waitMs, (limited) => askUDP(server, outgoing, limited));
    } catch {
      // Whether it answers is for the forwarder to find out.
    } finally {
      this.#sent.delete(name);
    }
  }
}
