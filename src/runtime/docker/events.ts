import type { Readable } from "node:stream";

import { jitteredBackoffMs } from "../../lib/backoff.ts";
import { errorMessage } from "../../lib/errors.ts";
import { isRecord, optionalString, stringMap } from "../../lib/guard.ts";
import type { RuntimeEvent } from "../types.ts";
import type { DockerContext } from "./context.ts";
import { label, ownerFilters } from "./labels.ts";
import { LineSplitter } from "./lines.ts";
import type { ContainerEvent } from "./observer.ts";

/** Above this many unread events a single `resync` says the same for less. */
const queueLimit = 2048;

const kinds: Readonly<Record<string, ContainerEvent["kind"]>> = {
  start: "started",
  die: "exited",
  oom: "oom",
  destroy: "removed",
  update: "updated",
};

/** One line of the engine's event stream; undefined when it is of no interest. Never throws. */
export function parseEvent(line: string): ContainerEvent | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || !isRecord(value["Actor"])) return undefined;
  const kind = kinds[optionalString(value["Action"]) ?? ""];
  const containerID = optionalString(value["Actor"]["ID"]);
  const podUID = stringMap(value["Actor"]["Attributes"])[label.podUID];
  if (kind === undefined || containerID === undefined || podUID === undefined) return undefined;
  return { kind, podUID, containerID };
}

/** Unread events of one connection; the reader waits on `wake`. */
interface Inbox {
  readonly queue: RuntimeEvent[];
  ended: boolean;
  wake: () => void;
}

/**
 * The engine's events, for ever. Each (re)connect begins with `resync`, sent after the subscription stands, so that a
 * snapshot taken on it misses nothing.
 *
 * @yields {RuntimeEvent} Hints; the records are the truth.
 */
export async function* runtimeEvents(
  context: DockerContext,
  signal: AbortSignal,
): AsyncGenerator<RuntimeEvent, void> {
  const { clock, logger, random } = context;
  let failures = 0;
  while (!signal.aborted) {
    const connection = new AbortController();
    try {
      const stream = await subscribe(context, AbortSignal.any([signal, connection.signal]));
      const connectedAt = clock.monotonic();
      context.observer.listening(true);
      yield { kind: "resync" };
      yield* drain(context, stream, signal);
      if (clock.monotonic() - connectedAt > 5000) failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      if (failures === 0) {
        logger.log("warn", "event stream lost", { error: errorMessage(error) });
      }
    } finally {
      // Also when the consumer stops early.
      connection.abort();
      context.observer.listening(false);
    }
    if (signal.aborted) return;
    failures += 1;
    context.client.renegotiate();
    try {
      await clock.sleep(jitteredBackoffMs(failures, { baseMs: 50, maxMs: 5000 }, random), signal);
    } catch {
      return;
    }
  }
}

function subscribe(context: DockerContext, signal: AbortSignal): Promise<Readable> {
  return context.client.open(
    {
      op: "watch events",
      method: "GET",
      path: "/events",
      query: {
        filters: JSON.stringify({
          type: ["container"],
          // Not exec_*: probes would drown the rest.
          event: Object.keys(kinds),
          label: ownerFilters(context.owner),
        }),
      },
    },
    signal,
  );
}

async function* drain(
  context: DockerContext,
  stream: Readable,
  signal: AbortSignal,
): AsyncGenerator<RuntimeEvent, void> {
  const inbox: Inbox = { queue: [], ended: false, wake: () => undefined };
  const splitter = new LineSplitter();
  // The engine drops events for a listener that is slow for 100 ms, so nothing here waits for the consumer.
  stream.on("data", (chunk: Uint8Array) => {
    for (const line of splitter.push(chunk)) {
      const event = parseEvent(line);
      if (event === undefined) continue;
      context.observer.heard(event);
      inbox.queue.push(event);
    }
    if (inbox.queue.length > queueLimit) inbox.queue.splice(0, Infinity, { kind: "resync" });
    inbox.wake();
  });
  const end = (): void => {
    inbox.ended = true;
    inbox.wake();
  };
  stream.on("end", end);
  stream.on("close", end);
  stream.on("error", end);
  try {
    for (;;) {
      const event = inbox.queue.shift();
      if (event !== undefined) {
        yield event;
        continue;
      }
      if (inbox.ended || signal.aborted) return;
      await new Promise<void>((resolve) => {
        inbox.wake = resolve;
      });
    }
  } finally {
    stream.destroy();
  }
}
