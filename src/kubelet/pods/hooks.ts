import type { EventRecorder } from "../../api/event-types.ts";
import type { LifecycleHandler } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { RemoraError } from "../../lib/errors.ts";
import type { ContainerRuntime } from "../../runtime/types.ts";
import type { PodContainer } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import { hostPort } from "./dial-error.ts";
import { podTarget } from "./event-target.ts";
import { httpGet, speaksNoTLS } from "./http-call.ts";
import { resolvePort } from "./ports.ts";

/** A lifecycle hook did not do its work. The detail is for the log: it may hold secrets. */
export class HookError extends RemoraError {
  readonly code = "REMORA_HOOK";
}

export interface HookContext {
  readonly runtime: Pick<ContainerRuntime, "execSync">;
  readonly clock: Clock;
  readonly events: EventRecorder;
  readonly pod: AssignedPod;
  readonly containerID: string;
  readonly entry: PodContainer;
  /** Where HTTP hooks go when they name no host. */
  readonly podIP: string;
}

const noDeadlineMs = 2_147_483_000;
const maxOutputBytes = 10 * 1024;

async function httpHook(
  handler: NonNullable<LifecycleHandler["httpGet"]>,
  context: HookContext,
  signal: AbortSignal,
): Promise<void> {
  const call = {
    scheme: handler.scheme ?? "HTTP",
    host: handler.host === undefined || handler.host === "" ? context.podIP : handler.host,
    port: resolvePort(context.entry.container, handler.port),
    path: handler.path ?? "/",
    headers: handler.httpHeaders ?? [],
    userAgent: "kube-lifecycle/1.36",
    maxBytes: maxOutputBytes,
  } as const;
  try {
    // Any answer counts: a hook is a call, not a check.
    await httpGet(call, signal);
  } catch (error) {
    // A server that speaks plain HTTP on a port declared HTTPS gets one more try (KEP-3075 compatibility).
    if (!speaksNoTLS(error)) throw error;
    const headers = call.headers.filter(({ name }) => name.toLowerCase() !== "authorization");
    await httpGet({ ...call, headers, scheme: "HTTP" }, signal);
    const text = `request to HTTPS lifecycle hook ${hostPort(call.host, call.port)} got HTTP response, retry with HTTP succeeded`;
    context.events.event(podTarget(context.pod), "Warning", "LifecycleHTTPFallback", text);
  }
}

/**
 * Runs a postStart or preStop handler to its end; the caller bounds it by `signal`.
 *
 * @throws {HookError} when an exec ends non-zero or the handler is of no known kind; transport errors; `AbortError`.
 */
export async function runHook(
  handler: LifecycleHandler,
  context: HookContext,
  signal: AbortSignal,
): Promise<void> {
  if (handler.sleep !== undefined) {
    await context.clock.sleep(handler.sleep.seconds * 1000, signal);
    return;
  }
  if (handler.httpGet !== undefined) {
    await httpHook(handler.httpGet, context, signal);
    return;
  }
  if (handler.exec === undefined) throw new HookError("invalid handler");
  const result = await context.runtime.execSync(
    context.containerID,
    handler.exec.command ?? [],
    { timeoutMs: noDeadlineMs, maxBytes: maxOutputBytes },
    signal,
  );
  if (result.exitCode !== 0) throw new HookError(`the command ended with ${result.exitCode}`);
}
