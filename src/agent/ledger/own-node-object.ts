import { createHttpClient } from "../../api/http-client.ts";
import { isNotFound } from "../../api/errors.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { deleteObject, getObject } from "../../api/objects.ts";
import { NODES } from "../../api/resources.ts";
import type { Node } from "../../api/types.gen.ts";
import { deadline, systemClock } from "../../lib/clock.ts";
import { silentLogger } from "../../lib/log.ts";
import type { OwnResource } from "../own-resources.ts";
import { remoraVersion } from "../version.ts";

const callMs = 15_000;

/**
 * The Node object in its cluster; the cluster then removes the node's pods and its lease. A node itself may not do that:
 * it takes an administrator's credentials.
 */
export function ownNodeObject(nodeName: string, kubeconfig: string): OwnResource {
  const within = async <T>(
    work: (client: ReturnType<typeof createHttpClient>) => Promise<T>,
  ): Promise<T> => {
    const client = createHttpClient({
      kubeconfig: await loadKubeconfig(kubeconfig),
      userAgent: `remora/${remoraVersion}`,
      clock: systemClock,
      logger: silentLogger,
    });
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  };
  const at = { name: nodeName };
  return {
    what: "Node objects",
    remove: (signal) =>
      within(async (client) => {
        await deleteObject(client, NODES, at, { signal: deadline(signal, callMs) });
      }),
    left: (signal) =>
      within(async (client) => {
        try {
          await getObject<Node>(client, NODES, at, { signal: deadline(signal, callMs) });
          return [nodeName];
        } catch (error) {
          if (isNotFound(error)) return [];
          throw error;
        }
      }),
  };
}
