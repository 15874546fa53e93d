import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { finished } from "node:stream/promises";

import { WebSocketServer } from "ws";

import type { Clock } from "../../../lib/clock.ts";
import { errorMessage } from "../../../lib/errors.ts";
import type { Logger } from "../../../lib/log.ts";
import type { ContainerRuntime } from "../../../runtime/types.ts";
import type { AssignedPod, PodView } from "../../types.ts";
import { HttpRefusal } from "../http-refusal.ts";
import { networkNamespace, type PodDialer, type PodLoopback } from "./pod-dialer.ts";
import { relay } from "./relay.ts";
import { pathSegments } from "../pod-route.ts";
import { SpdyConnection, type SpdyStream } from "./spdy-connection.ts";
import { chooseStreamProtocol, switchToSpdy, wantsSpdy } from "./spdy-upgrade.ts";
import { tunnelTransport } from "./tunnel-transport.ts";
import { serveWebSocketForward } from "./websocket-port-forward.ts";

const protocol = "portforward.k8s.io";
const tunnelProtocol = "SPDY/3.1+portforward.k8s.io";
const pairDeadlineMs = 30_000;
const dialDeadlineMs = 30_000;

export interface PortForwardDeps {
  readonly runtime: Pick<ContainerRuntime, "podRecord">;
  readonly pods: Pick<PodView, "pods">;
  readonly dial: PodDialer;
  readonly clock: Clock;
  readonly logger: Logger;
}

const tunnels = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  clientTracking: false,
  maxPayload: 16 * 1024 * 1024,
  handleProtocols: () => false,
});
// The slash in its name is no token character, so the library would refuse the handshake; it is answered here.
tunnels.on("headers", (headers) => headers.push(`Sec-WebSocket-Protocol: ${tunnelProtocol}`));

/**
 * /portForward/{namespace}/{pod}[/{uid}]: SPDY, on the socket or inside WebSocket messages, or numbered channels.
 *
 * @throws {HttpRefusal}
 */
export async function servePortForward(
  deps: PortForwardDeps,
  upgrade: { request: IncomingMessage; socket: Duplex; head: Buffer; url: URL },
  signal: AbortSignal,
): Promise<void> {
  const pod = findPod(deps.pods, upgrade.url.pathname);
  const at = await loopbackOf(deps, pod, signal);
  if (!wantsSpdy(upgrade.request) && !offersTunnel(upgrade.request)) {
    const dial = async (port: number, gone: AbortSignal): Promise<Duplex> =>
      deps.dial(at, port, AbortSignal.any([gone, AbortSignal.timeout(dialDeadlineMs)]));
    const failure = (port: number, error: unknown): string => forwardFailure(pod, port, error);
    await serveWebSocketForward({ dial, failure, clock: deps.clock }, upgrade, signal);
    return;
  }
  const transport = await acceptTransport(upgrade);
  const forward = new PortForward(deps, pod, at, transport);
  await forward.run(signal);
}

function findPod(pods: Pick<PodView, "pods">, path: string): AssignedPod {
  const [namespace = "", name = "", uid, extra] = pathSegments(path);
  if (name === "" || extra !== undefined) throw new HttpRefusal(404, "404 page not found");
  const pod = pods
    .pods()
    .find(({ metadata }) => metadata.namespace === namespace && metadata.name === name);
  if (pod === undefined || (uid !== undefined && uid !== pod.metadata.uid)) {
    throw new HttpRefusal(404, "pod does not exist");
  }
  return pod;
}

async function loopbackOf(
  { runtime }: PortForwardDeps,
  { metadata }: AssignedPod,
  signal: AbortSignal,
): Promise<PodLoopback> {
  const [sandbox] = (await runtime.podRecord(metadata.uid, signal)).sandboxes;
  const notRunning = `pod ${metadata.name}_${metadata.namespace ?? ""} is not running`;
  if (sandbox?.ready !== true || sandbox.pid === undefined) throw new HttpRefusal(500, notRunning);
  if (sandbox.network === "node") return { kind: "node" };
  const { pid } = sandbox;
  try {
    const namespace = networkNamespace(pid);
    // The pid is another process's by now: the pod must never open a door to the node itself.
    if (namespace === networkNamespace("self")) throw new HttpRefusal(500, notRunning);
    return { kind: "namespace", pid, namespace };
  } catch (error) {
    if (error instanceof HttpRefusal) throw error;
    throw new HttpRefusal(500, notRunning, { cause: error });
  }
}

function offersTunnel(request: IncomingMessage): boolean {
  const offered = (request.headers["sec-websocket-protocol"] ?? "").split(",");
  return offered.some((name) => name.trim() === tunnelProtocol);
}

function forwardFailure({ metadata }: AssignedPod, port: number, error: unknown): string {
  const { name, namespace = "", uid } = metadata;
  return `error forwarding port ${port} to pod ${name}_${namespace}, uid : ${uid}: ${errorMessage(error)}`;
}

