// TLS into a pod without Remora: socat in the pod's network namespace, for each connection a process of its own.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";

/** The command; its output of `-d -d` tells when it listens. */
export function socatCommand(
  pid: number,
  pem: string,
  from: number,
  to: number,
): readonly string[] {
  const listen = `OPENSSL-LISTEN:${from},cert=${pem},verify=0,fork,reuseaddr,backlog=64`;
  const argv = ["nsenter", "-t", String(pid), "-n", "socat", "-d", "-d", listen];
  return [...argv, `TCP:127.0.0.1:${to}`];
}

/** Starts it and waits until it listens. */
export async function startSocat(command: readonly string[]): Promise<ChildProcess> {
  const [file = "", ...args] = command;
  const child = spawn(file, args, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  const listening = new Promise<void>((resolve) => {
    child.stderr.on("data", (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-4096);
      if (/listening on/.test(said)) resolve();
    });
  });
  const failed = once(child, "close").then(() => {
    throw new Error(`socat ended: ${said}`);
  });
  failed.catch(() => undefined);
  await Promise.race([listening, failed]);
  return child;
}
