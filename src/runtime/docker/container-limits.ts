import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { RuntimeError } from "../errors.ts";
import type { ContainerLimits } from "../types.ts";
import type { DockerContext } from "./context.ts";

// Below it the engine refuses to start (moby: daemon/daemon_unix.go).
const minimumMemoryBytes = 6 * 1024 * 1024;
const minimumCpuQuotaMicros = 1000;
const defaultPeriodMicros = 100_000;

/** The limits in the engine's words, for create and update. @throws {RuntimeError} `InvalidSpec` */
export function limitFields(
  limits: ContainerLimits,
  cpuPeriodMicros = defaultPeriodMicros,
): Readonly<Record<string, number>> {
  const memory = limits.memoryLimitBytes;
  if (memory !== 0 && memory < minimumMemoryBytes) {
    throw new RuntimeError(
      "InvalidSpec",
      `memory limit of ${memory} bytes is below the engine's minimum of 6Mi`,
    );
  }
  return {
    CpuShares: Math.max(2, limits.cpuShares),
    ...(limits.cpuQuotaMicros > 0
      ? {
          CpuQuota: Math.max(minimumCpuQuotaMicros, limits.cpuQuotaMicros),
          CpuPeriod: cpuPeriodMicros,
        }
      : {}),
    // Equal, so that the limit includes no swap.
    ...(memory > 0 ? { Memory: memory, MemorySwap: memory } : {}),
  };
}

/**
 * Memory that a process's cgroup uses, where the kernel would kill on a limit below that (v2); undefined on v1, which
 * refuses such a limit, and where procfs cannot tell.
 */
async function memoryInUse(pid: number): Promise<number | undefined> {
  try {
    const own = /^0::(.*)$/m.exec(await readFile(`/proc/${pid}/cgroup`, "utf8"))?.[1];
    if (own === undefined) return undefined;
    return Number(await readFile(join("/sys/fs/cgroup", own, "memory.current"), "utf8"));
  } catch {
    return undefined;
  }
}

/**
 * Other limits for a running container.
 *
 * @throws {RuntimeError} `WrongState` when it uses more memory than that, `InvalidSpec` when the engine allows less.
 */
export async function updateContainer(
  context: DockerContext,
  id: string,
  limits: ContainerLimits,
  signal: AbortSignal,
): Promise<void> {
  const memory = limits.memoryLimitBytes;
  const { limits: now, pid } = await context.observer.inspect(id, signal);
  const shrinks = memory > 0 && (now.memoryLimitBytes === 0 || memory < now.memoryLimitBytes);
  const used = shrinks && pid > 0 ? await memoryInUse(pid) : undefined;
  if (used !== undefined && used >= memory) {
    throw new RuntimeError(
      "WrongState",
      `attempting to set memory limit (${memory}) below current usage (${used})`,
    );
  }
  try {
    await context.client.call(
      {
        op: "update container",
        method: "POST",
        path: `/containers/${id}/update`,
        // Restarts are the agent's business.
        body: { ...limitFields(limits), RestartPolicy: { Name: "no" } },
        timeoutMs: 30_000,
      },
      signal,
    );
  } finally {
    context.observer.invalidate(id);
  }
}
