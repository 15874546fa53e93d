import { Worker } from "node:worker_threads";

import type { ControlPlaneFiles, ControlPlaneOptions } from "../controlplane/control-plane.ts";
import type { MachineAddresses } from "../controlplane/machine-addresses.ts";
import type { Level } from "../lib/log.ts";
import { isRecord } from "../lib/guard.ts";
import { SetupError } from "../lib/errors.ts";
import type { LogFormat } from "./stderr-logger.ts";
import type { Runner } from "./supervise.ts";

/** What the embedded control plane is told; plain data, because it crosses into a worker thread. */
export interface ControlPlaneSettings extends Omit<
  ControlPlaneOptions,
  "gitVersion" | "clock" | "logger" | "random"
> {
  readonly logLevel: Level;
  readonly logFormat: LogFormat;
}

/** What the worker sends. */
export type WorkerMessage =
  | { readonly kind: "ready"; readonly files: ControlPlaneFiles }
  /** `expected`: a sentence for people (SetupError); otherwise a stack. */
  | { readonly kind: "failed"; readonly expected: boolean; readonly text: string };

/** What the worker is sent. */
export type HostMessage =
  | { readonly kind: "stop" }
  | { readonly kind: "addresses"; readonly addresses: MachineAddresses };

function asMessage(value: unknown): WorkerMessage | undefined {
  return isRecord(value) && (value["kind"] === "ready" || value["kind"] === "failed")
    ? (value as unknown as WorkerMessage)
    : undefined;
}

export interface ControlPlaneHost {
  readonly files: ControlPlaneFiles;
  /** Ends when the signal aborts and the store is closed; rejects when the control plane dies. */
  readonly runner: Runner;
  /** Tells the control plane that this machine has other addresses. */
  readonly setAddresses: (addresses: MachineAddresses) => void;
}

function workerFile(): URL {
  // Sources and bundle keep the same layout.
  const suffix = import.meta.url.endsWith(".cjs") ? "cjs" : "ts";
  return new URL(`./control-plane-worker.${suffix}`, import.meta.url);
}

/**
 * Starts the control plane in a thread of its own: its SQLite calls are synchronous, and on the agent's event loop a slow
 * disk would stop the node's heartbeat.
 *
 * @throws {SetupError} when it cannot start (port in use, state of a newer version, second copy).
 */
export async function startControlPlaneThread(
  settings: ControlPlaneSettings,
): Promise<ControlPlaneHost> {
  const worker = new Worker(workerFile(), { workerData: settings, name: "control-plane" });
  let failure: Error | undefined;
  const exited = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
  worker.on("error", (error: unknown) => {
    failure ??= error instanceof Error ? error : new Error(String(error));
  });
  const files = await new Promise<ControlPlaneFiles>((resolve, reject) => {
    worker.on("message", (value: unknown) => {
      const message = asMessage(value);
      if (message?.kind === "ready") resolve(message.files);
      if (message?.kind === "failed") {
        failure = message.expected ? new SetupError(message.text) : new Error(message.text);
      }
    });
    void exited.then(() =>
      reject(failure ?? new Error("the control plane ended while it started")),
    );
  });
  const send = (message: HostMessage): void => worker.postMessage(message);
  return {
    files,
    setAddresses: (addresses) => send({ kind: "addresses", addresses }),
    runner: {
      name: "control plane",
      run: async (signal) => {
        const stop = (): void => send({ kind: "stop" });
        signal.addEventListener("abort", stop, { once: true });
        if (signal.aborted) stop();
        await exited;
        if (failure !== undefined) throw failure;
      },
    },
  };
}
