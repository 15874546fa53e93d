import { hostname } from "node:os";

import { agentConfig, agentDefaults } from "../../config/agent-config.ts";
import type { AgentConfig } from "../../config/types.ts";
import { systemClock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import { stringMap } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import { type NodeIdentity, openNodeIdentity } from "../certificates/node-identity.ts";
import { certDirOf } from "../certificates/serving-certificate.ts";
import { crashHook } from "../crash-hook.ts";
import { DnsLife } from "../dns-life.ts";
import { startDnsThread } from "../dns-thread.ts";
import type { RunFlags } from "../flags.ts";
import { acquireLocks } from "../instance-lock.ts";
import type { ClusterConfiguration } from "../join/cluster-configuration.ts";
import { joinNode } from "../join/join-node.ts";
import { readToken, tokenVariable } from "../join/read-token.ts";
import { openState } from "../ledger/open-state.ts";
import { logRemarks, type NodeConfiguration, runFlagsOf } from "../node-configuration.ts";
import { refuseBesideKubelet } from "../other-kubelet.ts";
import { recordPlaces } from "../places.ts";
import { agentPorts, checkMachine, checkPorts } from "../preflight.ts";
import { random } from "../random.ts";
import { runAgent } from "../run-agent.ts";
import { openServiceManager } from "../service-manager/open.ts";
import { superviseAll } from "../supervise.ts";
import { remoraVersion } from "../version.ts";

interface Self {
  readonly nodeName: string;
  readonly nodeIPs: readonly string[];
}

/** With what the node comes to its cluster, and what a cluster that it joined says. */
interface Membership extends NodeIdentity {
  readonly cluster?: ClusterConfiguration;
}

/** Joins the cluster that --join names. */
async function join(
  flags: RunFlags & { readonly join: string },
  { nodeName }: Self,
  logger: Logger,
  signal: AbortSignal,
): Promise<Membership> {
  const environment = process.env[tokenVariable];
  // Neither children nor the process list need to know it.
  delete process.env[tokenVariable];
  if (flags.token !== undefined) process.title = "remora run";
  return joinNode(
    {
      nodeName,
      server: flags.join,
      token: () => readToken({ ...flags, environment }),
      caHashes: flags.caHash ?? [],
      skipCAVerification: flags.unsafeSkipCaVerification === true,
      rootDir: flags.rootDir,
      certDir: certDirOf(flags),
      ...(flags.rotateCertificates === undefined ? {} : { rotate: flags.rotateCertificates }),
      ownProxyCredentials: flags.proxyKubeconfig !== undefined,
      userAgent: `remora/${remoraVersion}`,
      clock: systemClock,
      logger: logger.child({ component: "join" }),
      random,
    },
    signal,
  );
}

/** Gets the node's credentials the way that the flags ask for. */
async function enter(
  flags: RunFlags,
  self: Self,
  logger: Logger,
  signal: AbortSignal,
): Promise<Membership> {
  const { kubeconfig, bootstrapKubeconfig } = flags;
  if (flags.join !== undefined) {
    if (kubeconfig === undefined && bootstrapKubeconfig === undefined)
      return join({ ...flags, join: flags.join }, self, logger, signal);
    throw new SetupError(
      `--${kubeconfig === undefined ? "bootstrap-kubeconfig" : "kubeconfig"} and --join are both given: one has the credentials, the other gets them; keep one`,
    );
  }
  if (kubeconfig === undefined) {
    throw new SetupError(
      bootstrapKubeconfig === undefined
        ? 'give --kubeconfig with credentials of this node, or --join with a token ("remora token create" on the control plane\'s machine prints the command)'
        : "give --kubeconfig too: the file that --bootstrap-kubeconfig gets credentials for",
    );
  }
  return openNodeIdentity(
    {
      nodeName: self.nodeName,
      kubeconfig,
      ...(bootstrapKubeconfig === undefined ? {} : { bootstrapKubeconfig }),
      rootDir: flags.rootDir,
      certDir: certDirOf(flags),
      ...(flags.rotateCertificates === undefined ? {} : { rotate: flags.rotateCertificates }),
      userAgent: `remora/${remoraVersion}`,
      clock: systemClock,
      logger: logger.child({ component: "certificates" }),
      random,
    },
    signal,
  );
}

/** The configuration first, then what the cluster says, then the defaults. */
function nodeConfig(
  flags: RunFlags,
  self: Self,
  { kubeconfig, cluster }: Membership,
  { configuration, members }: NodeConfiguration,
): AgentConfig {
  const { hostnameOverride } = configuration.proxy;
  if (hostnameOverride !== "" && hostnameOverride.toLowerCase() !== self.nodeName) {
    throw new SetupError(
      `KubeProxyConfiguration.hostnameOverride: ${hostnameOverride} is not the name of this node, ${self.nodeName}; leave it out`,
    );
  }
  const serviceCIDRs = members.serviceCIDRs ?? cluster?.serviceCIDRs;
  return agentConfig({
    ...members,
    ...self,
    kubeconfig,
    proxyKubeconfig: flags.proxyKubeconfig ?? kubeconfig,
    clusterCIDRs: members.clusterCIDRs ?? cluster?.podCIDRs ?? [],
    ...(serviceCIDRs === undefined ? {} : { serviceCIDRs }),
    clusterDNS: members.clusterDNS ?? cluster?.clusterDNS ?? [],
    clusterDomain: members.clusterDomain ?? cluster?.clusterDomain ?? agentDefaults.clusterDomain,
    serverTLSBootstrap: members.serverTLSBootstrap ?? cluster?.serverTLSBootstrap ?? false,
    certDir: certDirOf(flags),
  });
}

/** `remora run`: the node agent alone. */
export async function run(
  given: RunFlags,
  node: NodeConfiguration,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const flags = await runFlagsOf(given, node.configuration);
  logRemarks(node.configuration, logger);
  const service = await openServiceManager(systemClock, logger, signal);
  const { sockets } = service;
  await checkMachine(flags.dockerSocket, signal, service.engineAway(signal));
  await refuseBesideKubelet(flags.rootDir);
  const lock = await acquireLocks(flags.rootDir, "--root-dir");
  let membership: Membership | undefined;
  const dns = new DnsLife({ rootDir: flags.rootDir, startThread: startDnsThread, sockets, logger });
  try {
    const nodeName = (flags.hostnameOverride ?? hostname()).toLowerCase();
    const { witness } = await openState(flags.rootDir, {
      mode: "run",
      nodeName,
      version: remoraVersion,
      now: systemClock.now(),
    });
    if (node.members.dns !== "off") await dns.begin();
    const self = { nodeName, nodeIPs: flags.nodeIp ?? [] };
    membership = await service.during("credentials of the cluster", signal, () =>
      enter(flags, self, logger, signal),
    );
    const { rotation } = membership;
    const config = nodeConfig(flags, self, membership, node);
    const ports = agentPorts(config);
    sockets.refuseConflicts(ports, "remora.socket");
    await checkPorts(ports.filter((port) => !sockets.holds(port)));
    await recordPlaces(config);
    const step = crashHook(process.env["REMORA_CRASH_AT"], () =>
      process.kill(process.pid, "SIGKILL"),
    );
    const onReady = (): void => logger.log("info", "node ready", { node: config.nodeName });
    const agent = {
      name: "agent",
      run: (inner: AbortSignal) =>
        runAgent(
          {
            config,
            clock: systemClock,
            logger,
            step,
            dns,
            service,
            environment: stringMap(process.env),
            onReady,
            witness,
            local: { mode: "run", stateDir: config.rootDir },
            ...(rotation === undefined ? {} : { clientRotation: rotation }),
          },
          inner,
        ),
    };
    await superviseAll([agent], logger, signal);
  } finally {
    await dns.end();
    await membership?.close();
    await lock.release();
  }
}
