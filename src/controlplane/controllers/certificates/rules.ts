import { canonicalIP, ipFamily } from "../../../lib/cidr.ts";
import type { CertificationRequest } from "../../../lib/pkcs10.ts";
import type {
  CertificateSigningRequest,
  CertificateSigningRequestCondition,
  Node,
  NodeAddress,
} from "../../../api/types.gen.ts";

/**
 * Signers that the control plane itself is (certificates.k8s.io, "Kubernetes signers"). The fourth of kube-controller-
 * manager's, kubernetes.io/legacy-unknown, cannot be asked for through certificates.k8s.io/v1.
 */
export const signers = {
  apiServerClient: "kubernetes.io/kube-apiserver-client",
  kubeletClient: "kubernetes.io/kube-apiserver-client-kubelet",
  kubeletServing: "kubernetes.io/kubelet-serving",
} as const;

const nodePrefix = "system:node:";
const nodesGroup = "system:nodes";

const hourMs = 60 * 60 * 1000;
const minuteMs = 60 * 1000;

/** `spec.usages` and `status` as they are read here. */
type Request = Pick<CertificateSigningRequest, "spec" | "status">;

export function hasCondition(csr: Request, type: string): boolean {
  return (csr.status?.conditions ?? []).some((condition) => condition.type === type);
}

/** Approved, not denied and not failed. */
export function isToBeSigned(csr: Request): boolean {
  return (
    hasCondition(csr, "Approved") &&
    !hasCondition(csr, "Denied") &&
    !hasCondition(csr, "Failed") &&
    !isIssued(csr)
  );
}

/** Neither approved nor denied yet. */
export function isPending(csr: Request): boolean {
  return !isIssued(csr) && !hasCondition(csr, "Approved") && !hasCondition(csr, "Denied");
}

export function isIssued(csr: Request): boolean {
  return (csr.status?.certificate ?? "") !== "";
}

/** PEM text of what is asked for. */
export function requestText(csr: Request): string {
  return Buffer.from(csr.spec.request, "base64").toString("utf8");
}

/** Key encipherment means something for RSA keys only, so it may be left out. */
function usagesProblem(usages: readonly string[], purpose: string): string | undefined {
  const required = [purpose, "digital signature"];
  const wanted = new Set(usages);
  wanted.delete("key encipherment");
  const matches = wanted.size === required.length && required.every((usage) => wanted.has(usage));
  if (matches) return undefined;
  return `usages did not match [${[...required, "key encipherment"].toSorted().join(" ")}]`;
}

function isOnlyNodes(organizations: readonly string[]): boolean {
  return organizations.length === 1 && organizations[0] === nodesGroup;
}

/** Why a request is not for the client certificate of a node; undefined when it is. */
export function kubeletClientProblem(
  request: CertificationRequest,
  usages: readonly string[],
): string | undefined {
  if (!isOnlyNodes(request.organizations)) return "subject organization is not system:nodes";
  if (request.dnsNames.length > 0) return "DNS subjectAltNames are not allowed";
  if (request.emailAddresses.length > 0) return "Email subjectAltNames are not allowed";
  if (request.ipAddresses.length > 0) return "IP subjectAltNames are not allowed";
  if (request.uris.length > 0) return "URI subjectAltNames are not allowed";
  if (!request.commonName.startsWith(nodePrefix))
    return "subject common name does not begin with system:node:";
  return usagesProblem(usages, "client auth");
}

/** Why a request is not for the serving certificate of a node; undefined when it is. */
export function kubeletServingProblem(
  request: CertificationRequest,
  usages: readonly string[],
): string | undefined {
  if (!isOnlyNodes(request.organizations)) return "subject organization is not system:nodes";
  if (request.dnsNames.length === 0 && request.ipAddresses.length === 0)
    return "DNS or IP subjectAltName is required";
  if (request.emailAddresses.length > 0) return "Email subjectAltNames are not allowed";
  if (request.uris.length > 0) return "URI subjectAltNames are not allowed";
  const usage = usagesProblem(usages, "server auth");
  if (usage !== undefined) return usage;
  return request.commonName.startsWith(nodePrefix)
    ? undefined
    : "subject common name does not begin with system:node:";
}

