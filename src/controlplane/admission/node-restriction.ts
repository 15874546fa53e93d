import { isLocalVolume, isOnNode, localVolumes } from "../../api/local-volumes.ts";
import { parseStored } from "../../api/object.ts";
import type { PersistentVolume } from "../../api/types.gen.ts";
import { errorMessage } from "../../lib/errors.ts";
import { parseCertificationRequest } from "../../lib/pkcs10.ts";
import {
  mapOf,
  metadataOf,
  nameOf,
  record,
  records,
  semanticEqual,
  strings,
  text,
} from "../kinds/access.ts";
import { requestPEM } from "../kinds/certificate-signing-request-validation.ts";
import { unifiedDiff } from "../kinds/unified-diff.ts";
import { forbidden } from "../status-error.ts";
import type { AdmissionAttributes, AdmissionPlugin, JsonObject, UserInfo } from "../types.ts";
import { apiObjectReference } from "./pod-references.ts";
import { isMirrorPod, mirrorAnnotation } from "./service-account.ts";
import { audiencesOf } from "./token-audiences.ts";

const userPrefix = "system:node:";
const nodeGroup = "system:nodes";
const leaseNamespace = "kube-node-lease";
const nodeSigners = new Set([
  "kubernetes.io/kube-apiserver-client-kubelet",
  "kubernetes.io/kubelet-serving",
]);

/** The node behind a user: its name, "" when it claims to be a node without one, undefined for everybody else. */
export function nodeIdentity(user: UserInfo): string | undefined {
  if (!user.name.startsWith(userPrefix) || !user.groups.includes(nodeGroup)) return undefined;
  return user.name.slice(userPrefix.length);
}

/** Labels under kubernetes.io and k8s.io that a node may set on itself. */
const ownLabels = new Set([
  "kubernetes.io/hostname",
  "kubernetes.io/arch",
  "kubernetes.io/os",
  "beta.kubernetes.io/arch",
  "beta.kubernetes.io/os",
  "beta.kubernetes.io/instance-type",
  "node.kubernetes.io/instance-type",
  "failure-domain.beta.kubernetes.io/region",
  "failure-domain.beta.kubernetes.io/zone",
  "failure-domain.kubernetes.io/region",
  "failure-domain.kubernetes.io/zone",
  "topology.kubernetes.io/region",
  "topology.kubernetes.io/zone",
]);
const ownLabelDomains = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const restrictedDomain = "node-restriction.kubernetes.io";

function isIn(domain: string, parent: string): boolean {
  return domain === parent || domain.endsWith(`.${parent}`);
}

/** Whether a node may not set, change or remove this label on itself (KEP-279). */
export function isForbiddenNodeLabel(key: string): boolean {
  const domain = key.includes("/") ? (key.split("/")[0] ?? "") : "";
  if (isIn(domain, restrictedDomain)) return true;
  const reserved = isIn(domain, "kubernetes.io") || isIn(domain, "k8s.io");
  if (!reserved || ownLabels.has(key)) return false;
  return !ownLabelDomains.some((allowed) => isIn(domain, allowed));
}

function changedLabels(
  after: Readonly<JsonObject>,
  before: Readonly<JsonObject> | undefined,
): string[] {
  const next = mapOf(metadataOf(after)["labels"]);
  const old = before === undefined ? {} : mapOf(metadataOf(before)["labels"]);
  const keys = new Set([...Object.keys(next), ...Object.keys(old)]);
  return [...keys].filter((key) => next[key] !== old[key]).toSorted();
}

/** What the server writes itself, or what says nothing about the object. */
function withoutBookkeeping(object: Readonly<JsonObject>): JsonObject {
  const {
    resourceVersion: _version,
    managedFields: _fields,
    finalizers: _finalizers,
    ...metadata
  } = metadataOf(object);
  return { ...object, metadata };
}

/** A claim without what a node may write when it has expanded the volume (KEP-1790). */
function withoutOwnPart(claim: Readonly<JsonObject>): JsonObject {
  const {
    capacity: _capacity,
    conditions: _conditions,
    allocatedResources: _allocated,
    allocatedResourceStatuses: _statuses,
    ...status
  } = record(claim["status"]);
  const { finalizers } = metadataOf(claim);
  return { ...withoutBookkeeping(claim), status, finalizers };
}

