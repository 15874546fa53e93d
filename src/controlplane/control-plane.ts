import { randomUUID } from "node:crypto";
import { chmod, mkdir } from "node:fs/promises";
import { arch } from "node:os";
import { join } from "node:path";

import { cidrAddress, ipFamily } from "../lib/cidr.ts";
import type { Clock } from "../lib/clock.ts";
import { readListeningSockets } from "../lib/listening-sockets.ts";
import type { Logger } from "../lib/log.ts";
import { createAdmission } from "./admission/admission.ts";
import { createAuthenticator, userOfToken } from "./auth/authenticator.ts";
import type { ControlPlaneAuthorizer } from "./auth/authorizer.ts";
import { createAuthorizer } from "./auth/authorizer.ts";
import { userOfBootstrapToken } from "./auth/bootstrap-tokens.ts";
import { ServiceAccountTokens } from "./auth/tokens.ts";
import { bootstrapCluster } from "./bootstrap.ts";
import { createControllers } from "./controllers/controllers.ts";
import { createApiHandler } from "./http/api-handler.ts";
import type { ApiHandler } from "./http/call.ts";
import type { VersionInfo } from "./http/plain-paths.ts";
import type { KubeletClient } from "./http/node-proxy.ts";
import type { HttpServer, HttpServerOptions } from "./http/server.ts";
import { startHttpServer } from "./http/server.ts";
import { createInProcessClient } from "./in-process-client.ts";
import { serverUser, userOf } from "./identities.ts";
import { publishJoinConfiguration } from "./join-configuration.ts";
import {
  CurrentAddresses,
  endpointAddress,
  type MachineAddresses,
  sameNames,
  serverAddress,
} from "./machine-addresses.ts";
import { createKinds } from "./kinds/kinds.ts";
import type { RulesReader } from "./kinds/reviews.ts";
import type { PKI } from "./pki/ensure-pki.ts";
import { ensurePKI } from "./pki/ensure-pki.ts";
import { PKIRenewal } from "./pki/renewal.ts";
import { type Networks, nodePrefixes, parseNetworks } from "./networks.ts";
import type { ObjectRegistry } from "./registry/create-registry.ts";
import { writeKubeconfigs } from "./own-kubeconfigs.ts";
import { createRegistry } from "./registry/create-registry.ts";
import { openStore } from "./store/open-store.ts";
import type { Store } from "./store/store.ts";
import { tokenSigner } from "./token-signer.ts";
import type { UserInfo } from "./types.ts";

export interface ControlPlaneOptions {
  /** Everything the control plane keeps: certificates, kubeconfigs, the store. Made with mode 0700. */
  readonly dataDir: string;
  /** Address the API server listens on; `0.0.0.0` for all, of both families. */
  readonly bindAddress: string;
  /** Usually 6443; 0 = any free port. */
  readonly port: number;
  /** A socket that is bound to that place already. */
  readonly listenFd?: number;
  /**
   * Where pods and other machines reach the API server, for good; the endpoint of `kubernetes.default`. Default: what
   * `addresses`, or else `nodeIPs`, say.
   */
  readonly advertiseAddress?: string;
  /** Networks of cluster IPs, one of each family, the primary one first: 10.96.0.0/16, fd00:96::/112. */
  readonly serviceCIDRs: readonly string[];
  /** Networks of pods, of the same families: 10.244.0.0/16, fd00:244::/56; each node gets a /24 and a /64. */
  readonly clusterCIDRs: readonly string[];
  readonly nodeName: string;
  readonly nodeIPs: readonly string[];
  /** Whether the kubelet of `nodeName` answers on this machine's loopback address. Default: no. */
  readonly nodeOnLoopback?: boolean;
  /** Addresses of this machine at the start. Default: `nodeIPs`, and no others. */
  readonly addresses?: MachineAddresses;
  /** What `/version` says; default `v1.36.2+remora`. */
  readonly gitVersion?: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** In [0, 1). */
  readonly random: () => number;
}

/** Where the control plane can be reached and with what. All are paths, except `url`. */
export interface ControlPlaneFiles {
  readonly url: string;
  readonly adminKubeconfig: string;
  readonly nodeKubeconfig: string;
  readonly proxyKubeconfig: string;
  readonly clientCA: string;
  readonly kubeletCert: string;
  readonly kubeletKey: string;
}

