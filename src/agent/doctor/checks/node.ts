import { isNotFound } from "../../../api/errors.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { isRecord, type JsonRecord, optionalString } from "../../../lib/guard.ts";
import { getAs } from "../api-probe.ts";
import { defineCheck, type Finding, judged, type Judgement, skipped, unknown } from "../check.ts";
import { asIdentity, noIdentity } from "../identity.ts";
import type { Machine } from "../machine.ts";
import type { Identity } from "../site.ts";

interface NodeFacts {
  /** Undefined: there is none. */
  readonly node: JsonRecord | undefined;
  /** Why it is not known. */
  readonly unknown: string | undefined;
  readonly name: string;
  readonly running: boolean;
  readonly asked: boolean;
}

type NodeProblem =
  | "node-missing"
  | "node-not-ready"
  | "node-pressure"
  | "node-cordoned"
  | "node-no-pod-cidr";

async function collectNode(machine: Machine, signal: AbortSignal): Promise<NodeFacts> {
  const { identities, nodeName: name, pid } = machine.site;
  const base = { name, running: pid !== undefined, asked: identities.length > 0 };
  const [identity] = identities;
  if (identity === undefined) return { ...base, node: undefined, unknown: undefined };
  try {
    return await asIdentity(machine, identity, async (client) => {
      const path = `/api/v1/nodes/${encodeURIComponent(name)}`;
      const node = await client.request({ method: "GET", path, signal });
      return { ...base, node: isRecord(node) ? node : {}, unknown: undefined };
    });
  } catch (error) {
    signal.throwIfAborted();
    if (isNotFound(error)) return { ...base, node: undefined, unknown: undefined };
    return { ...base, node: undefined, unknown: errorMessage(error) };
  }
}

