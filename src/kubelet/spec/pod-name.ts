import type { Pod } from "../../api/types.gen.ts";
import { RemoraError } from "../../lib/errors.ts";

/** `name_namespace(uid)`, how kubelet messages name a pod. */
export function podLabel(pod: Pod): string {
  const { name = "", namespace = "", uid = "" } = pod.metadata ?? {};
  return `${name}_${namespace}(${uid})`;
}

/** The pod asks for a host name that Linux cannot have. */
export class HostnameError extends RemoraError {
  readonly code = "REMORA_HOSTNAME";
}

export interface PodHostname {
  /** What `hostname` prints. */
  readonly hostname: string;
  /** First label, as /etc/hosts lists it. */
  readonly short: string;
  /** Domain below which the pod is known, empty without a subdomain. */
  readonly domain: string;
}

// sethostname(2) takes 64 bytes; the API limits labels to 63.
const maxLength = 63;
const maxFQDN = 64;

function truncate(name: string): string {
  return name.length <= maxLength ? name : name.slice(0, maxLength).replace(/[-.]+$/, "");
}

/**
 * Host name and domain of a pod.
 *
 * @throws {HostnameError} when `setHostnameAsFQDN` asks for more than 64 bytes.
 */
export function podHostname(pod: Pod, clusterDomain: string): PodHostname {
  const { spec } = pod;
  if (spec?.hostnameOverride !== undefined && spec.hostnameOverride !== "") {
    const name = truncate(spec.hostnameOverride);
    return { hostname: name, short: name, domain: "" };
  }
  const own = spec?.hostname ?? "";
  const short = truncate(own === "" ? (pod.metadata?.name ?? "") : own);
  const subdomain = spec?.subdomain ?? "";
  const domain =
    subdomain === "" ? "" : `${subdomain}.${pod.metadata?.namespace ?? ""}.svc.${clusterDomain}`;
  if (spec?.setHostnameAsFQDN !== true || domain === "") return { hostname: short, short, domain };
  const fqdn = `${short}.${domain}`;
  if (fqdn.length > maxFQDN) {
    throw new HostnameError(
      `failed to construct FQDN from pod hostname and cluster domain, FQDN ${fqdn} is too long (${maxFQDN} characters is the max, ${fqdn.length} characters requested)`,
    );
  }
  return { hostname: fqdn, short, domain };
}
