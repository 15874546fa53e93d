import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";

import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";
import { kubeletApiVersion } from "./kubelet-configuration.ts";
import { mergePatch, originText, type Raw } from "./raw.ts";
import { proxyApiVersion } from "./proxy-configuration.ts";
import { maxFileBytes, readYaml } from "./read-yaml.ts";
import { remoraApiVersion } from "./remora-configuration.ts";

/** The kinds of documents that make up a configuration. */
export type ConfigKind = "KubeletConfiguration" | "KubeProxyConfiguration" | "RemoraConfiguration";

const apiVersions: Readonly<Record<ConfigKind, string>> = {
  KubeletConfiguration: kubeletApiVersion,
  KubeProxyConfiguration: proxyApiVersion,
  RemoraConfiguration: remoraApiVersion,
};

/** Keys of kubeadm's ConfigMaps that hold a configuration. */
const configMapKeys = ["kubelet", "config.conf"];

/** What was found wrong before any field could be looked at. */
export interface Trouble {
  readonly severity: "error" | "unknown";
  readonly text: string;
}

export interface Loaded {
  /** What files and directory say together, by kind. */
  readonly documents: ReadonlyMap<ConfigKind, Raw>;
  readonly troubles: readonly Trouble[];
  /** Files of the directory that do not end in .conf. */
  readonly skipped: readonly string[];
}

function isKind(text: string | undefined): text is ConfigKind {
  return text !== undefined && Object.hasOwn(apiVersions, text);
}

function textAt(raw: Raw, key: string): string | undefined {
  const member = raw.kind === "map" ? raw.entries.get(key) : undefined;
  return member?.kind === "scalar" ? member.text : undefined;
}

function without(raw: Raw, ...keys: readonly string[]): Raw {
  if (raw.kind !== "map") return raw;
  return { ...raw, entries: new Map([...raw.entries].filter(([key]) => !keys.includes(key))) };
}

/** @throws {SetupError} for anything but a readable file of a sane size. */
async function readConfigFile(path: string): Promise<string> {
  const remedy = "give a YAML or JSON file";
  try {
    const facts = await stat(path);
    if (facts.isDirectory()) {
      throw new SetupError(`${path}: is a directory; ${remedy}, or use --config-dir`);
    }
    if (!facts.isFile()) throw new SetupError(`${path}: is no regular file; ${remedy}`);
    if (facts.size > maxFileBytes) {
      throw new SetupError(
        `${path}: has ${facts.size} bytes; a configuration has at most ${maxFileBytes}`,
      );
    }
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof SetupError) throw error;
    throw new SetupError(`${path}: ${unreadable(error)}`, { cause: error });
  }
}

function unreadable(error: unknown): string {
  const code = errorCode(error);
  if (code === "ENOENT") return "there is no such file; check the path";
  if (code === "EACCES") return "may not be read; run as root, or change its owner or mode";
  return code === "ENOTDIR" ? "is not a directory" : errorMessage(error);
}

class Loader {
  readonly documents = new Map<ConfigKind, Raw>();
  readonly troubles: Trouble[] = [];

