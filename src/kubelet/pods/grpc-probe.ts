import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from "node:http2";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { grpcCodeNames } from "../../lib/grpc-codes.ts";
import { formatSeconds } from "../status/container-status.ts";
import { hostPort } from "./dial-error.ts";

/** Where and what to ask. Plain-text HTTP/2: the API knows no TLS for these probes. */
export interface GrpcProbeCall {
  readonly host: string;
  readonly port: number;
  /** Empty asks for the server as a whole. */
  readonly service: string;
  readonly userAgent: string;
  /** What the failure says; the deadline itself is the caller's signal. */
  readonly timeoutMs: number;
}

export type GrpcProbeOutcome =
  | { readonly kind: "success" }
  | { readonly kind: "failure"; readonly output: string };

interface GrpcAnswer {
  readonly code: number;
  readonly message: string;
  readonly body: Buffer;
}

/** Pause after a connection that came to nothing, and by how much it grows: gRPC's connection back-off. */
const firstPauseMs = 1000;
const pauseGrowth = 1.6;

const path = "/grpc.health.v1.Health/Check";
const maxBodyBytes = 10 * 1024;
const frameHeaderBytes = 5;
const unimplemented = 12;
const deadlineExceeded = 4;
const servingStatuses = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/** gRPC codes for HTTP answers that are no gRPC (the protocol's HTTP mapping); others are Unknown. */
const codeByHttpStatus = new Map([
  [400, 13],
  [401, 16],
  [403, 7],
  [404, unimplemented],
  [429, 14],
  [502, 14],
  [503, 14],
  [504, 14],
]);

function varint(value: number): readonly number[] {
  const out: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) out.push((rest % 128) | 0x80);
  return [...out, rest];
}

/** HealthCheckRequest{service = 1} in a gRPC frame. */
function requestFrame(service: string): Buffer {
  const name = Buffer.from(service);
  const message =
    name.length === 0
      ? Buffer.alloc(0)
      : Buffer.concat([Buffer.from([0x0a, ...varint(name.length)]), name]);
  const header = Buffer.alloc(frameHeaderBytes);
  header.writeUInt32BE(message.length, 1);
  return Buffer.concat([header, message]);
}

/** HealthCheckResponse{status = 1}; proto3 leaves zero out. */
function servingStatus(body: Buffer): string {
  if (body.length < frameHeaderBytes) return "";
  const message = body.subarray(frameHeaderBytes, frameHeaderBytes + body.readUInt32BE(1));
  const status = message[0] === 0x08 ? (message[1] ?? 0) : 0;
  return servingStatuses[status] ?? String(status);
}

function answerOf(
  response: IncomingHttpHeaders & { readonly ":status"?: number },
  trailers: IncomingHttpHeaders,
  body: Buffer,
): GrpcAnswer {
  const code = trailers["grpc-status"] ?? response["grpc-status"];
  const text = trailers["grpc-message"] ?? response["grpc-message"] ?? "";
  const httpStatus = response[":status"] ?? 0;
  if (typeof code === "string") return { code: Number(code), message: String(text), body };
  const message =
    httpStatus === 200
      ? "server closed the stream without sending trailers"
      : `unexpected HTTP status code received from server: ${httpStatus}`;
  return { code: codeByHttpStatus.get(httpStatus) ?? 2, message, body };
}

async function connected(session: ClientHttp2Session, signal: AbortSignal): Promise<void> {
  const { promise, reject, resolve } = Promise.withResolvers<void>();
  // Only the server's settings prove that it speaks HTTP/2: a TCP connection proves a listener.
  session.once("remoteSettings", () => resolve());
  session.once("close", () => reject(new Error("the connection was closed")));
  // Stays for the life of the session: an error without a listener would end the agent.
  session.on("error", reject);
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    await promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/**
 * A connection to a server that may still be starting: tried again, whatever went wrong, until `signal` aborts.
 *
 * @throws `AbortError` only.
 */
async function connectPatiently(
  authority: string,
  clock: Pick<Clock, "sleep">,
  signal: AbortSignal,
): Promise<ClientHttp2Session> {
  // Twelve megabytes that most nodes never need.
  const { connect } = await import("node:http2");
  for (let pauseMs = firstPauseMs; ; pauseMs *= pauseGrowth) {
    const session = connect(`http://${authority}`);
    try {
      await connected(session, signal);
      return session;
    } catch {
      session.destroy();
      signal.throwIfAborted();
      await clock.sleep(pauseMs, signal);
    }
  }
}

async function answered(stream: ClientHttp2Stream, signal: AbortSignal): Promise<GrpcAnswer> {
  return new Promise<GrpcAnswer>((resolve, reject) => {
    let response: IncomingHttpHeaders = {};
    let trailers: IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    let length = 0;
    stream.on("response", (headers: IncomingHttpHeaders) => (response = headers));
    stream.on("trailers", (headers: IncomingHttpHeaders) => (trailers = headers));
    stream.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length <= maxBodyBytes) chunks.push(chunk);
      else reject(new Error("the answer is too long"));
    });
    stream.on("end", () => resolve(answerOf(response, trailers, Buffer.concat(chunks))));
    stream.on("error", reject);
    stream.on("close", () => reject(new Error("the stream was closed")));
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}

function judge(answer: GrpcAnswer, timeoutMs: number): GrpcProbeOutcome {
  const { body, code, message } = answer;
  if (code === unimplemented) {
    const output = `error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ${message}`;
    return { kind: "failure", output };
  }
  if (code === deadlineExceeded) {
    return { kind: "failure", output: rpcTimeout(timeoutMs) };
  }
  if (code !== 0) {
    const name = grpcCodeNames[code] ?? `Code(${code})`;
    const output = `error: health rpc probe failed: rpc error: code = ${name} desc = ${message}`;
    return { kind: "failure", output };
  }
  const status = servingStatus(body);
  if (status === "SERVING") return { kind: "success" };
  return { kind: "failure", output: `service unhealthy (responded with "${status}")` };
}

function rpcTimeout(timeoutMs: number): string {
  return `timeout: health rpc did not complete within ${formatSeconds(timeoutMs)}`;
}

/**
 * One call of the gRPC health protocol (grpc.health.v1.Health/Check), on a connection of its own. All that goes wrong
 * is a failure, as with the kubelet; the strings are the kubelet's. Where nobody listens (yet) it is tried again, so
 * that such a probe fails at its deadline and not before.
 *
 * @param signal Must fire after `timeoutMs`.
 */
export async function grpcProbe(
  call: GrpcProbeCall,
  clock: Pick<Clock, "sleep">,
  signal: AbortSignal,
): Promise<GrpcProbeOutcome> {
  const authority = hostPort(call.host, call.port);
  let session: ClientHttp2Session;
  try {
    session = await connectPatiently(authority, clock, signal);
  } catch {
    const output = `timeout: failed to connect service "${authority}" within ${formatSeconds(call.timeoutMs)}: context deadline exceeded`;
    return { kind: "failure", output };
  }
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      "user-agent": call.userAgent,
      "grpc-timeout": `${call.timeoutMs}m`,
    });
    stream.end(requestFrame(call.service));
    return judge(await answered(stream, signal), call.timeoutMs);
  } catch (error) {
    const output = isAbort(error)
      ? rpcTimeout(call.timeoutMs)
      : `error: health rpc probe failed: rpc error: code = Unavailable desc = ${errorMessage(error)}`;
    return { kind: "failure", output };
  } finally {
    session.destroy();
  }
}
