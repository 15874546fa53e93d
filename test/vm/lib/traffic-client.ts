// traffic-client.ts FILE WEB DNS NAME ECHO: asks without pause until it is told to end (SIGTERM), then writes into FILE what
// it was answered. Runs on the machine under test, on the Node that is installed there. What gets no answer is lost; DNS
// alone is asked again, as resolvers do, and how often is counted.
//   WEB, ECHO   http://address and address:port of Services   DNS, NAME   name server, and what it is asked for
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTLS } from "node:tls";

/** What became of one sort of questions. */
interface Tally {
  asked: number;
  answered: number;
  /** Datagrams that were sent again, because nothing had come back for five seconds. */
  repeated: number;
  slowestMs: number;
  /** The first failures, in words: to be laid beside the journal. */
  readonly failures: string[];
}

const [file = "", web = "", server = "", name = "", echo = ""] = process.argv.slice(2);
const patienceMs = 60_000;
const kinds = ["web", "dns", "node", "connection"] as const;
const tallies = Object.fromEntries(
  kinds.map((kind) => [kind, { asked: 0, answered: 0, repeated: 0, slowestMs: 0, failures: [] }]),
) as unknown as Readonly<Record<(typeof kinds)[number], Tally>>;

/** A request on a connection of its own. */
async function askWeb(signal: AbortSignal): Promise<void> {
  const request = get(web, { agent: false, signal });
  const [response] = (await once(request, "response", { signal })) as [IncomingMessage];
  response.resume();
  await once(response, "end", { signal });
  if (response.statusCode !== 200) throw new Error(`status ${response.statusCode}`);
}

/** One datagram, sent again as the C library's resolver does it. */
async function askDNS(signal: AbortSignal): Promise<void> {
  const labels = name.split(".").flatMap((label) => [label.length, ...Buffer.from(label)]);
  const id = Math.floor(Math.random() * 65_536);
  const header = [id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
  const socket = createSocket("udp4");
  let again: NodeJS.Timeout | undefined;
  try {
    const answered = once(socket, "message", { signal });
    const question = Buffer.from([...header, ...labels, 0, 0, 1, 0, 1]);
    socket.send(question, 53, server);
    again = setInterval(() => {
      tallies.dns.repeated += 1;
      socket.send(question, 53, server);
    }, 5000);
    const [reply] = (await answered) as [Buffer];
    const [code, answers] = [reply.readUInt8(3) & 15, reply.readUInt16BE(6)];
    if (reply.readUInt16BE(0) !== id || code !== 0 || answers === 0) {
      throw new Error(`reply code ${code}, ${answers} answers`);
    }
  } finally {
    clearInterval(again);
    socket.close();
  }
}

/** Port 10250 takes a connection and begins TLS: who comes without a certificate gets no further. */
async function askNode(signal: AbortSignal): Promise<void> {
  const socket = connectTLS({ host: "127.0.0.1", port: 10_250, rejectUnauthorized: false });
  try {
    await once(socket, "secureConnect", { signal });
  } finally {
    // What comes behind the handshake is nobody's business.
    socket.on("error", () => undefined);
    socket.destroy();
  }
}

/** One connection for the whole time, and a line through it each time. */
const [host = "", port = ""] = echo.split(":");
const connection = connect(Number(port), host);
let gone: Error | undefined;
connection.on("error", (error) => (gone = error));
connection.on("close", () => (gone ??= new Error("the connection was closed")));

async function askConnection(signal: AbortSignal): Promise<void> {
  if (gone !== undefined) throw gone;
  const heard = once(connection, "data", { signal });
  connection.write("line\n");
  await heard;
}

const ending = new AbortController();

/** Asks once, and counts what becomes of it. */
async function count(tally: Tally, ask: (signal: AbortSignal) => Promise<void>): Promise<void> {
  tally.asked += 1;
  const [at, started] = [new Date().toISOString(), performance.now()];
  try {
    await ask(AbortSignal.timeout(patienceMs));
    tally.answered += 1;
    tally.slowestMs = Math.max(tally.slowestMs, Math.round(performance.now() - started));
  } catch (error) {
    if (tally.failures.length < 20) tally.failures.push(`asked at ${at}: ${String(error)}`);
  }
}

async function repeat(
  tally: Tally,
  pauseMs: number,
  ask: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const open = new Set<Promise<void>>();
  while (!ending.signal.aborted) {
    // The next one does not wait for this one: a silence costs what it would cost many users.
    const one = count(tally, ask);
    open.add(one);
    void one.then(() => open.delete(one));
    await delay(pauseMs);
  }
  await Promise.all(open);
}

async function converse(tally: Tally): Promise<void> {
  while (!ending.signal.aborted) {
    await count(tally, askConnection);
    await delay(1000);
  }
}

process.on("SIGTERM", () => ending.abort());
// Few enough that questions which wait while nobody reads fit into a socket's room, and that an emulated processor has time
// for its node besides.
await Promise.all([
  repeat(tallies.web, 1000, askWeb),
  repeat(tallies.dns, 1000, askDNS),
  repeat(tallies.node, 2000, askNode),
  converse(tallies.connection),
]);
connection.destroy();
writeFileSync(file, JSON.stringify(tallies));
