import { mkdir, unlink } from "node:fs/promises";
import { createConnection, createServer, type Server } from "node:net";
import { join } from "node:path";

import { errorCode, SetupError } from "../lib/errors.ts";
import { isRecord, optionalString } from "../lib/guard.ts";

/** Held while an agent owns a state directory or a machine. The kernel lets go of it when the process dies, however it dies. */
export interface InstanceLock {
  release(): Promise<void>;
}

/** Who holds a lock. */
export interface LockHolder {
  readonly pid: number;
  /** Its state directory. */
  readonly directory: string;
  /** The flag that names that directory to `remora down`. */
  readonly flag: "--state-dir" | "--root-dir";
}

/** Unix socket paths end at 107 bytes. */
const maxSocketPath = 107;
const answerDeadlineMs = 2000;
/**
 * Bridge and packet rules belong to a network namespace, and so do abstract socket names: exactly one agent can own
 * both, whatever its state directory is.
 */
const machineSocket = "\0remora-node";

function socketPath(directory: string): string {
  const path = join(directory, "agent.sock");
  if (Buffer.byteLength(path) > maxSocketPath) {
    throw new SetupError(
      `state directory ${directory} has too long a path; use one of at most 96 bytes`,
    );
  }
  return path;
}

async function listen(path: string, holder: LockHolder): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.end(JSON.stringify(holder));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  // The lock must not keep a process alive that has nothing else left to do.
  server.unref();
  return server;
}

function parseHolder(text: string): LockHolder | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || typeof value["pid"] !== "number") return undefined;
  return {
    pid: value["pid"],
    directory: optionalString(value["directory"]) ?? "",
    flag: value["flag"] === "--root-dir" ? "--root-dir" : "--state-dir",
  };
}

async function holderOf(path: string): Promise<LockHolder | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    let text = "";
    socket.setTimeout(answerDeadlineMs, () => socket.destroy());
    socket.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
    socket.on("error", () => resolve(undefined));
    socket.on("close", () => resolve(parseHolder(text)));
  });
}

/** The pid of the agent that owns `directory`; undefined when none runs. */
export async function lockHolder(directory: string): Promise<number | undefined> {
  return (await holderOf(socketPath(directory)))?.pid;
}

/** The agent that owns this machine's bridge and packet rules; undefined when none runs. */
export async function machineLockHolder(name = machineSocket): Promise<LockHolder | undefined> {
  return holderOf(name);
}

function lockOf(server: Server): InstanceLock {
  return {
    release: async () => {
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/**
 * Takes `directory` for this process.
 *
 * @throws {SetupError} when another agent has it.
 */
export async function acquireInstanceLock(
  directory: string,
  flag: LockHolder["flag"] = "--state-dir",
): Promise<InstanceLock> {
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const path = socketPath(directory);
  const self: LockHolder = { pid: process.pid, directory, flag };
  let server: Server;
  try {
    server = await listen(path, self);
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
    server = await listen(path, self);
  }
  return lockOf(server);
}

/**
 * Takes the machine for this process: two agents would tear at one bridge and one set of packet rules, even with
 * directories of their own.
 *
 * @param directory State directory of this agent, told to whoever comes second.
 * @param name The abstract socket; another one in tests only.
 * @throws {SetupError} when another agent runs on this machine.
 */
export async function acquireMachineLock(
  directory: string,
  flag: LockHolder["flag"],
  name = machineSocket,
): Promise<InstanceLock> {
  try {
    return lockOf(await listen(name, { pid: process.pid, directory, flag }));
  } catch (error) {
    if (errorCode(error) !== "EADDRINUSE") throw error;
    const holder = await machineLockHolder(name);
    const who =
      holder === undefined
        ? "another remora"
        : `another remora (pid ${holder.pid}, ${holder.directory})`;
    throw new SetupError(
      `${who} already runs on this machine and owns its pod bridge and packet rules; stop it first`,
      { cause: error },
    );
  }
}

/** Both locks at once; the machine's first, because it says more about who is in the way. */
export async function acquireLocks(
  directory: string,
  flag: LockHolder["flag"],
): Promise<InstanceLock> {
  const machine = await acquireMachineLock(directory, flag);
  try {
    const own = await acquireInstanceLock(directory, flag);
    return {
      release: async () => {
        await own.release();
        await machine.release();
      },
    };
  } catch (error) {
    await machine.release();
    throw error;
  }
}
