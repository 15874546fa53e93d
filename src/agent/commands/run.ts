import { access } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

import { agentConfig } from "../../config/agent-config.ts";
import { detectNodeIPs } from "../../kubelet/node/addresses.ts";
import { systemClock } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { crashHook } from "../crash-hook.ts";
import type { RunFlags } from "../flags.ts";
import { acquireLocks } from "../instance-lock.ts";
import { agentPorts, checkMachine, checkPorts } from "../preflight.ts";
import { ensureServingCertificate } from "../serving-certificate.ts";
import { runAgent } from "../run-agent.ts";

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

/** `remora run`: the node agent alone. */
export async function run(flags: RunFlags, logger: Logger, signal: AbortSignal): Promise<void> {
  await checkMachine(flags.dockerSocket, signal);
  await refuseBesideKubelet(flags.rootDir);
  const lock = await acquireLocks(flags.rootDir, "--root-dir");
  try {
    const nodeName = (flags.hostnameOverride ?? hostname()).toLowerCase();
    const nodeIPs = flags.nodeIp ?? (await detectNodeIPs(signal));
    const serving =
      flags.tlsCertFile === undefined
        ? await ensureServingCertificate(flags.rootDir, [nodeName, ...nodeIPs], Date.now())
        : undefined;
    const config = agentConfig({
      nodeName,
      nodeIPs,
      kubeconfig: flags.kubeconfig,
      proxyKubeconfig: flags.proxyKubeconfig ?? flags.kubeconfig,
      rootDir: flags.rootDir,
      dockerSocket: flags.dockerSocket,
      podCIDRs: flags.podCidr ?? [],
      clusterCIDRs: flags.clusterCidr ?? [],
      clusterDNS: flags.clusterDns ?? [],
      clusterDomain: flags.clusterDomain,
      dns: flags.dns,
      clientCAFile: flags.clientCaFile ?? "",
      tlsCertFile: flags.tlsCertFile ?? serving?.certFile ?? "",
      tlsPrivateKeyFile: flags.tlsPrivateKeyFile ?? serving?.keyFile ?? "",
    });
    await checkPorts(agentPorts(config));
    const step = crashHook(process.env["REMORA_CRASH_AT"], () =>
      process.kill(process.pid, "SIGKILL"),
    );
    const onReady = (): void => logger.log("info", "node ready", { node: config.nodeName });
    await runAgent({ config, clock: systemClock, logger, step, onReady }, signal);
  } finally {
    await lock.release();
  }
}
