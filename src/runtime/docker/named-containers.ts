import { asRecord, asString } from "../../lib/guard.ts";
import { isRuntimeFailure, RuntimeError } from "../errors.ts";
import { deleteContainer } from "./container-calls.ts";
import type { DockerContext } from "./context.ts";
import { label, ownership } from "./labels.ts";
import type { InspectedContainer } from "./records.ts";

export interface CreatedContainer {
  readonly id: string;
  readonly warnings: readonly string[];
}

/** Creates a container or sandbox under its name. Throws `AlreadyExists` when the name is taken. */
export async function createNamed(
  context: DockerContext,
  wanted: {
    readonly what: "container" | "sandbox";
    readonly name: string;
    readonly podUID: string;
    readonly body: Readonly<Record<string, unknown>>;
  },
  signal: AbortSignal,
): Promise<CreatedContainer> {
  const { observer } = context;
  try {
    const response = await context.client.call(
      {
        op: `create ${wanted.what}`,
        method: "POST",
        path: "/containers/create",
        query: { name: wanted.name },
        body: wanted.body,
        lane: "start",
        timeoutMs: 120_000,
      },
      signal,
    );
    const created = asRecord(response, "created");
    const warnings = Array.isArray(created["Warnings"]) ? created["Warnings"].map(String) : [];
    const id = asString(created["Id"], "created.Id");
    observer.made(wanted.podUID, id);
    return { id, warnings };
  } catch (error) {
    // The name is taken, or the engine may yet make what nobody waits for any more.
    observer.doubt(wanted.podUID);
    throw error;
  }
}

/** What a taken name should belong to. */
export interface WantedHolder {
  readonly what: "container" | "sandbox";
  readonly name: string;
  readonly podUID: string;
  /** Labels that tell it is the very one: type, attempt, container name. */
  readonly labels: Readonly<Record<string, string>>;
  /** Whether one that does not run can serve as it is. */
  readonly isUsable: (holder: InspectedContainer) => boolean;
}

/**
 * The id of the container that holds the name, when it is the one wanted; undefined when the name is free again, because
 * it was so already or because an unusable one of ours was removed.
 *
 * @throws {RuntimeError} `AlreadyExists` when the name is taken by what this node did not make.
 */
export async function adoptHolder(
  context: DockerContext,
  wanted: WantedHolder,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { what, name, podUID } = wanted;
  let holder: InspectedContainer;
  try {
    holder = await context.observer.inspect(name, signal);
  } catch (error) {
    if (isRuntimeFailure(error, "NotFound")) return undefined;
    throw error;
  }
  const identity = Object.entries({ ...wanted.labels, [label.podUID]: podUID });
  const isIt = identity.every(([key, value]) => holder.labels[key] === value);
  if (ownership(holder.labels, context.owner) !== "ours" || !isIt) {
    throw new RuntimeError(
      "AlreadyExists",
      `the name ${name} is taken by container ${holder.id.slice(0, 12)}, which this node did not make: remove it with docker rm`,
    );
  }
  if (holder.status === "running" || wanted.isUsable(holder)) return holder.id;
  context.logger.log("info", `stale ${what} replaced`, {
    podUID,
    [`${what}ID`]: holder.id,
    state: holder.status,
  });
  await deleteContainer(context, holder.id, signal);
  return undefined;
}
