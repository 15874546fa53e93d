import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { certificatesIn, publicKeyHash } from "../../../src/agent/join/ca-hash.ts";
import { readClusterInfo } from "../../../src/agent/join/cluster-info.ts";
import { type CredentialPaths, credentialPaths } from "../../../src/agent/join/credential-files.ts";
import type { JoinOptions } from "../../../src/agent/join/join-cluster.ts";
import {
  type BootstrapToken,
  clusterInfo,
  nodeBootstrappersGroup,
  tokenNamespace,
  tokenSecretName,
  tokenSecretType,
} from "../../../src/api/bootstrap-token.ts";
import { createObject, getObject } from "../../../src/api/objects.ts";
import { CONFIG_MAPS, SECRETS } from "../../../src/api/resources.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { eventually, type World } from "../controlplane-controllers/world.ts";

export interface Machine {
  readonly rootDir: string;
  readonly paths: CredentialPaths;
  close(): Promise<void>;
}

/** The disk of a machine that wants to join. */
export async function startMachine(): Promise<Machine> {
  const rootDir = await mkdtemp(join(tmpdir(), "remora-join-"));
  return {
    rootDir,
    paths: credentialPaths(rootDir),
    close: () => rm(rootDir, { recursive: true, force: true }),
  };
}

/** A token for nodes, with further or other members of its Secret. */
export async function createToken(
  world: World,
  token: BootstrapToken,
  data: Readonly<Record<string, string>> = {},
): Promise<void> {
  await createObject(
    world.client,
    SECRETS,
    {
      metadata: { namespace: tokenNamespace, name: tokenSecretName(token.id) },
      type: tokenSecretType,
      stringData: {
        "token-id": token.id,
        "token-secret": token.secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": nodeBootstrappersGroup,
        ...data,
      },
    },
    { signal: world.signal },
  );
}

/** Waits until cluster-info is as wanted. */
export async function clusterInfoWith(
  world: World,
  wanted: (data: Readonly<Record<string, string>>) => boolean,
): Promise<Readonly<Record<string, string>>> {
  return eventually("cluster-info", async () => {
    const found = await getObject(world.client, CONFIG_MAPS, clusterInfo, { signal: world.signal });
    const data = found.data ?? {};
    return wanted(data) ? data : undefined;
  });
}

/** What --ca-hash would be. */
export async function caHashes(world: World): Promise<string[]> {
  const data = await clusterInfoWith(world, () => true);
  const { caPEM } = await readClusterInfo(data["kubeconfig"] ?? "");
  return certificatesIn(caPEM).map(publicKeyHash);
}

/** Options of a join that goes well. */
export async function joinOptions(
  world: World,
  machine: Machine,
  token: BootstrapToken | undefined,
  other: Partial<JoinOptions> = {},
): Promise<JoinOptions> {
  return {
    server: `https://127.0.0.1:${world.controlPlane.port}`,
    nodeName: "n2",
    token,
    caHashes: await caHashes(world),
    skipCAVerification: false,
    paths: machine.paths,
    userAgent: "test",
    clock: systemClock,
    logger: silentLogger,
    patienceMs: 0,
    ...other,
  };
}
