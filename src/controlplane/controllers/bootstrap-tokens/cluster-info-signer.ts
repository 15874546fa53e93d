import {
  clusterInfo,
  clusterInfoKey,
  detachedSignature,
  isExpiredToken,
  readTokenSecret,
  signaturePrefix,
  tokenSecretName,
} from "../../../api/bootstrap-token.ts";
import { objectKey } from "../../../api/object.ts";
import { CONFIG_MAPS } from "../../../api/resources.ts";
import type { Secret } from "../../../api/types.gen.ts";
import { replaceIfCurrent } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";

/**
 * The public ConfigMap's data with one signature for each token that may sign; undefined when nothing is to be done.
 *
 * @param now Milliseconds since the epoch.
 */
export function signedClusterInfo(
  data: Readonly<Record<string, string>>,
  secrets: Iterable<Pick<Secret, "metadata" | "data">>,
  now: number,
): Record<string, string> | undefined {
  const content = data[clusterInfoKey];
  if (content === undefined) return undefined;
  const signatures: Record<string, string> = {};
  for (const secret of secrets) {
    const token = readTokenSecret(secret.data ?? {});
    const named = secret.metadata?.name === tokenSecretName(token.id);
    if (!named || token.secret === "" || !token.signs || isExpiredToken(token, now)) continue;
    signatures[`${signaturePrefix}${token.id}`] = detachedSignature(content, token);
  }
  const others = Object.entries(data).filter(([key]) => !key.startsWith(signaturePrefix));
  const present = Object.entries(data).filter(([key]) => key.startsWith(signaturePrefix));
  const unchanged =
    present.length === Object.keys(signatures).length &&
    present.every(([key, value]) => signatures[key] === value);
  return unchanged ? undefined : { ...Object.fromEntries(others), ...signatures };
}

/** Keeps the cluster's public address and CA signed with every bootstrap token, so that a joiner can trust them. */
export function clusterInfoSigner(context: ControllerContext): Controller {
  const { client, informers, clock } = context;
  const name = "bootstrapsigner";
  const key = objectKey(clusterInfo.namespace, clusterInfo.name);

  async function sync(signal: AbortSignal): Promise<void> {
    const current = informers.clusterInfo.get(key);
    if (current === undefined) return;
    const data = signedClusterInfo(
      current.data ?? {},
      informers.bootstrapTokens.values(),
      clock.now(),
    );
    if (data === undefined) return;
    await replaceIfCurrent(
      client,
      { resource: CONFIG_MAPS, ...clusterInfo },
      { ...current, data },
      signal,
    );
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [informers.clusterInfo, informers.bootstrapTokens],
          sync: () => sync(signal),
          subscribe: (queue) => [
            informers.clusterInfo.subscribe(() => queue.add(key)),
            informers.bootstrapTokens.subscribe(() => queue.add(key)),
          ],
        },
        signal,
      ),
  };
}
