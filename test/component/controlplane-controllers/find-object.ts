import { isNotFound } from "../../../src/api/errors.ts";
import type { Stored } from "../../../src/api/object.ts";
import { getObject, type ObjectName } from "../../../src/api/objects.ts";
import type { Resource } from "../../../src/api/resource.ts";
import type { World } from "./world.ts";

/** The object; undefined when there is none. */
export async function findObject<T>(
  { client, signal }: Pick<World, "client" | "signal">,
  resource: Resource<T>,
  at: ObjectName,
): Promise<Stored<T> | undefined> {
  try {
    return await getObject(client, resource, at, { signal });
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}