/** Why usages are not those of a client certificate; undefined when they are. */
export function clientUsagesProblem(usages: readonly string[]): string | undefined {
  const allowed = ["client auth", "digital signature", "key encipherment"];
  const wrong = usages.find((usage) => !allowed.includes(usage));
  if (wrong !== undefined) return `invalid usage for client certificate: ${wrong}`;
  return usages.includes("client auth")
    ? undefined
    : "missing required usage for client certificate: client auth";
}

/** Why a signer of ours refuses an approved request; undefined when it signs, and for signers that are not ours. */
export function signerProblem(
  csr: Request,
  request: CertificationRequest,
): { readonly ours: boolean; readonly problem?: string | undefined } {
  const usages = csr.spec.usages ?? [];
  switch (csr.spec.signerName) {
    case signers.kubeletClient:
      return { ours: true, problem: kubeletClientProblem(request, usages) };
    case signers.kubeletServing:
      return { ours: true, problem: kubeletServingProblem(request, usages) };
    case signers.apiServerClient:
      return { ours: true, problem: clientUsagesProblem(usages) };
    default:
      return { ours: false };
  }
}

/** The node that asks, when it is one and asks in its own name. */
export function requestingNode(csr: Request): string | undefined {
  const { username = "", groups = [] } = csr.spec;
  return username.startsWith(nodePrefix) && groups.includes(nodesGroup)
    ? username.slice(nodePrefix.length)
    : undefined;
}

/** Who else has names and addresses in the cluster. */
export interface ClusterNames {
  readonly nodes: readonly Node[];
  /** Of the Service `kubernetes`. */
  readonly clusterIP: string | undefined;
}

function canonical(name: string): string {
  return ipFamily(name) === undefined ? name.toLowerCase() : canonicalIP(name);
}

function addressesOf(node: Node): NodeAddress[] {
  return node.status?.addresses ?? [];
}

/** Names that the API server and Services have, and those that mean another machine on each. */
function isReserved(name: string, clusterIP: string | undefined): boolean {
  if (clusterIP !== undefined && name === canonical(clusterIP)) return true;
  if (ipFamily(name) !== undefined) return /^(127\.|0\.0\.0\.0$|::1?$|::ffff:)/.test(name);
  return (
    name.includes("*") ||
    /^(localhost|kubernetes)$/.test(name) ||
    /(^|\.)(localhost|default|svc|cluster\.local)$/.test(name)
  );
}

/** Why the names asked for are not the node's own; undefined when they are. */
function foreignNameProblem(
  names: readonly string[],
  node: Node,
  { nodes, clusterIP }: ClusterNames,
): string | undefined {
  const name = node.metadata?.name ?? "";
  const own = new Set(addressesOf(node).map(({ address }) => canonical(address)));
  const strange = names.filter((each) => !own.has(canonical(each)));
  if (strange.length > 0) return `not an address of node ${name}: ${strange.toSorted().join(", ")}`;
  const reserved = names.filter((each) => isReserved(canonical(each), clusterIP));
  if (reserved.length > 0) return `not for a node: ${reserved.toSorted().join(", ")}`;
  const others = nodes.filter((other) => other.metadata?.name !== name);
  for (const other of others) {
    const otherName = other.metadata?.name ?? "";
    const theirs = new Set([
      otherName,
      ...addressesOf(other).map((each) => canonical(each.address)),
    ]);
    const shared = names.filter((each) => theirs.has(canonical(each)));
    if (shared.length > 0) return `also of node ${otherName}: ${shared.toSorted().join(", ")}`;
  }
  return undefined;
}

/**
 * Why the serving certificate of a node is not approved without a person: the node itself must ask for it, in its own
 * name, and for nothing but the addresses that its Node object has and nobody else.
 */
