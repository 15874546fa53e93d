import { createHash } from "node:crypto";

import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import { createInformer } from "../../api/informer.ts";
import type { Informer } from "../../api/informer-types.ts";
import { collectionPath } from "../../api/resource.ts";
import { CLUSTER_TRUST_BUNDLES } from "../../api/resources.ts";
import { matchesSelector } from "../../api/selectors.ts";
import type { LabelSelector } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { asRecord, asString, optionalString, stringMap } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import { VolumeError } from "../volumes/payload.ts";

interface TrustBundle {
  /** Empty for a bundle of no signer. */
  readonly signerName: string;
  readonly labels: Readonly<Record<string, string>>;
  /** DER of each certificate, base64. */
  readonly anchors: readonly string[];
}

/** Which bundles a `clusterTrustBundle` source shows. */
export interface TrustBundleSource {
  readonly name?: string | undefined;
  readonly signerName?: string | undefined;
  /** Absent: no bundle at all; empty: all of the signer. */
  readonly labelSelector?: LabelSelector | undefined;
  readonly optional?: boolean | undefined;
}

export interface ClusterTrustBundlesOptions {
  readonly client: ApiClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly signal: AbortSignal;
  /** What this pod was shown may have changed. */
  readonly wake: (uid: string) => void;
}

const syncPatienceMs = 10_000;
/** PEM (RFC 7468); the API server has checked that there is nothing but certificates without headers. */
const certificate = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/g;
const lineLength = 64;

function trustBundle(value: unknown): TrustBundle {
  const object = asRecord(value, "$");
  const metadata = asRecord(object["metadata"], "$.metadata");
  const spec = asRecord(object["spec"], "$.spec");
  const text = asString(spec["trustBundle"], "$.spec.trustBundle");
  return {
    signerName: optionalString(spec["signerName"]) ?? "",
    labels: stringMap(metadata["labels"]),
    anchors: [...text.matchAll(certificate)].map(([, body = ""]) => body.replace(/\s+/g, "")),
  };
}

function pem(anchor: string): string {
  const lines: string[] = [];
  for (let at = 0; at < anchor.length; at += lineLength) {
    lines.push(anchor.slice(at, at + lineLength));
  }
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

/**
 * All trust anchors once. Their order stays while the process lives and is another one in the next, so that nobody comes
 * to rely on it.
 */
export function normalizedAnchors(anchors: Iterable<string>, seed: string): string {
  const rank = (anchor: string): string =>
    createHash("sha256").update(seed).update(anchor).digest("hex");
  const ranked = [...new Set(anchors)].map((anchor) => ({ anchor, rank: rank(anchor) }));
  const sorted = ranked.toSorted((a, b) => (a.rank < b.rank ? -1 : 1));
  return sorted.map(({ anchor }) => pem(anchor)).join("");
}

/** ClusterTrustBundles for projected volumes. One watch of all of them, from the first time that a pod asks. */
export class ClusterTrustBundles {
  readonly #options: ClusterTrustBundlesOptions;
  readonly #users = new Set<string>();
  readonly #seed: string;
  #informer: Promise<Informer<TrustBundle>> | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(options: ClusterTrustBundlesOptions) {
    this.#options = options;
    this.#seed = String(options.random());
  }

  /**
   * The trust anchors as PEM; empty when there are none and the source is optional.
   *
   * @throws {VolumeError} when there are none; ApiError as the server answers.
   */
  async anchors(uid: string, source: TrustBundleSource, signal: AbortSignal): Promise<Buffer> {
    this.#users.add(uid);
    const { name, optional = false, signerName } = source;
    if (name === undefined && signerName === undefined) {
      throw new VolumeError(
        "ClusterTrustBundle projection requires either name or signerName to be set",
      );
    }
    const informer = await this.#synced(signal);
    const found =
      name === undefined
        ? ofSigner(informer.values(), source)
        : [informer.get(name)].filter((bundle) => bundle !== undefined);
    if (found.length === 0 && !optional) throw new VolumeError(noneFound(name));
    const anchors = found.flatMap((bundle) => bundle.anchors);
    return Buffer.from(normalizedAnchors(anchors, this.#seed), "utf8");
  }

  /** The pod needs no word of changes any more. */
  forget(uid: string): void {
    this.#users.delete(uid);
  }

  /** Resolves when the watch has ended. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #synced(signal: AbortSignal): Promise<Informer<TrustBundle>> {
    const asked = (this.#informer ??= this.#start());
    let informer: Informer<TrustBundle>;
    try {
      informer = await asked;
    } catch (error) {
      // The next pod asks again.
      if (this.#informer === asked) this.#informer = undefined;
      throw error;
    }
    if (informer.synced) return informer;
    const patience = AbortSignal.any([signal, AbortSignal.timeout(syncPatienceMs)]);
    await informer.whenSynced(patience).catch(() => undefined);
    signal.throwIfAborted();
    if (!informer.synced) throw new VolumeError("ClusterTrustBundle informer has not yet synced");
    return informer;
  }

  async #start(): Promise<Informer<TrustBundle>> {
    const { client, clock, logger, random, signal } = this.#options;
    try {
      const path = collectionPath(CLUSTER_TRUST_BUNDLES);
      await client.request({ method: "GET", path, query: { limit: 1 }, signal });
    } catch (error) {
      if (!isNotFound(error)) throw error;
      const text = "ClusterTrustBundle projection is not supported: the API server has none";
      throw new VolumeError(text, { cause: error });
    }
    const informer = createInformer<TrustBundle>({
      client,
      resource: CLUSTER_TRUST_BUNDLES,
      project: trustBundle,
      clock,
      logger,
      random,
    });
    informer.subscribe(() => {
      if (informer.synced) for (const uid of this.#users) this.#options.wake(uid);
    });
    this.#running = informer.run(signal);
    return informer;
  }
}

function ofSigner(
  bundles: Iterable<TrustBundle>,
  { labelSelector, signerName }: TrustBundleSource,
): readonly TrustBundle[] {
  return [...bundles].filter(
    (bundle) => bundle.signerName === signerName && matchesSelector(labelSelector, bundle.labels),
  );
}

function noneFound(name: string | undefined): string {
  return name === undefined
    ? "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    : `while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io "${name}" not found`;
}
