import type { IPFamily } from "../../../../src/lib/cidr.ts";
import { systemClock } from "../../../../src/lib/clock.ts";
import { silentLogger } from "../../../../src/lib/log.ts";
import type { RuleBackend, RulesContext } from "../../../../src/proxy/backend.ts";
import { FamilyRules } from "../../../../src/proxy/family-rules.ts";
import { IptablesBackend } from "../../../../src/proxy/iptables/backend.ts";
import { NftBackend } from "../../../../src/proxy/nftables/backend.ts";
import { parseService, parseSlice } from "../../../../src/proxy/parse.ts";
import { SliceIndex } from "../../../../src/proxy/slice-index.ts";
import type { Remembered, Ruleset } from "../../../../src/proxy/trace/flow.ts";
import { Host } from "../../../../src/proxy/trace/host.ts";
import { IptablesTraceRuleset } from "../../../../src/proxy/trace/iptables-text.ts";
import { NftTraceRuleset } from "../../../../src/proxy/trace/nft-text.ts";
import {
  type ModelCluster,
  type ModelNode,
  type ModelService,
  type ModelSlice,
  serviceObject,
  sliceObject,
} from "./cluster.ts";
import { SimulatedIptables } from "./iptables-host.ts";
import { SimulatedNft } from "./nft-host.ts";
import type { ModelSettings } from "./oracle.ts";

export const modelMark = 0x4000;
const tableName = "remora-proxy";

export function contextOf(settings: ModelSettings): RulesContext {
  const { mode: _mode, ...rest } = settings;
  return { ...rest, mark: modelMark };
}

/** Writes rules into a kernel that is simulated. */
export interface SimulatedKernel {
  readonly backend: RuleBackend;
  /** The rules that packets meet now. */
  rules(): Ruleset;
  /** What is there, so that equal means equal. */
  comparable(): Map<string, string>;
}

/** Rules by chain. Comments are for people: whether there are any depends on how many endpoints there once were. */
function comparableTables(rules: IptablesTraceRuleset): Map<string, string> {
  const out = new Map<string, string>();
  for (const table of ["filter", "nat", "mangle"]) {
    for (const line of rules.save(table).split("\n")) {
      const [, verb = "", chain = "", rest = ""] = /^(:|-A )(\S+)(.*)$/.exec(line) ?? [];
      const plain = rest.replace(/ -m comment --comment (?:"[^"]*"|\S+)/, "");
      const key = `${table} ${chain}`;
      if (verb !== "") out.set(key, `${out.get(key) ?? ""}${plain}\n`);
    }
  }
  return out;
}

export function simulatedKernel(settings: ModelSettings): SimulatedKernel {
  const context = contextOf(settings);
  if (settings.mode === "nftables") {
    const backend = new SimulatedNft(context, tableName);
    return {
      backend,
      rules: () => backend.rules.rules(settings.family),
      comparable: () => backend.comparable(),
    };
  }
  const host = new SimulatedIptables();
  const options = { context, logger: silentLogger, clock: systemClock, host };
  return {
    backend: new IptablesBackend(options),
    rules: () => host.rules.rules(),
    comparable: () => comparableTables(host.rules),
  };
}

/** The backend as it is used on a machine; nothing is synchronised. */
export function makeBackend(settings: ModelSettings): RuleBackend {
  const shared = { context: contextOf(settings), logger: silentLogger, clock: systemClock };
  return settings.mode === "nftables"
    ? new NftBackend({ ...shared, tableName })
    : new IptablesBackend(shared);
}

/** The proxy's own way from API objects to rules, fed change by change. */
export class ModelRules {
  readonly #family: FamilyRules;
  readonly #backend: RuleBackend;
  readonly #node: ModelNode;
  readonly #index: SliceIndex;
  readonly #services = new Map<string, ModelService>();
  readonly #slices = new Map<string, ModelSlice>();

  constructor(
    settings: ModelSettings,
    node: ModelNode,
    backend: RuleBackend = makeBackend(settings),
  ) {
    this.#backend = backend;
    this.#family = new FamilyRules({
      context: contextOf(settings),
      backend: this.#backend,
      logger: silentLogger,
    });
    this.#node = node;
    this.#index = new SliceIndex(node.name);
  }

  get cluster(): ModelCluster {
    return { services: this.#services, slices: this.#slices };
  }

  setService(name: string, service: ModelService | undefined): void {
    if (service === undefined) this.#services.delete(name);
    else this.#services.set(name, service);
    this.#update(name);
  }

  setSlice(name: string, slice: ModelSlice | undefined): void {
    const previous = this.#slices.get(name);
    if (previous !== undefined) {
      this.#index.delete(parseSlice(sliceObject(previous)));
      this.#slices.delete(name);
    }
    if (slice !== undefined) {
      this.#index.set(parseSlice(sliceObject(slice)));
      this.#slices.set(name, slice);
    }
    for (const service of new Set([previous?.service, slice?.service]))
      if (service !== undefined) this.#update(service);
  }

  #update(name: string): void {
    const service = this.#services.get(name);
    const view = service === undefined ? undefined : parseService(serviceObject(service));
    this.#family.update(`ns/${name}`, view, this.#index, this.#node);
  }

  async sync(): Promise<void> {
    await this.#backend.sync(new AbortController().signal);
  }

  snapshot(): Map<string, string> {
    return this.#backend.snapshot();
  }

  render(): string {
    return this.#backend.render();
  }
}

