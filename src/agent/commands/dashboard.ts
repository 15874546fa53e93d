import { randomBytes } from "node:crypto";
import { access, constants } from "node:fs/promises";
import { hostname } from "node:os";

import { systemClock } from "../../lib/clock.ts";
import { errorCode, SetupError } from "../../lib/errors.ts";
import { readAssets } from "../dashboard/assets.ts";
import { type AgentAsked, Feed } from "../dashboard/feed.ts";
import { isLoopback } from "../dashboard/requests.ts";
import { DashboardServer } from "../dashboard/server.ts";
import { askSnapshot, followSnapshots } from "../local/local-client.ts";
import { findAgent } from "../local/places.ts";

export interface DashboardFlags {
  readonly address: string;
  readonly port: string;
  /** Nothing else goes to stdout: for programs. */
  readonly printUrl?: boolean;
  /** Of the agent; default: the one of `up`, or of `run`, that is there. */
  readonly stateDir?: string;
}

const tokenBytes = 16;

function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port <= 65_535) return port;
  throw new SetupError(`--port ${text}: must be 0 to 65535; 0 takes a free one`);
}

function parseAddress(address: string, port: string): string {
  const ip = address === "localhost" ? "127.0.0.1" : address;
  if (isLoopback(ip)) return ip;
  throw new SetupError(
    `--address ${address}: the dashboard is served to this machine alone, without encryption. ` +
      `From another machine: ssh -L ${port}:127.0.0.1:${port} ${hostname()}, then open the address there`,
  );
}

/**
 * `remora dashboard`: serves a page on loopback that shows the node live, until `signal` aborts. Needs no root, but the right
 * to use the agent's socket.
 *
 * @throws {SetupError} with the remedy.
 */
export async function dashboard(flags: DashboardFlags, signal: AbortSignal): Promise<void> {
  const address = parseAddress(flags.address, flags.port);
  const port = parsePort(flags.port);
  await refuseUnreadable(flags.stateDir, signal);
  const token = randomBytes(tokenBytes).toString("base64url");
  const feed = new Feed({
    clock: systemClock,
    random: Math.random,
    agent: agentAt(flags.stateDir),
  });
  const server = new DashboardServer({ address, port, token, feed, assets: await readAssets() });
  const bound = await server.listen();
  try {
    const host = address.includes(":") ? `[${address}]` : address;
    // Behind #, the token is sent to nobody: it stays out of logs and histories of servers on the way.
    const url = `http://${host}:${bound}/#${token}`;
    process.stdout.write(flags.printUrl === true ? `${url}\n` : announcement(url, host, bound));
    await feed.run(signal);
  } finally {
    await server.close();
  }
}

/** The agent that has the machine when it is asked: it may be another one after a while. */
function agentAt(stateDir: string | undefined): AgentAsked {
  return {
    ask: async (signal) => askSnapshot(await findAgent(stateDir), signal),
    async *follow(signal) {
      yield* followSnapshots(await findAgent(stateDir), signal);
    },
  };
}

/** An agent that is away may come back, but a user who may not ask it stays one. */
async function refuseUnreadable(stateDir: string | undefined, signal: AbortSignal): Promise<void> {
  const place = await findAgent(stateDir);
  try {
    await access(place.socket, constants.R_OK | constants.W_OK);
  } catch (error) {
    if (errorCode(error) !== "EACCES") return;
    const answer = await askSnapshot(place, signal);
    if (answer.kind === "none") throw new SetupError(`${answer.why}; ${answer.remedy}`);
  }
}

function announcement(url: string, host: string, port: number): string {
  return [
    `Dashboard: ${url}`,
    "The address is the key: it shows this node to whoever has it, until this command ends (Ctrl-C).",
    `From another machine: ssh -L ${port}:${host}:${port} ${hostname()}, then open the same address there.`,
    "",
  ].join("\n");
}
