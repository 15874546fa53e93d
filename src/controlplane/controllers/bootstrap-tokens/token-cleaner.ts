import { isExpiredToken, readTokenSecret } from "../../../api/bootstrap-token.ts";
import { isConflict } from "../../../api/errors.ts";
import { deleteObject } from "../../../api/objects.ts";
import { SECRETS } from "../../../api/resources.ts";
import type { KeyedQueue } from "../../../lib/keyed-queue.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";

/** Removes bootstrap tokens when they expire. */
export function tokenCleaner(context: ControllerContext): Controller {
  const { client, informers, clock } = context;
  const name = "tokencleaner";

  async function sync(key: string, queue: KeyedQueue, signal: AbortSignal): Promise<void> {
    const secret = informers.bootstrapTokens.get(key);
    if (secret === undefined) return;
    const token = readTokenSecret(secret.data ?? {});
    if (isExpiredToken(token, clock.now())) {
      const { namespace, name: secretName, uid } = secret.metadata;
      try {
        await deleteObject(client, SECRETS, { namespace, name: secretName }, { uid, signal });
      } catch (error) {
        // Another token took its name; that one is looked at by itself.
        if (!isConflict(error)) throw error;
      }
    } else if (token.expiresAt !== undefined) {
      queue.addAfter(key, token.expiresAt - clock.now());
    }
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [informers.bootstrapTokens],
          sync: (key, queue) => sync(key, queue, signal),
          subscribe: (queue) => [informers.bootstrapTokens.subscribe(({ key }) => queue.add(key))],
        },
        signal,
      ),
  };
}
