import { readFile } from "node:fs/promises";
import { join } from "node:path";

import type { ApiClient } from "../../api/client.ts";
import type { NodeAddress } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import { nodeIPWish } from "../../kubelet/node/choose-node-ips.ts";
import type { TlsSource } from "../../kubelet/server/tls-source.ts";
import type { NodeView } from "../../kubelet/types.ts";
import { canonicalIP, ipFamily } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { HeldPair } from "./held-pair.ts";
import { PairStore, parsePair } from "./pair-store.ts";
import { type CertificateWish, servingWish } from "./request-certificate.ts";
import { CertificateRotation } from "./rotation.ts";
import { servingCertificateMetrics } from "./rotation-metrics.ts";
import { ensureSelfSigned, keepSelfSigned } from "./self-signed.ts";
import { isExpired } from "./validity.ts";
import { watchFiles } from "./watch-files.ts";

export interface ServingOptions {
  readonly config: Pick<
    AgentConfig,
    | "certDir"
    | "nodeIPs"
    | "nodeName"
    | "rootDir"
    | "serverTLSBootstrap"
    | "tlsCertFile"
    | "tlsPrivateKeyFile"
  >;
  /** Identity of the node; asks for the certificate. */
  readonly client: ApiClient;
  /** Whose addresses the certificate is for. */
  readonly node: Pick<NodeView, "hostIPs" | "node" | "subscribe">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

/** The certificate of port 10250, and what keeps it good. */
export interface ServingCertificate {
  readonly source: TlsSource;
  /** Renews or reloads it until `signal` aborts. */
  run(signal: AbortSignal): Promise<void>;
  /** In the Prometheus text format. */
  metrics(): string;
}

/** Directory of certificates that a node makes or gets. */
export function certDirOf({ certDir, rootDir }: Pick<AgentConfig, "certDir" | "rootDir">): string {
  return certDir ?? join(rootDir, "pki");
}

/**
 * What a serving certificate is to be asked for: names and addresses of the Node's status.
 *
 * @returns undefined before the node has an address: a name alone could be anybody's.
 */
export function servingWishOf(
  nodeName: string,
  addresses: readonly NodeAddress[],
): CertificateWish | undefined {
  const ips = addresses
    .filter(({ type, address }) => !type.endsWith("DNS") && ipFamily(address) !== undefined)
    .map(({ address }) => canonicalIP(address));
  if (ips.length === 0) return undefined;
  const names = addresses
    .filter(({ type, address }) => !type.endsWith("IP") && ipFamily(address) === undefined)
    .map(({ address }) => address)
    .filter((name) => name !== "");
  return servingWish(nodeName, [
    ...[...new Set(names)].toSorted(),
    ...[...new Set(ips)].toSorted(),
  ]);
}

async function readGiven(path: string, option: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new SetupError(
      `${option} "${path}" cannot be read (${errorMessage(error)}); set it to a PEM file`,
      { cause: error },
    );
  }
}

/** @throws {SetupError} they cannot be read, or do not fit. */
async function readGivenPair(
  config: ServingOptions["config"],
): Promise<{ cert: string; key: string }> {
  const { tlsCertFile, tlsPrivateKeyFile } = config;
  const [cert, key] = await Promise.all([
    readGiven(tlsCertFile, "tlsCertFile"),
    readGiven(tlsPrivateKeyFile, "tlsPrivateKeyFile"),
  ]);
  try {
    parsePair(cert, key);
  } catch (error) {
    throw new SetupError(
      `tlsCertFile "${tlsCertFile}" and tlsPrivateKeyFile "${tlsPrivateKeyFile}" are no certificate and its key (${errorMessage(error)}); correct one of them`,
      { cause: error },
    );
  }
  return { cert, key };
}

