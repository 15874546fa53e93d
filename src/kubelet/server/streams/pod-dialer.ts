import { once } from "node:events";
import { readlinkSync } from "node:fs";
import { connect } from "node:net";
import { Duplex } from "node:stream";

import { RemoraError } from "../../../lib/errors.ts";
import { spawnStreaming } from "../../../lib/exec.ts";

/** Nothing answered on the port inside the pod. */
export class DialError extends RemoraError {
  readonly code = "REMORA_DIAL";
}

/** Where a pod's loopback is. */
export type PodLoopback =
  | { readonly kind: "node" }
  /** Host pid of a process in the pod's network namespace. */
  | { readonly kind: "namespace"; readonly pid: number };

/** Connects to a port on the loopback of a pod. @throws {DialError} */
export type PodDialer = (at: PodLoopback, port: number, signal: AbortSignal) => Promise<Duplex>;

/**
 * Runs inside the pod's network namespace, which no thread of ours can enter, and copies between its standard streams
 * and one connection. Given as text, so that it is the same whether we run from source or from one bundled file. The
 * first byte of its output says that the connection stands.
 */
const relay = `
const { connect } = require("node:net");
const port = Number(process.argv[1]);
const dial = (host, failed) => {
  const socket = connect({ host, port, allowHalfOpen: true });
  socket.once("error", failed);
  socket.once("connect", () => {
    socket.off("error", failed);
    socket.on("error", () => process.exit(2));
    process.stdout.on("error", () => process.exit(2));
    process.stdout.write("+");
    process.stdin.pipe(socket);
    socket.pipe(process.stdout);
  });
};
dial("127.0.0.1", (first) => dial("::1", () => {
  process.stderr.write(first.message);
  process.exitCode = 1;
}));
`;

async function dialNode(port: number, signal: AbortSignal): Promise<Duplex> {
  let failure: unknown;
  for (const host of ["127.0.0.1", "::1"]) {
    const socket = connect({ host, port, allowHalfOpen: true });
    try {
      await once(socket, "connect", { signal });
      return socket;
    } catch (error) {
      socket.destroy();
      failure ??= error;
    }
  }
  const text = failure instanceof Error ? failure.message : String(failure);
  throw new DialError(text, { cause: failure });
}

async function dialNamespace(pid: number, port: number, signal: AbortSignal): Promise<Duplex> {
  const node = readlinkSync("/proc/self/exe");
  const child = spawnStreaming(
    ["nsenter", "-t", String(pid), "-n", "--", node, "-e", relay, String(port)],
    { signal },
  );
  const stderr: Buffer[] = [];
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  const closed = once(child, "close");
  const greeting = await Promise.race([once(child.stdout, "readable"), closed]).then((): unknown =>
    child.stdout.read(1),
  );
  if (greeting === null) {
    await closed;
    signal.throwIfAborted();
    const text = Buffer.concat(stderr).toString("utf8").trim();
    throw new DialError(text === "" ? "the relay inside the pod could not be started" : text);
  }
  const pair = Duplex.from({ readable: child.stdout, writable: child.stdin });
  pair.once("close", () => child.kill("SIGKILL"));
  return pair;
}

/** Dials for real: the node's own loopback, or that of a network namespace through `nsenter`. */
export const dialPod: PodDialer = (at, port, signal) =>
  at.kind === "node" ? dialNode(port, signal) : dialNamespace(at.pid, port, signal);
