import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import { loadKubeconfig } from "../../../src/api/kubeconfig.ts";
import type { Stored } from "../../../src/api/object.ts";
import { createObject, patchObject } from "../../../src/api/objects.ts";
import { LEASES, NODES, PODS } from "../../../src/api/resources.ts";
import type { Pod } from "../../../src/api/types.gen.ts";
import type { ControlPlane } from "../../../src/controlplane/control-plane.ts";
import { startControlPlane } from "../../../src/controlplane/control-plane.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";

/** Real time that can be made to run ahead: sleepers then wake early. */
export class LeapingClock implements Clock {
  #ahead = 0;
  #leap = new AbortController();

  now(): number {
    return systemClock.now() + this.#ahead;
  }

  monotonic(): number {
    return systemClock.monotonic() + this.#ahead;
  }

  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    const due = this.monotonic() + ms;
    while (this.monotonic() < due) {
      const leap = this.#leap.signal;
      try {
        await systemClock.sleep(due - this.monotonic(), AbortSignal.any([signal, leap]));
      } catch (error) {
        if (signal.aborted || !leap.aborted) throw error;
      }
    }
    signal.throwIfAborted();
  }

  leap(ms: number): void {
    this.#ahead += ms;
    const before = this.#leap;
    this.#leap = new AbortController();
    before.abort();
  }
}

export interface World {
  readonly controlPlane: ControlPlane;
  readonly client: HttpClient;
  readonly clock: LeapingClock;
  readonly dataDir: string;
  readonly signal: AbortSignal;
  /** Ends the control plane and leaves its directory for the next one. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

export function options(
  dataDir: string,
  clock: Clock,
  port = 0,
): Parameters<typeof startControlPlane>[0] {
  return {
    dataDir,
    bindAddress: "127.0.0.1",
    port,
    advertiseAddress: "192.0.2.1",
    serviceCIDRs: ["10.96.0.0/16"],
    clusterCIDRs: ["10.244.0.0/16"],
    nodeName: "n1",
    nodeIPs: ["192.0.2.1"],
    clock,
    logger: silentLogger,
    random: Math.random,
  };
}

/** A whole control plane on a directory of its own or a former one's, and an administrator's client over TLS. */
export async function startWorld(formerDir?: string): Promise<World> {
  const dataDir = formerDir ?? (await mkdtemp(join(tmpdir(), "remora-controlplane-")));
  const clock = new LeapingClock();
  const abort = new AbortController();
  const controlPlane = await startControlPlane(options(dataDir, clock), abort.signal);
  const client = createHttpClient({
    kubeconfig: await loadKubeconfig(controlPlane.files.adminKubeconfig),
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
  });
  const stop = async (): Promise<void> => {
    await client.close();
    abort.abort();
    await controlPlane.done;
  };
  return {
    controlPlane,
    client,
    clock,
    dataDir,
    signal: abort.signal,
    stop,
    close: async () => {
      await stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Waits until `look` gives something. */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | undefined>,
  timeoutMs = 10_000,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  while (performance.now() < end) {
    const found = await look();
    if (found !== undefined) return found;
    await systemClock.sleep(20, AbortSignal.timeout(timeoutMs));
  }
  throw new Error(`never happened: ${what}`);
}

/** A Ready node, as a kubelet would register it. */
export async function registerNode(world: World, name: string): Promise<void> {
  const { client, signal, clock } = world;
  await createObject(client, NODES, { metadata: { name } }, { signal });
  await createObject(
    client,
    LEASES,
    {
      metadata: { namespace: "kube-node-lease", name },
      spec: { holderIdentity: name, renewTime: new Date(clock.now()).toISOString() },
    },
    { signal },
  );
  await postReady(world, name);
}

/** A heartbeat. */
export async function postReady(world: World, name: string): Promise<void> {
  const { client, signal, clock } = world;
  const time = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  const resources = { cpu: "4", memory: "8Gi", pods: "110" };
  const patch = {
    status: {
      capacity: resources,
      allocatable: resources,
      conditions: [
        {
          type: "Ready",
          status: "True",
          reason: "KubeletReady",
          lastHeartbeatTime: time,
          lastTransitionTime: time,
        },
      ],
    },
  };
  await patchObject(client, NODES, { name, patch }, { subresource: "status", signal });
}

/** What a kubelet reports of a running pod. */
export async function postRunning(world: World, pod: Stored<Pod>, ip: string): Promise<void> {
  const { client, signal, clock } = world;
  const time = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, "Z");
  const { namespace, name } = pod.metadata;
  const patch = {
    status: {
      phase: "Running",
      podIP: ip,
      podIPs: [{ ip }],
      conditions: [{ type: "Ready", status: "True", lastTransitionTime: time }],
    },
  };
  await patchObject(client, PODS, { namespace, name, patch }, { subresource: "status", signal });
}
