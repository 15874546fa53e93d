import { createHash, X509Certificate } from "node:crypto";

import { SetupError } from "../../lib/errors.ts";

/** All certificates of a PEM text. */
export function certificatesIn(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}

/** `sha256:HEX` of a certificate's SubjectPublicKeyInfo (RFC 7469), as `kubeadm join` takes it. */
export function publicKeyHash(certificate: X509Certificate): string {
  const info = certificate.publicKey.export({ type: "spki", format: "der" });
  return `sha256:${createHash("sha256").update(info).digest("hex")}`;
}

/**
 * Reads the hashes of --ca-hash.
 *
 * @throws {SetupError} when one is not `sha256:` and 64 hexadecimal digits.
 */
export function parseHashes(texts: readonly string[]): string[] {
  return texts.map((text) => {
    const hash = text.trim().toLowerCase();
    if (/^sha256:[0-9a-f]{64}$/.test(hash)) return hash;
    throw new SetupError(
      `--ca-hash ${text}: must be sha256: and 64 hexadecimal digits; "remora token create" prints it`,
    );
  });
}