export interface ControlPlane {
  readonly files: ControlPlaneFiles;
  readonly port: number;
  /** Settles when everything has ended: after `close` or the signal's abort; rejects when a part failed for good. */
  readonly done: Promise<void>;
  /**
   * Tells it that this machine has other addresses: the API server's and the node's certificates are made anew where they
   * have to name others, and open connections live on; the endpoint of `kubernetes.default` and what machines that join
   * read follow. Resolves when certificates are in use. Never rejects.
   */
  setAddresses(addresses: MachineAddresses): Promise<void>;
  /** Stops everything and closes the store. */
  close(): Promise<void>;
}

const expiryMs = 60_000;
const issuer = "https://kubernetes.default.svc.cluster.local";
const nameCharacters = "bcdfghjklmnpqrstvwxz2456789";

function gitVersionOf(options: ControlPlaneOptions): string {
  return options.gitVersion ?? "v1.36.2+remora";
}

function versionInfo(gitVersion: string): VersionInfo {
  const [, major = "1", minor = "36"] = /^v(\d+)\.(\d+)/.exec(gitVersion) ?? [];
  return {
    major,
    minor,
    gitVersion,
    gitCommit: "",
    gitTreeState: "clean",
    buildDate: "1970-01-01T00:00:00Z",
    goVersion: "",
    compiler: "node",
    platform: `linux/${arch() === "x64" ? "amd64" : arch()}`,
  };
}

/** The rules that `kubectl auth can-i --list` shows. */
function rulesReader(authorizer: ControlPlaneAuthorizer): RulesReader {
  return {
    rulesFor: (user, namespace) => {
      const rules = authorizer.rulesFor(user, namespace);
      return {
        resourceRules: rules
          .filter(({ resources }) => resources.length > 0)
          .map(({ verbs, apiGroups, resources, resourceNames }) => ({
            verbs,
            apiGroups,
            resources,
            ...(resourceNames.length === 0 ? {} : { resourceNames }),
          })),
        nonResourceRules: rules
          .filter(({ nonResourceURLs }) => nonResourceURLs.length > 0)
          .map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs })),
      };
    },
  };
}

interface Server {
  readonly registry: ObjectRegistry;
  readonly handler: ApiHandler;
  readonly authenticator: ReturnType<typeof createAuthenticator>;
  readonly authorizer: ControlPlaneAuthorizer;
}

function buildServer(options: ControlPlaneOptions, store: Store, pki: PKI): Server {
  const { clock, logger, random } = options;
  const now = (): number => clock.now();
  const source = {
    objects: store,
    subscribe: (listener: Parameters<Store["subscribe"]>[0]) => store.subscribe(listener),
  };
  const authorizer = createAuthorizer(source);
  const tokens = new ServiceAccountTokens({ privateKeyPEM: pki.serviceAccountKeyPEM, issuer });
  const otherToken = (token: string): UserInfo | undefined =>
    userOfBootstrapToken(token, store, now());
  const authentication = { objects: store, tokens, audiences: [issuer], now, otherToken };
  const authenticator = createAuthenticator(authentication);
  const randomInt = (bound: number): number => Math.floor(random() * bound);
  const kinds = createKinds({
    serviceCidrs: options.serviceCIDRs,
    nodePorts: { first: 30_000, last: 32_767 },
    randomInt,
    objects: () => store,
    signToken: tokenSigner(tokens, { audience: issuer, uuid: () => randomUUID() }),
    authorizer,
    authenticator,
    rules: rulesReader(authorizer),
    tokenUser: (token, audiences) =>
      userOfToken(token, {
        ...authentication,
        audiences,
        // Bootstrap tokens name no audience: they are for this server and for nobody else.
        otherToken: (other) => (audiences.includes(issuer) ? otherToken(other) : undefined),
      }),
  });
  const randomSuffix = (): string =>
    Array.from({ length: 5 }, () => nameCharacters[randomInt(nameCharacters.length)]).join("");
  const registry = createRegistry({
    store,
    kinds,
    admission: createAdmission({ randomSuffix, authorizer }),
    now,
    uuid: () => randomUUID(),
    random,
  });
  const handler = createApiHandler({
    kinds,
    registry,
    authorizer,
    clock,
    logger: logger.child({ component: "apiserver" }),
    random,
    version: versionInfo(gitVersionOf(options)),
    documents: { "/openid/v1/jwks": tokens.jwks() },
    ...(options.nodeOnLoopback === true ? { loopbackNode: options.nodeName } : {}),
  });
  return { registry, handler, authenticator, authorizer };
}

