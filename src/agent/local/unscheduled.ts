import type { Pod } from "../../api/types.gen.ts";
import { createHttpClient } from "../../api/http-client.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { parseStored } from "../../api/object.ts";
import { collectionPath } from "../../api/resource.ts";
import { PODS } from "../../api/resources.ts";
import type { Clock } from "../../lib/clock.ts";
import { isRecord } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";

export interface UnscheduledOptions {
  /** Path of credentials that may list all pods. */
  readonly kubeconfig: string;
  readonly userAgent: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Whoever asks again within this time gets the same: a connection is made for each question. */
const freshMs = 5000;
const deadlineMs = 2000;
const limit = 200;

/**
 * Asks the API server for pods that no node has yet, for machines that are the whole cluster: a node's own identity may not
 * see them (Node authorizer).
 *
 * @returns The question; it rejects when there is no answer.
 */
export function unscheduledPods(
  options: UnscheduledOptions,
): (signal: AbortSignal) => Promise<readonly Pod[]> {
  const { clock } = options;
  let last: { readonly at: number; readonly pods: readonly Pod[] } | undefined;
  return async (signal) => {
    if (last !== undefined && clock.monotonic() - last.at < freshMs) return last.pods;
    last = { at: clock.monotonic(), pods: await ask(options, signal) };
    return last.pods;
  };
}

async function ask(
  { kubeconfig: path, ...rest }: UnscheduledOptions,
  signal: AbortSignal,
): Promise<readonly Pod[]> {
  const client = createHttpClient({ kubeconfig: await loadKubeconfig(path), ...rest });
  try {
    const answer = await client.request({
      method: "GET",
      path: collectionPath(PODS),
      query: { fieldSelector: "spec.nodeName=", limit },
      deadlineMs,
      signal,
    });
    const items = isRecord(answer) ? answer["items"] : [];
    const pods = (Array.isArray(items) ? items : []).map((item) => parseStored<Pod>(item));
    // One that has ended needs no node any more.
    return pods.filter(({ status }) => (status?.phase ?? "Pending") === "Pending");
  } finally {
    await client.close();
  }
}
