import { access } from "node:fs/promises";
import { request } from "node:http";
import { createServer } from "node:net";

import type { AgentConfig } from "../config/types.ts";
import { exec } from "../lib/exec.ts";
import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";
import { listenOn } from "../lib/listen-on.ts";

const tools: readonly (readonly [string, readonly [string, ...string[]], string])[] = [
  ["nft", ["nft", "--version"], "nftables"],
  ["ip", ["ip", "-V"], "iproute2"],
  ["nsenter", ["nsenter", "--version"], "util-linux"],
];

async function checkTools(signal: AbortSignal): Promise<void> {
  for (const [tool, argv, debianPackage] of tools) {
    try {
      await exec(argv, { signal });
    } catch (error) {
      signal.throwIfAborted();
      const what =
        errorCode(error) === "ENOENT" ? "is missing" : `does not run (${errorMessage(error)})`;
      throw new SetupError(`${tool} ${what}; install it: apt-get install ${debianPackage}`, {
        cause: error,
      });
    }
  }
}

async function pingEngine(socketPath: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const outgoing = request({ socketPath, path: "/_ping", timeout: 5000 }, (incoming) => {
      incoming.resume();
      const { statusCode } = incoming;
      incoming.on("end", () => {
        if (statusCode === 200) resolve();
        else reject(new Error(`it answers ${statusCode ?? "nothing"} to /_ping`));
      });
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error("no answer within 5 s")));
    outgoing.on("error", reject);
    outgoing.end();
  });
}

/** Why the engine cannot be reached, without the jargon where there is none needed. */
function engineFailure(error: unknown): string {
  const code = errorCode(error);
  if (code === "ENOENT") return "there is no such socket";
  if (code === "ECONNREFUSED") return "nothing listens on that socket";
  return errorMessage(error);
}

/** Where the node agent listens. */
export type AgentPorts = Pick<
  AgentConfig,
  | "bindAddress"
  | "kubeletPort"
  | "kubeletHealthzAddress"
  | "kubeletHealthzPort"
  | "proxyHealthzAddress"
  | "proxyHealthzPort"
  | "proxyMetricsAddress"
  | "proxyMetricsPort"
> & { readonly proxy: Pick<AgentConfig["proxy"], "bindAddressHardFail"> };

/** A port that something of ours will listen on. */
export interface NeededPort {
  readonly port: number;
  readonly address: string;
  /** What answers there, in the words of an error message. */
  readonly purpose: string;
  /** The flag that moves it. */
  readonly flag?: string;
}

async function checkPort({ port, address, purpose, flag }: NeededPort): Promise<void> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ ...listenOn(address, port), exclusive: true }, resolve);
    });
    await new Promise((resolve) => server.close(resolve));
  } catch (error) {
    const other = flag === undefined ? "" : `, or choose another port with ${flag}`;
    const text =
      errorCode(error) === "EADDRINUSE"
        ? `port ${port} (${purpose}) is in use by another program; stop it (ss -ltnp 'sport = :${port}' names it)${other}`
        : `cannot listen on ${address}:${port} (${purpose}): ${errorMessage(error)}${other}`;
    throw new SetupError(text, { cause: error });
  }
}

/**
 * Makes sure that all ports are free before anything of ours starts: what finds its port taken later would already have
 * company that has to be ended again.
 *
 * @throws {SetupError} naming the first port that is taken and the remedy.
 */
export async function checkPorts(ports: readonly NeededPort[]): Promise<void> {
  for (const needed of ports) if (needed.port !== 0) await checkPort(needed);
}

/** The ports that the node agent cannot do without: for those of the proxy it waits, unless `bindAddressHardFail` is set. */
export function agentPorts(config: AgentPorts): readonly NeededPort[] {
  const loopback = "127.0.0.1";
  const {
    bindAddress,
    kubeletHealthzAddress = loopback,
    proxyHealthzAddress = bindAddress,
    proxyMetricsAddress = loopback,
  } = config;
  const ofProxy = [
    { port: config.proxyHealthzPort, address: proxyHealthzAddress, purpose: "proxy health" },
    { port: config.proxyMetricsPort, address: proxyMetricsAddress, purpose: "proxy metrics" },
  ];
  return [
    { port: config.kubeletPort, address: bindAddress, purpose: "kubelet API" },
    { port: config.kubeletHealthzPort, address: kubeletHealthzAddress, purpose: "kubelet health" },
    ...(config.proxy.bindAddressHardFail ? ofProxy : []),
  ];
}

/**
 * Looks for what the agent cannot do without.
 *
 * @param dockerSocket Undefined: nobody needs an engine.
 * @param onEngineAway Awaited before the engine is tried again; default: without an engine there is nothing to wait for.
 * @throws {SetupError} one sentence with the remedy: not root, no engine, a missing tool.
 */
export async function checkMachine(
  dockerSocket: string | undefined,
  signal: AbortSignal,
  onEngineAway?: (error: SetupError) => Promise<void>,
): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new SetupError(
      "must run as root: it mounts volumes and programs network rules; use sudo",
    );
  }
  await checkTools(signal);
  if (dockerSocket === undefined) return;
  for (;;) {
    const away = await engineTrouble(dockerSocket);
    if (away === undefined) return;
    if (onEngineAway === undefined) throw away;
    await onEngineAway(away);
  }
}

/** Why an engine cannot be worked with; undefined when it answers. */
export async function engineTrouble(dockerSocket: string): Promise<SetupError | undefined> {
  try {
    await access(dockerSocket);
    await pingEngine(dockerSocket);
    return undefined;
  } catch (error) {
    return new SetupError(
      `no Docker Engine answers on ${dockerSocket} (${engineFailure(error)}); start it (systemctl start docker) or give --docker-socket`,
      { cause: error },
    );
  }
}