class Restriction {
  readonly #attributes: AdmissionAttributes;
  readonly #node: string;

  constructor(attributes: AdmissionAttributes, node: string) {
    this.#attributes = attributes;
    this.#node = node;
  }

  #refuse(message: string): never {
    throw forbidden(this.#attributes.kind, this.#attributes.name, message);
  }

  /** The stored pod, or the one that is changed. */
  #pod(): Readonly<JsonObject> {
    const { oldObject, objects, namespace, name } = this.#attributes;
    return oldObject ?? objects.get("pods", namespace, name) ?? {};
  }

  #ownsPod(pod: Readonly<JsonObject>): boolean {
    return text(record(pod["spec"])["nodeName"]) === this.#node;
  }

  pods(): void {
    const { subresource, operation, object, oldObject } = this.#attributes;
    if (subresource === "status") this.#podStatus(object ?? {}, oldObject ?? {});
    else if (subresource === "eviction") {
      if (!this.#ownsPod(this.#pod())) {
        this.#refuse(`node ${this.#node} can only evict pods with spec.nodeName set to itself`);
      }
    } else if (subresource !== undefined) {
      this.#refuse(
        `unexpected pod subresource "${subresource}", only 'status' and 'eviction' are allowed`,
      );
    } else if (operation === "CREATE") this.#mirrorPod(object ?? {});
    else if (operation === "DELETE") {
      if (!this.#ownsPod(this.#pod())) {
        this.#refuse(`node "${this.#node}" can only delete pods with spec.nodeName set to itself`);
      }
    } else {
      this.#refuse(
        `unexpected operation "${operation}", node "${this.#node}" can only create and delete mirror pods`,
      );
    }
  }

  #podStatus(pod: Readonly<JsonObject>, old: Readonly<JsonObject>): void {
    if (!this.#ownsPod(old)) {
      this.#refuse(
        `node "${this.#node}" can only update pod status for pods with spec.nodeName set to itself`,
      );
    }
    if (!semanticEqual(metadataOf(pod)["labels"], metadataOf(old)["labels"])) {
      this.#refuse(`node "${this.#node}" cannot update labels through pod status`);
    }
    const claims = "resourceClaimStatuses";
    if (!semanticEqual(record(pod["status"])[claims], record(old["status"])[claims])) {
      this.#refuse(`node "${this.#node}" cannot update resource claim statues`);
    }
  }

  #mirrorPod(pod: Readonly<JsonObject>): void {
    const node = `node "${this.#node}"`;
    if (!isMirrorPod(pod)) {
      this.#refuse(
        `pod does not have "${mirrorAnnotation}" annotation, ${node} can only create mirror pods`,
      );
    }
    if (!this.#ownsPod(pod)) {
      this.#refuse(`${node} can only create pods with spec.nodeName set to itself`);
    }
    const owners = records(metadataOf(pod)["ownerReferences"]);
    if (owners.length > 1) {
      this.#refuse(`${node} can only create pods with a single owner reference set to itself`);
    }
    const [owner] = owners;
    if (owner === undefined) {
      this.#refuse(`${node} can only create pods with an owner reference set to itself`);
    }
    this.#mirrorOwner(owner);
    const reference = apiObjectReference(nameOf(pod), record(pod["spec"]));
    if (reference !== undefined) {
      this.#refuse(`${node} can not create pods that reference ${reference}`);
    }
  }

  #mirrorOwner(owner: Readonly<JsonObject>): void {
    const node = `node "${this.#node}"`;
    if (owner["apiVersion"] !== "v1" || owner["kind"] !== "Node" || owner["name"] !== this.#node) {
      this.#refuse(`${node} can only create pods with an owner reference set to itself`);
    }
    if (owner["controller"] !== true) {
      this.#refuse(`${node} can only create pods with a controller owner reference set to itself`);
    }
    if (owner["blockOwnerDeletion"] === true) {
      this.#refuse(`${node} must not set blockOwnerDeletion on an owner reference`);
    }
    const stored = this.#attributes.objects.get("nodes", "", this.#node);
    const uid = stored === undefined ? "" : text(metadataOf(stored)["uid"]);
    if (uid !== text(owner["uid"])) {
      this.#refuse(`node ${this.#node} UID mismatch: expected ${text(owner["uid"])} got ${uid}`);
    }
  }

  nodes(): void {
    const { operation, object, oldObject } = this.#attributes;
    const requested = this.#attributes.name === "" ? nameOf(object ?? {}) : this.#attributes.name;
    if (requested !== this.#node) {
      this.#refuse(`node "${this.#node}" is not allowed to modify node "${requested}"`);
    }
    if (object === undefined) return;
    if (operation === "CREATE") {
      const wrong = changedLabels(object, undefined).filter((key) => isForbiddenNodeLabel(key));
      if (wrong.length > 0) {
        this.#refuse(
          `node "${this.#node}" is not allowed to set the following labels: ${wrong.join(", ")}`,
        );
      }
    } else if (operation === "UPDATE" && oldObject !== undefined) {
      this.#nodeUpdate(object, oldObject);
    }
  }

  #nodeUpdate(node: Readonly<JsonObject>, old: Readonly<JsonObject>): void {
    const own = `node "${this.#node}"`;
    if (!semanticEqual(record(node["spec"])["taints"], record(old["spec"])["taints"])) {
      this.#refuse(`${own} is not allowed to modify taints`);
    }
    const owners = "ownerReferences";
    if (!semanticEqual(metadataOf(node)[owners], metadataOf(old)[owners])) {
      this.#refuse(`${own} is not allowed to modify ownerReferences`);
    }
    const wrong = changedLabels(node, old).filter((key) => isForbiddenNodeLabel(key));
    if (wrong.length > 0) this.#refuse(`is not allowed to modify labels: ${wrong.join(", ")}`);
  }

  token(): void {
    const { object, objects, namespace } = this.#attributes;
    const spec = record(object?.["spec"]);
    const reference = record(spec["boundObjectRef"]);
    const isPod = reference["apiVersion"] === "v1" && reference["kind"] === "Pod";
    const name = text(reference["name"]);
    if (!isPod || name === "") this.#refuse("node requested token not bound to a pod");
    const uid = text(reference["uid"]);
    if (uid === "") this.#refuse("node requested token with a pod binding without a uid");
    const pod = objects.get("pods", namespace, name);
    if (pod === undefined) this.#refuse(`pod "${name}" not found`);
    if (text(metadataOf(pod)["uid"]) !== uid) {
      this.#refuse(
        `the UID in the bound object reference (${uid}) does not match the UID in record. The object might have been deleted and then recreated`,
      );
    }
    if (!this.#ownsPod(pod)) {
      this.#refuse("node requested token bound to a pod scheduled on a different node");
    }
    this.#audience(strings(spec["audiences"]), pod);
  }

  /** A node may only ask for audiences that a volume of the pod asks for (1.33). */
  #audience(audiences: readonly string[], pod: Readonly<JsonObject>): void {
    if (audiences.length > 1) this.#refuse("node may only request 0 or 1 audiences");
    const wanted = audiences[0] ?? "";
    const offered = audiencesOf(pod, this.#attributes.objects);
    if (wanted === "" || offered.includes(wanted)) return;
    this.#refuse(
      `audience "${wanted}" not found in pod spec volume, ${userPrefix}${this.#node} is not authorized to request tokens for this audience`,
    );
  }

  lease(): void {
    const { namespace, name, object } = this.#attributes;
    if (namespace !== leaseNamespace) {
      this.#refuse(`can only access leases in the "${leaseNamespace}" system namespace`);
    }
    if ((name === "" ? nameOf(object ?? {}) : name) !== this.#node) {
      this.#refuse("can only access node lease with the same name as the requesting node");
    }
  }

  csiNode(): void {
    const { name, object } = this.#attributes;
    if ((name === "" ? nameOf(object ?? {}) : name) !== this.#node) {
      this.#refuse("can only access CSINode with the same name as the requesting node");
    }
  }

  /** A node says how large a volume has become, and nothing else of a claim. */
  claim(): void {
    const { subresource, operation, object, oldObject } = this.#attributes;
    if (subresource !== "status") this.#refuse("may only update PVC status");
    if (operation !== "UPDATE" || object === undefined || oldObject === undefined)
      this.#refuse(`unexpected operation "${operation}"`);
    const [after, before] = [object, oldObject].map((claim) => withoutOwnPart(claim));
    if (semanticEqual(after, before)) return;
    this.#refuse(
      `node "${this.#node}" is not allowed to update fields other than status.quantity and status.conditions: ${unifiedDiff(before, after)}`,
    );
  }

  /**
   * Of a volume that a node keeps itself it takes off its finalizer, when the volume is to go and its data is gone. The
   * right to patch comes from a role of this control plane; nothing else may be done with it.
   */
  volume(): void {
    const { subresource, operation, object, oldObject, objects } = this.#attributes;
    const { finalizer } = localVolumes;
    const rule = `node "${this.#node}" may only remove the finalizer ${finalizer} of a volume of its own that is being deleted`;
    if (subresource !== undefined || operation !== "UPDATE") this.#refuse(rule);
    if (object === undefined || oldObject === undefined) this.#refuse(rule);
    const node = objects.get("nodes", "", this.#node);
    const labels = node === undefined ? {} : mapOf(metadataOf(node)["labels"]);
    const stored = parseStored<PersistentVolume>(oldObject);
    const isOwn = isLocalVolume(stored) && isOnNode(stored, { name: this.#node, labels });
    const kept = (volume: Readonly<JsonObject>): string[] =>
      strings(metadataOf(volume)["finalizers"]);
    const isAllowed =
      isOwn &&
      metadataOf(oldObject)["deletionTimestamp"] !== undefined &&
      semanticEqual(
        kept(object),
        kept(oldObject).filter((one) => one !== finalizer),
      ) &&
      semanticEqual(withoutBookkeeping(object), withoutBookkeeping(oldObject));
    if (!isAllowed) this.#refuse(rule);
  }

  /** A node asks for certificates in its own name only; what else must be right, the signer looks at. */
  certificateRequest(): void {
    const { operation, object, subresource } = this.#attributes;
    if (operation !== "CREATE" || subresource !== undefined || object === undefined) return;
    const signer = text(record(object["spec"])["signerName"]);
    if (!nodeSigners.has(signer)) return;
    let commonName: string;
    try {
      ({ commonName } = parseCertificationRequest(requestPEM(object)));
    } catch (error) {
      this.#refuse(`unable to parse csr: ${errorMessage(error)}`);
    }
    if (commonName !== `${userPrefix}${this.#node}`)
      this.#refuse(`can only create a node CSR with CN=${userPrefix}${this.#node}`);
  }

  check(): void {
    const { kind, subresource } = this.#attributes;
    switch (`${kind.group}/${kind.plural}`) {
      case "/pods":
        return this.pods();
      case "/nodes":
        return this.nodes();
      case "/serviceaccounts":
        return subresource === "token" ? this.token() : undefined;
      case "/persistentvolumeclaims":
        return this.claim();
      case "/persistentvolumes":
        return this.volume();
      case "coordination.k8s.io/leases":
        return this.lease();
      case "storage.k8s.io/csinodes":
        return this.csiNode();
      case "certificates.k8s.io/certificatesigningrequests":
        return this.certificateRequest();
      default:
        return undefined;
    }
  }
}

/** Keeps a node to itself: its own Node, its pods, its lease, tokens of its pods. Others are not touched. */
export function createNodeRestriction(): AdmissionPlugin {
  return {
    name: "NodeRestriction",
    validate(attributes) {
      const node = nodeIdentity(attributes.context.user);
      if (node === undefined) return;
      if (node === "") {
        throw forbidden(
          attributes.kind,
          attributes.name,
          `could not determine node from user "${attributes.context.user.name}"`,
        );
      }
      new Restriction(attributes, node).check();
    },
  };
}
