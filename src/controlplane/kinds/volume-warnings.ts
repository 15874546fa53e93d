import { formatQuantity } from "../../api/quantity.ts";
import type { JsonObject } from "../types.ts";
import { dig, record, records, text } from "./access.ts";
import { at } from "./field-error.ts";
import { quantityOf } from "./quantity.ts";

const nanosPerUnit = 1_000_000_000n;

const deprecatedVolumes: Readonly<Record<string, string>> = {
  photonPersistentDisk: "deprecated in v1.11, non-functional in v1.16+",
  gitRepo: "deprecated in v1.11, and disabled by default in v1.33+",
  scaleIO: "deprecated in v1.16, non-functional in v1.22+",
  flocker: "deprecated in v1.22, non-functional in v1.25+",
  storageos: "deprecated in v1.22, non-functional in v1.25+",
  quobyte: "deprecated in v1.22, non-functional in v1.25+",
  glusterfs: "deprecated in v1.25, non-functional in v1.26+",
  cephfs: "deprecated in v1.28, non-functional in v1.31+",
  rbd: "deprecated in v1.28, non-functional in v1.31+",
};

/** How messages spell volume sources whose field has another name. */
const volumeNames: Readonly<Record<string, string>> = { storageos: "storageOS" };

/** What the API warns of in the sizes that a claim asks for; `path` is its spec's. */
export function claimSizeWarnings(spec: unknown, path: string): string[] {
  return ["requests", "limits"].flatMap((list) => {
    const amount = quantityOf(dig(spec, "resources", list, "storage"));
    if (amount === undefined || amount.nanos % nanosPerUnit === 0n) return [];
    return [
      `${path}.resources.${list}[storage]: fractional byte value "${formatQuantity(amount)}" is invalid, must be an integer`,
    ];
  });
}

/** A file of a volume, and what it comes from where there are several sources. */
interface File {
  readonly path: string;
  readonly source: string;
}

function shownFile({ path, source }: File): string {
  return source === "" ? JSON.stringify(path) : `${JSON.stringify(path)} (${source})`;
}

function filesOf(items: unknown, source: string): File[] {
  return records(items).map((item) => ({ path: text(item["path"]), source }));
}

function projectedFiles(entry: Readonly<JsonObject>): File[] {
  const { configMap, secret, downwardAPI, serviceAccountToken, clusterTrustBundle } = entry;
  const name = (owner: unknown, key = "name"): string => JSON.stringify(text(record(owner)[key]));
  if (dig(configMap, "items") !== undefined)
    return filesOf(record(configMap)["items"], `ConfigMap ${name(configMap)}`);
  if (dig(secret, "items") !== undefined)
    return filesOf(record(secret)["items"], `Secret ${name(secret)}`);
  if (dig(downwardAPI, "items") !== undefined)
    return filesOf(record(downwardAPI)["items"], "DownwardAPI");
  if (serviceAccountToken !== undefined)
    return filesOf([serviceAccountToken], "ServiceAccountToken");
  if (clusterTrustBundle !== undefined) {
    const key = record(clusterTrustBundle)["name"] === undefined ? "signerName" : "name";
    return filesOf([clusterTrustBundle], `ClusterTrustBundle ${name(clusterTrustBundle, key)}`);
  }
  const certificate = record(entry["podCertificate"]);
  const places: readonly (readonly [string, string])[] = [
    ["certificateChainPath", "PodCertificate chain"],
    ["keyPath", "PodCertificate key"],
    ["credentialBundlePath", "PodCertificate credential bundle"],
  ];
  return places.flatMap(([key, source]) => {
    const path = text(certificate[key]);
    return path === "" ? [] : [{ path, source }];
  });
}

/** Pairs of files of which one is where the other, or a directory of it, is. */
function overlaps(files: readonly File[]): string[] {
  const out: string[] = [];
  const seen: File[] = [];
  for (const { path, source } of files) {
    const file = { path: path.replace(/\/+$/, ""), source };
    for (const other of file.path === "" ? [] : seen) {
      const [mine, theirs] = [`${file.path}/`, `${other.path}/`];
      const clash = other.path !== "" && (theirs.startsWith(mine) || mine.startsWith(theirs));
      if (clash) out.push(`${shownFile(file)} with ${shownFile(other)}`);
    }
    seen.push(file);
  }
  return out;
}

function overlapWarnings(volume: Readonly<JsonObject>): string[] {
  const { configMap, secret, downwardAPI, projected } = volume;
  const name = JSON.stringify(text(volume["name"]));
  const shown = (files: readonly File[], what: string): string[] =>
    overlaps(files).map((overlap) => `volume ${name} (${what}): overlapping paths: ${overlap}`);
  const map = JSON.stringify(text(record(configMap)["name"]));
  const secretName = JSON.stringify(text(record(secret)["secretName"]));
  const sources = records(record(projected)["sources"]);
  return [
    ...shown(filesOf(record(configMap)["items"], ""), `ConfigMap ${map}`),
    ...shown(filesOf(record(secret)["items"], ""), `Secret ${secretName}`),
    ...shown(filesOf(record(downwardAPI)["items"], ""), "DownwardAPI"),
    ...sources
      .filter((source) => Object.keys(source).length === 0)
      .map(() => `volume ${name} (Projected) has no sources provided`),
    ...shown(sources.flatMap(projectedFiles), "Projected"),
  ];
}

/** What the API warns of in the volumes of a pod spec at `path`. */
export function volumeWarnings(spec: Readonly<JsonObject>, path: string): string[] {
  const volumes = records(spec["volumes"]);
  const byType = volumes.flatMap((volume, index) => {
    const field = at(`${path}.volumes`, index);
    const template = `${field}.ephemeral.volumeClaimTemplate.spec`;
    return [
      ...Object.entries(deprecatedVolumes)
        .filter(([source]) => volume[source] !== undefined)
        .map(([source, message]) => `${field}.${volumeNames[source] ?? source}: ${message}`),
      ...claimSizeWarnings(dig(volume, "ephemeral", "volumeClaimTemplate", "spec"), template),
    ];
  });
  return [...byType, ...volumes.flatMap(overlapWarnings)];
}
