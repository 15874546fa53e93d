import { errorMessage } from "../../lib/errors.ts";
import { parseCertificationRequest } from "../../lib/pkcs10.ts";
import { record, semanticEqual, text } from "../kinds/access.ts";
import { requestPEM } from "../kinds/certificate-signing-request-validation.ts";
import { forbidden } from "../status-error.ts";
import type { AdmissionAttributes, AdmissionPlugin, Authorizer } from "../types.ts";

const group = "certificates.k8s.io";
const clientSigner = "kubernetes.io/kube-apiserver-client";

function isRequest({ kind }: AdmissionAttributes): boolean {
  return kind.group === group && kind.plural === "certificatesigningrequests";
}

/** The name of one signer, or of all of its domain, is what rights are given for. */
function mayUseSigner(
  authorizer: Authorizer,
  attributes: AdmissionAttributes,
  verb: "approve" | "sign",
  signerName: string,
): boolean {
  const allowed = (name: string): boolean =>
    authorizer.authorize({
      user: attributes.context.user,
      verb,
      group,
      version: "*",
      resource: "signers",
      subresource: "",
      namespace: "",
      name,
      path: "",
      fieldSelector: "",
    }).allowed;
  return allowed(signerName) || allowed(`${signerName.split("/")[0] ?? ""}/*`);
}

/** The stored signer: what an update says about it does not count. */
function signerOf({ oldObject }: AdmissionAttributes): string {
  return text(record(oldObject?.["spec"])["signerName"]);
}

/** CertificateApproval: who approves needs `approve` on the signer. */
function createApprovalCheck(authorizer: Authorizer): AdmissionPlugin {
  return {
    name: "CertificateApproval",
    validate(attributes) {
      const { kind, name, operation, subresource } = attributes;
      if (!isRequest(attributes) || operation !== "UPDATE" || subresource !== "approval") return;
      const signer = signerOf(attributes);
      if (mayUseSigner(authorizer, attributes, "approve", signer)) return;
      throw forbidden(
        kind,
        name,
        `user not permitted to approve requests with signerName ${JSON.stringify(signer)}`,
      );
    },
  };
}

/** CertificateSigning: who writes certificate or conditions needs `sign` on the signer. */
function createSigningCheck(authorizer: Authorizer): AdmissionPlugin {
  return {
    name: "CertificateSigning",
    validate(attributes) {
      const { kind, name, operation, subresource, object, oldObject } = attributes;
      if (!isRequest(attributes) || operation !== "UPDATE" || subresource !== "status") return;
      const now = record(object?.["status"]);
      const before = record(oldObject?.["status"]);
      const same = (key: string): boolean => semanticEqual(now[key], before[key]);
      if (same("certificate") && same("conditions")) return;
      const signer = signerOf(attributes);
      if (mayUseSigner(authorizer, attributes, "sign", signer)) return;
      throw forbidden(
        kind,
        name,
        `user not permitted to sign requests with signerName ${JSON.stringify(signer)}`,
      );
    },
  };
}

/** CertificateSubjectRestriction: nobody gets into system:masters by a request. */
const subjectRestriction: AdmissionPlugin = {
  name: "CertificateSubjectRestriction",
  validate(attributes) {
    const { kind, name, operation, object, subresource } = attributes;
    if (!isRequest(attributes) || operation !== "CREATE" || subresource !== undefined) return;
    if (object === undefined || text(record(object["spec"])["signerName"]) !== clientSigner) return;
    let organizations: readonly string[];
    try {
      ({ organizations } = parseCertificationRequest(requestPEM(object)));
    } catch (error) {
      throw forbidden(kind, name, `failed to parse CSR: ${errorMessage(error)}`);
    }
    if (!organizations.includes("system:masters")) return;
    throw forbidden(
      kind,
      name,
      `use of ${clientSigner} signer with system:masters group is not allowed`,
    );
  },
};

/** The checks of certificate signing requests. */
export function createCertificateChecks(authorizer: Authorizer): readonly AdmissionPlugin[] {
  return [createApprovalCheck(authorizer), createSigningCheck(authorizer), subjectRestriction];
}
