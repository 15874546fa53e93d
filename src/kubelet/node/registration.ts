import type { ApiClient } from "../../api/client.ts";
import { ApiError, isForbidden, isNotFound } from "../../api/errors.ts";
import { parseStored, type Stored } from "../../api/object.ts";
import { collectionPath, objectPath } from "../../api/resource.ts";
import { NODES } from "../../api/resources.ts";
import type { Node, NodeStatus, Taint } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { JsonRecord } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import type { HostIdentity } from "./host.ts";

const attachDetach = "volumes.kubernetes.io/controller-managed-attach-detach";
const backoff = { firstMs: 100, maxMs: 7000 };

/** Labels every node carries about what it runs. */
export function platformLabels(architecture: string): Record<string, string> {
  return {
    "beta.kubernetes.io/arch": architecture,
    "beta.kubernetes.io/os": "linux",
    "kubernetes.io/arch": architecture,
    "kubernetes.io/os": "linux",
  };
}

/** The Node object as it is created: the only moment at which taints are ours to set. */
export function initialNode(
  config: Pick<AgentConfig, "nodeName" | "nodeLabels" | "registerWithTaints" | "providerID">,
  identity: Pick<HostIdentity, "architecture" | "hostname">,
  status: NodeStatus,
): Node {
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: {
      name: config.nodeName,
      labels: defaultLabels(config, identity),
      annotations: { [attachDetach]: "true" },
    },
    spec: {
      ...(config.providerID === undefined ? {} : { providerID: config.providerID }),
      ...taints(config),
    },
    status,
  };
}

function taints(config: Pick<AgentConfig, "registerWithTaints">): NonNullable<Node["spec"]> {
  const wanted: Taint[] = [];
  for (const { key, value, effect } of config.registerWithTaints) {
    // The configuration has refused every other word.
    if (effect !== "NoSchedule" && effect !== "NoExecute" && effect !== "PreferNoSchedule")
      continue;
    wanted.push({ key, effect, ...(value === "" ? {} : { value }) });
  }
  return wanted.length === 0 ? {} : { taints: wanted };
}

function defaultLabels(
  config: Pick<AgentConfig, "nodeLabels" | "nodeName">,
  identity: Pick<HostIdentity, "architecture" | "hostname">,
): Record<string, string> {
  return {
    ...platformLabels(identity.architecture),
    "kubernetes.io/hostname": config.nodeName,
    ...config.nodeLabels,
  };
}

/** Merge patch that gives an existing Node what registration owns; undefined when it has all of it. */
export function existingNodePatch(
  config: Pick<AgentConfig, "nodeLabels" | "nodeName">,
  identity: Pick<HostIdentity, "architecture" | "hostname">,
  node: Stored<Node>,
): JsonRecord | undefined {
  const have = node.metadata.labels ?? {};
  const labels = Object.entries(defaultLabels(config, identity)).filter(
    ([key, value]) => have[key] !== value,
  );
  const annotated = node.metadata.annotations?.[attachDetach] === "true";
  if (labels.length === 0 && annotated) return undefined;
  return {
    metadata: {
      ...(labels.length === 0 ? {} : { labels: Object.fromEntries(labels) }),
      ...(annotated ? {} : { annotations: { [attachDetach]: "true" } }),
    },
  };
}

export interface RegistrationDeps {
  readonly config: Pick<
    AgentConfig,
    "nodeName" | "nodeLabels" | "registerWithTaints" | "providerID"
  >;
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly identity: HostIdentity;
  /** The status to create the node with. */
  readonly status: () => Promise<NodeStatus>;
}

export interface Registered {
  readonly node: Stored<Node>;
  /** False when the Node existed before: its status is then an old one. */
  readonly created: boolean;
}

/** Creates the Node, or takes over the one that exists; tries until it succeeds. Rejects only when `signal` aborts. */
export async function registerNode(
  deps: RegistrationDeps,
  signal: AbortSignal,
): Promise<Registered> {
  const { clock, logger, config } = deps;
  let delayMs = backoff.firstMs;
  let reported = "";
  for (;;) {
    try {
      const registered = await tryRegister(deps, signal);
      const { created } = registered;
      logger.log("info", "node registered", { node: config.nodeName, created });
      return registered;
    } catch (error) {
      signal.throwIfAborted();
      const message = registrationAdvice(config.nodeName, error);
      // One line per distinct trouble: the retries themselves are not news.
      logger.log(message === reported ? "debug" : "warn", "node is not registered yet", {
        error: message,
      });
      reported = message;
    }
    await clock.sleep(delayMs, signal);
    delayMs = Math.min(delayMs * 2, backoff.maxMs);
  }
}

async function tryRegister(deps: RegistrationDeps, signal: AbortSignal): Promise<Registered> {
  const { client, config, identity } = deps;
  const body = initialNode(config, identity, await deps.status());
  try {
    const answer = await client.request({
      method: "POST",
      path: collectionPath(NODES),
      body,
      signal,
    });
    return { node: parseStored<Node>(answer), created: true };
  } catch (error) {
    // 403: whoever prepares nodes for us may have made it although we may not.
    const mayExist = error instanceof ApiError && (error.status === 409 || error.status === 403);
    if (!mayExist) throw error;
    return { node: await adoptNode(deps, error, signal), created: false };
  }
}

async function adoptNode(
  { client, config, identity }: RegistrationDeps,
  refusal: ApiError,
  signal: AbortSignal,
): Promise<Stored<Node>> {
  const path = objectPath(NODES, { name: config.nodeName });
  let node: Stored<Node>;
  try {
    node = parseStored<Node>(await client.request({ method: "GET", path, signal }));
  } catch (error) {
    throw isNotFound(error) || isForbidden(error) ? refusal : error;
  }
  const patch = existingNodePatch(config, identity, node);
  if (patch === undefined) return node;
  return parseStored<Node>(
    await client.request({
      method: "PATCH",
      path,
      body: patch,
      contentType: "application/merge-patch+json",
      signal,
    }),
  );
}

/** What went wrong, and for missing rights what to do about it. */
export function registrationAdvice(nodeName: string, error: unknown): string {
  const text = errorMessage(error);
  if (error instanceof ApiError && error.status === 401) {
    return `${text}: the server does not know this credential; issue a client certificate for CN system:node:${nodeName}, O system:nodes, and put it into the kubeconfig`;
  }
  if (!isForbidden(error)) return text;
  return `${text}: the credential must belong to user system:node:${nodeName} in group system:nodes, and the server must run the Node authorizer (or bind that user to ClusterRole system:node)`;
}
