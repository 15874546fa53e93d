import { errorMessage } from "../../lib/errors.ts";
import type { OwnResource } from "../own-resources.ts";

/** One thing that goes, or went. */
export interface Trace {
  /** As {@link OwnResource.what} */
  readonly what: string;
  readonly name: string;
}

/** Called before each mutating step of a removal (failpoint). */
export type RemovalStep = (name: string) => void | Promise<void>;

/** `removeLogLinks` for "log links". */
export function stepOf({ what }: Pick<OwnResource, "what">): string {
  return `remove ${what}`.replaceAll(/ (\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** What is there of all of them now, in the order in which it is removed. */
export async function lookAt(
  resources: readonly OwnResource[],
  signal: AbortSignal,
): Promise<readonly Trace[]> {
  const traces: Trace[] = [];
  for (const resource of resources) {
    const { what } = resource;
    traces.push(...(await resource.left(signal)).map((name) => ({ what, name })));
  }
  return traces;
}

/**
 * Removes all of them, one sort after the other. What fails keeps none of the others: the look that follows tells what it
 * left.
 */
export async function removeAll(
  resources: readonly OwnResource[],
  { say, step }: { readonly say: (line: string) => void; readonly step: RemovalStep },
  signal: AbortSignal,
): Promise<void> {
  for (const resource of resources) {
    await step(stepOf(resource));
    try {
      await resource.remove(signal);
    } catch (error) {
      signal.throwIfAborted();
      say(`${resource.what}: ${errorMessage(error)}`);
    }
  }
}

/** What of `before` is gone. */
export function goneOf(before: readonly Trace[], now: readonly Trace[]): readonly Trace[] {
  const there = new Set(now.map(keyOf));
  return before.filter((trace) => !there.has(keyOf(trace)));
}

/** Each once, in order. */
export function unionOf(...lists: readonly (readonly Trace[])[]): readonly Trace[] {
  return [...new Map(lists.flat().map((trace) => [keyOf(trace), trace])).values()];
}

function keyOf({ what, name }: Trace): string {
  return `${what}\0${name}`;
}
