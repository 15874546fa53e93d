import type { Stored } from "../../../api/object.ts";
import { CERTIFICATE_SIGNING_REQUESTS } from "../../../api/resources.ts";
import type { CertificateSigningRequest, SubjectAccessReview } from "../../../api/types.gen.ts";
import { errorMessage } from "../../../lib/errors.ts";
import { isRecord } from "../../../lib/guard.ts";
import { type CertificationRequest, parseCertificationRequest } from "../../../lib/pkcs10.ts";
import { replaceIfCurrent } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";
import {
  type ClusterNames,
  isPending,
  kubeletClientProblem,
  requestingNode,
  requestText,
  servingApprovalProblem,
  signers,
} from "./rules.ts";

type Csr = Stored<CertificateSigningRequest>;

async function approve(
  context: ControllerContext,
  csr: Csr,
  message: string,
  signal: AbortSignal,
): Promise<void> {
  const approval = { type: "Approved", status: "True", reason: "AutoApproved", message };
  const conditions = [...(csr.status?.conditions ?? []), approval];
  const approved = await replaceIfCurrent(
    context.client,
    {
      resource: CERTIFICATE_SIGNING_REQUESTS,
      name: csr.metadata.name,
      subresource: "approval",
    },
    { ...csr, status: { ...csr.status, conditions } },
    signal,
  );
  if (!approved) return;
  context.logger.log("info", "certificate request approved", {
    name: csr.metadata.name,
    requestor: csr.spec.username ?? "",
    signer: csr.spec.signerName,
  });
}

/** Asks the API server whether the requestor has one of the rights that stand for approval. */
async function isAllowed(
  { client }: ControllerContext,
  csr: Csr,
  subresource: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { username = "", uid, groups, extra } = csr.spec;
  const spec: SubjectAccessReview["spec"] = {
    user: username,
    uid,
    groups,
    extra,
    resourceAttributes: {
      group: "certificates.k8s.io",
      resource: "certificatesigningrequests",
      verb: "create",
      version: "*",
      subresource,
    },
  };
  const answer = await client.request({
    method: "POST",
    path: "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    body: { apiVersion: "authorization.k8s.io/v1", kind: "SubjectAccessReview", spec },
    signal,
  });
  const status = isRecord(answer) ? answer["status"] : undefined;
  return isRecord(status) && status["allowed"] === true;
}

/** A request that cannot be read was stored by an older version; nobody approves it unseen. */
function readRequest(context: ControllerContext, csr: Csr): CertificationRequest | undefined {
  try {
    return parseCertificationRequest(requestText(csr));
  } catch (error) {
    context.logger.log("warn", "certificate request cannot be read", {
      name: csr.metadata.name,
      error: errorMessage(error),
    });
    return undefined;
  }
}

/**
 * Approves client certificates of nodes: for whoever may create `certificatesigningrequests/nodeclient` (bootstrap
 * tokens), and for nodes that renew their own (`selfnodeclient`).
 */
export function kubeletClientApprover(context: ControllerContext): Controller {
  const { informers } = context;
  const name = "csrapproving";

  async function sync(key: string, signal: AbortSignal): Promise<void> {
    const csr = informers.certificateSigningRequests.get(key);
    if (csr === undefined || !isPending(csr)) return;
    if (csr.spec.signerName !== signers.kubeletClient) return;
    const request = readRequest(context, csr);
    if (request === undefined) return;
    if (kubeletClientProblem(request, csr.spec.usages ?? []) !== undefined) return;
    if (
      csr.spec.username === request.commonName &&
      (await isAllowed(context, csr, "selfnodeclient", signal))
    ) {
      const message = "Auto approving self kubelet client certificate after SubjectAccessReview.";
      await approve(context, csr, message, signal);
    } else if (await isAllowed(context, csr, "nodeclient", signal)) {
      const message = "Auto approving kubelet client certificate after SubjectAccessReview.";
      await approve(context, csr, message, signal);
    }
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [informers.certificateSigningRequests],
          sync: (key) => sync(key, signal),
          subscribe: (queue) => [
            informers.certificateSigningRequests.subscribe(({ key }) => queue.add(key)),
          ],
        },
        signal,
      ),
  };
}

/**
 * Approves serving certificates of nodes: those that a node asks for itself, with nothing in them but the addresses of
 * its Node object, none of which may be somebody else's: a node writes its addresses itself. What differs stays pending,
 * for a person to decide.
 */
export function kubeletServingApprover(
  context: ControllerContext,
  cluster: Pick<ClusterNames, "clusterIP">,
): Controller {
  const { informers } = context;
  const name = "kubelet-serving-approver";
  /** What was last told of a request, so that heartbeats of the node do not repeat it. */
  const told = new Map<string, string>();

  function tellOnce(key: string, problem: string): void {
    if (told.get(key) === problem) return;
    told.set(key, problem);
    context.logger.log("info", "serving certificate not approved", { name: key, why: problem });
  }

  async function sync(key: string, signal: AbortSignal): Promise<void> {
    const csr = informers.certificateSigningRequests.get(key);
    if (csr === undefined || !isPending(csr)) {
      told.delete(key);
      return;
    }
    if (csr.spec.signerName !== signers.kubeletServing) return;
    const request = readRequest(context, csr);
    if (request === undefined) return;
    const problem = servingApprovalProblem(csr, request, {
      ...cluster,
      nodes: [...informers.nodes.values()],
    });
    if (problem === undefined) {
      const message = "Auto approving kubelet serving certificate with the node's own addresses.";
      await approve(context, csr, message, signal);
    } else tellOnce(key, problem);
  }

  return {
    name,
    run: (signal) =>
      runQueueLoop(
        {
          name,
          context,
          waitFor: [informers.certificateSigningRequests, informers.nodes],
          sync: (key) => sync(key, signal),
          subscribe: (queue) => [
            informers.certificateSigningRequests.subscribe(({ key }) => queue.add(key)),
            // A node that registers, or gets another address, may now have what it asked for.
            informers.nodes.subscribe(({ key }) => {
              for (const csr of informers.certificateSigningRequests.values())
                if (isPending(csr) && requestingNode(csr) === key) queue.add(csr.metadata.name);
            }),
          ],
        },
        signal,
      ),
  };
}
