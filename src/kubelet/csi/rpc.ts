import type { Client, ServiceError } from "@grpc/grpc-js";

import type { Clock } from "../../lib/clock.ts";
import { errorMessage, RemoraError } from "../../lib/errors.ts";
import type { Given, MessageType } from "../../lib/protobuf-message.ts";
import { grpcCodeNames } from "../../lib/grpc-codes.ts";

/** The status codes of gRPC that somebody here decides by. */
export const rpcCodes = {
  canceled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  unavailable: 14,
} as const;

const pendingCodes: ReadonlySet<number> = new Set([
  rpcCodes.canceled,
  rpcCodes.deadlineExceeded,
  rpcCodes.unavailable,
  rpcCodes.resourceExhausted,
  rpcCodes.aborted,
]);

/** A call over a plug-in's socket failed. */
export class RpcError extends RemoraError {
  readonly code = "REMORA_RPC";
  override readonly retryable = true;
  /** gRPC status. */
  readonly status: number;

  constructor(status: number, details: string, options?: ErrorOptions) {
    super(
      `rpc error: code = ${grpcCodeNames[status] ?? `Code(${status})`} desc = ${details}`,
      options,
    );
    this.status = status;
  }

  /** Nothing of the call is under way any more. Otherwise it may be, or may even have succeeded (CSI, "Error Scheme"). */
  get final(): boolean {
    return !pendingCodes.has(this.status);
  }
}

/** A unary method. */
export interface RpcMethod<Q, A> {
  /** For example `/csi.v1.Node/NodeStageVolume`. */
  readonly path: string;
  readonly request: MessageType<Q>;
  readonly answer: MessageType<A>;
}

/** A connection to one socket. */
export interface RpcChannel {
  /** @throws {RpcError}, or the reason of `signal` when it aborts first. */
  call<Q, A>(
    method: RpcMethod<Q, A>,
    request: Given<Q>,
    options: { readonly deadlineMs: number; readonly signal: AbortSignal },
  ): Promise<A>;
}

/**
 * Does `work` with a connection to a gRPC server on a Unix socket, without TLS. One connection for each piece of work, as
 * the kubelet has it: a driver that was restarted is reached at once, without anybody's back-off.
 */
export async function withRpc<T>(
  socketPath: string,
  clock: Pick<Clock, "now">,
  work: (channel: RpcChannel) => Promise<T>,
): Promise<T> {
  // 5 MB over the 14 of node:http2, which most nodes never need.
  const grpc = await import("@grpc/grpc-js");
  const client = new grpc.Client(`unix:${socketPath}`, grpc.credentials.createInsecure(), {
    "grpc.enable_channelz": 0,
    "grpc.enable_retries": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.use_local_subchannel_pool": 1,
  });
  try {
    return await work({
      call: (method, request, { deadlineMs, signal }) =>
        unary(client, method, request, { deadline: new Date(clock.now() + deadlineMs), signal }),
    });
  } finally {
    client.close();
  }
}

async function unary<Q, A>(
  client: Client,
  method: RpcMethod<Q, A>,
  request: Given<Q>,
  { deadline, signal }: { readonly deadline: Date; readonly signal: AbortSignal },
): Promise<A> {
  signal.throwIfAborted();
  const { promise, reject, resolve } = Promise.withResolvers<Buffer>();
  const call = client.makeUnaryRequest(
    method.path,
    (value: Uint8Array) => Buffer.from(value),
    (bytes: Buffer) => bytes,
    method.request.encode(request),
    { deadline },
    (error: ServiceError | null, answer: Buffer | undefined) => {
      if (error !== null) reject(new RpcError(error.code, error.details));
      else resolve(answer ?? Buffer.alloc(0));
    },
  );
  const onAbort = (): void => call.cancel();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const answer = await promise;
    return method.answer.decode(answer);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof RpcError) throw error;
    throw new RpcError(rpcCodes.unknown, errorMessage(error), { cause: error });
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
