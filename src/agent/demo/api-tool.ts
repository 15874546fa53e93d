import { readFile } from "node:fs/promises";

import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import type { Kubeconfig } from "../../api/kubeconfig-types.ts";
import { controllerOf, type Stored } from "../../api/object.ts";
import { deleteObject, getObject, listObjects, patchObject } from "../../api/objects.ts";
import { collectionPath, objectPath, type Resource } from "../../api/resource.ts";
import { DEPLOYMENTS, NAMESPACES, PODS, REPLICA_SETS } from "../../api/resources.ts";
import type { Deployment, PodTemplateSpec, ReplicaSet } from "../../api/types.gen.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import { asRecord, asString, isRecord, type JsonRecord, optionalString } from "../../lib/guard.ts";
import { openExec } from "./api-exec.ts";
import type { ClusterTool } from "./cluster-tool.ts";

const fieldManager = "remora-demo";
const revisionAnnotation = "deployment.kubernetes.io/revision";
const hashLabel = "pod-template-hash";
const goneMs = 60_000;

/** All documents of a YAML text, as plain data. @throws {SetupError} naming the place. */
export async function parseManifests(text: string, what: string): Promise<readonly JsonRecord[]> {
  const { parseAllDocuments } = await import("yaml");
  const documents = parseAllDocuments(text);
  const objects: JsonRecord[] = [];
  for (const document of Array.isArray(documents) ? documents : []) {
    const [problem] = document.errors;
    if (problem !== undefined) throw new SetupError(`${what} is not YAML: ${problem.message}`);
    const value: unknown = document.toJS();
    if (value !== null && value !== undefined) objects.push(asRecord(value, what));
  }
  return objects;
}

/** What the server calls a kind in URLs, from its discovery documents, as every client finds it. */
async function resourceOf(
  client: ApiClient,
  object: JsonRecord,
  signal: AbortSignal,
): Promise<Resource<unknown>> {
  const apiVersion = asString(object["apiVersion"], "apiVersion");
  const kind = asString(object["kind"], "kind");
  const [version = "", group = ""] = apiVersion.split("/").toReversed();
  const path = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const answer = asRecord(await client.request({ method: "GET", path, signal }), path);
  const listed: unknown = answer["resources"];
  for (const each of Array.isArray(listed) ? (listed as readonly unknown[]) : []) {
    if (!isRecord(each) || each["kind"] !== kind) continue;
    const plural = asString(each["name"], `${path}.resources.name`);
    if (plural.includes("/")) continue;
    return { group, version, kind, plural, namespaced: each["namespaced"] === true };
  }
  throw new SetupError(`no matches for kind "${kind}" in version "${apiVersion}"`);
}

function revision(metadata: { readonly annotations?: Record<string, string> | undefined }): number {
  return Number(metadata.annotations?.[revisionAnnotation] ?? 0);
}

/**
 * The pod template before the current one: that of the Deployment's ReplicaSet with the second highest revision.
 *
 * @throws {SetupError} when there is none.
 */
export function previousTemplate(
  deployment: Stored<Deployment>,
  replicaSets: readonly Stored<ReplicaSet>[],
): PodTemplateSpec {
  const own = replicaSets
    .filter(({ metadata }) => controllerOf(metadata)?.uid === deployment.metadata.uid)
    .toSorted((a, b) => revision(b.metadata) - revision(a.metadata));
  const template = own[1]?.spec?.template;
  if (template === undefined) {
    throw new SetupError(`no rollout history found for deployment "${deployment.metadata.name}"`);
  }
  const { [hashLabel]: _hash, ...labels } = template.metadata?.labels ?? {};
  return { ...template, metadata: { ...template.metadata, labels } };
}

export interface ApiToolOptions {
  readonly client: ApiClient;
  readonly kubeconfig: Kubeconfig;
  readonly namespace: string;
  readonly clock: Clock;
}

/** Does everything by the requests that kubectl would send. */
export function createApiTool(options: ApiToolOptions): ClusterTool {
  const { client, kubeconfig, namespace, clock } = options;

  const untilGone = async (resource: Resource<unknown>, name: string, signal: AbortSignal) => {
    const limited = deadline(signal, goneMs);
    for (;;) {
      try {
        await getObject(client, resource, { namespace, name }, { signal: limited });
      } catch (error) {
        if (isNotFound(error)) return;
        throw error;
      }
      await clock.sleep(100, limited);
    }
  };
  const post = async (object: JsonRecord, signal: AbortSignal): Promise<void> => {
    const resource = await resourceOf(client, object, signal);
    const path = collectionPath(resource, namespace);
    await client.request({ method: "POST", path, query: { fieldManager }, body: object, signal });
  };
  const manifests = async (file: string): Promise<readonly JsonRecord[]> =>
    parseManifests(await readFile(file, "utf8"), file);
  const nameOf = (object: JsonRecord): string =>
    optionalString(asRecord(object["metadata"], "metadata")["name"]) ?? "";

  return {
    name: "the API itself (there is no kubectl on PATH)",
    create: async (file, signal) => {
      for (const object of await manifests(file)) await post(object, signal);
    },
    delete: async (file, signal) => {
      for (const object of await manifests(file)) {
        const resource = await resourceOf(client, object, signal);
        const at = { namespace, name: nameOf(object) };
        await deleteObject(client, resource, at, { propagationPolicy: "Background", signal });
        await untilGone(resource, at.name, signal);
      }
    },
    createNamespace: (labels, signal) =>
      post({ apiVersion: "v1", kind: "Namespace", metadata: { name: namespace, labels } }, signal),
    deleteNamespace: async (signal) => {
      await deleteObject(client, NAMESPACES, { name: namespace }, { signal });
      await untilGone(NAMESPACES, namespace, signal);
    },
    deletePod: async (name, signal) => {
      await deleteObject(client, PODS, { namespace, name }, { signal });
    },
    scale: async (deployment, replicas, signal) => {
      await client.request({
        method: "PATCH",
        path: objectPath(DEPLOYMENTS, { namespace, name: deployment }, "scale"),
        query: { fieldManager },
        body: { spec: { replicas } },
        contentType: "application/merge-patch+json",
        signal,
      });
    },
    setImage: async ({ deployment, container, image }, signal) => {
      const patch = { spec: { template: { spec: { containers: [{ name: container, image }] } } } };
      const at = { namespace, name: deployment, patch };
      await patchObject(client, DEPLOYMENTS, at, { fieldManager, signal });
    },
    rolloutUndo: async (deployment, signal) => {
      const at = { namespace, name: deployment };
      const current = await getObject(client, DEPLOYMENTS, at, { signal });
      const { items } = await listObjects(client, REPLICA_SETS, { namespace, signal });
      const template = previousTemplate(current, items);
      const patch = [{ op: "replace", path: "/spec/template", value: template }];
      const type = "application/json-patch+json";
      await patchObject(client, DEPLOYMENTS, { ...at, patch }, { fieldManager, type, signal });
    },
    openSession: (pod, argv, signal) => openExec(kubeconfig, { namespace, pod, argv }, signal),
  };
}
