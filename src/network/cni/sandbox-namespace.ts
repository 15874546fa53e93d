import { readFile, readlink } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";
import type { Attachment } from "./attachments.ts";

/** Where the kernel shows the network namespace of a process. */
export function namespacePath(pid: number): string {
  return `/proc/${pid}/ns/net`;
}

let bootID: Promise<string> | undefined;

async function readBootID(): Promise<string> {
  bootID ??= readFile("/proc/sys/kernel/random/boot_id", "utf8").then((text) => text.trim());
  return bootID;
}

/**
 * Tells a network namespace from every other one, also from those after a reboot; undefined when nothing is there. Its
 * number is taken by nobody else as long as it lives.
 */
export async function namespaceID(path: string): Promise<string | undefined> {
  try {
    return `${await readBootID()} ${await readlink(path)}`;
  } catch (error) {
    // ESRCH: the process ends just now.
    if (["ENOENT", "ESRCH"].includes(errorCode(error) ?? "")) return undefined;
    throw error;
  }
}

/** Whether the path leads to the network namespace of this process: the node's own, where no plug-in may act as in a pod. */
export async function isOwnNamespace(path: string): Promise<boolean> {
  return (await namespaceID(path)) === (await namespaceID("/proc/self/ns/net"));
}

/**
 * The path of the sandbox's namespace if it is still the one it was attached in; else empty, which plug-ins take for
 * one that is gone. A process id may have come to somebody else, and DEL removes interfaces by their names.
 */
export async function currentNamespace({ netns, netnsID }: Attachment): Promise<string> {
  if (netns === "" || (await namespaceID(netns)) !== netnsID) return "";
  return (await isOwnNamespace(netns)) ? "" : netns;
}
