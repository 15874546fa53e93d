import type { PodEntry } from "./pod-entry.ts";

/**
 * Does `work`, which may take all of a pod's grace, and calls `tell` for every change that would wake the pod meanwhile:
 * a container that fails its readiness probe while it drains must leave the endpoints at once, not when it has ended.
 * One call at a time, and none any more when the work has ended.
 *
 * @param tell Must not reject.
 */
export async function tellingMeanwhile(
  state: Pick<PodEntry, "woken">,
  tell: () => Promise<void>,
  work: () => Promise<void>,
): Promise<void> {
  let telling: Promise<void> | undefined;
  let again = false;
  const tellAll = async (): Promise<void> => {
    do {
      again = false;
      await tell();
    } while (again);
    telling = undefined;
  };
  state.woken = () => {
    again = true;
    telling ??= tellAll();
  };
  try {
    await work();
  } finally {
    state.woken = undefined;
    again = false;
    await telling;
  }
}