export function rulesFor(
  cluster: ModelCluster,
  settings: ModelSettings,
  node: ModelNode,
  backend?: RuleBackend,
): ModelRules {
  const rules = new ModelRules(settings, node, backend);
  for (const [name, slice] of cluster.slices) rules.setSlice(name, slice);
  for (const [name, service] of cluster.services) rules.setService(name, service);
  return rules;
}

/** Rules that can be executed, and that remember. */
export interface Executable {
  readonly rules: Ruleset;
  remember(what: Remembered): void;
}

/** Reads rendered rules as the kernel would. */
export function execute(text: string, { mode, family }: ModelSettings): Executable {
  if (mode === "iptables") {
    const rules = new IptablesTraceRuleset({ program: "iptables" });
    rules.run(text);
    return { rules: rules.rules(), remember: (what) => rules.remember(what) };
  }
  const rules = new NftTraceRuleset();
  rules.run(text);
  return { rules: rules.rules(family), remember: (what) => rules.remember(what) };
}

export function hostOf(node: ModelNode, { localhostNodePorts }: ModelSettings): Host {
  return new Host({ addresses: node.addresses, routeLocalnet: localhostNodePorts });
}

/** Addresses of a test's world, the same in both families. */
export interface ModelAddresses {
  readonly clusterIP: (n: number) => string;
  readonly pod: (n: number) => string;
  readonly otherPod: (n: number) => string;
  readonly external: (n: number) => string;
  readonly balancer: (n: number) => string;
  readonly outside: string;
  readonly node: string;
  readonly secondNode: string;
  readonly bridge: string;
  readonly loopback: string;
  readonly podCIDR: string;
  readonly serviceCIDR: string;
}

export const addressesOf: Readonly<Record<IPFamily, ModelAddresses>> = {
  IPv4: {
    clusterIP: (n) => `172.30.${n >> 8}.${n & 255}`,
    pod: (n) => `10.244.${(n >> 8) * 100}.${n & 255}`,
    otherPod: (n) => `10.244.${1 + (n >> 8)}.${n & 255}`,
    external: (n) => `198.51.100.${n}`,
    balancer: (n) => `198.51.101.${n}`,
    outside: "192.0.2.2",
    node: "192.0.2.1",
    secondNode: "192.0.2.17",
    bridge: "10.244.0.1",
    loopback: "127.0.0.1",
    podCIDR: "10.244.0.0/16",
    serviceCIDR: "172.30.0.0/16",
  },
  IPv6: {
    clusterIP: (n) => `fd00:30::${n.toString(16)}`,
    pod: (n) => `fd00:244::${n.toString(16)}`,
    otherPod: (n) => `fd00:244:0:1::${n.toString(16)}`,
    external: (n) => `2001:db8:51::${n.toString(16)}`,
    balancer: (n) => `2001:db8:51::1:${n.toString(16)}`,
    outside: "2001:db8:5::2",
    node: "2001:db8:5::1",
    secondNode: "2001:db8:5::17",
    bridge: "fd00:244::1",
    loopback: "::1",
    podCIDR: "fd00:244::/48",
    serviceCIDR: "fd00:30::/112",
  },
};

export const here: ModelNode = {
  name: "here",
  zone: "a",
  ips: [addressesOf.IPv4.node, addressesOf.IPv6.node],
  addresses: (["IPv4", "IPv6"] as const).flatMap((family) => {
    const { node, secondNode, bridge } = addressesOf[family];
    return [node, secondNode, bridge];
  }),
};

export function settingsOf(
  mode: ModelSettings["mode"],
  family: IPFamily,
  changes: Partial<ModelSettings> = {},
): ModelSettings {
  const { node, podCIDR, serviceCIDR } = addressesOf[family];
  return {
    mode,
    family,
    local: { kind: "cidrs", cidrs: [podCIDR] },
    nodePortIPs: mode === "nftables" ? [node] : undefined,
    localhostNodePorts: mode === "iptables",
    serviceCIDRs: [serviceCIDR],
    masqueradeAll: false,
    ...changes,
  };
}

/** What the simulator needs to judge packets of one state. */
export function judge(
  cluster: ModelCluster,
  settings: ModelSettings,
  node: ModelNode = here,
): { readonly rules: Ruleset; readonly host: Host } {
  const text = rulesFor(cluster, settings, node).render();
  return { rules: execute(text, settings).rules, host: hostOf(node, settings) };
}
