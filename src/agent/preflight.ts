import { access } from "node:fs/promises";
import { request } from "node:http";

import { exec } from "../lib/exec.ts";
import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";

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
      if (errorCode(error) !== "ENOENT") throw error;
      throw new SetupError(`${tool} is missing; install it: apt-get install ${debianPackage}`, {
        cause: error,
      });
    }
  }
}

async function pingEngine(socketPath: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const outgoing = request({ socketPath, path: "/_ping", timeout: 5000 }, (incoming) => {
      incoming.resume();
      incoming.on("end", () => resolve());
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error("no answer within 5 s")));
    outgoing.on("error", reject);
    outgoing.end();
  });
}

/**
 * Looks for what the agent cannot do without.
 *
 * @throws {SetupError} one sentence with the remedy: not root, no engine, a missing tool.
 */
export async function checkMachine(dockerSocket: string, signal: AbortSignal): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new SetupError(
      "must run as root: it mounts volumes and programs network rules; use sudo",
    );
  }
  await checkTools(signal);
  try {
    await access(dockerSocket);
    await pingEngine(dockerSocket);
  } catch (error) {
    throw new SetupError(
      `no Docker Engine answers on ${dockerSocket} (${errorMessage(error)}); start it (systemctl start docker) or give --docker-socket`,
      { cause: error },
    );
  }
}
