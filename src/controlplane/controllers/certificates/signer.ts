import type { Stored } from "../../../api/object.ts";
import { CERTIFICATE_SIGNING_REQUESTS } from "../../../api/resources.ts";
import type {
  CertificateSigningRequest,
  CertificateSigningRequestStatus,
} from "../../../api/types.gen.ts";
import { parseCertificationRequest } from "../../../lib/pkcs10.ts";
import { issueCertificate, type Issuer } from "../../../lib/x509.ts";
import { replaceIfCurrent } from "../shared/calls.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runQueueLoop } from "../shared/controller.ts";
import { isToBeSigned, requestText, signerProblem, validity, x509Usages } from "./rules.ts";

type Csr = Stored<CertificateSigningRequest>;

/** The cluster's own authority. */
export interface SigningAuthority {
  readonly issuer: Issuer;
  /** End of its certificate, milliseconds since the epoch. */
  readonly notAfter: number;
}

/** Signs approved requests to the three signers of Kubernetes that a node and its users need. */
export function certificateSigner(
  context: ControllerContext,
  currentAuthority: () => SigningAuthority,
): Controller {
  const { client, informers, clock } = context;
  const name = "csrsigning";

  function issue(csr: Csr): CertificateSigningRequestStatus | undefined {
    const request = parseCertificationRequest(requestText(csr));
    const { ours, problem } = signerProblem(csr, request);
    if (!ours) return undefined;
    if (problem !== undefined) {
      const failure = {
        type: "Failed",
        status: "True",
        reason: "SignerValidationFailure",
        message: problem,
      };
      return { ...csr.status, conditions: [...(csr.status?.conditions ?? []), failure] };
    }
    const authority = currentAuthority();
    const certificate = issueCertificate(
      {
        ...request,
        ...x509Usages(csr.spec.usages ?? []),
        ...validity(csr.spec.expirationSeconds, clock.now(), authority.notAfter),
      },
      authority.issuer,
    );
    return { ...csr.status, certificate: Buffer.from(certificate).toString("base64") };
  }

  async function sync(key: string, signal: AbortSignal): Promise<void> {
    const csr = informers.certificateSigningRequests.get(key);
    if (csr === undefined || !isToBeSigned(csr)) return;
    const status = issue(csr);
    if (status === undefined) return;
    await replaceIfCurrent(
      client,
      { resource: CERTIFICATE_SIGNING_REQUESTS, name: key, subresource: "status" },
      { ...csr, status },
      signal,
    );
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
