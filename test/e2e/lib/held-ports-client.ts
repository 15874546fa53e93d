// Asks all ports that systemd holds for `remora up`, without pause: the node's server, the API server, and cluster DNS at
// the address that is given, for kubernetes.default. Each question is asked once, on a connection of its own, and waits
// twenty seconds. SIGTERM has it wait for those that are under way, print { KIND: { asked, failures } }, and end.
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { get } from "node:https";

import { encode } from "dns-packet";

import { askTCP, askUDP } from "../../../src/dns/exchange.ts";

const [dns = ""] = process.argv.slice(2);
const patienceMs = 20_000;
const pauseMs = 25;

type Ask = (id: number, signal: AbortSignal) => Promise<void>;

/** Any answer will do: who does not say who he is gets a refusal, which is one. */
const https =
  (port: number): Ask =>
  async (_id, signal) => {
    const options = { agent: false, rejectUnauthorized: false, signal } as const;
    const request = get(`https://127.0.0.1:${port}/healthz`, options);
    const [answer] = (await once(request, "response", { signal })) as [IncomingMessage];
    answer.resume();
    await once(answer, "end", { signal });
  };

const question =
  (ask: typeof askUDP): Ask =>
  async (id, signal) => {
    const questions = [{ name: "kubernetes.default.svc.cluster.local", type: "A" }] as const;
    const message = encode({ type: "query", id, flags: 0x100, questions: [...questions] });
    const outgoing = { message, id, question: message.subarray(12) };
    const reply = await ask({ address: dns, port: 53 }, outgoing, signal);
    if (((reply[3] ?? 0) & 0xf) !== 0 || reply[7] === 0) {
      throw new Error(`answered with code ${(reply[3] ?? 0) & 0xf} and ${reply[7]} records`);
    }
  };

const kinds: Readonly<Record<string, Ask>> = {
  node: https(10_250),
  api: https(6443),
  udp: question(askUDP),
  tcp: question(askTCP),
};

const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());

async function askOn(ask: Ask): Promise<{ asked: number; failures: string[] }> {
  const failures: string[] = [];
  const open: Promise<void>[] = [];
  while (!stop.signal.aborted) {
    const started = performance.now();
    const fail = (error: unknown): void => {
      failures.push(`${String(error)} after ${Math.round(performance.now() - started)} ms`);
    };
    open.push(ask(open.length & 0xffff, AbortSignal.timeout(patienceMs)).catch(fail));
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  await Promise.all(open);
  return { asked: open.length, failures };
}

const results = Object.entries(kinds).map(async ([kind, ask]) => [kind, await askOn(ask)]);
process.stdout.write("asking\n");
process.stdout.write(`${JSON.stringify(Object.fromEntries(await Promise.all(results)))}\n`);
