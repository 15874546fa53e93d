import { mkdir, readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

import { loadKubeconfig } from "../../api/kubeconfig.ts";
import { agentConfig } from "../../config/agent-config.ts";
import type { AgentConfig } from "../../config/types.ts";
import { detectNodeIPs } from "../../kubelet/node/addresses.ts";
import { cidrAddress, parseCidr } from "../../lib/cidr.ts";
import { systemClock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { type ControlPlaneFiles, startControlPlaneThread } from "../control-plane-host.ts";
import { crashHook } from "../crash-hook.ts";
import type { UpFlags } from "../flags.ts";
import { acquireInstanceLock } from "../instance-lock.ts";
import { describeMemory, processMemory } from "../memory.ts";
import { pemText } from "../pem.ts";
import { checkMachine } from "../preflight.ts";
import { runAgent } from "../run-agent.ts";
import { superviseAll } from "../supervise.ts";
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

function upConfig(
  flags: UpFlags,
  files: ControlPlaneFiles,
  nodeIPs: readonly string[],
): AgentConfig {
  // The cluster's name server has the tenth address, as everywhere.
  const dns = cidrAddress(parseCidr(flags.serviceCidr, "--service-cidr"), 10);
  return agentConfig({
    nodeName: (flags.hostnameOverride ?? hostname()).toLowerCase(),
    nodeIPs,
    kubeconfig: files.nodeKubeconfig,
    proxyKubeconfig: files.proxyKubeconfig,
    rootDir: join(flags.stateDir, "kubelet"),
    dockerSocket: flags.dockerSocket,
    clusterCIDRs: [flags.clusterCidr],
    clusterDNS: [dns],
    clientCAFile: files.clientCA,
    tlsCertFile: files.kubeletCert,
    tlsPrivateKeyFile: files.kubeletKey,
  });
}

/** Gives the person at the keyboard a context; returns the words with which they reach the cluster. */
async function offerKubeconfig(files: ControlPlaneFiles): Promise<string> {
  const user = invokingUser(await readFile("/etc/passwd", "utf8"), process.env);
  const path = kubeconfigPath(user, process.env);
  const admin = await loadKubeconfig(files.adminKubeconfig);
  const { ca } = admin.cluster;
  const { clientCertificate, clientKey } = admin.user;
  if (ca === undefined || clientCertificate === undefined || clientKey === undefined) {
    throw new SetupError(`${files.adminKubeconfig} lacks certificates; remove it and start again`);
  }
  await writeUserKubeconfig(path, user, {
    server: files.url,
    caPEM: await pemText(ca),
    clientCertPEM: await pemText(clientCertificate),
    clientKeyPEM: await pemText(clientKey),
  });
  const merged = await loadKubeconfig(path);
  return merged.context === contextName ? "kubectl" : `kubectl --context ${contextName}`;
}

/** `remora up`: the control plane in its own thread, and the code of `remora run` beside it. */
export async function up(flags: UpFlags, logger: Logger, signal: AbortSignal): Promise<void> {
  const started = performance.now();
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  await checkMachine(flags.dockerSocket, signal);
  await mkdir(flags.stateDir, { recursive: true, mode: 0o755 });
  const lock = await acquireInstanceLock(flags.stateDir);
  try {
    const nodeName = (flags.hostnameOverride ?? hostname()).toLowerCase();
    const nodeIPs = flags.nodeIp ?? (await detectNodeIPs(signal));
    const [advertiseAddress] = nodeIPs;
    if (advertiseAddress === undefined) {
      throw new SetupError("this machine has no address of its own; give one with --node-ip");
    }
    const controlPlane = await startControlPlaneThread({
      dataDir: join(flags.stateDir, "control-plane"),
      bindAddress: "0.0.0.0",
      port: portNumber(flags.apiPort),
      advertiseAddress,
      serviceCIDR: flags.serviceCidr,
      clusterCIDR: flags.clusterCidr,
      nodeName,
      nodeIPs,
      logLevel: flags.logLevel,
      logFormat: flags.logFormat,
    });
    const { files } = controlPlane;
    const kubectl = await offerKubeconfig(files);
    const config = upConfig(flags, files, nodeIPs);
    const step = crashHook(process.env["REMORA_CRASH_AT"], () =>
      process.kill(process.pid, "SIGKILL"),
    );
    const announce = async (): Promise<void> => {
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      const memory = describeMemory(await processMemory("self"));
      say(
        `node ${config.nodeName} is ready (${seconds} s); API server: ${files.url}; memory: ${memory}`,
      );
      say(`Next: ${kubectl} get nodes`);
    };
    const onReady = (): void => void announce();
    await superviseAll(
      [
        controlPlane.runner,
        {
          name: "agent",
          run: (inner) => runAgent({ config, clock: systemClock, logger, step, onReady }, inner),
        },
      ],
      logger,
      signal,
    );
    say(
      "stopped. Pods keep running; `remora up` takes them over, `remora down` removes everything.",
    );
  } finally {
    await lock.release();
  }
}
