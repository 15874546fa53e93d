import { mkdir, realpath } from "node:fs/promises";
import { join } from "node:path";

import type { ApiClient } from "../api/client.ts";
import { createHttpClient } from "../api/http-client.ts";
import { loadKubeconfig } from "../api/kubeconfig.ts";
import { Reachability } from "../api/reachability.ts";
import type { ClientRotation } from "./certificates/client-rotation.ts";
import { openServingCertificate } from "./certificates/serving-certificate.ts";
import { kubeProxyConfiguration } from "../config/proxy-configz.ts";
import type { AgentConfig } from "../config/types.ts";
import type { MachineAddresses } from "../controlplane/machine-addresses.ts";
import { createCsi } from "../kubelet/csi/csi.ts";
import {
  type CredentialProvider,
  loadCredentialProviders,
} from "../kubelet/images/credential-provider-config.ts";
import { detectNodeIPs } from "../kubelet/node/addresses.ts";
import { checkReservations } from "../kubelet/node/allocatable.ts";
import { systemHost } from "../kubelet/node/host.ts";
import { LocalVolumes } from "../kubelet/local-volumes/local-volumes.ts";
import { createNode } from "../kubelet/node/node.ts";
import { createPods } from "../kubelet/pods/pods.ts";
import { createNodeServer } from "../kubelet/server/server.ts";
import { dnsMetrics } from "../dns/metrics.ts";
import { NamespaceNames } from "../dns/namespace-names.ts";
import type { StepHook } from "../kubelet/steps.ts";
import { VolumesInUse } from "../kubelet/volumes/in-use.ts";
import { systemMounter } from "../kubelet/volumes/mounter.ts";
import { removeTree } from "../kubelet/volumes/remove-tree.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import { AddressWatch } from "../netfilter/address-watch.ts";
import { KubeletHints } from "../netfilter/kubelet-hints.ts";
import { DeletionWatch } from "../netfilter/monitor.ts";
import { damagesAccept } from "../netfilter/forward-accept.ts";
import { ensureNodeRoutes } from "../network/node-routes.ts";
import { damagesNetwork } from "../network/rules.ts";
import type { SettingsWitness } from "../network/sysctls.ts";
import { ProxyMetrics } from "../proxy/metrics.ts";
import { ownInformers } from "../proxy/own-informers.ts";
import { systemConntrackIO } from "../proxy/conntrack-settings.ts";
import { createProxy, missingBinding } from "../proxy/proxy.ts";
import { createDockerRuntime } from "../runtime/docker/runtime.ts";
import { connectRuntime } from "./connect-runtime.ts";
import type { DnsLife } from "./dns-life.ts";
import { dnsRunner } from "./dns-runner.ts";
import { EngineWatch } from "./engine-watch.ts";
import { createRecorders } from "./event-recorders.ts";
import { hostResolvConf } from "./host-resolv-conf.ts";
import { witnessedConntrack } from "./ledger/machine-settings.ts";
import { type LocalOptions, localRunner } from "./local/local-runner.ts";
import { RecentEvents } from "./local/recent-events.ts";
import { followMachine, followRoutes, whenAddressKnown } from "./machine-addresses.ts";
import { createMeasurements } from "./measurements.ts";
import { nodeRoutesRunner } from "./node-routes-runner.ts";
import { pemText } from "./pem.ts";
import { bridgeRoutes, createPodNetwork } from "./pod-network.ts";
import { isAddressOfMachine, podNetworkRunner, servicesOfNode } from "./pod-network-runner.ts";
import { random } from "./random.ts";
import { serviceHooks } from "./service-manager/hooks.ts";
import type { ServiceManager } from "./service-manager/service-manager.ts";
import { createServiceInformers } from "./service-informers.ts";
import { type Runner, superviseAll } from "./supervise.ts";
import { kubeletVersion, remoraVersion } from "./version.ts";

