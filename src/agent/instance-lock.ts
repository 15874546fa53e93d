import { mkdir, unlink } from "node:fs/promises";
import { createConnection, createServer, type Server } from "node:net";
import { join } from "node:path";

import { errorCode, SetupError } from "../lib/errors.ts";

/** Held while an agent owns a state directory. The kernel lets go of it when the process dies, however it dies. */
export interface InstanceLock {
  release(): Promise<void>;
}

interface LockHolder {
  readonly pid: number;
}

/** Unix socket paths end at 107 bytes. */
const maxSocketPath = 107;

function socketPath(directory: string): string {
  const path = join(directory, "agent.sock");
  if (Buffer.byteLength(path) > maxSocketPath) {
    throw new SetupError(
      `state directory ${directory} has too long a path; use one of at most 96 bytes`,
    );
  }
  return path;
}

async function listen(path: string): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.end(JSON.stringify({ pid: process.pid } satisfies LockHolder));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  // The lock must not keep a process alive that has nothing else left to do.
  server.unref();
  return server;
}

/** The pid of the agent that owns `directory`; undefined when none runs. */
export async function lockHolder(directory: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(socketPath(directory));
    let text = "";
    socket.setTimeout(2000, () => socket.destroy());
    socket.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
    socket.on("error", () => resolve(undefined));
    socket.on("close", () => {
      const match = /"pid":(\d+)/.exec(text);
      resolve(match === null ? undefined : Number(match[1]));
    });
  });
}

/**
 * Takes `directory` for this process.
 *
 * @throws {SetupError} when another agent has it.
 */
export async function acquireInstanceLock(directory: string): Promise<InstanceLock> {
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const path = socketPath(directory);
  let server: Server;
  try {
    server = await listen(path);
  } catch (error) {
    if (errorCode(error) !== "EADDRINUSE") throw error;
    const holder = await lockHolder(directory);
    if (holder !== undefined) {
      throw new SetupError(
        `another remora (pid ${holder}) already runs on ${directory}; stop it first, or give this one its own directory`,
        { cause: error },
      );
    }
    // A socket file that nobody listens on was left by a process that was killed.
    await unlink(path);
    server = await listen(path);
  }
  return {
    release: async () => {
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
