import { isRuntimeFailure, RuntimeError } from "../errors.ts";
import type { DockerContext } from "./context.ts";

/** The calls that sandboxes and containers have in common. All succeed when there is nothing left to do. */

/** @throws {RuntimeError} `StartFailed` with the engine's text and 126, 127 or 128. */
export async function startContainer(
  context: DockerContext,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await context.client.call(
      {
        op: "start container",
        method: "POST",
        path: `/containers/${id}/start`,
        lane: "start",
        timeoutMs: 120_000,
      },
      signal,
    );
  } catch (error) {
    context.observer.invalidate(id);
    if (!isRuntimeFailure(error, "StartFailed")) throw error;
    throw await withRecordedExitCode(context, id, error as RuntimeError, signal);
  }
  context.observer.invalidate(id);
}

/** The engine keeps the exit code it chose with the container; its texts differ by version. */
async function withRecordedExitCode(
  context: DockerContext,
  id: string,
  error: RuntimeError,
  signal: AbortSignal,
): Promise<RuntimeError> {
  try {
    const { exitCode } = await context.observer.inspect(id, signal, 5000);
    if (exitCode === 0 || exitCode === error.exitCode) return error;
    return new RuntimeError("StartFailed", error.message, { cause: error.cause, exitCode });
  } catch {
    return error;
  }
}

/** SIGKILL, and waits until the process is gone. */
export async function killContainer(
  context: DockerContext,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    await context.client.call(
      {
        op: "kill container",
        method: "POST",
        path: `/containers/${id}/kill`,
        query: { signal: "KILL" },
        lane: "wait",
        timeoutMs: 30_000,
      },
      signal,
    );
  } catch (error) {
    // 409: it does not run.
    if (!isRuntimeFailure(error, "NotFound", "WrongState")) throw error;
  } finally {
    context.observer.invalidate(id);
  }
}

/** Removes a container with its anonymous volumes, running or not. */
export async function deleteContainer(
  context: DockerContext,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    for (let waitMs = 20; ; waitMs = Math.min(waitMs * 2, 500)) {
      try {
        await context.client.call(
          {
            op: "remove container",
            method: "DELETE",
            path: `/containers/${id}`,
            query: { force: 1, v: 1 },
            timeoutMs: 60_000,
          },
          signal,
        );
        return;
      } catch (error) {
        if (isRuntimeFailure(error, "NotFound")) return;
        if (!isRuntimeFailure(error, "WrongState") || waitMs >= 500) throw error;
        // "removal is already in progress": somebody else's call ends soon.
        await context.clock.sleep(waitMs, signal);
      }
    }
  } finally {
    context.observer.invalidate(id);
  }
}
