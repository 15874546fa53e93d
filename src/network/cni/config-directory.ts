import { readFile, readdir, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";

import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";
import { type NetworkList, parseConfigList, parsePlugin, parseSingleConfig } from "./config.ts";
import { CniConfigError } from "./errors.ts";
import type { Plugins } from "./plugins.ts";

/** What the directory says. */
export interface ConfigFound {
  /** The network of the first file that can be used; undefined when there is none. */
  readonly list: NetworkList | undefined;
  /** Where it is from. */
  readonly file: string | undefined;
  /** Files before it that cannot be used, and why. */
  readonly skipped: readonly { readonly file: string; readonly error: string }[];
}

const extensions = new Set([".conf", ".conflist", ".json"]);

async function filesOf(directory: string, wanted: ReadonlySet<string>): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries
      .filter((entry) => !entry.isDirectory() && wanted.has(extname(entry.name)))
      .map(({ name }) => name)
      .toSorted();
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) return [];
    throw error;
  }
}

async function readList(directory: string, name: string): Promise<NetworkList> {
  const path = join(directory, name);
  const text = await readFile(path, "utf8");
  if (extname(name) !== ".conflist") return parseSingleConfig(text);
  const list = parseConfigList(text);
  if (list.loadOnlyInlinedPlugins) return list;
  const more = [];
  const own = join(directory, list.name);
  for (const file of await filesOf(own, new Set([".conf"]))) {
    more.push(parsePlugin(JSON.parse(await readFile(join(own, file), "utf8"))));
  }
  const plugins = [...list.plugins, ...more];
  if (plugins.length === 0) throw new CniConfigError("no plugin configs found");
  return { ...list, plugins };
}

/**
 * That all of the network's plug-ins are there and speak its version.
 *
 * @throws {CniError} {@link CniConfigError}
 */
async function validate(
  list: NetworkList,
  { directories, plugins }: Checked,
  signal: AbortSignal,
): Promise<void> {
  for (const { type } of list.plugins) {
    const versions = await plugins.versions(type, directories, signal);
    if (!versions.includes(list.cniVersion)) {
      throw new CniConfigError(
        `plugin ${type} does not support config version ${JSON.stringify(list.cniVersion)}`,
      );
    }
  }
}

export interface Checked {
  readonly plugins: Plugins;
  readonly directories: readonly string[];
}

/**
 * The network that a directory of configurations says: the first file by name that can be read and whose plug-ins are
 * there, as the runtimes of Kubernetes choose it.
 *
 * @throws `AbortError`, and what the operating system refuses about the directory itself.
 */
export async function readConfigDirectory(
  directory: string,
  checked: Checked,
  signal: AbortSignal,
): Promise<ConfigFound> {
  const skipped: { file: string; error: string }[] = [];
  for (const name of await filesOf(directory, extensions)) {
    try {
      const list = await readList(directory, name);
      await validate(list, checked, signal);
      return { list, file: join(directory, name), skipped };
    } catch (error) {
      if (isAbort(error)) throw error;
      skipped.push({ file: join(directory, name), error: errorMessage(error) });
    }
  }
  return { list: undefined, file: undefined, skipped };
}

/** Changes when any file of the directory, or of one below it, does. */
export async function directoryStamp(directory: string): Promise<string> {
  const parts: string[] = [];
  const look = async (path: string, depth: number): Promise<void> => {
    let entries;
    try {
      entries = await readdir(path, { withFileTypes: true });
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) return;
      throw error;
    }
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      const at = join(path, entry.name);
      if (entry.isDirectory()) {
        if (depth === 0) await look(at, 1);
        continue;
      }
      const found = await stat(at).catch(() => undefined);
      parts.push(
        `${basename(path)}/${entry.name} ${found?.ino} ${found?.size} ${found?.mtimeMs} ${found?.ctimeMs}`,
      );
    }
  };
  await look(directory, 0);
  return parts.join("\n");
}