  #error(text: string): void {
    this.troubles.push({ severity: "error", text });
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      this.#error(error.message);
    }
  }

  /** The configurations in a text, those inside of kubeadm's ConfigMaps included. */
  async #read(
    text: string,
    file: string,
    firstLine = 1,
  ): Promise<readonly (readonly [ConfigKind, Raw])[]> {
    const out: (readonly [ConfigKind, Raw])[] = [];
    const documents = await readYaml(text, file, firstLine);
    if (documents.length === 0) this.#error(`${file}: is empty; say at least apiVersion and kind`);
    for (const { raw, duplicates } of documents) {
      for (const place of duplicates) {
        this.troubles.push({
          severity: "unknown",
          text: `${place} stands twice; the last one counts`,
        });
      }
      const kind = textAt(raw, "kind");
      const apiVersion = textAt(raw, "apiVersion");
      if (kind === "ConfigMap" && apiVersion === "v1") {
        out.push(...(await this.#readConfigMap(raw, file)));
      } else if (isKind(kind) && apiVersion === apiVersions[kind]) {
        out.push([kind, without(raw, "apiVersion", "kind")]);
      } else {
        this.#error(wrongKind(raw, kind, apiVersion));
      }
    }
    return out;
  }

  async #readConfigMap(raw: Raw, file: string): Promise<readonly (readonly [ConfigKind, Raw])[]> {
    const data = raw.kind === "map" ? raw.entries.get("data") : undefined;
    const entries = data?.kind === "map" ? data.entries : new Map<string, Raw>();
    for (const key of configMapKeys) {
      const entry = entries.get(key);
      if (entry?.kind !== "scalar") continue;
      // A block of text begins below its key.
      const line = entry.origin.kind === "file" ? entry.origin.line + 1 : 1;
      return this.#read(entry.text, file, line);
    }
    const where = originText(raw.origin);
    this.#error(`${where}: this ConfigMap has no data["kubelet"] and no data["config.conf"]`);
    return [];
  }

  async addFile(path: string): Promise<void> {
    await this.#guarded(async () => {
      for (const [kind, raw] of await this.#read(await readConfigFile(path), path)) {
        const before = this.documents.get(kind);
        if (before === undefined) this.documents.set(kind, raw);
        else {
          const where = originText(raw.origin);
          this.#error(
            `${where}: a ${kind} was given before (${originText(before.origin)}); put what overrides it into a file of --config-dir`,
          );
        }
      }
    });
  }

  async addDropIn(path: string): Promise<void> {
    await this.#guarded(async () => {
      for (const [kind, raw] of await this.#read(await readConfigFile(path), path))
        this.documents.set(kind, mergePatch(this.documents.get(kind), raw));
    });
  }

  async addDirectory(directory: string): Promise<readonly string[]> {
    const skipped: string[] = [];
    await this.#guarded(async () => {
      for (const path of await filesBelow(directory)) {
        if (path.endsWith(".conf")) await this.addDropIn(path);
        else skipped.push(path);
      }
    });
    return skipped;
  }
}

function wrongKind(raw: Raw, kind: string | undefined, apiVersion: string | undefined): string {
  const where = originText(raw.origin);
  if (raw.kind !== "map") return `${where}: an object with apiVersion and kind belongs here`;
  if (kind === undefined || apiVersion === undefined) {
    return `${where}: no apiVersion/kind; say for example apiVersion: ${kubeletApiVersion}, kind: KubeletConfiguration`;
  }
  if (isKind(kind))
    return `${where}: unknown apiVersion ${apiVersion} of ${kind}; use ${apiVersions[kind]}`;
  const known = Object.keys(apiVersions).join(", ");
  return `${where}: unknown kind ${apiVersion} ${kind}; a configuration consists of ${known}`;
}

/** All files below a directory, in the order of their paths: those of a subdirectory stand where its name stands. */
async function filesBelow(directory: string, depth = 0): Promise<readonly string[]> {
  if (depth > 20) throw new SetupError(`${directory}: is nested too deeply`);
  let entries;
  try {
    entries = await readdir(directory, { withFileTypes: true });
  } catch (error) {
    throw new SetupError(`${directory}: ${unreadable(error)} (--config-dir)`, { cause: error });
  }
  const out: string[] = [];
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) out.push(...(await filesBelow(path, depth + 1)));
    else out.push(path);
  }
  return out;
}

/**
 * Reads the files, and the directory over them: `*.conf` in the order of their paths, each laid over what there is as a
 * JSON merge patch, which is how the kubelet does it (KEP-3983).
 */
export async function loadDocuments(
  files: readonly string[],
  directory: string | undefined,
): Promise<Loaded> {
  const loader = new Loader();
  for (const path of files) await loader.addFile(path);
  const skipped = directory === undefined ? [] : await loader.addDirectory(directory);
  return { documents: loader.documents, troubles: loader.troubles, skipped };
}
