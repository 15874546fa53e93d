import { ApiError } from "../../../api/errors.ts";
import { mayDo } from "../../../api/access-review.ts";
import type { HttpClient } from "../../../api/http-client.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { isRecord, optionalString } from "../../../lib/guard.ts";
import { defineCheck, type Finding, judged, skipped, unknown } from "../check.ts";
import { asIdentity, noIdentity } from "../identity.ts";
import type { Machine } from "../machine.ts";
import type { Identity } from "../site.ts";

/** A right that an identity needs: verb, group, resource. */
type Right = readonly [verb: string, group: string, resource: string, subresource?: string];

const nodeRights: readonly Right[] = [
  ["create", "", "nodes"],
  ["get", "", "nodes"],
  ["patch", "", "nodes", "status"],
  ["list", "", "pods"],
  ["watch", "", "pods"],
  ["patch", "", "pods", "status"],
  ["delete", "", "pods"],
  ["create", "", "events"],
  ["create", "coordination.k8s.io", "leases"],
  ["update", "coordination.k8s.io", "leases"],
  ["create", "authentication.k8s.io", "tokenreviews"],
  ["create", "authorization.k8s.io", "subjectaccessreviews"],
  ["list", "node.k8s.io", "runtimeclasses"],
  ["list", "storage.k8s.io", "csidrivers"],
  ["create", "storage.k8s.io", "csinodes"],
];

const proxyRights: readonly Right[] = [
  ["list", "", "services"],
  ["watch", "", "services"],
  ["list", "discovery.k8s.io", "endpointslices"],
  ["watch", "discovery.k8s.io", "endpointslices"],
  ["list", "", "nodes"],
  ["watch", "", "nodes"],
  ["create", "", "events"],
];

interface RightsFacts {
  readonly identity: Identity;
  readonly user: string;
  readonly missing: readonly string[];
  /** Why it is not known. */
  readonly unknown: string | undefined;
}

function rightText([verb, group, resource, subresource]: Right): string {
  const name = subresource === undefined ? resource : `${resource}/${subresource}`;
  return `${verb} ${name}${group === "" ? "" : `.${group}`}`;
}

function ofNode(nodeName: string): object {
  return { requirements: [{ key: "spec.nodeName", operator: "In", values: [nodeName] }] };
}

async function hasRight(
  client: HttpClient,
  [verb, group, resource, subresource]: Right,
  { name, nodeName }: { readonly name: string | undefined; readonly nodeName: string | undefined },
  signal: AbortSignal,
): Promise<boolean> {
  const attributes = {
    verb,
    group,
    resource,
    ...(subresource === undefined ? {} : { subresource }),
    ...(name === undefined ? {} : { name }),
    ...(resource === "leases" ? { namespace: "kube-node-lease" } : {}),
    ...(nodeName === undefined ? {} : { fieldSelector: ofNode(nodeName) }),
  };
  return (await mayDo(client, attributes, { signal })) === true;
}

/** What the Node authorizer asks for a name of: its own Node, its own lease. */
function nameFor([verb, , resource]: Right, machine: Machine): string | undefined {
  const own =
    (resource === "nodes" && verb !== "list" && verb !== "watch") || resource === "leases";
  return own && verb !== "create" ? machine.site.nodeName : undefined;
}

/** Nodes ask for their own pods alone, and may no more (AuthorizeNodeWithSelectors). */
function nodeFor(
  [verb, , resource]: Right,
  identity: Identity,
  machine: Machine,
): string | undefined {
  const isList = verb === "list" || verb === "watch";
  return identity.name === "node" && resource === "pods" && isList
    ? machine.site.nodeName
    : undefined;
}

