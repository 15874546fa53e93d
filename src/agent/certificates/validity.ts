import type { X509Certificate } from "node:crypto";

import { canonicalIP, ipFamily } from "../../lib/cidr.ts";

/** Common name of a certificate; "" when it has none. */
export function commonName(certificate: X509Certificate): string {
  const line = certificate.subject.split("\n").find((each) => each.startsWith("CN="));
  return line?.slice(3) ?? "";
}

/** DNS names and addresses in a certificate, addresses in canonical form. */
export function alternativeNames(certificate: X509Certificate): ReadonlySet<string> {
  const entries = (certificate.subjectAltName ?? "").split(", ").filter((entry) => entry !== "");
  return new Set(
    entries.map((entry) => {
      const value = entry.slice(entry.indexOf(":") + 1);
      return ipFamily(value) === undefined ? value : canonicalIP(value);
    }),
  );
}

/** @param now Milliseconds since the epoch. */
export function isExpired(certificate: X509Certificate, now: number): boolean {
  return certificate.validToDate.getTime() <= now;
}

/**
 * When a certificate is to be replaced: at 70 to 90 % of its life, as the kubelet does, so that nodes that joined
 * together do not ask together.
 *
 * @param random In [0, 1).
 * @returns Milliseconds since the epoch.
 */
export function renewalTime(certificate: X509Certificate, random: number): number {
  const from = certificate.validFromDate.getTime();
  const lifeMs = certificate.validToDate.getTime() - from;
  return from + lifeMs * (0.7 + 0.2 * random);
}

/** What a certificate should say. */
export interface WantedNames {
  readonly commonName: string;
  /** DNS names and canonical addresses. */
  readonly alternativeNames: readonly string[];
}

export type RotationReason = "missing" | "expired" | "due" | "subject" | "names";

/**
 * Why a certificate is to be replaced now; undefined when it is good. A name or address that it has and that is no
 * longer wanted is no reason: an interface that flaps must not cost a request each time.
 *
 * @param deadline {@link renewalTime}.
 */
export function rotationReason(
  certificate: X509Certificate | undefined,
  wanted: WantedNames,
  { deadline, now }: { readonly deadline: number; readonly now: number },
): RotationReason | undefined {
  if (certificate === undefined) return "missing";
  if (isExpired(certificate, now)) return "expired";
  if (now >= deadline) return "due";
  if (commonName(certificate) !== wanted.commonName) return "subject";
  const present = alternativeNames(certificate);
  return wanted.alternativeNames.every((name) => present.has(name)) ? undefined : "names";
}

/** 2 s, doubling up to 32 s, up to a tenth longer, as the kubelet's. */
export function retryDelayMs(failures: number, random: number): number {
  return Math.min(1000 * 2 ** Math.min(failures, 5), 32_000) * (1 + random / 10);
}
