import type { CertificateSigningRequest } from "../../../src/api/types.gen.ts";
import {
  certificationRequest,
  type CertificationRequest,
  parseCertificationRequest,
} from "../../../src/lib/pkcs10.ts";
import { newPrivateKey } from "../../../src/lib/x509.ts";

/** Made once: keys cost time and differ in nothing. */
const key = newPrivateKey();

/** PEM of a request of node n1, or of somebody else. */
export function requestPEM(
  commonName = "system:node:n1",
  organizations: readonly string[] = ["system:nodes"],
  alternativeNames: readonly string[] = [],
): string {
  return certificationRequest(key, { subject: { commonName, organizations }, alternativeNames });
}

export function parsed(...args: Parameters<typeof requestPEM>): CertificationRequest {
  return parseCertificationRequest(requestPEM(...args));
}

type Usages = NonNullable<CertificateSigningRequest["spec"]["usages"]>;

/** A request as it is stored. */
export function csr(
  signerName: string,
  usages: Usages,
  pem: string,
  spec: Partial<CertificateSigningRequest["spec"]> = {},
): CertificateSigningRequest {
  return {
    metadata: { name: "x", creationTimestamp: "2026-01-01T00:00:00Z" },
    spec: { request: Buffer.from(pem).toString("base64"), signerName, usages, ...spec },
  };
}
