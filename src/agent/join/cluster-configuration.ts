import type { ApiClient } from "../../api/client.ts";
import { ApiError, isForbidden, isNotFound } from "../../api/errors.ts";
import { getObject } from "../../api/objects.ts";
import { CONFIG_MAPS } from "../../api/resources.ts";
import { readYamlDocument, yamlRecord } from "../../api/yaml.ts";
import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { ipFamily, parseCidr } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, isAbort } from "../../lib/errors.ts";
import { isRecord, type JsonRecord, optionalString } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import { readIfThere } from "../../lib/read-if-there.ts";

/** What the cluster tells its nodes in kube-system; undefined where it says nothing. */
export interface ClusterConfiguration {
  /** KubeletConfiguration: name servers of pods. */
  readonly clusterDNS?: readonly string[];
  readonly clusterDomain?: string;
  /** KubeletConfiguration: the certificate of port 10250 is asked of the cluster. */
  readonly serverTLSBootstrap: boolean;
  /** KubeletConfiguration: the client certificate is renewed in time. */
  readonly rotateCertificates: boolean;
  /** ClusterConfiguration: networks of all pods. */
  readonly podCIDRs?: readonly string[];
  /** ClusterConfiguration: networks of Services. */
  readonly serviceCIDRs?: readonly string[];
}

const nothingKnown: ClusterConfiguration = { serverTLSBootstrap: false, rotateCertificates: true };

function isNetwork(text: string): boolean {
  try {
    parseCidr(text);
    return true;
  } catch {
    return false;
  }
}

/** The good entries of a comma separated list; undefined when there are none. */
function networks(value: unknown): readonly string[] | undefined {
  const all = (optionalString(value) ?? "").split(",").map((item) => item.trim());
  const good = all.filter((item) => item !== "" && isNetwork(item));
  return good.length === 0 ? undefined : good;
}

/** Reads both documents; what is missing or malformed counts as not said. */
export function readClusterConfiguration(
  kubelet: JsonRecord,
  cluster: JsonRecord,
): ClusterConfiguration {
  const { clusterDNS, clusterDomain } = kubelet;
  const servers = (Array.isArray(clusterDNS) ? clusterDNS : []).filter(
    (item) => typeof item === "string" && ipFamily(item) !== undefined,
  );
  const networking = isRecord(cluster["networking"]) ? cluster["networking"] : {};
  const domain = optionalString(clusterDomain) ?? optionalString(networking["dnsDomain"]);
  const podCIDRs = networks(networking["podSubnet"]);
  const serviceCIDRs = networks(networking["serviceSubnet"]);
  return {
    ...(servers.length === 0 ? {} : { clusterDNS: servers }),
    ...(domain === undefined || domain === "" ? {} : { clusterDomain: domain }),
    serverTLSBootstrap: kubelet["serverTLSBootstrap"] === true,
    rotateCertificates: kubelet["rotateCertificates"] !== false,
    ...(podCIDRs === undefined ? {} : { podCIDRs }),
    ...(serviceCIDRs === undefined ? {} : { serviceCIDRs }),
  };
}

interface Deps {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
}

async function document(
  { client, logger }: Deps,
  at: { readonly name: string; readonly key: string },
  signal: AbortSignal,
): Promise<JsonRecord> {
  const what = `kube-system/${at.name}`;
  try {
    const name = { namespace: "kube-system", name: at.name };
    const found = await getObject(client, CONFIG_MAPS, name, { signal, deadlineMs: 10_000 });
    return yamlRecord(await readYamlDocument(found.data?.[at.key] ?? "", what), what);
  } catch (error) {
    if (error instanceof ApiError && !isNotFound(error) && !isForbidden(error)) throw error;
    if (!(error instanceof ApiError) && isUnreadable(error)) {
      logger.log("warn", "cluster configuration is not YAML, flags and defaults are used", {
        configMap: what,
        error: errorMessage(error),
      });
      return {};
    }
    if (!(error instanceof ApiError)) throw error;
    logger.log("warn", "cluster configuration cannot be read, flags and defaults are used", {
      configMap: what,
      error: errorMessage(error),
    });
    return {};
  }
}

function isUnreadable(error: unknown): boolean {
  return error instanceof Error && error.name === "SetupError";
}

async function saved(path: string): Promise<ClusterConfiguration | undefined> {
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value)
      ? { ...nothingKnown, ...(value as Partial<ClusterConfiguration>) }
      : undefined;
  } catch {
    // It is only a copy.
    return undefined;
  }
}

const retryMs = 2000;

/**
 * What kube-system/kubelet-config and kube-system/kubeadm-config say, and a copy of it at `path` for starts while the
 * API server does not answer. Missing ConfigMaps are not fatal.
 */
export async function fetchClusterConfiguration(
  deps: Deps,
  path: string,
  signal: AbortSignal,
): Promise<ClusterConfiguration> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const configuration = readClusterConfiguration(
        await document(deps, { name: "kubelet-config", key: "kubelet" }, signal),
        await document(deps, { name: "kubeadm-config", key: "ClusterConfiguration" }, signal),
      );
      await writeFileAtomic(path, `${JSON.stringify(configuration)}\n`);
      return configuration;
    } catch (error) {
      if (signal.aborted || isAbort(error)) throw error;
      const copy = await saved(path);
      if (copy !== undefined) {
        deps.logger.log("warn", "cluster configuration is that of the last start", {
          error: errorMessage(error),
        });
        return copy;
      }
      const level = attempt === 1 ? "warn" : "debug";
      deps.logger.log(level, "cluster configuration not read, will retry", {
        error: errorMessage(error),
      });
      await deps.clock.sleep(retryMs, signal);
    }
  }
}
