// Asks a name server by UDP as fast as it answers, or at a fixed rate; figures as one JSON object. A process of its own:
// its work must not be the server's. argv: one JSON object, see LoadOptions.
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";

import { encode, type RecordType } from "dns-packet";

import { quantile, round } from "./figures.ts";

export interface LoadOptions {
  readonly address: string;
  readonly port: number;
  readonly seconds: number;
  readonly sockets: number;
  /** Source addresses: 127.8.0.1 and so on. */
  readonly sources: number;
  /** Questions that one socket waits for at once. */
  readonly outstanding: number;
  /** Questions in a second; 0 = as many as are answered. */
  readonly rate: number;
  readonly services: number;
  /** Of these so many are asked for; the others are there all the same. */
  readonly asked: number;
  readonly seed: number;
}

export interface LoadFigures {
  readonly sent: number;
  readonly answered: number;
  readonly lost: number;
  /** Answers that say something else than they should. */
  readonly wrong: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of this process. */
  readonly cpuSeconds: number;
}

export function serviceName(index: number): string {
  return `svc-${index}.ns-${index % 100}.svc.cluster.local`;
}

export function serviceIP(index: number): string {
  return `10.96.${index >> 8}.${index & 255}`;
}

const lostAfterMs = 1000;

interface Question {
  readonly message: Buffer;
  readonly rcode: number;
  readonly answers: number;
}

/** What libc asks for a name with four dots when ndots is 5: four names, two types each. */
function lookUp(index: number): readonly Question[] {
  const name = serviceName(index);
  const questions: Question[] = [];
  for (const suffix of [".app.svc.cluster.local", ".svc.cluster.local", ".cluster.local", ""]) {
    for (const type of ["A", "AAAA"] satisfies RecordType[]) {
      const question = { name: `${name}${suffix}`, type };
      const message = encode({ type: "query", id: 0, flags: 0x100, questions: [question] });
      const found = suffix === "";
      questions.push({ message, rcode: found ? 0 : 3, answers: found && type === "A" ? 1 : 0 });
    }
  }
  return questions;
}

/** The same numbers in each run. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

class Load {
  readonly #options: LoadOptions;
  readonly #questions: Question[] = [];
  readonly #sockets: Socket[] = [];
  readonly latencies: number[] = [];
  #next = 0;
  #running = true;
  sent = 0;
  answered = 0;
  lost = 0;
  wrong = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
    const random = randomOf(options.seed);
    const lookups = new Map<number, readonly Question[]>();
    for (let turn = 0; turn < 20_000; turn += 1) {
      const index = Math.floor(random() * options.asked);
      const questions = lookups.get(index) ?? lookUp(index);
      lookups.set(index, questions);
      this.#questions.push(...questions);
    }
  }

  async run(): Promise<LoadFigures> {
    const { sockets, seconds, rate, outstanding } = this.#options;
    const senders: (() => void)[] = [];
    for (let index = 0; index < sockets; index += 1) senders.push(await this.#open(index));
    const cpu = process.cpuUsage();
    const startedAt = performance.now();
    const end = startedAt + seconds * 1000;
    if (rate === 0) {
      for (let turn = 0; turn < outstanding; turn += 1) for (const send of senders) send();
      await delay(seconds * 1000);
    } else {
      for (let due = 0, now = startedAt; now < end; now = performance.now()) {
        due = Math.floor(((now - startedAt) * rate) / 1000);
        // In small groups: a burst of a thousand would be a load of its own kind.
        for (let left = Math.min(due - this.sent, 50); left > 0; left -= 1) {
          senders[this.sent % senders.length]?.();
        }
        await (due - this.sent > 0 ? new Promise(setImmediate) : delay(1));
      }
    }
    this.#running = false;
    const took = (performance.now() - startedAt) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    const { answered } = this;
    await delay(200);
    for (const socket of this.#sockets) socket.close();
    return {
      sent: this.sent,
      answered,
      lost: this.lost,
      wrong: this.wrong,
      seconds: round(took, 3),
      p50Ms: round(quantile(this.latencies, 0.5), 3),
      p99Ms: round(quantile(this.latencies, 0.99), 3),
      cpuSeconds: round((user + system) / 1e6, 3),
    };
  }

  /** @returns what sends the next question. */
  async #open(index: number): Promise<() => void> {
    const { address, port, sources, rate } = this.#options;
    const socket = createSocket({ type: "udp4", recvBufferSize: 1024 * 1024 });
    this.#sockets.push(socket);
    // A server that has gone answers nothing; that is counted.
    socket.on("error", () => undefined);
    socket.bind(0, `127.8.0.${1 + (index % sources)}`);
    await once(socket, "listening");
    socket.connect(port, address);
    await once(socket, "connect");
    // By id: what was asked, and when.
    const asked = new Map<number, { readonly question: Question; readonly at: number }>();
    let id = 0;
    const send = (): void => {
      const question = this.#questions[this.#next];
      this.#next = (this.#next + 1) % this.#questions.length;
      if (question === undefined) throw new Error("no questions");
      id = (id + 1) & 0xffff;
      asked.set(id, { question, at: performance.now() });
      question.message.writeUInt16BE(id, 0);
      socket.send(question.message);
      this.sent += 1;
    };
    socket.on("message", (reply) => {
      const waited = asked.get(reply.readUInt16BE(0));
      if (waited === undefined) return;
      asked.delete(reply.readUInt16BE(0));
      this.answered += 1;
      this.latencies.push(performance.now() - waited.at);
      const { question } = waited;
      if (((reply[3] ?? 0) & 0xf) !== question.rcode || reply[7] !== question.answers) {
        this.wrong += 1;
      }
      if (this.#running && rate === 0) send();
    });
    const sweep = setInterval(() => {
      const before = performance.now() - lostAfterMs;
      for (const [key, { at }] of asked) {
        if (at > before) break;
        asked.delete(key);
        this.lost += 1;
        if (this.#running && rate === 0) send();
      }
    }, 200);
    socket.on("close", () => {
      clearInterval(sweep);
      this.lost += asked.size;
    });
    return send;
  }
}

if (import.meta.main) {
  const options = JSON.parse(process.argv[2] ?? "{}") as LoadOptions;
  process.stdout.write(`${JSON.stringify(await new Load(options).run())}\n`);
}
