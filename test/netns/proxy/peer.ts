import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readlinkSync } from "node:fs";

import { sh } from "../namespace.ts";
import type { Order } from "./orders.ts";

const file = new URL("peer-process.ts", import.meta.url).pathname;

export interface AskOptions {
  /** Default: as many as `from` has, else 1. */
  readonly count?: number;
  readonly parallel?: number;
  /** Default 3000: longer than anything here takes, so that only silence ends in `timeout`. */
  readonly timeoutMs?: number;
  readonly localPort?: number;
  readonly from?: readonly string[];
}

/** A conversation over one TCP connection. */
export interface Conversation {
  readonly greeting: string;
  readonly localPort: number;
  /** Says something and returns what comes back, `timeout`, `closed` or the error's code. */
  say(text: string, timeoutMs?: number): Promise<string>;
  end(): Promise<void>;
}

/** `ADDRESS:PORT`; IPv6 without brackets. */
function split(to: string): { readonly host: string; readonly port: number } {
  const colon = to.lastIndexOf(":");
  return { host: to.slice(0, colon).replaceAll(/[[\]]/g, ""), port: Number(to.slice(colon + 1)) };
}

/** A process with a network namespace of its own, or in this one, that serves and asks as it is told. */
export class Peer {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #turn = 0;

  private constructor(child: ChildProcess, pid: number) {
    this.#child = child;
    this.pid = pid;
  }

  static async start(place: "own namespace" | "here" = "own namespace"): Promise<Peer> {
    const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
    const argv = [process.execPath, file];
    const [program = "", ...args] = place === "here" ? argv : ["unshare", "--net", "--", ...argv];
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"], env });
    const { pid } = child;
    assert.ok(pid !== undefined);
    const peer = new Peer(child, pid);
    const ready = peer.#expect();
    child.on("message", ({ turn, result, error }: Record<string, unknown>) => {
      const waiting = peer.#waiting.get(Number(turn));
      peer.#waiting.delete(Number(turn));
      if (typeof error === "string") waiting?.reject(new Error(error));
      else waiting?.resolve(result);
    });
    child.once("close", () => {
      for (const { reject } of peer.#waiting.values()) reject(new Error("the peer has ended"));
    });
    await ready;
    const same = readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync("/proc/self/ns/net");
    assert.equal(same, place === "here");
    return peer;
  }

  #expect(): Promise<unknown> {
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(this.#turn, waiting);
    this.#turn += 1;
    return waiting.promise;
  }

  #tell(order: Order): Promise<unknown> {
    const turn = this.#turn;
    const answer = this.#expect();
    this.#child.send({ turn, order });
    return answer;
  }

  /** Runs a program inside. */
  sh(...argv: string[]): Promise<string> {
    return sh("nsenter", "-t", String(this.pid), "-n", ...argv);
  }

  async serve(name: string): Promise<void> {
    await this.#tell({ op: "serve", name });
  }

  /** Asks; the answers in the order of the questions. */
  async ask(
    protocol: "tcp" | "udp",
    to: string,
    options: AskOptions = {},
  ): Promise<readonly string[]> {
    const { from = [], timeoutMs = 3000, localPort = 0, parallel = 1 } = options;
    const count = options.count ?? Math.max(from.length, 1);
    const order = { ...split(to), protocol, count, parallel, timeoutMs, localPort, from };
    return (await this.#tell({ op: "ask", ...order })) as readonly string[];
  }

  /** Opens a connection to an echo server. */
  async open(to: string): Promise<Conversation> {
    const { id, greeting, localPort } = (await this.#tell({ op: "open", ...split(to) })) as {
      id: number;
      greeting: string;
      localPort: number;
    };
    return {
      greeting,
      localPort,
      say: async (text, timeoutMs = 3000) =>
        String(await this.#tell({ op: "say", id, text, timeoutMs })),
      end: async () => {
        await this.#tell({ op: "stop", id });
      },
    };
  }

  /** Sends datagrams of one flow until the returned function is called. */
  async stream(to: string, localPort: number, intervalMs = 20): Promise<() => Promise<void>> {
    const order = { ...split(to), localPort, intervalMs };
    const id = Number(await this.#tell({ op: "stream", ...order }));
    return async () => {
      await this.#tell({ op: "stop", id });
    };
  }

  /** Connects again and again; the returned function ends that and says what came back, by name or error. */
  async pace(
    to: string,
    perSecond: number,
  ): Promise<
    () => Promise<{ readonly counts: Record<string, number>; readonly longestMs: number }>
  > {
    const order = { ...split(to), intervalMs: 1000 / perSecond };
    const id = Number(await this.#tell({ op: "pace", ...order }));
    return async () =>
      (await this.#tell({ op: "stop", id })) as {
        counts: Record<string, number>;
        longestMs: number;
      };
  }

  /** How many datagrams came to a port so far. */
  async received(port: number): Promise<number> {
    return Number(await this.#tell({ op: "received", port }));
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "close");
    this.#child.kill("SIGKILL");
    await ended;
  }
}
