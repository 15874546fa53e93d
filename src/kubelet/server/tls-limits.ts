import { getCiphers, type SecureContextOptions } from "node:tls";

import type { AgentConfig } from "../../config/types.ts";
import { SetupError } from "../../lib/errors.ts";

/** Cannot be chosen, in KubeletConfiguration as in TLS 1.3 itself. */
const tls13Suites = [
  "TLS_AES_128_GCM_SHA256",
  "TLS_AES_256_GCM_SHA384",
  "TLS_CHACHA20_POLY1305_SHA256",
];

/** Names that KubeletConfiguration knows (IANA's, and two old ones), and those of the TLS library. */
const suites: Readonly<Record<string, string>> = {
  TLS_RSA_WITH_RC4_128_SHA: "RC4-SHA",
  TLS_RSA_WITH_3DES_EDE_CBC_SHA: "DES-CBC3-SHA",
  TLS_RSA_WITH_AES_128_CBC_SHA: "AES128-SHA",
  TLS_RSA_WITH_AES_256_CBC_SHA: "AES256-SHA",
  TLS_RSA_WITH_AES_128_CBC_SHA256: "AES128-SHA256",
  TLS_RSA_WITH_AES_128_GCM_SHA256: "AES128-GCM-SHA256",
  TLS_RSA_WITH_AES_256_GCM_SHA384: "AES256-GCM-SHA384",
  TLS_ECDHE_ECDSA_WITH_RC4_128_SHA: "ECDHE-ECDSA-RC4-SHA",
  TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA: "ECDHE-ECDSA-AES128-SHA",
  TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA: "ECDHE-ECDSA-AES256-SHA",
  TLS_ECDHE_RSA_WITH_RC4_128_SHA: "ECDHE-RSA-RC4-SHA",
  TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA: "ECDHE-RSA-DES-CBC3-SHA",
  TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA: "ECDHE-RSA-AES128-SHA",
  TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA: "ECDHE-RSA-AES256-SHA",
  TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256: "ECDHE-ECDSA-AES128-SHA256",
  TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256: "ECDHE-RSA-AES128-SHA256",
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: "ECDHE-RSA-AES128-GCM-SHA256",
  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: "ECDHE-ECDSA-AES128-GCM-SHA256",
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: "ECDHE-RSA-AES256-GCM-SHA384",
  TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: "ECDHE-ECDSA-AES256-GCM-SHA384",
  TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305: "ECDHE-RSA-CHACHA20-POLY1305",
  TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-RSA-CHACHA20-POLY1305",
  TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305: "ECDHE-ECDSA-CHACHA20-POLY1305",
  TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
};

/** Numbers of the TLS registry's supported groups. */
const groups: Readonly<Record<number, string>> = {
  23: "P-256",
  24: "P-384",
  25: "P-521",
  29: "X25519",
  4587: "SecP256r1MLKEM768",
  4588: "X25519MLKEM768",
  4589: "SecP384r1MLKEM1024",
};

export type TlsLimits = Pick<SecureContextOptions, "minVersion" | "ciphers" | "ecdhCurve">;

/**
 * What of TLS port 10250 speaks.
 *
 * @throws {SetupError} naming the field and a value that this program's TLS library does not have.
 */
export function tlsLimits(
  config: Pick<AgentConfig, "tlsMinVersion" | "tlsCipherSuites" | "tlsCurvePreferences">,
): TlsLimits {
  const { tlsCipherSuites = [], tlsCurvePreferences = [], tlsMinVersion } = config;
  return {
    minVersion: tlsMinVersion === "VersionTLS13" ? "TLSv1.3" : "TLSv1.2",
    ...(tlsCipherSuites.length === 0
      ? {}
      : { ciphers: [...tls13Suites, ...tlsCipherSuites.flatMap(openSSLName)].join(":") }),
    ...(tlsCurvePreferences.length === 0
      ? {}
      : { ecdhCurve: tlsCurvePreferences.map(groupName).join(":") }),
  };
}

function openSSLName(suite: string): string[] {
  if (tls13Suites.includes(suite)) return [];
  const name = suites[suite];
  if (name === undefined || !getCiphers().includes(name.toLowerCase())) {
    throw new SetupError(
      `tlsCipherSuites: Cipher suite ${suite} not supported or doesn't exist; remove it from the list`,
    );
  }
  return [name];
}

function groupName(id: number): string {
  const name = groups[id];
  if (name === undefined) {
    throw new SetupError(
      `tlsCurvePreferences: ${id} is no key exchange this agent has; choose among ${Object.keys(groups).join(", ")}`,
    );
  }
  return name;
}
