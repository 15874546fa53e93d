import { WebSocket } from "ws";

import type { Kubeconfig, PemSource } from "../../api/kubeconfig-types.ts";
import { SetupError } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import { pemText } from "../pem.ts";
import type { LineSession } from "./cluster-tool.ts";
import { LineQueue } from "./line-queue.ts";

/** Stream numbers of the sub-protocol v5.channel.k8s.io (KEP-4006); `[255, n]` closes stream n. */
const stream = { stdin: 0, stdout: 1, stderr: 2, error: 3, close: 255 } as const;
const subProtocol = "v5.channel.k8s.io";
const handshakeMs = 10_000;
const closeMs = 5000;

/** The end of a session as the error stream tells it. */
function statusText(payload: Buffer): string {
  try {
    const status: unknown = JSON.parse(payload.toString("utf8"));
    if (isRecord(status)) return optionalString(status["message"]) ?? String(status["status"]);
  } catch {
    // Not a Status: whatever it is, people can read it.
  }
  return payload.toString("utf8");
}

async function credentials({ cluster, user }: Kubeconfig) {
  const pem = async (source: PemSource | undefined): Promise<string | undefined> =>
    source === undefined ? undefined : pemText(source);
  const [ca, cert, key] = await Promise.all([
    pem(cluster.ca),
    pem(user.clientCertificate),
    pem(user.clientKey),
  ]);
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
}

/** `kubectl exec -i POD -- ARGV` by a WebSocket to the API server. */
export async function openExec(
  kubeconfig: Kubeconfig,
  target: {
    readonly namespace: string;
    readonly pod: string;
    readonly argv: readonly string[];
  },
  signal: AbortSignal,
): Promise<LineSession> {
  const query = new URLSearchParams({ stdin: "true", stdout: "true", stderr: "true" });
  for (const argument of target.argv) query.append("command", argument);
  const path = `/api/v1/namespaces/${target.namespace}/pods/${target.pod}/exec?${query.toString()}`;
  const tls = await credentials(kubeconfig);
  signal.throwIfAborted();
  const socket = new WebSocket(
    kubeconfig.cluster.server.replace(/^http/, "ws") + path,
    subProtocol,
    {
      handshakeTimeout: handshakeMs,
      perMessageDeflate: false,
      ...tls,
    },
  );
  const lines = new LineQueue();
  let said = "";
  const terminate = (): void => socket.terminate();
  signal.addEventListener("abort", terminate, { once: true });
  const opened = new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", (error) => {
      reject(signal.aborted ? (signal.reason as Error) : new SetupError(`exec: ${error.message}`));
    });
  });
  const closed = new Promise<void>((resolve) => {
    socket.once("close", () => {
      signal.removeEventListener("abort", terminate);
      lines.end(`exec in ${target.pod} ended: ${said.trim() || "the connection was closed"}`);
      resolve();
    });
  });
  // Followed by close, which ends the session.
  socket.on("error", (error) => (said ||= error.message));
  // From the start on: the first messages may come together with the end of the handshake.
  socket.on("message", (message: Buffer) => {
    const payload = message.subarray(1);
    if (message[0] === stream.stdout) lines.push(payload);
    if (message[0] === stream.stderr) said += payload.toString("utf8");
    if (message[0] === stream.error) said ||= statusText(payload);
  });
  await opened;
  return {
    exchange: (line, inner) => {
      socket.send(Buffer.concat([Buffer.of(stream.stdin), Buffer.from(`${line}\n`)]));
      return lines.next(inner);
    },
    close: async () => {
      if (socket.readyState === socket.OPEN) socket.send(Buffer.of(stream.close, stream.stdin));
      const timer = setTimeout(terminate, closeMs);
      await closed;
      clearTimeout(timer);
    },
  };
}
