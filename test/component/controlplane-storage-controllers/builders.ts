import type { Stored } from "../../../src/api/object.ts";
import { listObjects } from "../../../src/api/objects.ts";
import {
  EVENTS,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
} from "../../../src/api/resources.ts";
import type { PersistentVolume, PersistentVolumeClaim } from "../../../src/api/types.gen.ts";
import { findObject } from "../../../src/controlplane/controllers/shared/calls.ts";
import { eventually, type World } from "../controlplane-controllers/world.ts";

export function newVolume(parts: {
  readonly name: string;
  readonly storage: string;
  readonly className?: string;
  readonly policy?: "Retain" | "Delete";
}): PersistentVolume {
  return {
    metadata: { name: parts.name },
    spec: {
      accessModes: ["ReadWriteOnce"],
      capacity: { storage: parts.storage },
      hostPath: { path: `/nowhere/${parts.name}` },
      persistentVolumeReclaimPolicy: parts.policy ?? "Retain",
      storageClassName: parts.className ?? "",
    },
  };
}

export function newClaim(parts: {
  readonly name: string;
  readonly storage: string;
  readonly className?: string;
}): PersistentVolumeClaim {
  return {
    metadata: { namespace: "default", name: parts.name },
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage: parts.storage } },
      storageClassName: parts.className ?? "",
    },
  };
}

export async function claimNamed(
  { client, signal }: World,
  name: string,
): Promise<Stored<PersistentVolumeClaim> | undefined> {
  const target = { resource: PERSISTENT_VOLUME_CLAIMS, namespace: "default", name };
  return findObject(client, target, signal);
}

export async function volumeNamed(
  { client, signal }: World,
  name: string,
): Promise<Stored<PersistentVolume> | undefined> {
  return findObject(client, { resource: PERSISTENT_VOLUMES, name }, signal);
}

export async function phaseOf(world: World, claim: string): Promise<string | undefined> {
  return (await claimNamed(world, claim))?.status?.phase;
}

/** The claim, once it is in that phase. */
export async function claimIn(
  world: World,
  name: string,
  phase: string,
): Promise<Stored<PersistentVolumeClaim>> {
  return eventually(`claim ${name} is ${phase}`, async () => {
    const claim = await claimNamed(world, name);
    return claim?.status?.phase === phase ? claim : undefined;
  });
}

/** The volume, once it is in that phase. */
export async function volumeIn(
  world: World,
  name: string,
  phase: string,
): Promise<Stored<PersistentVolume>> {
  return eventually(`volume ${name} is ${phase}`, async () => {
    const volume = await volumeNamed(world, name);
    return volume?.status?.phase === phase ? volume : undefined;
  });
}

/** Messages of the events of an object with a reason, once there is one. */
export async function eventsOf(
  { client, signal }: World,
  name: string,
  reason: string,
): Promise<readonly string[]> {
  return eventually(`event ${reason} of ${name}`, async () => {
    const fieldSelector = `involvedObject.name=${name},reason=${reason}`;
    const { items } = await listObjects(client, EVENTS, { fieldSelector, signal });
    return items.length === 0 ? undefined : items.map(({ message }) => message ?? "");
  });
}
