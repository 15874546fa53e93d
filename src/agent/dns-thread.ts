import { Worker } from "node:worker_threads";

import type { FromNameServer, NameServerSettings, ToNameServer } from "../dns/types.ts";
import { isRecord } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";

/**
 * A flood of questions must not make the agent large; ten thousand Services take a quarter of this. What a question leaves
 * behind dies at once: collected often, it never leaves the processor's cache.
 */
const resourceLimits = { maxOldGenerationSizeMb: 192, maxYoungGenerationSizeMb: 3 };

export interface DnsThreadOptions {
  readonly settings: NameServerSettings;
  readonly logger: Logger;
  readonly onListening: () => void;
}

/** The name server's thread. */
export interface DnsThread {
  send(message: ToNameServer): void;
  /** Resolves when the thread has ended, for whatever reason; with the reason when nobody asked it to. */
  readonly ended: Promise<Error | undefined>;
  /** Of its own heap, which has a limit; undefined when the thread has ended. */
  heapBytes(): Promise<number | undefined>;
  /** Ends it: in order, or else by force after a second. */
  stop(): Promise<void>;
}

function workerFile(): URL {
  // Sources and bundle keep the same layout.
  const suffix = import.meta.url.endsWith(".cjs") ? "cjs" : "ts";
  return new URL(`./dns-worker.${suffix}`, import.meta.url);
}

function asMessage(value: unknown): FromNameServer | undefined {
  return isRecord(value) && (value["kind"] === "listening" || value["kind"] === "log")
    ? (value as unknown as FromNameServer)
    : undefined;
}

/** Starts the name server in a thread of its own: a pod that floods it with questions delays no heartbeat. */
export function startDnsThread(options: DnsThreadOptions): DnsThread {
  const { settings, logger, onListening } = options;
  const worker = new Worker(workerFile(), { workerData: settings, name: "dns", resourceLimits });
  let failure: Error | undefined;
  let asked = false;
  worker.on("error", (error: unknown) => {
    failure ??= error instanceof Error ? error : new Error(String(error));
  });
  worker.on("message", (value: unknown) => {
    const message = asMessage(value);
    if (message?.kind === "listening") onListening();
    if (message?.kind === "log") logger.log(message.level, message.msg, message.fields);
  });
  const ended = new Promise<Error | undefined>((resolve) => {
    worker.once("exit", (code) => {
      resolve(asked ? undefined : (failure ?? new Error(`the thread ended with code ${code}`)));
    });
  });
  const send = (message: ToNameServer): void => worker.postMessage(message);
  return {
    send,
    ended,
    heapBytes: () =>
      worker.getHeapStatistics().then(
        ({ used_heap_size: bytes }) => bytes,
        () => undefined,
      ),
    async stop() {
      asked = true;
      send({ kind: "stop" });
      const patience = AbortSignal.timeout(1000);
      const force = (): void => void worker.terminate();
      patience.addEventListener("abort", force, { once: true });
      await ended;
      patience.removeEventListener("abort", force);
    },
  };
}