export interface RunAgentOptions {
  readonly config: AgentConfig;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly step: StepHook;
  /** The name server's thread; whoever made it ends it, after the agent has ended. */
  readonly dns: DnsLife;
  /** Who started us, told of our state. Default: nobody. */
  readonly service?: ServiceManager;
  /** The agent's own, for the credential providers of images. Default: nothing. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Renews the client certificate, where somebody wants that. */
  readonly clientRotation?: ClientRotation;
  /** Writes down which settings of the machine are changed. Default: nobody does. */
  readonly witness?: SettingsWitness;
  /** Called once when the node's Ready condition was first reported True. */
  readonly onReady: () => void;
  /** Told of this machine's addresses whenever they may have changed. */
  readonly onAddresses?: (addresses: MachineAddresses) => void;
  /** Where and as what the agent tells people of this machine how it is; default: it does not. */
  readonly local?: LocalOptions;
}

/** @throws {SetupError} */
async function credentialProviders({
  imageCredentialProviderBinDir: binDir = "",
  imageCredentialProviderConfig: path = "",
}: AgentConfig): Promise<readonly CredentialProvider[]> {
  return path === "" ? [] : loadCredentialProviders(path, binDir);
}

/** By the path that the mount table knows it by: it may be a link to where there is more room. */
async function madeRootDir({ rootDir }: Pick<AgentConfig, "rootDir">): Promise<string> {
  await mkdir(rootDir, { recursive: true, mode: 0o750 });
  return realpath(rootDir);
}

/**
 * The node agent: `remora run`, and the agent half of `remora up`. Ends when `signal` aborts; pods keep running.
 *
 * @throws {SetupError} when configuration, credentials or the machine do not allow a start.
 */