function loopbackFor(bindAddress: string): string {
  if (bindAddress === "0.0.0.0") return "127.0.0.1";
  if (bindAddress === "::") return "[::1]";
  return ipFamily(bindAddress) === "IPv6" ? `[${bindAddress}]` : bindAddress;
}

function urlOf(host: string, port: number): string {
  return `https://${ipFamily(host) === "IPv6" ? `[${host}]` : host}:${port}`;
}

/** What the API server shows its clients, and knows them by. */
function servingTls({ apiServer, caPEM }: PKI): HttpServerOptions["tls"] {
  return { cert: apiServer.certPEM, key: apiServer.keyPEM, clientCA: caPEM };
}

/** With what it calls nodes. */
function nodeClient({ kubeletClient, caPEM }: PKI): KubeletClient {
  return { cert: kubeletClient.certPEM, key: kubeletClient.keyPEM, nodeCA: caPEM };
}

/**
 * Starts the embedded control plane: store, API server, controllers and scheduler. Resolves when it answers.
 *
 * It touches nothing outside of `dataDir` and its port, and ends with `signal`.
 *
 * @throws {SetupError} the port is taken, the data directory belongs to another copy or a newer version, a certificate
 *   file is damaged, or the networks make no sense.
 */
export async function startControlPlane(
  options: ControlPlaneOptions,
  signal: AbortSignal,
): Promise<ControlPlane> {
  const { dataDir, clock, logger } = options;
  const networks = parseNetworks(options);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await chmod(dataDir, 0o700);
  const [serviceNetwork] = networks.service;
  const clusterIP = cidrAddress(serviceNetwork, 1);
  const addresses = new CurrentAddresses(
    options.addresses ?? { nodeIPs: options.nodeIPs, present: options.nodeIPs, local: [] },
  );
  const joinAddress = (): string | undefined =>
    options.advertiseAddress ?? serverAddress(addresses.current);
  const preparePKI = (): Promise<PKI> =>
    ensurePKI({
      dir: join(dataDir, "pki"),
      nodeName: options.nodeName,
      apiServerNames: [
        clusterIP,
        ...(options.advertiseAddress === undefined ? [] : [options.advertiseAddress]),
        options.nodeName,
        ...addresses.current.nodeIPs,
        // Clients came by any of them, and come back the same way when the node's own one has become another.
        ...addresses.current.present,
        ...(["0.0.0.0", "::"].includes(options.bindAddress) ? [] : [options.bindAddress]),
      ],
      nodeNames: ["127.0.0.1", "localhost", ...addresses.current.nodeIPs],
      now: clock.now(),
    });
  // The store first: it finds out whether another copy works on this directory.
  const store = openStore({
    path: join(dataDir, "store.db"),
    ephemeralPath: join(dataDir, "ephemeral.db"),
    isEphemeral: (resource) => resource === "events" || resource === "leases.coordination.k8s.io",
    now: () => clock.now(),
  });
  let listener: HttpServer | undefined;
  try {
    const pki = await preparePKI();
    const server = buildServer(options, store, pki);
    const own = { user: serverUser, dryRun: false, now: clock.now(), warn: () => undefined };
    bootstrapCluster(server.registry, own, { serviceNetwork, logger });
    const http = await startHttpServer({
      handler: server.handler,
      authenticator: server.authenticator,
      authorizer: server.authorizer,
      logger: logger.child({ component: "apiserver" }),
      address: options.bindAddress,
      port: options.port,
      fd: options.listenFd,
      tls: servingTls(pki),
      kubeletClient: nodeClient(pki),
    });
    listener = http;
    const { port } = http;
    const url = `https://${loopbackFor(options.bindAddress)}:${port}`;
    const publish = ({ caPEM }: PKI): void => {
      publishJoinConfiguration(
        server.registry,
        { ...own, now: clock.now() },
        {
          // Who is in no network is nowhere; the name may lead here from the next one.
          server: urlOf(joinAddress() ?? options.nodeName, port),
          caPEM,
          kubernetesVersion: gitVersionOf(options).replace(/\+.*$/, ""),
          // The cluster's name server has the tenth address, as everywhere.
          clusterDNS: cidrAddress(serviceNetwork, 10),
          clusterDomain: "cluster.local",
          podSubnet: options.clusterCIDRs.join(),
          serviceSubnet: options.serviceCIDRs.join(),
        },
      );
    };
    publish(pki);
    const kubeconfigs = await writeKubeconfigs(dataDir, url, pki);
    const renewal = new PKIRenewal({
      first: pki,
      ensure: preparePKI,
      use: async (renewed) => {
        http.setCertificate(servingTls(renewed));
        http.setKubeletClient(nodeClient(renewed));
        await writeKubeconfigs(dataDir, url, renewed);
        publish(renewed);
      },
      clock,
      logger,
    });
    const stop = new AbortController();
    const ending = AbortSignal.any([signal, stop.signal]);
    const running = runParts(
      { options, networks, clusterIP, addresses },
      { ...server, store, listener: http, renewal },
      ending,
    );
    return {
      files: {
        url,
        ...kubeconfigs,
        clientCA: pki.caFile,
        kubeletCert: pki.kubeletServing.certFile,
        kubeletKey: pki.kubeletServing.keyFile,
      },
      port,
      done: running,
      setAddresses: async (next) => {
        const before = addresses.current;
        if (!addresses.set(next) || ending.aborted || sameNames(before, next)) return;
        logger.log("info", "addresses of this machine changed", { ips: next.nodeIPs.join() });
        await renewal.refresh();
      },
      close: async () => {
        stop.abort();
        await running;
      },
    };
  } catch (error) {
    await listener?.close();
    store.close();
    throw error;
  }
}

