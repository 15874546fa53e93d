import { readlinkSync } from "node:fs";

import { encodeName } from "../../dns/wire.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { spawnStreaming, whenClosed } from "../../lib/exec.ts";
import { deleteLink, ipBatch, ipBatchInside, podCommands } from "../../network/links.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Machine } from "./machine.ts";

/** A network namespace on the bridge, as a pod's, without containers: there as long as the work takes. */
export interface ThrowAwayPod {
  readonly ip: string;
  readonly device: string;
  /** Runs a program inside. */
  readonly inside: readonly ["nsenter", "-t", string, "-n", "--"];
}

export interface PodPlace {
  readonly device: string;
  readonly ip: string;
  readonly bridge: string;
  readonly gateway: string;
  readonly mtu: number;
}

const cleanUpMs = 5000;

async function whenSeparate(pid: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const own = readlinkSync("/proc/self/ns/net");
  while (readlinkSync(`/proc/${pid}/ns/net`) === own) await clock.sleep(2, signal);
}

/**
 * Makes one, works with it, and removes it, whatever happens. The kernel removes it too when this process is killed.
 *
 * @throws {ExecError}, {SetupError}, what `work` throws, `AbortError`.
 */
export async function withThrowAwayPod<T>(
  place: PodPlace,
  clock: Clock,
  work: (pod: ThrowAwayPod) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const holder = spawnStreaming(["unshare", "--net", "--", "cat"], { signal, dieWithParent: true });
  const closed = whenClosed(holder);
  holder.stdout.resume();
  holder.stderr.resume();
  const { bridge, device, gateway, ip, mtu } = place;
  try {
    const { pid } = holder;
    if (pid === undefined) throw new Error("unshare is not installed");
    await whenSeparate(pid, clock, signal);
    await deleteLink(device, signal);
    await ipBatch(
      [
        `link add name ${device} mtu ${mtu} master ${bridge} up type veth peer name eth0 mtu ${mtu} netns ${pid}`,
        `link set dev ${device} type bridge_slave hairpin on`,
      ],
      signal,
    );
    await ipBatchInside(pid, podCommands([ip], [gateway]), { enableIPv6: false }, signal);
    return await work({ ip, device, inside: ["nsenter", "-t", String(pid), "-n", "--"] });
  } finally {
    await deleteLink(device, AbortSignal.timeout(cleanUpMs)).catch(() => undefined);
    holder.stdin.end();
    await closed;
  }
}

/** One thing to reach. */
export interface PathTarget {
  readonly protocol: "tcp" | "dns";
  readonly address: string;
  readonly port: number;
  /** The name that is asked for with DNS; default: the root's own. */
  readonly name?: string;
}

const patienceMs = 2000;

/**
 * Runs inside a namespace: connects, or asks for a name, and says what came of it. Given as text, so that it is the same
 * from source and from one bundled file.
 */
const program = `
const { connect } = require("node:net");
const { createSocket } = require("node:dgram");
const targets = JSON.parse(process.argv[1]);
const tcp = ({ address, port }) => new Promise((resolve) => {
  const socket = connect({ host: address, port });
  const end = (text) => { socket.destroy(); resolve(text); };
  socket.setTimeout(${patienceMs}, () => end("no answer within ${patienceMs / 1000} s"));
  socket.once("connect", () => end(""));
  socket.once("error", (error) => end(error.code ?? error.message));
});
const dns = ({ address, port, query }) => new Promise((resolve) => {
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  const end = (text) => { clearTimeout(timer); clearInterval(again); socket.close(); resolve(text); };
  const timer = setTimeout(() => end("no answer within ${patienceMs / 1000} s"), ${patienceMs});
  const send = () => socket.send(Buffer.from(query, "hex"), (error) => { if (error) end(error.code ?? error.message); });
  const again = setInterval(send, 700);
  socket.once("error", (error) => end(error.code ?? error.message));
  socket.once("message", () => end(""));
  socket.connect(port, address, send);
});
Promise.all(targets.map((target) => (target.protocol === "tcp" ? tcp(target) : dns(target))))
  .then((said) => process.stdout.write(JSON.stringify(said)));
`;

/** Listens inside a namespace until its stdin ends; says so. */
const listener = `
const { createServer } = require("node:net");
createServer((socket) => socket.end()).listen(Number(process.argv[1]), () => process.stdout.write("ready"));
process.stdin.resume();
process.stdin.on("end", () => process.exit());
`;

/** A question for the addresses of a name, as hexadecimal digits. */
function queryFor(name: string): string {
  const header = Buffer.from("524d01000001000000000000", "hex");
  return Buffer.concat([header, encodeName(name, "A")]).toString("hex");
}

function node(): string {
  return readlinkSync("/proc/self/exe");
}

/**
 * Reaches for targets, all at once.
 *
 * @param inside What stands before the program: empty for the node itself.
 * @returns What came of each: empty = it was reached.
 */
export async function reach(
  machine: Machine,
  inside: readonly string[],
  targets: readonly PathTarget[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const asked = targets.map((target) => ({ ...target, query: queryFor(target.name ?? "") }));
  const [first, ...rest] = [...inside, node(), "-e", program, JSON.stringify(asked)];
  const result = await machine.run([first, ...rest], { signal });
  const said: unknown = result?.exitCode === 0 ? JSON.parse(result.stdout) : undefined;
  return Array.isArray(said) && said.length === targets.length
    ? said.map(String)
    : targets.map(() => result?.stderr.trim().split("\n")[0] ?? "nsenter is not installed");
}

/** Listens on a port inside, works, and ends. */
export async function withListener<T>(
  inside: ThrowAwayPod["inside"],
  port: number,
  work: () => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const child = spawnStreaming([...inside, node(), "-e", listener, String(port)], {
    signal,
    dieWithParent: true,
  });
  const closed = whenClosed(child);
  child.stderr.resume();
  try {
    await Promise.race([new Promise((resolve) => child.stdout.once("data", resolve)), closed]);
    return await work();
  } finally {
    child.stdin.end();
    await closed;
  }
}

/** The ClusterIP and the first port of a Service's object; undefined where it has none. Pure. */
export function firstAddress(
  service: unknown,
): { readonly ip: string; readonly port: number } | undefined {
  const spec = isRecord(service) && isRecord(service["spec"]) ? service["spec"] : {};
  const ip = optionalString(spec["clusterIP"]) ?? "";
  const ports: unknown = spec["ports"];
  const first: unknown = Array.isArray(ports) ? ports[0] : undefined;
  const port = isRecord(first) ? Number(first["port"]) : Number.NaN;
  return /^[\da-f.:]+$/.test(ip) && Number.isInteger(port) ? { ip, port } : undefined;
}
