import type { Clock } from "../../lib/clock.ts";
import { readMetadata } from "../registry/object-meta.ts";
import { apiVersionOf, resourceOf } from "../registry/write-rules.ts";
import type { Store, StoreChange } from "../store/store.ts";
import { StatusError } from "../status-error.ts";
import type { JsonObject, KindDefinition } from "../types.ts";
import type { ListOptions, Selection } from "./list-options.ts";
import { WatchStream, type WatchEvent } from "./watch-stream.ts";

const BOOKMARK_MS = 60_000;
/** Without a timeout of the client's own a watch lasts this long, up to twice as much. */
const MIN_WATCH_MS = 30 * 60_000;

export interface WatchDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: () => number;
  /** Called once when the watch has ended. */
  readonly onEnd?: () => void;
}

export interface WatchTarget {
  readonly kind: KindDefinition;
  readonly namespace: string | undefined;
  readonly options: ListOptions;
  readonly selection: Selection;
}

function bookmark(kind: KindDefinition, revision: number, ends: boolean): WatchEvent {
  const annotations = ends ? { annotations: { "k8s.io/initial-events-end": "true" } } : {};
  return {
    type: "BOOKMARK",
    object: {
      kind: kind.kind,
      apiVersion: apiVersionOf(kind),
      metadata: { resourceVersion: String(revision), ...annotations },
    },
  };
}

function withRevision(object: Readonly<JsonObject>, revision: number): Readonly<JsonObject> {
  return {
    ...object,
    metadata: { ...readMetadata(object), resourceVersion: String(revision) },
  };
}

/** What a watcher with this selection sees of a change: entering and leaving the selection are ADDED and DELETED. */
export function eventOf(change: StoreChange, target: WatchTarget): WatchEvent | undefined {
  if (change.resource !== resourceOf(target.kind)) return undefined;
  if (target.namespace !== undefined && change.namespace !== target.namespace) return undefined;
  const { matches } = target.selection;
  const before = change.previous !== undefined && matches(change.previous);
  const after = change.type !== "DELETED" && matches(change.object);
  if (after) return { type: before ? "MODIFIED" : "ADDED", object: change.object };
  if (!before || change.previous === undefined) return undefined;
  const object =
    change.type === "DELETED" ? change.object : withRevision(change.previous, change.revision);
  return { type: "DELETED", object };
}

function expired(revision: number, store: Store): WatchEvent {
  const error = new StatusError(
    410,
    "Expired",
    `too old resource version: ${revision} (${store.currentRevision})`,
  );
  return { type: "ERROR", object: error.toStatus() };
}

function initialEvents(deps: WatchDeps, target: WatchTarget): WatchEvent[] {
  const { store } = deps;
  const { options, kind, namespace, selection } = target;
  const revision = Number(options.resourceVersion === "" ? "0" : options.resourceVersion);
  if (options.sendInitialEvents === true || revision === 0) {
    if (options.sendInitialEvents === false) return [];
    const events: WatchEvent[] = [];
    for (const object of store.list(resourceOf(kind), namespace))
      if (selection.matches(object)) events.push({ type: "ADDED", object });
    if (options.sendInitialEvents === true && options.allowBookmarks)
      events.push(bookmark(kind, store.currentRevision, true));
    return events;
  }
  const changes = store.changesSince(revision);
  if (changes === undefined) return [expired(revision, store)];
  return changes.flatMap((change) => eventOf(change, target) ?? []);
}

async function keepTime(
  deps: WatchDeps,
  target: WatchTarget,
  stream: WatchStream,
  signal: AbortSignal,
): Promise<void> {
  const { clock, store } = deps;
  const { timeoutSeconds, allowBookmarks } = target.options;
  const lifetime =
    timeoutSeconds === undefined || timeoutSeconds === 0
      ? MIN_WATCH_MS * (1 + deps.random())
      : timeoutSeconds * 1000;
  const end = clock.monotonic() + lifetime;
  try {
    for (;;) {
      const left = end - clock.monotonic();
      if (left <= 0) break;
      await clock.sleep(Math.min(left, BOOKMARK_MS), signal);
      if (allowBookmarks) stream.push(bookmark(target.kind, store.currentRevision, false));
    }
  } catch {
    // The only rejection is the abort that ends the watch.
  }
  stream.end();
}

/** Starts a watch; it ends at its timeout, when `signal` aborts, or when its reader is too slow. */
export function startWatch(deps: WatchDeps, target: WatchTarget, signal: AbortSignal): WatchStream {
  const stop = new AbortController();
  // Listing and subscribing happen in one synchronous stretch: no change can fall between them.
  const initial = initialEvents(deps, target);
  const unsubscribe = deps.store.subscribe((change) => {
    const event = eventOf(change, target);
    if (event !== undefined) stream.push(event);
  });
  const stream = new WatchStream(initial, () => {
    unsubscribe();
    stop.abort();
    deps.onEnd?.();
  });
  if (initial[0]?.type === "ERROR" || signal.aborted) stream.end();
  else {
    const ended = AbortSignal.any([signal, stop.signal]);
    void keepTime(deps, target, stream, ended);
  }
  return stream;
}
