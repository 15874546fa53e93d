import { createHttpClient, type HttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { silentLogger } from "../../lib/log.ts";
import type { Machine } from "./machine.ts";
import type { Identity } from "./site.ts";

/** Why what is asked of the cluster does not apply. */
export const noIdentity =
  "no agent has joined a cluster on this machine: there are no credentials to ask with";

/** Does something as an identity. */
export async function asIdentity<T>(
  machine: Machine,
  identity: Identity,
  work: (client: HttpClient) => Promise<T>,
): Promise<T> {
  const client = createHttpClient({
    kubeconfig: await loadKubeconfig(identity.kubeconfig),
    userAgent: "remora-doctor",
    clock: machine.clock,
    logger: silentLogger,
  });
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}