function records(value: unknown): readonly JsonRecord[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

function judgeNode({
  asked,
  name,
  node,
  running,
  unknown: why,
}: NodeFacts): Judgement<NodeProblem> {
  if (!asked) return skipped(noIdentity);
  if (why !== undefined) return unknown(why);
  if (node === undefined) {
    return judged("", [{ problem: "node-missing", text: `the cluster has no Node ${name}` }]);
  }
  const findings: Finding<NodeProblem>[] = [];
  const status = isRecord(node["status"]) ? node["status"] : {};
  const spec = isRecord(node["spec"]) ? node["spec"] : {};
  for (const condition of records(status["conditions"])) {
    const type = optionalString(condition["type"]) ?? "";
    const text = `${type} is ${String(condition["status"])}: ${optionalString(condition["reason"]) ?? ""}, ${optionalString(condition["message"]) ?? ""}`;
    if (type === "Ready" && condition["status"] !== "True") {
      findings.push({
        problem: "node-not-ready",
        text,
        ...(running ? {} : { remedy: "systemctl start remora # no agent runs on this machine" }),
      });
    } else if (/Pressure$|NetworkUnavailable/.test(type) && condition["status"] === "True") {
      findings.push({ problem: "node-pressure", text });
    }
  }
  if (spec["unschedulable"] === true) {
    findings.push({
      problem: "node-cordoned",
      text: `Node ${name} is cordoned`,
      remedy: `kubectl uncordon ${name}`,
    });
  }
  if (optionalString(spec["podCIDR"]) === undefined) {
    findings.push({ problem: "node-no-pod-cidr", text: `Node ${name} has no spec.podCIDR` });
  }
  return judged(`Node ${name} is there`, findings);
}

export const nodeObject = defineCheck<NodeProblem, NodeFacts>({
  id: "node",
  title: "Node object",
  group: "cluster",
  looks: "conditions of this machine's Node, and whether it takes pods",
  reference: "docs/networking.md",
  problems: {
    "node-missing": {
      level: "error",
      means: "The cluster has no Node for this machine.",
      cause:
        "The agent does not run, may not register (--register-node=false), or somebody deleted the Node: the agent makes it again at its next start.",
      remedy: "systemctl restart remora",
    },
    "node-not-ready": {
      level: "error",
      means: "The Node is not Ready.",
      cause:
        "The condition's reason and message say it; NodeStatusUnknown means that the agent has not been heard of for 40 seconds.",
      remedy: "journalctl -u 'remora*' -n 50 --no-pager",
    },
    "node-pressure": {
      level: "warning",
      means: "The Node is under pressure.",
      cause: "Memory, disk or process numbers are scarce: it takes no pods, and evicts some.",
      remedy: "remora doctor --only memory,disk,limits",
    },
    "node-cordoned": {
      level: "warning",
      means: "The Node takes no new pods.",
      cause: "Somebody cordoned or drained it.",
      remedy: "kubectl uncordon NAME",
    },
    "node-no-pod-cidr": {
      level: "warning",
      means: "The Node has no pod network.",
      cause:
        "kube-controller-manager runs without --allocate-node-cidrs: fine where CNI plug-ins give addresses or --pod-cidr does, else no pod gets one.",
      remedy: "remora run --pod-cidr 10.244.7.0/24 # another one for each node",
    },
  },
  collect: collectNode,
  judge: judgeNode,
});

interface ReverseFacts {
  readonly asked: Identity | undefined;
  readonly answer: "ok" | "forbidden" | "unavailable" | "other";
  readonly text: string;
  readonly running: boolean;
}

/** The message of a Status, or what came instead. */
function messageOf(body: string): string {
  try {
    const value: unknown = JSON.parse(body);
    return (isRecord(value) ? optionalString(value["message"]) : undefined) ?? body;
  } catch {
    return body;
  }
}

async function collectReverse(machine: Machine, signal: AbortSignal): Promise<ReverseFacts> {
  const { identities, nodeName, pid } = machine.site;
  const asked = identities.findLast(({ name }) => name === "administrator") ?? identities[0];
  const base = { asked, running: pid !== undefined };
  if (asked === undefined) return { ...base, answer: "other", text: "" };
  const path = `/api/v1/nodes/${encodeURIComponent(nodeName)}/proxy/healthz`;
  try {
    const { body, status } = await getAs(asked, machine.clock, path, signal);
    if (status === 200) return { ...base, answer: "ok", text: "" };
    const text = messageOf(body).trim().slice(0, 400);
    // A refusal of the node itself comes through with the same status, and without a Status.
    const byServer = status === 403 && /nodes\/proxy|nodes "/.test(text);
    return { ...base, answer: byServer ? "forbidden" : "other", text: `${status}: ${text}` };
  } catch (error) {
    signal.throwIfAborted();
    return { ...base, answer: "unavailable", text: errorMessage(error) };
  }
}

type ReverseProblem =
  | "reverse-timeout"
  | "reverse-refused"
  | "reverse-tls"
  | "reverse-unauthorized"
  | "reverse-failed";

const reversePatterns: readonly (readonly [RegExp, ReverseProblem])[] = [
  [/refused/i, "reverse-refused"],
  [/x509|certificate|tls/i, "reverse-tls"],
  [/unauthori[sz]ed|forbidden/i, "reverse-unauthorized"],
  [/time-?out|timed out|deadline|no route|unreachable|hang up|EHOSTUNREACH/i, "reverse-timeout"],
];

export const reversePath = defineCheck<ReverseProblem, ReverseFacts>({
  id: "reverse-path",
  title: "Way back from the API server",
  group: "cluster",
  looks:
    "whether the API server reaches port 10250 of this node, which logs, exec and port-forward need",
  reference: "docs/node-api.md",
  deadlineMs: 20_000,
  problems: {
    "reverse-timeout": {
      level: "error",
      means: "The API server does not reach port 10250 of this node.",
      cause:
        "A firewall of this machine, of a cloud or in between drops the packets, or the Node's address is one that the API server has no way to. `kubectl logs` gives 502 or hangs.",
      remedy:
        "ufw allow from CONTROL_PLANE to any port 10250 proto tcp # or --node-ip with an address that it reaches",
    },
    "reverse-refused": {
      level: "error",
      means: "The API server reaches this node, and nothing listens on port 10250.",
      cause: "The agent does not run, or listens on another port or address (--port, --address).",
      remedy: "systemctl restart remora; ss -ltnp 'sport = :10250'",
    },
    "reverse-tls": {
      level: "error",
      means: "The API server does not trust the certificate of port 10250.",
      cause:
        "It was started with --kubelet-certificate-authority, and the node shows a self-signed certificate or one with another address.",
      remedy: "kubectl get csr # with serverTLSBootstrap: true; kubectl certificate approve NAME",
    },
    "reverse-unauthorized": {
      level: "error",
      means: "Port 10250 does not accept the API server.",
      cause:
        "clientCAFile of the node is not the CA that signed the API server's kubelet client certificate, or that user may not use the API of nodes.",
      remedy:
        "kubectl create clusterrolebinding kube-apiserver-kubelet --clusterrole=system:kubelet-api-admin --user=kube-apiserver-kubelet-client",
    },
    "reverse-failed": {
      level: "error",
      means: "The API server could not ask this node.",
      cause: "It says why; the Node may have no address.",
      remedy: "kubectl get node NAME -o wide; journalctl -u 'remora*' -n 50 --no-pager",
    },
  },
  collect: collectReverse,
  judge: ({ answer, asked, running, text }) => {
    if (asked === undefined) return skipped(noIdentity);
    if (answer === "ok") return judged("the API server reaches port 10250", []);
    if (answer === "unavailable") return unknown(`the API server was not asked: ${text}`);
    // The node itself may not ask for this; what the API server says then is about the question.
    if (answer === "forbidden" && asked.name !== "administrator") {
      return skipped("nobody but an administrator may ask: give --kubeconfig");
    }
    if (!running && /not found/i.test(text)) return skipped("the cluster has no Node of this name");
    const problem = reversePatterns.find(([pattern]) => pattern.test(text))?.[1];
    return judged("", [{ problem: problem ?? "reverse-failed", text }]);
  },
});
