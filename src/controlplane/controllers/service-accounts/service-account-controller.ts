import { isAlreadyExists, isForbidden } from "../../../api/errors.ts";
import { objectKey } from "../../../api/object.ts";
import { SERVICE_ACCOUNTS } from "../../../api/resources.ts";
import { createObject } from "../../../api/objects.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";

/** Keeps a `default` ServiceAccount in every namespace: pods that name none run as it. */
export function serviceAccountController(context: ControllerContext): Controller {
  const { informers, client } = context;

  async function sync(namespace: string, signal: AbortSignal): Promise<void> {
    const object = informers.namespaces.get(namespace);
    if (object === undefined || object.metadata.deletionTimestamp !== undefined) return;
    if (informers.serviceAccounts.get(objectKey(namespace, "default")) !== undefined) return;
    try {
      await createObject(
        client,
        SERVICE_ACCOUNTS,
        { metadata: { namespace, name: "default" } },
        { signal },
      );
    } catch (error) {
      // Forbidden: the namespace began to terminate meanwhile.
      if (!isAlreadyExists(error) && !isForbidden(error)) throw error;
    }
  }

  return {
    name: "serviceaccount",
    run: (signal) =>
      runQueueLoop(
        {
          name: "serviceaccount",
          context,
          waitFor: [informers.namespaces, informers.serviceAccounts],
          sync: (namespace) => sync(namespace, signal),
          subscribe: (queue) => [
            informers.namespaces.subscribe(({ key }) => queue.add(key)),
            informers.serviceAccounts.subscribe((change) => {
              if (change.kind === "deleted") queue.add(change.previous.metadata.namespace ?? "");
            }),
          ],
        },
        signal,
      ),
  };
}
