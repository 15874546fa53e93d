import type { ApiClient } from "../../api/client.ts";
import { objectPath } from "../../api/resource.ts";
import { NODES, PODS } from "../../api/resources.ts";
import type { StoredPod } from "../controllers/shared/pod-state.ts";

/**
 * Gives the pod its node, through pods/binding.
 *
 * @throws {ApiError} 404 or 409 when the pod is gone or has a node already.
 */
export async function bindPod(
  client: ApiClient,
  pod: StoredPod,
  node: string,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name, uid } = pod.metadata;
  await client.request({
    method: "POST",
    path: objectPath(PODS, { namespace, name }, "binding"),
    body: {
      apiVersion: "v1",
      kind: "Binding",
      metadata: { namespace, name, uid },
      target: { apiVersion: "v1", kind: NODES.kind, name: node },
    },
    signal,
  });
}