export function servingApprovalProblem(
  csr: Request,
  request: CertificationRequest,
  cluster: ClusterNames,
): string | undefined {
  const problem = kubeletServingProblem(request, csr.spec.usages ?? []);
  if (problem !== undefined) return problem;
  const name = requestingNode(csr);
  if (name === undefined) return "the requestor is no node";
  if (request.commonName !== `${nodePrefix}${name}`)
    return `subject common name is not that of the requestor, ${nodePrefix}${name}`;
  const node = cluster.nodes.find(({ metadata }) => metadata?.name === name);
  if (node === undefined) return `node ${name} does not exist yet`;
  return foreignNameProblem([...request.dnsNames, ...request.ipAddresses], node, cluster);
}

/** Bits of KeyUsage (RFC 5280, 4.2.1.3). */
const keyUsageBits: Readonly<Record<string, number>> = {
  signing: 0,
  "digital signature": 0,
  "content commitment": 1,
  "key encipherment": 2,
  "data encipherment": 3,
  "key agreement": 4,
  "cert sign": 5,
  "crl sign": 6,
  "encipher only": 7,
  "decipher only": 8,
};

const extendedKeyUsages: Readonly<Record<string, string>> = {
  "server auth": "1.3.6.1.5.5.7.3.1",
  "client auth": "1.3.6.1.5.5.7.3.2",
};

/** What the certificate may be used for, as X.509 says it. Signers of ours allow these usages only. */
export function x509Usages(usages: readonly string[]): {
  readonly keyUsages: readonly number[];
  readonly extendedKeyUsages: readonly string[];
} {
  return {
    keyUsages: [...new Set(usages.flatMap((usage) => keyUsageBits[usage] ?? []))],
    extendedKeyUsages: [...new Set(usages.flatMap((usage) => extendedKeyUsages[usage] ?? []))],
  };
}

const certificateLifeMs = 365 * 24 * hourMs;
const minLifeMs = 10 * minuteMs;
/** So that a machine whose clock is a little behind can use it at once. */
const backdateMs = 5 * minuteMs;
const shortMs = 8 * hourMs;

/**
 * When a certificate begins and ends: as long as asked for, a year at most, never longer than its authority.
 *
 * @param now Milliseconds since the epoch, as the results.
 * @throws {RangeError} the authority has expired.
 */
export function validity(
  expirationSeconds: number | undefined,
  now: number,
  authorityEnd: number,
): { readonly notBefore: number; readonly notAfter: number } {
  if (now >= authorityEnd) {
    const end = new Date(authorityEnd).toISOString();
    throw new RangeError(
      `refusing to sign a certificate that expired in the past: NotAfter=${end}`,
    );
  }
  const wanted = expirationSeconds === undefined ? certificateLifeMs : expirationSeconds * 1000;
  const lifeMs = Math.min(Math.max(wanted, minLifeMs), certificateLifeMs);
  const end = now + (lifeMs < shortMs ? lifeMs : lifeMs - backdateMs);
  return { notBefore: now - backdateMs, notAfter: Math.min(end, authorityEnd) };
}

const keptMs = { decided: hourMs, unfinished: 24 * hourMs };

function olderThan(time: string | undefined, ms: number, now: number): boolean {
  return time !== undefined && now - Date.parse(time) > ms;
}

/**
 * Whether a request has served: issued, denied or failed an hour ago, undecided or unissued for a day, or its
 * certificate has expired (`expiresAt`, milliseconds since the epoch).
 */
export function isStale(
  csr: Pick<CertificateSigningRequest, "metadata" | "spec" | "status">,
  expiresAt: number | undefined,
  now: number,
): boolean {
  const conditions: readonly CertificateSigningRequestCondition[] = csr.status?.conditions ?? [];
  if (conditions.length === 0)
    return olderThan(csr.metadata?.creationTimestamp, keptMs.unfinished, now);
  return conditions.some(({ type, lastUpdateTime }) => {
    if (type === "Denied" || type === "Failed")
      return olderThan(lastUpdateTime, keptMs.decided, now);
    if (type !== "Approved") return false;
    if (!isIssued(csr)) return olderThan(lastUpdateTime, keptMs.unfinished, now);
    return (
      olderThan(lastUpdateTime, keptMs.decided, now) || (expiresAt !== undefined && expiresAt < now)
    );
  });
}
