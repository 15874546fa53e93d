import type { X509Certificate } from "node:crypto";

import { Histogram, type Metric, renderMetrics, Values } from "../../lib/metrics-text.ts";

const hour = 3600;
const day = 24 * hour;

/** What rotation reports of one certificate. */
export interface RotationMetrics {
  /** The certificate that is in use from now on. */
  use(certificate: X509Certificate | undefined): void;
  /** One was replaced by another at `now`, milliseconds since the epoch. */
  replaced(old: X509Certificate, now: number): void;
  failed(): void;
  /** In the Prometheus text format. */
  text(now: number): string;
}

interface Names {
  readonly ttl: readonly [name: string, help: string];
  readonly errors: string;
  readonly rotation?: readonly [name: string, help: string];
}

/** Seconds until the end of a certificate, +Inf without one. */
function timeToLive(
  [name, help]: Names["ttl"],
  current: X509Certificate | undefined,
  now: number,
): Metric {
  const seconds =
    current === undefined ? "+Inf" : Math.trunc((current.validToDate.getTime() - now) / 1000);
  return {
    name,
    lines: () => [`# HELP ${name} ${help}`, `# TYPE ${name} gauge`, `${name} ${seconds}`],
  };
}

function rotationMetrics(names: Names): RotationMetrics {
  const errors = new Values(names.errors, "counter", "Counter of certificate renewal errors.");
  errors.set(0);
  const ages =
    names.rotation === undefined
      ? undefined
      : new Histogram(...names.rotation, [
          60,
          hour,
          4 * hour,
          day,
          7 * day,
          30 * day,
          90 * day,
          180 * day,
          360 * day,
          4 * 360 * day,
        ]);
  let current: X509Certificate | undefined;
  return {
    use: (certificate) => {
      current = certificate;
    },
    replaced: (old, now) => ages?.observe((now - old.validFromDate.getTime()) / 1000, {}),
    failed: () => errors.add(1),
    text: (now) =>
      renderMetrics([
        timeToLive(names.ttl, current, now),
        errors,
        ...(ages === undefined ? [] : [ages]),
      ]),
  };
}

/** The kubelet's metrics of its client certificate. */
export function clientCertificateMetrics(): RotationMetrics {
  return rotationMetrics({
    ttl: [
      "kubelet_certificate_manager_client_ttl_seconds",
      "Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF.",
    ],
    errors: "kubelet_certificate_manager_client_expiration_renew_errors",
  });
}

/** The kubelet's metrics of its serving certificate. */
export function servingCertificateMetrics(): RotationMetrics {
  return rotationMetrics({
    ttl: [
      "kubelet_certificate_manager_server_ttl_seconds",
      "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.",
    ],
    errors: "kubelet_server_expiration_renew_errors",
    rotation: [
      "kubelet_certificate_manager_server_rotation_seconds",
      "Histogram of the number of seconds the previous certificate lived before being rotated.",
    ],
  });
}
