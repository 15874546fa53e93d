import type { Clock } from "../lib/clock.ts";
import { askTCP, askUDP, type UpstreamServer, UntrustedReplyError } from "./exchange.ts";
import { isTruncated, readReply, type UpstreamReply } from "./upstream-message.ts";
import { type Manner, type Outgoing, outgoingQuestion } from "./upstream-question.ts";
import { headerBytes, type Query, rcodes } from "./wire.ts";

/** Seconds that anything from upstream is kept, as in kubeadm's CoreDNS. */
export const maxUpstreamTTL = 30;
/** How long it is remembered what a server does not know; it may be another one behind the same address. */
const rememberMs = 10 * 60_000;

export interface DialogueOptions {
  readonly clock: Clock;
  /** [0, 1), not to be guessed: it makes ids and spellings. */
  readonly random: () => number;
  /** Told of each datagram that pretended to be an answer. */
  readonly onStray?: () => void;
  /** Asks by TCP only (`options use-vc`). */
  readonly tcpOnly?: () => boolean;
}

interface Remembered {
  readonly manner: Manner;
  readonly until: number;
}

const best: Manner = { edns: true, mixedCase: true };

/**
 * One question to one server: by UDP, by TCP for what does not fit or cannot be trusted, again without EDNS for a server
 * that does not know it, and in plain spelling for one that gives names back in another.
 */
export class ServerDialogue {
  readonly #options: DialogueOptions;
  readonly #manners = new Map<string, Remembered>();

  constructor(options: DialogueOptions) {
    this.#options = options;
  }

  /** @throws what the network says, or the signal's reason. */
  async ask(server: UpstreamServer, query: Query, signal: AbortSignal): Promise<UpstreamReply> {
    const known = this.#mannerOf(server);
    // Who wants DNSSEC cannot have it otherwise.
    const manner = query.edns?.dnssecOK === true ? { ...known, edns: true } : known;
    let reply: UpstreamReply;
    try {
      reply = await this.#exchange(server, query, manner, signal);
    } catch (error) {
      if (signal.aborted && isTimeout(signal.reason)) this.#wasSilent(server, manner);
      throw error;
    }
    if (!manner.edns || !refusesEDNS(reply)) return reply;
    const plain = await this.#exchange(server, query, { ...manner, edns: false }, signal);
    // When it says the same without, it was not EDNS that it did not like.
    if (!refusesEDNS(plain)) this.#remember(server, { edns: false });
    return plain;
  }

  /** Forgets what is known of the servers. */
  forget(): void {
    this.#manners.clear();
  }

  /** Some firewalls drop what has EDNS. So the next question goes without; when that meets silence too, it was not that. */
  #wasSilent(server: UpstreamServer, { edns }: Manner): void {
    this.#remember(server, { edns: !edns });
  }

  #mannerOf(server: UpstreamServer): Manner {
    const known = this.#manners.get(serverKey(server));
    return known === undefined || known.until <= this.#options.clock.monotonic()
      ? best
      : known.manner;
  }

  #remember(server: UpstreamServer, lacking: Partial<Manner>): void {
    const manner = { ...this.#mannerOf(server), ...lacking };
    const until = this.#options.clock.monotonic() + rememberMs;
    this.#manners.set(serverKey(server), { manner, until });
  }

  async #exchange(
    server: UpstreamServer,
    query: Query,
    manner: Manner,
    signal: AbortSignal,
  ): Promise<UpstreamReply> {
    let short: UpstreamReply | undefined;
    let otherCase = false;
    if (this.#options.tcpOnly?.() !== true) {
      try {
        short = await this.#askUDP(server, query, manner, signal);
        if (short !== undefined && !isTruncated(short.message)) return short;
      } catch (error) {
        if (!(error instanceof UntrustedReplyError)) throw error;
        ({ otherCase } = error);
      }
    }
    try {
      return await this.#askTCP(server, query, manner, signal);
    } catch (error) {
      // A server without TCP: what it said is marked as cut, and that is the best there is.
      if (short !== undefined) return short;
      if (!otherCase) throw error;
      this.#remember(server, { mixedCase: false });
      if (signal.aborted) throw error;
      return this.#exchange(server, query, { ...manner, mixedCase: false }, signal);
    }
  }

  #outgoing(query: Query, manner: Manner): Outgoing {
    const { onStray, random } = this.#options;
    const outgoing = outgoingQuestion(query, manner, random);
    return onStray === undefined ? outgoing : { ...outgoing, onStray };
  }

  async #askUDP(
    server: UpstreamServer,
    query: Query,
    manner: Manner,
    signal: AbortSignal,
  ): Promise<UpstreamReply | undefined> {
    const outgoing = this.#outgoing(query, manner);
    const message = await askUDP(server, outgoing, signal);
    return readReply(message, outgoing.question, maxUpstreamTTL);
  }

  async #askTCP(
    server: UpstreamServer,
    query: Query,
    manner: Manner,
    signal: AbortSignal,
  ): Promise<UpstreamReply> {
    const { question, ...outgoing } = this.#outgoing(query, manner);
    const message = await askTCP(server, { ...outgoing, question }, signal);
    const reply = readReply(message, question, maxUpstreamTTL);
    if (reply === undefined) throw new Error("the answer is malformed");
    // It is known who says so: from now on such replies need no second question.
    const echoed = reply.message.subarray(headerBytes, headerBytes + question.length);
    if (manner.mixedCase && !echoed.equals(question)) this.#remember(server, { mixedCase: false });
    return reply;
  }
}

function isTimeout(reason: unknown): boolean {
  return reason instanceof Error && reason.name === "TimeoutError";
}

/** RFC 6891, 7: how servers say that they do not know OPT records, or not this version. */
function refusesEDNS({ rcode }: UpstreamReply): boolean {
  return rcode === rcodes.formErr || rcode === rcodes.notImp || rcode === rcodes.badVers;
}

/** `192.0.2.1:53`, `[2001:db8::1]:53` */
export function serverKey({ address, port }: UpstreamServer): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
