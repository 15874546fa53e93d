import type { Document } from "yaml";

import { SetupError } from "../lib/errors.ts";
import { readYamlDocument, yamlRecord } from "./yaml.ts";

/** What a kubeconfig entry of ours consists of. Certificates are embedded. */
export interface KubeconfigEntry {
  /** Name of the cluster, user and context. */
  readonly name: string;
  readonly server: string;
  readonly caPEM: string;
  readonly clientCertPEM: string;
  readonly clientKeyPEM: string;
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}

function members(entry: KubeconfigEntry): Record<"clusters" | "users" | "contexts", object> {
  const { name, server, caPEM, clientCertPEM, clientKeyPEM } = entry;
  return {
    clusters: { name, cluster: { "certificate-authority-data": base64(caPEM), server } },
    contexts: { name, context: { cluster: name, user: name } },
    users: {
      name,
      user: {
        "client-certificate-data": base64(clientCertPEM),
        "client-key-data": base64(clientKeyPEM),
      },
    },
  };
}

/** Text of a kubeconfig that holds nothing but `entry`. */
export async function renderKubeconfig(entry: KubeconfigEntry): Promise<string> {
  const { stringify } = await import("yaml");
  const { clusters, contexts, users } = members(entry);
  return stringify(
    {
      apiVersion: "v1",
      kind: "Config",
      clusters: [clusters],
      contexts: [contexts],
      "current-context": entry.name,
      users: [users],
    },
    { lineWidth: 0 },
  );
}

/**
 * Text of `existing` with our cluster, user and context added or replaced. Everything else stays as it is, comments and
 * unknown fields included; `current-context` is set only when none is.
 *
 * @throws {SetupError} when `existing` is no kubeconfig; it is then better left alone.
 */
export async function mergeKubeconfig(
  existing: string | undefined,
  entry: KubeconfigEntry,
): Promise<string> {
  if (existing === undefined || existing.trim() === "") return renderKubeconfig(entry);
  const document = await readExisting(existing);
  for (const [list, value] of Object.entries(members(entry))) {
    replaceNamed(document, list, entry.name, value);
  }
  const current = document.get("current-context");
  if (current === undefined || current === null || current === "") {
    document.set("current-context", entry.name);
  }
  return textLike(existing, document);
}

/**
 * Text of `existing` without our cluster, user and context; `current-context` is emptied when it was ours.
 *
 * @throws {SetupError} as {@link mergeKubeconfig}.
 */
export async function removeFromKubeconfig(existing: string, name: string): Promise<string> {
  if (existing.trim() === "") return existing;
  const document = await readExisting(existing);
  for (const list of ["clusters", "contexts", "users"]) {
    const index = indexOfNamed(document, list, name);
    if (index >= 0) document.deleteIn([list, index]);
  }
  if (document.get("current-context") === name) document.set("current-context", "");
  return textLike(existing, document);
}

/** What a kubeconfig says about one name of ours, without resolving anything else in it. */
export interface KubeconfigSummary {
  readonly currentContext: string;
  /** URL of the cluster of that name; undefined when there is none. */
  readonly server: string | undefined;
  /** Whether there is any cluster, context or user. */
  readonly empty: boolean;
}

/** @throws {SetupError} as {@link mergeKubeconfig}. */
export async function summarizeKubeconfig(text: string, name: string): Promise<KubeconfigSummary> {
  if (text.trim() === "") return { currentContext: "", server: undefined, empty: true };
  const document = await readExisting(text);
  const index = indexOfNamed(document, "clusters", name);
  const server = index < 0 ? undefined : document.getIn(["clusters", index, "cluster", "server"]);
  const current = document.get("current-context");
  return {
    currentContext: typeof current === "string" ? current : "",
    server: index < 0 ? undefined : typeof server === "string" ? server : "",
    empty: ["clusters", "contexts", "users"].every((list) => listOf(document, list).length === 0),
  };
}

/** The document in the hand of the text that it was: what is not changed keeps its bytes. */
function textLike(existing: string, document: Document): string {
  return document.toString({
    lineWidth: 0,
    // kubectl writes lists without.
    indentSeq: !/^[\w-]+:[ \t]*\n- /m.test(existing),
    flowCollectionPadding: /[{[] /.test(existing),
  });
}

async function readExisting(text: string): Promise<Document> {
  const what = "the existing kubeconfig";
  const document = await readYamlDocument(text, what);
  const root = yamlRecord(document, what);
  if ((root["kind"] ?? "Config") !== "Config") {
    throw new SetupError(`${what} has another kind than Config; move the file away`);
  }
  for (const list of ["clusters", "contexts", "users"]) {
    if (root[list] !== undefined && root[list] !== null && !Array.isArray(root[list])) {
      throw new SetupError(`${what}: ${list} is not a list; correct it or move the file away`);
    }
  }
  return document;
}

function indexOfNamed(document: Document, list: string, name: string): number {
  const { length } = listOf(document, list);
  for (let index = 0; index < length; index += 1) {
    if (document.getIn([list, index, "name"]) === name) return index;
  }
  return -1;
}

function listOf(document: Document, list: string): readonly unknown[] {
  const value = yamlRecord(document, "the existing kubeconfig")[list];
  return Array.isArray(value) ? (value as unknown[]) : [];
}

function replaceNamed(document: Document, list: string, name: string, value: object): void {
  if (listOf(document, list).length === 0) {
    document.set(list, document.createNode([value]));
    return;
  }
  const index = indexOfNamed(document, list, name);
  if (index < 0) document.addIn([list], document.createNode(value));
  else document.setIn([list, index], document.createNode(value));
}