/** The files that the user gave: whoever renews them does so behind our back. */
async function fromFiles({ config, clock, logger }: ServingOptions): Promise<ServingCertificate> {
  const held = new HeldPair(await readGivenPair(config));
  let told = "";
  const reload = async (): Promise<void> => {
    try {
      if (held.set(await readGivenPair(config))) logger.log("info", "serving certificate reloaded");
      told = "";
    } catch (error) {
      // A half-written pair: the old one stays until the new one is whole.
      const message = errorMessage(error);
      logger.log(told === message ? "debug" : "warn", "serving certificate not reloaded", {
        error: message,
      });
      told = message;
    }
  };
  const paths = [config.tlsCertFile, config.tlsPrivateKeyFile];
  return {
    source: held,
    run: (signal) => watchFiles({ paths, onChange: reload, clock, logger }, signal),
    metrics: () => "",
  };
}

/** Host name and addresses of the node, as they are now. */
function ownNames({ config, node }: ServingOptions): readonly string[] {
  const now = node.hostIPs();
  return [config.nodeName, ...(now.length > 0 ? now : nodeIPWish(config.nodeIPs).fixed)];
}

async function selfSigned(options: ServingOptions): Promise<ServingCertificate> {
  const { config, clock, logger, node } = options;
  const certDir = certDirOf(config);
  const names = (): readonly string[] => ownNames(options);
  const held = new HeldPair(await ensureSelfSigned(certDir, names(), clock.now()));
  const use = (pair: { readonly cert: string; readonly key: string }): void => {
    if (held.set(pair)) logger.log("info", "serving certificate made anew");
  };
  const onNamesChange = (listener: () => void): (() => void) => node.subscribe(listener);
  const keep = { certDir, names, onNamesChange, use, clock, logger };
  return {
    source: held,
    run: (signal) => keepSelfSigned(keep, signal),
    metrics: () => "",
  };
}

/**
 * Issued by the cluster. Until it is, the self-signed one is shown, where the kubelet refuses handshakes: an API server
 * that verifies kubelets takes neither, and one that does not can reach the node at once.
 */
async function issued(options: ServingOptions): Promise<ServingCertificate> {
  const { config, client, node, clock, logger, random } = options;
  const certDir = certDirOf(config);
  const store = new PairStore(certDir, "kubelet-server");
  const names = (): readonly string[] => ownNames(options);
  const stored = await store.read().catch((error: unknown) => {
    logger.log("warn", "serving certificate is damaged, asking for another", {
      error: errorMessage(error),
    });
    return undefined;
  });
  const good =
    stored === undefined || isExpired(stored.certificate, clock.now()) ? undefined : stored.pem;
  let isIssued = good !== undefined;
  const held = new HeldPair(
    good === undefined
      ? await ensureSelfSigned(certDir, names(), clock.now())
      : { cert: good, key: good },
  );
  const metrics = servingCertificateMetrics();
  const rotation = new CertificateRotation({
    certificate: "serving",
    store,
    replacesDamaged: true,
    wish: () => servingWishOf(config.nodeName, node.node()?.status?.addresses ?? []),
    onWishChange: (listener) => node.subscribe(listener),
    connect: () => Promise.resolve({ client, close: () => Promise.resolve() }),
    onReturn: (listener) => client.onReturn?.(listener) ?? (() => undefined),
    onIssued: ({ pem }) => {
      isIssued = true;
      held.set({ cert: pem, key: pem });
    },
    metrics,
    clock,
    logger,
    random,
  });
  const use = (pair: { readonly cert: string; readonly key: string }): void => {
    if (!isIssued) held.set(pair);
  };
  return {
    source: held,
    run: async (signal) => {
      const spare = keepSelfSigned({ certDir, names, use, clock, logger }, signal);
      await Promise.all([rotation.run(signal), spare]);
    },
    metrics: () => metrics.text(clock.now()),
  };
}

/**
 * The certificate of port 10250: the files that are given (KubeletConfiguration tlsCertFile), one that the cluster issues
 * (serverTLSBootstrap), or a self-signed one.
 *
 * @throws {SetupError} given files cannot be read or do not fit.
 */
export async function openServingCertificate(options: ServingOptions): Promise<ServingCertificate> {
  const { config } = options;
  if (config.tlsCertFile !== "") return fromFiles(options);
  return config.serverTLSBootstrap === true ? issued(options) : selfSigned(options);
}
