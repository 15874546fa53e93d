import type { Clock } from "../../lib/clock.ts";
import type { CgroupTree } from "../cgroups/cgroup-tree.ts";
import type { PodMetrics } from "./pod-metrics.ts";

/** The same tree, whose changes are timed. */
export function measuredCgroups(
  tree: CgroupTree,
  metrics: Pick<PodMetrics, "cgroupManaged">,
  clock: Pick<Clock, "monotonic">,
): CgroupTree {
  const timed = async <T>(
    what: Parameters<PodMetrics["cgroupManaged"]>[0],
    change: () => Promise<T>,
  ): Promise<T> => {
    const startedAt = clock.monotonic();
    try {
      return await change();
    } finally {
      metrics.cgroupManaged(what, (clock.monotonic() - startedAt) / 1000);
    }
  };
  return {
    ensure: (path, settings) => timed("create", () => tree.ensure(path, settings)),
    remove: (path) => timed("destroy", () => tree.remove(path)),
    adjust: (path, files) => timed("update", () => tree.adjust(path, files)),
  };
}
