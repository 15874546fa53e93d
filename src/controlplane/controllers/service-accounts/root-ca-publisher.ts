import { isAlreadyExists, isForbidden } from "../../../api/errors.ts";
import { objectKey } from "../../../api/object.ts";
import { CONFIG_MAPS } from "../../../api/resources.ts";
import { createObject } from "../../../api/objects.ts";
import { replaceObject } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";

const configMapName = "kube-root-ca.crt";

/** The cluster's CA as it is now. */
export interface ClusterCA {
  /** PEM. */
  current(): string;
  /** Calls `listener` when it was renewed. Returns the function that ends it. */
  onChange(listener: () => void): () => void;
}

/** Keeps the cluster's CA in every namespace, where pods mount it beside their token. */
export function rootCAPublisher(context: ControllerContext, ca: ClusterCA): Controller {
  const { informers, client } = context;

  async function sync(namespace: string, signal: AbortSignal): Promise<void> {
    const object = informers.namespaces.get(namespace);
    if (object === undefined || object.metadata.deletionTimestamp !== undefined) return;
    const data = { "ca.crt": ca.current() };
    const current = informers.rootCAs.get(objectKey(namespace, configMapName));
    if (current === undefined) {
      try {
        await createObject(
          client,
          CONFIG_MAPS,
          {
            metadata: {
              namespace,
              name: configMapName,
              annotations: {
                "kubernetes.io/description": "Certificates that sign the API server's certificate.",
              },
            },
            data,
          },
          { signal },
        );
      } catch (error) {
        // Forbidden: the namespace began to terminate meanwhile.
        if (!isAlreadyExists(error) && !isForbidden(error)) throw error;
      }
      return;
    }
    if (JSON.stringify(current.data ?? {}) === JSON.stringify(data)) return;
    await replaceObject(
      client,
      { resource: CONFIG_MAPS, namespace, name: configMapName },
      { ...current, data },
      signal,
    );
  }

  return {
    name: "root-ca-certificate-publisher",
    run: (signal) =>
      runQueueLoop(
        {
          name: "root-ca-certificate-publisher",
          context,
          waitFor: [informers.namespaces, informers.rootCAs],
          sync: (namespace) => sync(namespace, signal),
          subscribe: (queue) => [
            informers.namespaces.subscribe(({ key }) => queue.add(key)),
            ca.onChange(() => {
              for (const { metadata } of informers.namespaces.values()) queue.add(metadata.name);
            }),
            informers.rootCAs.subscribe((change) => {
              const map = change.kind === "deleted" ? change.previous : change.object;
              queue.add(map.metadata.namespace ?? "");
            }),
          ],
        },
        signal,
      ),
  };
}