interface Settings {
  readonly options: ControlPlaneOptions;
  readonly networks: Networks;
  readonly clusterIP: string;
  readonly addresses: CurrentAddresses;
}

async function runParts(
  settings: Settings,
  parts: Server & {
    readonly store: Store;
    readonly listener: HttpServer;
    readonly renewal: PKIRenewal;
  },
  signal: AbortSignal,
): Promise<void> {
  const { options, networks, clusterIP, addresses } = settings;
  const { clock, logger, random } = options;
  const { handler, listener, renewal, store } = parts;
  const controllers = createControllers({
    clientFor: (identity) => createInProcessClient({ handler, user: userOf(identity) }),
    podNetworks: networks.cluster.map((cidr) => {
      return { cidr, nodePrefix: nodePrefixes[cidr.family] };
    }),
    clusterCA: {
      current: () => renewal.current().caPEM,
      onChange: (listener) => renewal.onChange(listener),
    },
    signingAuthority: () => renewal.current().authority,
    kubernetesService: {
      clusterIP,
      advertiseAddress: () => {
        const { advertiseAddress: fixed } = options;
        const all =
          fixed === undefined ? addresses.current : { nodeIPs: [fixed], present: [], local: [] };
        return endpointAddress(all, networks.service[0].family);
      },
      onAddress: (changed) => addresses.onChange(changed),
      port: listener.port,
    },
    machine: {
      nodeName: options.nodeName,
      apiServerPort: listener.port,
      listeners: readListeningSockets,
    },
    clock,
    logger,
    random,
  });
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const housekeeping = Promise.all([
    every(expiryMs, clock, stop, () => {
      parts.registry.expire();
    }),
    renewal.run(stop),
  ]);
  try {
    await controllers.run(stop);
  } finally {
    failed.abort();
    await housekeeping;
    await listener.close();
    store.close();
  }
}

async function every(
  ms: number,
  clock: Clock,
  signal: AbortSignal,
  work: () => Promise<void> | void,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await clock.sleep(ms, signal);
    } catch {
      return;
    }
    await work();
  }
}
