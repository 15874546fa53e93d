import { access } from "node:fs/promises";
import { join } from "node:path";

import { machineLockHolder } from "../instance-lock.ts";

/** Name of the socket in an agent's state directory on which it tells how it is. */
export const localSocket = "local.sock";

/** State directories of `up` and of `run`, unless they were given others. */
export const usualStateDirs: readonly string[] = ["/var/lib/remora", "/var/lib/kubelet"];

/** Where an agent answers, or would. */
export interface AgentPlace {
  readonly stateDir: string;
  readonly socket: string;
  /** Of the agent that has this machine; undefined when none has, as far as can be seen from here. */
  readonly pid: number | undefined;
}

/**
 * Finds this machine's agent: where it says that it is, else where one usually is.
 *
 * @param stateDir Look there and nowhere else.
 */
export async function findAgent(stateDir: string | undefined): Promise<AgentPlace> {
  const holder = await machineLockHolder();
  const place = (directory: string, pid: number | undefined): AgentPlace => ({
    stateDir: directory,
    socket: join(directory, localSocket),
    pid,
  });
  if (stateDir !== undefined) {
    return place(stateDir, holder?.directory === stateDir ? holder.pid : undefined);
  }
  if (holder !== undefined && holder.directory !== "") return place(holder.directory, holder.pid);
  const places = usualStateDirs.map((directory) => place(directory, undefined));
  for (const each of places) {
    const isThere = await access(each.socket).then(
      () => true,
      () => false,
    );
    if (isThere) return each;
  }
  return place(usualStateDirs[0] ?? "", undefined);
}
