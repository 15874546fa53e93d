import { access } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

import { agentConfig, agentDefaults } from "../../config/agent-config.ts";
import type { AgentConfig } from "../../config/types.ts";
import { detectNodeIPs } from "../../kubelet/node/addresses.ts";
import { systemClock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { crashHook } from "../crash-hook.ts";
import type { RunFlags } from "../flags.ts";
import { acquireLocks } from "../instance-lock.ts";
import { type JoinedNode, joinNode } from "../join/join-node.ts";
import { readToken, tokenVariable } from "../join/read-token.ts";
import { agentPorts, checkMachine, checkPorts } from "../preflight.ts";
import { random } from "../random.ts";
import { ensureServingCertificate, type ServingFiles } from "../serving-certificate.ts";
import { runAgent } from "../run-agent.ts";
import { superviseAll } from "../supervise.ts";
import { remoraVersion } from "../version.ts";

/** A kubelet keeps its checkpoints here; two agents on one root would fight over every pod. */
async function refuseBesideKubelet(rootDir: string): Promise<void> {
  for (const file of ["cpu_manager_state", "memory_manager_state"]) {
    const path = join(rootDir, file);
    const present = await access(path).then(
      () => true,
      () => false,
    );
    if (present) {
      throw new SetupError(
        `${path} shows that a kubelet uses ${rootDir}; stop the kubelet and move its directory away, or give --root-dir`,
      );
    }
  }
}

interface Self {
  readonly nodeName: string;
  readonly nodeIPs: readonly string[];
}

/** Joins the cluster that --join names; undefined when credentials were given instead. */
async function joinFromFlags(
  flags: RunFlags,
  self: Self,
  logger: Logger,
  signal: AbortSignal,
): Promise<JoinedNode | undefined> {
  const environment = process.env[tokenVariable];
  // Neither children nor the process list need to know it.
  delete process.env[tokenVariable];
  if (flags.token !== undefined) process.title = "remora run";
  if (flags.join === undefined) {
    if (flags.kubeconfig !== undefined) return undefined;
    throw new SetupError(
      'give --kubeconfig with credentials of this node, or --join with a token ("remora token create" on the control plane\'s machine prints the command)',
    );
  }
  if (flags.kubeconfig !== undefined) {
    throw new SetupError(
      "--kubeconfig and --join are both given: one has the credentials, the other gets them; keep one",
    );
  }
  return joinNode(
    {
      ...self,
      server: flags.join,
      token: await readToken({ ...flags, environment }),
      caHashes: flags.caHash ?? [],
      skipCAVerification: flags.unsafeSkipCaVerification === true,
      rootDir: flags.rootDir,
      ownServingCertificate: flags.tlsCertFile !== undefined,
      ownProxyCredentials: flags.proxyKubeconfig !== undefined,
      userAgent: `remora/${remoraVersion}`,
      clock: systemClock,
      logger: logger.child({ component: "join" }),
      random,
    },
    signal,
  );
}

/** Certificate and key of port 10250: the given ones, those of the cluster, or self-signed ones. */
async function servingFiles(
  flags: RunFlags,
  { nodeName, nodeIPs }: Self,
  joined: JoinedNode | undefined,
): Promise<ServingFiles> {
  if (flags.tlsCertFile !== undefined)
    return { certFile: flags.tlsCertFile, keyFile: flags.tlsPrivateKeyFile ?? "" };
  const file = joined?.servingFile;
  if (file !== undefined) return { certFile: file, keyFile: file };
  return ensureServingCertificate(flags.rootDir, [nodeName, ...nodeIPs], Date.now());
}

/** Flags first, then what the cluster says, then the defaults. */
function nodeConfig(
  flags: RunFlags,
  self: Self,
  joined: JoinedNode | undefined,
  serving: ServingFiles,
): AgentConfig {
  const { cluster } = joined ?? {};
  const kubeconfig = joined?.kubeconfig ?? flags.kubeconfig ?? "";
  return agentConfig({
    ...self,
    kubeconfig,
    proxyKubeconfig: flags.proxyKubeconfig ?? kubeconfig,
    rootDir: flags.rootDir,
    dockerSocket: flags.dockerSocket,
    podCIDRs: flags.podCidr ?? [],
    clusterCIDRs: flags.clusterCidr ?? cluster?.podCIDRs ?? [],
    ...(cluster?.serviceCIDRs === undefined ? {} : { serviceCIDRs: cluster.serviceCIDRs }),
    clusterDNS: flags.clusterDns ?? cluster?.clusterDNS ?? [],
    clusterDomain: flags.clusterDomain ?? cluster?.clusterDomain ?? agentDefaults.clusterDomain,
    dns: flags.dns,
    clientCAFile: flags.clientCaFile ?? "",
    tlsCertFile: serving.certFile,
    tlsPrivateKeyFile: serving.keyFile,
  });
}

/** `remora run`: the node agent alone. */
export async function run(flags: RunFlags, logger: Logger, signal: AbortSignal): Promise<void> {
  await checkMachine(flags.dockerSocket, signal);
  await refuseBesideKubelet(flags.rootDir);
  const lock = await acquireLocks(flags.rootDir, "--root-dir");
  let joined: JoinedNode | undefined;
  try {
    const nodeName = (flags.hostnameOverride ?? hostname()).toLowerCase();
    const self = { nodeName, nodeIPs: flags.nodeIp ?? (await detectNodeIPs(signal)) };
    joined = await joinFromFlags(flags, self, logger, signal);
    const config = nodeConfig(flags, self, joined, await servingFiles(flags, self, joined));
    await checkPorts(agentPorts(config));
    const step = crashHook(process.env["REMORA_CRASH_AT"], () =>
      process.kill(process.pid, "SIGKILL"),
    );
    const onReady = (): void => logger.log("info", "node ready", { node: config.nodeName });
    const agent = {
      name: "agent",
      run: (inner: AbortSignal) =>
        runAgent({ config, clock: systemClock, logger, step, onReady }, inner),
    };
    await superviseAll(joined === undefined ? [agent] : [agent, joined.renewal], logger, signal);
  } finally {
    await joined?.close();
    await lock.release();
  }
}