function acceptTransport(upgrade: {
  request: IncomingMessage;
  socket: Duplex;
  head: Buffer;
}): Promise<Duplex> | Duplex {
  const { request, socket, head } = upgrade;
  if (wantsSpdy(request)) {
    switchToSpdy(socket, head, chooseStreamProtocol(request, [protocol]));
    return socket;
  }
  delete request.headers["sec-websocket-protocol"];
  return new Promise((resolve, reject) => {
    socket.once("close", () => {
      reject(new HttpRefusal(400, "the client left during the handshake"));
    });
    tunnels.handleUpgrade(request, socket, head, (webSocket) => {
      resolve(tunnelTransport(webSocket));
    });
  });
}

interface Pair {
  readonly port: number;
  readonly error?: SpdyStream;
  readonly data?: SpdyStream;
}

/** One client's forwarding: each connection is a pair of streams with one request id. */
class PortForward {
  readonly #deps: PortForwardDeps;
  readonly #pod: AssignedPod;
  readonly #at: PodLoopback;
  readonly #connection: SpdyConnection;
  readonly #waiting = new Map<string, Pair>();
  readonly #forwards = new Set<Promise<void>>();

  constructor(deps: PortForwardDeps, pod: AssignedPod, at: PodLoopback, transport: Duplex) {
    this.#deps = deps;
    this.#pod = pod;
    this.#at = at;
    this.#connection = new SpdyConnection({
      transport,
      clock: deps.clock,
      onStream: (stream) => {
        this.#accept(stream);
      },
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const close = (): void => {
      this.#connection.close();
    };
    signal.addEventListener("abort", close, { once: true });
    try {
      await this.#connection.run();
      await Promise.all(this.#forwards);
    } finally {
      signal.removeEventListener("abort", close);
    }
  }

  #accept(stream: SpdyStream): void {
    const type = stream.headers.get("streamtype");
    const port = Number(stream.headers.get("port"));
    const valid = Number.isInteger(port) && port > 0 && port < 65536;
    if (!valid || (type !== "error" && type !== "data")) {
      stream.duplex.destroy();
      return;
    }
    // Clients before Kubernetes 1.1 sent none; they open the error stream first, the data stream right after it.
    const id =
      stream.headers.get("requestid") ?? `stream ${type === "error" ? stream.id : stream.id - 2}`;
    const known = this.#waiting.get(id);
    if (known?.[type] !== undefined) {
      stream.duplex.destroy();
      return;
    }
    const pair: Pair = { ...known, port, [type]: stream };
    if (pair.error !== undefined && pair.data !== undefined) {
      this.#waiting.delete(id);
      this.#start(port, pair.error, pair.data);
      return;
    }
    this.#waiting.set(id, pair);
    this.#track(this.#giveUp(id, pair));
  }

  /** A stream whose other half does not come is reset. */
  async #giveUp(id: string, pair: Pair): Promise<void> {
    await this.#deps.clock.sleep(pairDeadlineMs, this.#connection.gone).catch(() => undefined);
    if (this.#waiting.get(id) !== pair) return;
    this.#waiting.delete(id);
    pair.error?.duplex.destroy();
    pair.data?.duplex.destroy();
  }

  #track(work: Promise<void>): void {
    this.#forwards.add(work);
    void work.finally(() => this.#forwards.delete(work));
  }

  #start(port: number, error: SpdyStream, data: SpdyStream): void {
    this.#track(this.#forward(port, error, data));
  }

  async #forward(port: number, error: SpdyStream, data: SpdyStream): Promise<void> {
    // Its client closes it at once; a word on it would be the first and last.
    error.duplex.resume();
    const target = await this.#dial(port, error, data);
    if (target !== undefined) {
      try {
        await relay(data.duplex, target);
      } catch (failure) {
        // Silently: a client that reads an error for a connection that has carried data closes all the others.
        this.#deps.logger.log("debug", "forwarded connection broke", {
          error: errorMessage(failure),
        });
      }
      error.duplex.end();
    }
    await settled(error.duplex);
    error.duplex.destroy();
  }

  async #dial(port: number, error: SpdyStream, data: SpdyStream): Promise<Duplex | undefined> {
    const gone = AbortSignal.any([this.#connection.gone, AbortSignal.timeout(dialDeadlineMs)]);
    try {
      const target = await this.#deps.dial(this.#at, port, gone);
      if (!data.duplex.destroyed) return target;
      target.destroy();
      return undefined;
    } catch (failure) {
      error.duplex.end(forwardFailure(this.#pod, port, failure));
      data.duplex.destroy();
      return undefined;
    }
  }
}

/** Resolves when all that was written has gone out, or cannot any more. */
async function settled(duplex: Duplex): Promise<void> {
  await finished(duplex, { readable: false }).catch(() => undefined);
}
