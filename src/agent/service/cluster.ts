import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import type { ApiClient } from "../../api/client.ts";
import { isForbidden, isNotFound } from "../../api/errors.ts";
import { getObject, listObjects } from "../../api/objects.ts";
import { ENDPOINT_SLICES, NODES, SERVICES } from "../../api/resources.ts";
import type { Node } from "../../api/types.gen.ts";
import { errorMessage, ParseError, SetupError } from "../../lib/errors.ts";
import type { RawSlice } from "../../proxy/explain/endpoints.ts";
import { parseService, type ServiceView } from "../../proxy/parse.ts";
import type { ServiceFlags } from "../flags.ts";
import { invokingUser, kubeconfigPath } from "../user-kubeconfig.ts";

/**
 * The kubeconfig to use: the one that was given, or that kubectl would find, or of `remora up`'s administrator, or of the
 * agent's own proxy.
 *
 * @param agentKubeconfig What the running agent says; empty when none answers.
 * @throws {SetupError} when there is none.
 */
export async function findKubeconfig(
  flags: Pick<ServiceFlags, "kubeconfig" | "stateDir">,
  agentKubeconfig: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<string> {
  if (flags.kubeconfig !== undefined) return flags.kubeconfig;
  const user = invokingUser(await readFile("/etc/passwd", "utf8"), environment);
  const ofUser = (environment["KUBECONFIG"] ?? "").split(":").filter((path) => path !== "");
  const candidates = [
    ...(ofUser.length > 0 ? ofUser : [kubeconfigPath(user, environment)]),
    join(flags.stateDir, "control-plane", "admin.conf"),
    agentKubeconfig,
    join(flags.stateDir, "control-plane", "proxy.conf"),
  ];
  const found = candidates.find((path) => path !== "" && existsSync(path));
  if (found !== undefined) return found;
  throw new SetupError(
    `no kubeconfig found (looked at ${candidates.filter((path) => path !== "").join(", ")}): give --kubeconfig`,
  );
}

/**
 * Reads one Service by listing: an identity of the Service proxy may list, and may not get.
 *
 * @throws {SetupError} when there is none of that name.
 */
export async function readService(
  client: ApiClient,
  namespace: string,
  name: string,
  signal: AbortSignal,
): Promise<unknown> {
  const fieldSelector = `metadata.name=${name}`;
  const { items } = await listObjects(client, SERVICES, { namespace, fieldSelector, signal });
  const found = items.find(({ metadata }) => metadata.name === name);
  if (found !== undefined) return found;
  throw new SetupError(
    `there is no Service ${name} in namespace ${namespace}; -n names another namespace`,
  );
}

/** EndpointSlices of a Service, those included that proxies do not look at. */
export async function readSlices(
  client: ApiClient,
  namespace: string,
  service: string,
  signal: AbortSignal,
): Promise<readonly RawSlice[]> {
  const labelSelector = `kubernetes.io/service-name=${service}`;
  const list = await listObjects(client, ENDPOINT_SLICES, { namespace, labelSelector, signal });
  // Those of a list have no kind; the proxy's parser does not ask for one.
  return list.items.map((item) => ({ ...item }));
}

export interface OtherServices {
  readonly services: readonly ServiceView[];
  /** Why there are none, when they could not be read. */
  readonly missing: string | undefined;
}

/** All Services that a proxy serves: who claims one address with another. */
export async function readServedServices(
  client: ApiClient,
  signal: AbortSignal,
): Promise<OtherServices> {
  const labelSelector = "!service.kubernetes.io/service-proxy-name";
  try {
    const { items } = await listObjects(client, SERVICES, { labelSelector, signal });
    return { services: items.flatMap(parsed), missing: undefined };
  } catch (error) {
    if (!isForbidden(error)) throw error;
    return { services: [], missing: errorMessage(error) };
  }
}

/** What cannot be parsed has no rules either. */
function parsed(item: unknown): readonly ServiceView[] {
  try {
    return [parseService(item)];
  } catch (error) {
    if (error instanceof ParseError) return [];
    throw error;
  }
}

export interface NodeFacts {
  /** Undefined: the cluster has no such Node, or it may not be read. */
  readonly node: { readonly zone: string; readonly ips: readonly string[] } | undefined;
  readonly missing: string | undefined;
}

/** Zone and addresses of a Node. */
export async function readNode(
  client: ApiClient,
  name: string,
  signal: AbortSignal,
): Promise<NodeFacts> {
  try {
    const node: Node = await getObject(client, NODES, { name }, { signal });
    const addresses = node.status?.addresses ?? [];
    return {
      node: {
        zone: node.metadata?.labels?.["topology.kubernetes.io/zone"] ?? "",
        ips: addresses.flatMap(({ type, address }) =>
          type === "InternalIP" || type === "ExternalIP" ? [address] : [],
        ),
      },
      missing: undefined,
    };
  } catch (error) {
    if (!isNotFound(error) && !isForbidden(error)) throw error;
    const why = isNotFound(error) ? `the cluster has no Node ${name}` : errorMessage(error);
    return { node: undefined, missing: why };
  }
}