async function userOf(client: HttpClient, signal: AbortSignal): Promise<string> {
  try {
    const answer = await client.request({
      method: "POST",
      path: "/apis/authentication.k8s.io/v1/selfsubjectreviews",
      body: { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" },
      signal,
    });
    const status: unknown = isRecord(answer) ? answer["status"] : undefined;
    const info: unknown = isRecord(status) ? status["userInfo"] : undefined;
    return (isRecord(info) ? optionalString(info["username"]) : undefined) ?? "?";
  } catch (error) {
    if (error instanceof ApiError) return "?";
    throw error;
  }
}

async function rightsOf(
  machine: Machine,
  identity: Identity,
  signal: AbortSignal,
): Promise<RightsFacts> {
  const wanted = identity.name === "node" ? nodeRights : proxyRights;
  try {
    return await asIdentity(machine, identity, async (client) => {
      const missing: string[] = [];
      for (const right of wanted) {
        const about = {
          name: nameFor(right, machine),
          nodeName: nodeFor(right, identity, machine),
        };
        if (!(await hasRight(client, right, about, signal))) {
          missing.push(rightText(right));
        }
      }
      return { identity, user: await userOf(client, signal), missing, unknown: undefined };
    });
  } catch (error) {
    signal.throwIfAborted();
    return { identity, user: "?", missing: [], unknown: errorMessage(error) };
  }
}

export const permissions = defineCheck({
  id: "permissions",
  title: "Permissions",
  group: "cluster",
  looks:
    "whether the API server lets both identities of the agent do what they need (SelfSubjectAccessReview)",
  reference: "docs/join.md",
  deadlineMs: 20_000,
  problems: {
    "node-rights-missing": {
      level: "error",
      means: "The node's identity may not do what a node has to do.",
      cause:
        "It is not `system:node:NAME` in group `system:nodes`, or the API server runs without the Node authorizer (--authorization-mode=Node,RBAC).",
      remedy:
        "kubectl create clusterrolebinding remora-nodes --clusterrole=system:node --group=system:nodes # where there is no Node authorizer",
    },
    "proxy-rights-missing": {
      level: "error",
      means: "The Service proxy's identity may not read Services and EndpointSlices.",
      cause:
        "A node's own identity may not; the binding to ClusterRole system:node-proxier is missing.",
      remedy:
        "kubectl create clusterrolebinding remora:node-proxier --clusterrole=system:node-proxier --group=system:nodes",
    },
    "node-name-other": {
      level: "error",
      means: "The credentials belong to another node.",
      cause:
        "They were copied, or the machine was renamed: the Node authorizer lets a node change nothing but itself.",
      remedy:
        "remora run --hostname-override NAME # the name in the credentials; or join again under this name",
    },
  },
  collect: async (machine, signal) => {
    const wanted = machine.site.identities.filter(({ name }) => name !== "administrator");
    const found: RightsFacts[] = [];
    for (const identity of wanted) found.push(await rightsOf(machine, identity, signal));
    return { found, nodeName: machine.site.nodeName };
  },
  judge: ({ found, nodeName }) => {
    if (found.length === 0) return skipped(noIdentity);
    const findings: Finding<"node-rights-missing" | "proxy-rights-missing" | "node-name-other">[] =
      [];
    for (const { identity, missing, user } of found) {
      const other = /^system:node:(.*)$/.exec(user)?.[1];
      if (identity.name === "node" && other !== undefined && other !== nodeName) {
        findings.push({
          problem: "node-name-other",
          text: `${identity.kubeconfig} is of node ${other}, and this is ${nodeName}`,
          remedy: `remora run --hostname-override ${other}`,
        });
      } else if (missing.length > 0) {
        const subject = user === "?" ? "" : ` (${user})`;
        findings.push({
          problem: identity.name === "node" ? "node-rights-missing" : "proxy-rights-missing",
          text: `${identity.kubeconfig}${subject} may not: ${missing.join(", ")}`,
          ...(identity.name === "proxy" && user !== "?" && !user.startsWith("system:node:")
            ? {
                remedy: `kubectl create clusterrolebinding remora:node-proxier --clusterrole=system:node-proxier --user=${user}`,
              }
            : {}),
        });
      }
    }
    const failed = found.find((one) => one.unknown !== undefined);
    if (findings.length === 0 && failed?.unknown !== undefined) return unknown(failed.unknown);
    return judged(found.map(({ user }) => user).join(", "), findings);
  },
});
