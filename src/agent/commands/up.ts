import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { agentConfig, agentDefaults, proxyDefaults } from "../../config/agent-config.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { ControlPlaneFiles } from "../../controlplane/control-plane.ts";
import { detectNodeIPs } from "../../kubelet/node/addresses.ts";
import { systemHost } from "../../kubelet/node/host.ts";
import { parseCidr } from "../../lib/cidr.ts";
import { systemClock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import { stringMap } from "../../lib/guard.ts";
import { isWildcard } from "../../lib/listen-on.ts";
import type { Logger } from "../../lib/log.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { startControlPlaneThread } from "../control-plane-host.ts";
import { crashHook } from "../crash-hook.ts";
import type { DemoRunner } from "../demo/demo-runner.ts";
import { DnsLife } from "../dns-life.ts";
import { startDnsThread } from "../dns-thread.ts";
import type { UpFlags } from "../flags.ts";
import { acquireLocks } from "../instance-lock.ts";
import { type OpenState, openState } from "../ledger/open-state.ts";
import { checkClaim } from "../ledger/state-marker.ts";
import { unscheduledPods } from "../local/unscheduled.ts";
import { describeMemory, processMemory } from "../memory.ts";
import { pemText } from "../pem.ts";
import {
  logRemarks,
  type NodeConfiguration,
  nodeFlagsOf,
  upClusterDNS,
} from "../node-configuration.ts";
import { recordPlaces } from "../places.ts";
import { agentPorts, checkMachine, checkPorts } from "../preflight.ts";
import { runAgent } from "../run-agent.ts";
import { openServiceManager } from "../service-manager/open.ts";
import { type Runner, superviseAll } from "../supervise.ts";
import { remoraVersion } from "../version.ts";
import {
  contextName,
  invokingUser,
  kubeconfigPath,
  writeUserKubeconfig,
} from "../user-kubeconfig.ts";

function portNumber(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new SetupError(`--api-port ${text}: not a port number between 1 and 65535`);
  }
  return port;
}

function nodeNameOf({ hostnameOverride }: UpFlags): string {
  return (hostnameOverride ?? hostname()).toLowerCase();
}

/** Pods and nodes have their first address of the family that Services have, whatever the default route prefers. */
function anyOfFirstFamily({ serviceCidr: [first = ""] }: Pick<UpFlags, "serviceCidr">): string[] {
  return parseCidr(first, "--service-cidr").family === "IPv6" ? ["::"] : [];
}

/** Pods reach the API server on the node's addresses, of each family that they have. */
function bindAddressFor({ serviceCidr }: Pick<UpFlags, "serviceCidr">): string {
  const both = serviceCidr.some((text) => parseCidr(text, "--service-cidr").family === "IPv6");
  return both ? "::" : "0.0.0.0";
}

/** What `up` decides stands over what the configuration says; the configuration was refused where both do. */
function upConfig(
  flags: UpFlags,
  members: Partial<AgentConfig>,
  files: ControlPlaneFiles,
  nodeIPs: readonly string[],
): AgentConfig {
  const { podNetwork = "bridge", proxy = proxyDefaults } = members;
  // Our bridge sends the answers of pods back through this machine; plug-ins may lead them elsewhere.
  const { keepClientSource = podNetwork === "bridge" } = proxy;
  return agentConfig({
    ...members,
    nodeName: nodeNameOf(flags),
    nodeIPs,
    kubeconfig: files.nodeKubeconfig,
    proxyKubeconfig: files.proxyKubeconfig,
    rootDir: join(flags.stateDir, "kubelet"),
    // Beside what `remora down` removes: the data of claims is nobody's to remove by the way.
    localVolumesDir: join(flags.stateDir, "volumes"),
    proxy: { ...proxy, keepClientSource },
    clusterCIDRs: flags.clusterCidr,
    podNetwork,
    serviceCIDRs: flags.serviceCidr,
    clusterDNS: [upClusterDNS({ serviceCIDRs: flags.serviceCidr })],
    clientCAFile: files.clientCA,
    tlsCertFile: files.kubeletCert,
    tlsPrivateKeyFile: files.kubeletKey,
    // For this machine, its pods and the nodes that join; whoever chooses an address opens it to everybody there.
    ...(members.bindAddress === undefined && members.kubeletPeerCIDRs === undefined
      ? { kubeletPeerCIDRs: flags.clusterCidr }
      : {}),
  });
}