export async function runAgent(options: RunAgentOptions, signal: AbortSignal): Promise<void> {
  const { clock, logger, step } = options;
  const resolvConf = await hostResolvConf(options.config.resolvConf);
  const rootDir = await madeRootDir(options.config);
  const config: AgentConfig = { ...options.config, resolvConf, rootDir };
  const hooks = serviceHooks(options.service, config);
  const providers = await credentialProviders(config);
  const userAgent = `remora/${remoraVersion}`;
  const [nodeKubeconfig, proxyKubeconfig] = await Promise.all([
    loadKubeconfig(config.kubeconfig),
    loadKubeconfig(config.proxyKubeconfig),
  ]);
  const shared = { userAgent, clock, logger, reachability: new Reachability() };
  const client = createHttpClient({ kubeconfig: nodeKubeconfig, ...shared });
  // The heartbeat must not wait behind anything else, so it has a connection of its own.
  const leaseClient = createHttpClient({ kubeconfig: nodeKubeconfig, ...shared });
  const proxyClient = createHttpClient({ kubeconfig: proxyKubeconfig, ...shared });
  const watch = new AddressWatch({ clock, logger, random });
  const host = systemHost(() => watch.interfaces);
  checkReservations(await host.capacity(config.rootDir, config.maxPods), config);
  const clientCA =
    nodeKubeconfig.cluster.ca === undefined ? "" : await pemText(nodeKubeconfig.cluster.ca);

  let nodeAddresses: ReadonlySet<string> = new Set();
  let networkChanged = (): void => undefined;
  const network = createPodNetwork({
    config,
    bridge: {
      nodeServices: () =>
        servicesOfNode(nodeKubeconfig.cluster.server, config.kubeletPort, isAddressOfMachine),
      otherNodes: () => nodeAddresses.size > 0,
    },
    onChange: () => networkChanged(),
    ...(options.witness === undefined ? {} : { witness: options.witness }),
    clock,
    logger: logger.child({ component: "network" }),
  });
  try {
    const measurements = createMeasurements({
      config,
      runtime: createDockerRuntime({
        socketPath: config.dockerSocket,
        nodeName: config.nodeName,
        podLogsDir: config.podLogsDir,
        containerLogsDir: config.containerLogsDir,
        clock,
        logger: logger.child({ component: "runtime" }),
        random,
      }),
      pods: () => pods.view,
      clock,
      logger: logger.child({ component: "stats" }),
    });
    const { runtime } = measurements;
    const counted = (of: ApiClient): ApiClient =>
      measurements.client(of, nodeKubeconfig.cluster.server);
    const nodeClient = counted(client);
    const info = await connectRuntime(runtime, options, signal);
    for (const warning of info.warnings)
      logger.log("warn", "the host cannot do everything", { warning });
    const engine = new EngineWatch({ runtime, info, clock, logger });
    const recent = new RecentEvents(clock);
    const clients = { node: nodeClient, proxy: proxyClient };
    const told = { config, clients, recent, clock, logger, random };
    const { events, proxyEvents } = createRecorders(told);
    const inUse = new VolumesInUse();
    const node = createNode({
      config,
      client: nodeClient,
      leaseClient: counted(leaseClient),
      runtime: () => engine.info(),
      images: runtime,
      health: () => pods.view.healthy(),
      networkNotReady: () => network.notReadyReason,
      events,
      clock,
      logger: logger.child({ component: "node" }),
      random,
      version: kubeletVersion,
      inUse,
      host,
      ...hooks.node(options.onReady),
    });
    options.service?.begin(node.view);
    engine.subscribe(() => node.refresh());
    networkChanged = () => node.refresh();
    const csi = createCsi({
      config,
      client: nodeClient,
      node: node.view,
      inUse,
      clock,
      logger: logger.child({ component: "csi" }),
      random,
      step,
    });
    const pods = createPods({
      config,
      client: nodeClient,
      runtime: engine.observed(runtime),
      runtimeInfo: () => engine.last(),
      images: runtime,
      network,
      node: node.view,
      events,
      clock,
      logger: logger.child({ component: "pods" }),
      random,
      step,
      metrics: measurements.metrics,
      csi,
      credentialProviders: providers,
      ...hooks.pods,
      ...(options.environment === undefined ? {} : { environment: options.environment }),
    });
    const volumes = new LocalVolumes({
      nodeName: config.nodeName,
      directory: config.localVolumesDir ?? join(config.rootDir, "local-volumes"),
      rootDir: config.rootDir,
      recordsDir: join(config.rootDir, "local-volume-records"),
      client: nodeClient,
      node: node.view,
      events,
      mounter: systemMounter,
      removeTree,
      clock,
      logger: logger.child({ component: "local-volumes" }),
      random,
    });
    const serving = await openServingCertificate({
      config,
      client,
      node: node.view,
      clock,
      logger: logger.child({ component: "certificates" }),
      random,
    });
    const { figures, stats } = measurements.pages({
      node: node.view,
      runtimeInfo: () => engine.last(),
      heartbeat: () => node.heartbeat(),
    });
    const server = createNodeServer({
      ...hooks.server,
      isNode: (address) => nodeAddresses.has(address),
      config,
      tls: serving.source,
      metrics: () => `${options.clientRotation?.metrics() ?? ""}${serving.metrics()}`,
      client: nodeClient,
      runtime,
      figures,
      stats,
      pods: pods.view,
      node: node.view,
      clock,
      logger: logger.child({ component: "server" }),
      clientCA,
    });
    const ofProxy = measurements.proxy(proxyClient, proxyKubeconfig.cluster.server, node.view);
    const deletions = new DeletionWatch({
      clock,
      logger: logger.child({ component: "netfilter" }),
      random,
    });
    const names = {
      client: proxyClient,
      clock,
      logger: logger.child({ component: "dns" }),
      random,
    };
    const followed = { client: ofProxy.client, clock, logger, random };
    // Without a name server nobody needs the slices of headless Services, and the proxy's own informers leave them out.
    const informers =
      config.dns === "off" || config.clusterDNS.length === 0
        ? undefined
        : createServiceInformers(followed);
    const nodeIPs = await detectNodeIPs(signal, host, config);
    const proxyOptions = {
      informers: informers?.proxy ?? ownInformers({ ...followed, whenForbidden: missingBinding }),
      metrics: new ProxyMetrics(),
      config,
      client: ofProxy.client,
      nodeName: config.nodeName,
      nodeIPs,
      node: node.view,
      addresses: watch,
      ...(config.serviceCIDRs === undefined ? {} : { serviceCIDRs: config.serviceCIDRs }),
      events: proxyEvents,
      ...hooks.proxy,
      pages: {
        configuration: () => kubeProxyConfiguration(config),
        binaryVersion: kubeletVersion.replace(/^v/, ""),
        moreMetrics: () =>
          ofProxy.text() + (informers === undefined ? "" : dnsMetrics(options.dns.counts.read())),
        ...(config.flags === undefined ? {} : { flags: config.flags }),
      },
      deletions,
      ...(options.witness === undefined
        ? {}
        : { conntrack: witnessedConntrack(systemConntrackIO, options.witness) }),
      clock,
      logger: logger.child({ component: "proxy" }),
      random,
    };
    const hints = new KubeletHints({ clock, logger: logger.child({ component: "netfilter" }) });
    const named = (name: string, part: { run(signal: AbortSignal): Promise<void> }): Runner => ({
      name,
      run: (inner) => part.run(inner),
    });
    if (informers === undefined) await options.dns.forget();
    await superviseAll(
      [
        named("node", node),
        followMachine({
          watch,
          node,
          server: nodeKubeconfig.cluster.server,
          clients: [client, leaseClient, proxyClient],
          reachability: shared.reachability,
          logger,
          ...(options.onAddresses === undefined ? {} : { onAddresses: options.onAddresses }),
        }),
        named("networks", network),
        named("pods", pods),
        named("csi", csi),
        named("local volumes", volumes),
        named("server", server),
        named("serving certificate", serving),
        ...(options.clientRotation === undefined ? [] : [options.clientRotation]),
        {
          name: "proxy",
          run: async (inner) => {
            // Its families are those of the node, unless the pods' networks say them.
            if (nodeIPs.length + config.clusterCIDRs.length === 0)
              await whenAddressKnown(node.view, inner);
            await createProxy(proxyOptions).run(inner);
          },
        },
        ...(informers === undefined
          ? []
          : [
              named("services", informers),
              dnsRunner({
                ...names,
                ...informers.dns,
                config,
                namespaces: (onChange) => new NamespaceNames({ ...names, onChange }),
                network,
                startThread: options.dns.startThread,
                life: options.dns,
                events: proxyEvents,
              }),
            ]),
        ...(options.local === undefined
          ? []
          : [
              localRunner({
                ...options.local,
                ...config,
                node,
                pods: pods.view,
                engine,
                network,
                services: proxyOptions.informers,
                proxy: proxyOptions.metrics,
                statistics: stats,
                events: recent,
                reachability: shared.reachability,
                server: nodeKubeconfig.cluster.server,
                clock,
                logger,
              }),
            ]),
        named("rule deletions", deletions),
        ...(config.makeIPTablesUtilChains === false ? [] : [named("rule hints", hints)]),
        ...hooks.runners,
        named("events", events),
        named("proxy events", proxyEvents),
        engine,
        nodeRoutesRunner({
          nodeName: config.nodeName,
          client: proxyClient,
          events: proxyEvents,
          podCIDRs: config.podCIDRs,
          bridge: "remora0",
          onRemotes: (remotes) => {
            nodeAddresses = new Set(remotes.flatMap(({ addresses }) => addresses));
          },
          ensure: bridgeRoutes(ensureNodeRoutes, network),
          watch: followRoutes(watch),
          clock,
          logger,
          random,
        }),
        podNetworkRunner({
          network,
          node: node.view,
          podCIDRs: config.podCIDRs,
          onEngineReturn: (listener) => engine.subscribe(listener),
          onRulesDeleted: (listener) =>
            deletions.subscribe((deletion) => {
              if (damagesNetwork(deletion) || damagesAccept(deletion)) listener();
            }),
          problems: { list: () => network.problems, nodeName: config.nodeName, events },
          clock,
          logger: logger.child({ component: "network" }),
        }),
      ],
      logger,
      signal,
    );
  } finally {
    await Promise.all([client.close(), leaseClient.close(), proxyClient.close()]);
  }
}
