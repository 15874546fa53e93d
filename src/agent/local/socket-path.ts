import { open } from "node:fs/promises";
import { basename, dirname } from "node:path";

/** Bytes of a socket's path that the kernel takes; unix(7): sun_path has 108 with the end. */
const longestPath = 107;

/** A path that a socket can be bound or connected to, until it is closed. */
export interface SocketPath {
  readonly path: string;
  close(): Promise<void>;
}

/** The path itself, or a short one through the open directory where it is longer than sockets' paths may be. */
export async function socketPath(path: string): Promise<SocketPath> {
  if (Buffer.byteLength(path) <= longestPath) return { path, close: () => Promise.resolve() };
  const directory = await open(dirname(path));
  return {
    path: `/proc/self/fd/${directory.fd}/${basename(path)}`,
    close: () => directory.close(),
  };
}