/**
 * Gives the person at the keyboard a context; returns the words with which they reach the cluster. Their file is a
 * convenience: what is wrong with it must not keep the cluster from starting.
 */
async function offerKubeconfig(
  files: ControlPlaneFiles,
  state: OpenState,
  logger: Logger,
): Promise<string> {
  const admin = await loadKubeconfig(files.adminKubeconfig);
  const { ca } = admin.cluster;
  const { clientCertificate, clientKey } = admin.user;
  if (ca === undefined || clientCertificate === undefined || clientKey === undefined) {
    throw new SetupError(`${files.adminKubeconfig} lacks certificates; remove it and start again`);
  }
  const cluster = {
    server: files.url,
    caPEM: await pemText(ca),
    clientCertPEM: await pemText(clientCertificate),
    clientKeyPEM: await pemText(clientKey),
  };
  try {
    const user = invokingUser(await readFile("/etc/passwd", "utf8"), process.env);
    const path = kubeconfigPath(user, process.env);
    await state.beforeKubeconfig(path, user);
    const current = await writeUserKubeconfig(path, user, cluster);
    return current === contextName ? "kubectl" : `kubectl --context ${contextName}`;
  } catch (error) {
    logger.log("warn", "your kubeconfig did not get a context for this cluster", {
      error: errorMessage(error),
      instead: files.adminKubeconfig,
    });
    return `kubectl --kubeconfig ${files.adminKubeconfig}`;
  }
}

const kubeconfigLookMs = 3_600_000;

/** Keeps that context good: the administrator's certificate is renewed while the control plane runs. */
function kubeconfigRenewal(files: ControlPlaneFiles, state: OpenState, logger: Logger): Runner {
  const read = (): Promise<string | undefined> =>
    readIfThere(files.adminKubeconfig).catch(() => undefined);
  return {
    name: "kubeconfig",
    run: async (signal) => {
      let offered = await read();
      while (!signal.aborted) {
        await systemClock.sleep(kubeconfigLookMs, signal).catch(() => undefined);
        const text = signal.aborted ? undefined : await read();
        if (text === undefined || text === offered) continue;
        await offerKubeconfig(files, state, logger);
        offered = text;
      }
    },
  };
}

/** What `--demo` asks for, if it was given. */
async function loadDemo(
  flags: UpFlags,
  files: ControlPlaneFiles,
  logger: Logger,
  signal: AbortSignal,
): Promise<DemoRunner | undefined> {
  if (flags.demo !== true) return undefined;
  const { createDemoRunner } = await import("../demo/demo-runner.ts");
  return createDemoRunner({
    dockerSocket: flags.dockerSocket,
    kubeconfig: files.adminKubeconfig,
    exit: flags.exit === true,
    clock: systemClock,
    logger,
    signal,
  });
}

/** `remora up`: the control plane in its own thread, and the code of `remora run` beside it. */
export async function up(
  given: UpFlags,
  { configuration, members }: NodeConfiguration,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const flags = nodeFlagsOf(given, configuration);
  logRemarks(configuration, logger);
  const started = performance.now();
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  const apiPort = portNumber(flags.apiPort);
  if (flags.exit === true && flags.demo !== true) {
    throw new SetupError("--exit ends behind the demo; give --demo too");
  }
  const service = await openServiceManager(systemClock, logger, signal);
  const { sockets } = service;
  await checkMachine(flags.dockerSocket, signal, service.engineAway(signal));
  const lock = await acquireLocks(flags.stateDir, "--state-dir");
  const rootDir = join(flags.stateDir, "kubelet");
  const dns = new DnsLife({ rootDir, startThread: startDnsThread, sockets, logger });
  try {
    const nodeName = nodeNameOf(flags);
    const claim = { mode: "up", nodeName, version: remoraVersion, now: systemClock.now() } as const;
    await checkClaim(flags.stateDir, claim);
    if (members.dns !== "off") await dns.begin();
    const configured = flags.nodeIp ?? anyOfFirstFamily(flags);
    const nodeIPs = await detectNodeIPs(signal, systemHost(), {
      nodeName,
      nodeIPs: configured,
      clusterCIDRs: flags.clusterCidr,
    });
    if (nodeIPs.length === 0) {
      logger.log("warn", "this machine is in no network; its node is ready when it has an address");
    }
    const bindAddress = bindAddressFor(flags);
    const ports = [
      { port: apiPort, address: bindAddress, purpose: "API server", flag: "--api-port" },
      ...agentPorts({ ...agentDefaults, ...members }),
    ];
    sockets.refuseConflicts(ports, "remora-up.socket");
    await checkPorts(ports.filter((port) => !sockets.holds(port)));
    // Last of what may refuse: a start that fails leaves nothing behind.
    const state = await openState(flags.stateDir, claim);
    service.waiting("the API server to start");
    const listenFd = sockets.take("tcp", { address: bindAddress, port: apiPort });
    const controlPlane = await startControlPlaneThread({
      dataDir: join(flags.stateDir, "control-plane"),
      bindAddress,
      port: apiPort,
      ...(listenFd === undefined ? {} : { listenFd }),
      serviceCIDRs: flags.serviceCidr,
      clusterCIDRs: flags.clusterCidr,
      nodeName,
      nodeIPs,
      nodeOnLoopback: isWildcard(members.bindAddress ?? agentDefaults.bindAddress),
      logLevel: flags.logLevel,
      logFormat: flags.logFormat,
    });
    const { files } = controlPlane;
    const demo = await loadDemo(flags, files, logger, signal);
    const announce = async (config: AgentConfig, kubectl: string): Promise<void> => {
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      const memory = describeMemory(await processMemory("self"));
      say(
        `node ${config.nodeName} is ready (${seconds} s); API server: ${files.url}; memory: ${memory}`,
      );
      say(`Next: ${kubectl} get nodes`);
      demo?.begin(kubectl);
    };
    const runNode = async (inner: AbortSignal): Promise<void> => {
      const config = upConfig(flags, members, files, configured);
      await recordPlaces(config);
      const kubectl = await offerKubeconfig(files, state, logger);
      const step = crashHook(process.env["REMORA_CRASH_AT"], () =>
        process.kill(process.pid, "SIGKILL"),
      );
      const onReady = (): void => void announce(config, kubectl);
      const environment = stringMap(process.env);
      const { setAddresses: onAddresses } = controlPlane;
      const admin = { kubeconfig: files.adminKubeconfig, userAgent: `remora/${remoraVersion}` };
      const unscheduled = unscheduledPods({ ...admin, clock: systemClock, logger });
      const watched = process.stdout.isTTY ? { say } : {};
      const local = { mode: "up", stateDir: flags.stateDir, unscheduled, ...watched } as const;
      const { witness } = state;
      const told = { witness, step, dns, service, environment, onReady, onAddresses, local };
      await runAgent({ config, clock: systemClock, logger, ...told }, inner);
    };
    await superviseAll(
      // From here on the control plane runs: whatever fails must end it too.
      [
        controlPlane.runner,
        { name: "agent", run: runNode },
        kubeconfigRenewal(files, state, logger),
        ...(demo === undefined ? [] : [demo]),
      ],
      logger,
      demo?.stop ?? signal,
    );
    say(
      "stopped. Pods keep running; `remora up` takes them over, `remora down` removes everything.",
    );
    demo?.conclude(say);
  } finally {
    await dns.end();
    await lock.release();
  }
}
