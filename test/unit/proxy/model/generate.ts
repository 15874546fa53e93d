// Random clusters, changes to them, and packets.
import * as fc from "fast-check";

import type { IPFamily } from "../../../../src/lib/cidr.ts";
import { addressesOf, type ModelAddresses, type ModelRules, settingsOf } from "./build.ts";
import {
  type ModelEndpoint,
  type ModelPort,
  modelService,
  type ModelService,
  type ModelSlice,
} from "./cluster.ts";
import type { ModelPacket, ModelSettings } from "./oracle.ts";

/** `only`: the other fields stay as they are, where there is such an object. */
export type ModelChange =
  | {
      readonly kind: "service";
      readonly name: string;
      readonly service: ModelService | undefined;
      readonly only: readonly (keyof ModelService)[];
    }
  | {
      readonly kind: "slice";
      readonly name: string;
      readonly slice: ModelSlice | undefined;
      readonly only: readonly (keyof ModelSlice)[];
    };

function merged<T extends object>(
  known: T | undefined,
  fresh: T | undefined,
  only: readonly (keyof T)[],
): T | undefined {
  if (known === undefined || fresh === undefined || only.length === 0) return fresh;
  const result = { ...known };
  for (const field of only) result[field] = fresh[field];
  return result;
}

export function applyChange(rules: ModelRules, change: ModelChange): void {
  const { services, slices } = rules.cluster;
  const { name } = change;
  if (change.kind === "service") {
    rules.setService(name, merged(services.get(name), change.service, change.only));
  } else {
    rules.setSlice(name, merged(slices.get(name), change.slice, change.only));
  }
}

const families = ["IPv4", "IPv6"] as const;
const serviceCount = 5;

const possiblePorts: readonly ModelPort[] = [
  { name: "web", protocol: "tcp", port: 80, nodePort: 0 },
  { name: "dns", protocol: "udp", port: 53, nodePort: 0 },
  { name: "quic", protocol: "udp", port: 80, nodePort: 0 },
  { name: "", protocol: "sctp", port: 80, nodePort: 0 },
  // The node port of another Service, which matters on an address of the node.
  { name: "high", protocol: "tcp", port: 30_000, nodePort: 0 },
];

function nodePortOf(id: number, { name, protocol }: ModelPort): number {
  // Two protocols may share one number.
  if (name === "high") return 30_002 + id * 10;
  return 30_000 + id * 10 + (protocol === "udp" && name === "dns" ? 1 : 0);
}

function serviceChange(small: boolean): fc.Arbitrary<ModelChange> {
  return fc
    .record({
      id: fc.integer({ min: 0, max: serviceCount - 1 }),
      present: fc.integer({ min: 0, max: 5 }),
      created: fc.integer({ min: 1, max: 3 }),
      type: fc.constantFrom("ClusterIP", "NodePort", "LoadBalancer"),
      families: fc.subarray([...families], { minLength: 1 }),
      externalIPs: fc.subarray([1, 2], { maxLength: 2 }),
      onNode: fc.integer({ min: 0, max: 4 }),
      ingress: fc.uniqueArray(
        fc.record({
          ip: fc.integer({ min: 1, max: 3 }),
          mode: fc.constantFrom(undefined, "VIP" as const, "Proxy" as const),
          asExternal: fc.boolean(),
        }),
        { maxLength: 2, selector: ({ ip }) => ip },
      ),
      ranges: fc.constantFrom("", "", "outside", "pods", "node", "all", "other family"),
      internalLocal: fc.boolean(),
      externalLocal: fc.boolean(),
      affinity: fc.constantFrom(0, 0, 3600),
      ports: fc.subarray([...possiblePorts], { minLength: 1 }),
      only: fc.oneof(
        fc.constant([]),
        fc.subarray(
          [
            "ports",
            "created",
            "externalIPs",
            "internalLocal",
            "externalLocal",
            "sourceRanges",
          ] as const,
          { maxLength: 2 },
        ),
      ),
    })
    .map((draw): ModelChange => {
      const name = `s${draw.id}`;
      const { only } = draw;
      if (draw.present === 0) return { kind: "service", name, service: undefined, only };
      const own = draw.families;
      const balanced = draw.type === "LoadBalancer";
      const service = modelService({
        name,
        created: draw.created,
        type: draw.type,
        clusterIPs: Object.fromEntries(
          own.map((family) => [family, addressesOf[family].clusterIP(draw.id + 1)]),
        ),
        externalIPs: own.flatMap((family) => [
          ...draw.externalIPs.map((n) => addressesOf[family].external(n)),
          ...(draw.onNode === 0 ? [addressesOf[family].node] : []),
        ]),
        ingress: balanced
          ? draw.ingress.flatMap(({ ip, mode, asExternal }) =>
              own.map((family) => {
                const at = addressesOf[family];
                // An address may be a balancer's here and an external one there.
                return {
                  ip: asExternal ? at.external(ip) : at.balancer(ip),
                  ...(mode === undefined ? {} : { mode }),
                };
              }),
            )
          : [],
        sourceRanges: balanced ? own.flatMap((family) => rangesOf(draw.ranges, family)) : [],
        internalLocal: draw.internalLocal,
        externalLocal: draw.externalLocal,
        affinitySeconds: small ? 0 : draw.affinity,
        ports: draw.ports.map((port) => ({
          ...port,
          nodePort: draw.type === "ClusterIP" ? 0 : nodePortOf(draw.id, port),
        })),
      });
      return { kind: "service", name, service, only };
    });
}

function rangesOf(kind: string, family: IPFamily): readonly string[] {
  const { outside, podCIDR, node } = addressesOf[family];
  const host = family === "IPv4" ? 32 : 128;
  switch (kind) {
    case "outside":
      return [`${outside}/${host}`];
    case "pods":
      return [podCIDR, `${outside}/${host}`];
    case "node":
      return [`${node}/${host}`];
    case "all":
      return [family === "IPv4" ? "0.0.0.0/0" : "::/0"];
    case "other family":
      return [family === "IPv4" ? "fd00:1::/64" : "10.99.0.0/16"];
    default:
      return [];
  }
}

const conditions: Readonly<
  Record<string, Pick<ModelEndpoint, "ready" | "serving" | "terminating">>
> = {
  ready: { ready: true, serving: true, terminating: false },
  unsaid: { ready: undefined, serving: undefined, terminating: undefined },
  published: { ready: true, serving: false, terminating: false },
  unready: { ready: false, serving: false, terminating: false },
  draining: { ready: false, serving: true, terminating: true },
  ended: { ready: false, serving: false, terminating: true },
};

/** Endpoints beyond this number are those of `many`. */
const fewEndpoints = 6;
/** Pods that there are when packets are real. */
const realHere = 3;
const realThere = 1;

function isReal({ n, here }: Pick<EndpointDraw, "n" | "here">): boolean {
  return n <= (here ? realHere : realThere);
}

interface EndpointDraw {
  readonly n: number;
  readonly here: boolean;
  readonly condition: string;
}

function endpointOf(
  { n, here, condition }: EndpointDraw,
  at: ModelAddresses,
  hints: string,
): ModelEndpoint {
  return {
    ip: here ? at.pod(n + 1) : at.otherPod(n + 1),
    node: here ? "here" : "there",
    ...(conditions[condition] ?? { ready: true, serving: true, terminating: false }),
    ...(hints === "zones" || (hints === "some" && n % 2 === 0)
      ? { forZones: [n % 2 === 0 ? "a" : "b"] }
      : {}),
    ...(hints === "nodes" ? { forNodes: [here ? "here" : "there"] } : {}),
  };
}

function sliceChange(small: boolean): fc.Arbitrary<ModelChange> {
  return fc
    .record({
      id: fc.integer({ min: 0, max: serviceCount - 1 }),
      present: fc.integer({ min: 0, max: 7 }),
      part: fc.constantFrom("x", "y"),
      family: fc.constantFrom(...families),
      endpoints: fc.uniqueArray(
        fc.record({
          n: fc.integer({ min: 1, max: fewEndpoints }),
          here: fc.boolean(),
          condition: fc.constantFrom(...Object.keys(conditions), "ready", "ready", "draining"),
        }),
        { maxLength: fewEndpoints, selector: ({ n, here }) => `${n} ${here}` },
      ),
      many: small ? fc.constant(0) : fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 300),
      uniform: fc.constantFrom("", "", "draining", "ready"),
      hints: fc.constantFrom("", "", "zones", "nodes", "some"),
      ports: fc.subarray([...possiblePorts], { minLength: 1 }),
      only: fc.constantFrom([], [], ["ports" as const], ["endpoints" as const]),
    })
    .map((draw): ModelChange => {
      const name = `s${draw.id}-${draw.part}-${draw.family.toLowerCase()}`;
      const { only } = draw;
      if (draw.present === 0) return { kind: "slice", name, slice: undefined, only };
      const drawn: readonly EndpointDraw[] =
        draw.many === 0
          ? draw.endpoints
          : Array.from({ length: draw.many }, (_, n) => ({
              n: n + 1,
              here: n % 3 === 0,
              condition: n % 50 === 49 ? "draining" : "ready",
            }));
      const slice: ModelSlice = {
        name,
        service: `s${draw.id}`,
        family: draw.family,
        // A named target port may be another number in another slice.
        ports: draw.ports.map(({ name: port, protocol }) => ({
          name: port,
          protocol,
          port: !small && draw.part === "y" && port === "web" ? 8081 : 8080,
        })),
        endpoints: drawn
          .filter((one) => !small || isReal(one))
          .map((one) =>
            endpointOf(
              draw.uniform === "" ? one : { ...one, condition: draw.uniform },
              addressesOf[draw.family],
              draw.hints,
            ),
          ),
      };
      return { kind: "slice", name, slice, only };
    });
}

/** @param small Few endpoints and no affinity: what a handful of real pods can stand for. */
export function changesArbitrary(maxLength: number, small = false): fc.Arbitrary<ModelChange[]> {
  const change = fc.oneof(
    { arbitrary: serviceChange(small), weight: 3 },
    { arbitrary: sliceChange(small), weight: 4 },
  );
  return fc.array(change, { minLength: 1, maxLength });
}

export function settingsArbitrary(
  mode: ModelSettings["mode"],
  family: IPFamily,
): fc.Arbitrary<ModelSettings> {
  const { podCIDR, node } = addressesOf[family];
  return fc
    .record({
      local: fc.constantFrom<ModelSettings["local"]>(
        { kind: "cidrs", cidrs: [podCIDR] },
        { kind: "cidrs", cidrs: [podCIDR] },
        {
          kind: "cidrs",
          cidrs:
            family === "IPv4" ? ["10.244.0.0/18", "10.244.64.0/18"] : [podCIDR, "fd00:99::/64"],
        },
        { kind: "interface", name: "remora0" },
        { kind: "interface-prefix", prefix: "remo" },
        { kind: "none" },
      ),
      nodePortIPs: fc.constantFrom(undefined, [node]),
      localhostNodePorts: fc.boolean(),
      masqueradeAll: fc.constantFrom(false, false, false, true),
      serviceCIDRs: fc.constantFrom([], [addressesOf[family].serviceCIDR]),
    })
    .map((changes) =>
      settingsOf(mode, family, {
        ...changes,
        localhostNodePorts: mode === "iptables" && changes.localhostNodePorts,
      }),
    );
}

/** A random packet, most often towards something that may be a Service. */
export function packetArbitrary(family: IPFamily): fc.Arbitrary<ModelPacket> {
  const at = addressesOf[family];
  const id = fc.integer({ min: 0, max: serviceCount - 1 });
  const n = fc.integer({ min: 2, max: fewEndpoints + 3 });
  const source = fc.oneof(
    n.map((one) => ({ source: at.pod(one), inInterface: "remora0" })),
    n.map((one) => ({ source: at.otherPod(one), inInterface: "up0" })),
    fc.constant({ source: at.outside, inInterface: "up0" }),
    fc.constant({ source: `${at.outside.slice(0, -1)}8`, inInterface: "up0" }),
    fc.constant({ source: at.node, inInterface: "" }),
    fc.constant({ source: at.bridge, inInterface: "" }),
  );
  const destination = fc.oneof(
    { arbitrary: id.map((one) => at.clusterIP(one + 1)), weight: 4 },
    { arbitrary: fc.constantFrom(1, 2, 3).map(at.external), weight: 3 },
    { arbitrary: fc.constantFrom(1, 2, 3).map(at.balancer), weight: 3 },
    { arbitrary: fc.constantFrom(at.node, at.node, at.secondNode, at.bridge), weight: 4 },
    { arbitrary: fc.constantFrom(at.clusterIP(99), at.pod(3), at.outside), weight: 1 },
  );
  const nodePorts = id.map((one) => 30_000 + one * 10);
  const port = fc.oneof(
    { arbitrary: fc.constantFrom(80, 80, 53), weight: 6 },
    { arbitrary: nodePorts, weight: 4 },
    { arbitrary: nodePorts.map((one) => one + 1), weight: 1 },
    { arbitrary: fc.constantFrom(443, 8080), weight: 1 },
  );
  const loopback = fc.record({ port: nodePorts }).map(({ port: one }) => ({
    source: at.loopback,
    inInterface: "",
    destination: at.loopback,
    port: one,
  }));
  const anywhere = fc
    .record({ source, destination, port })
    .map(({ source: from, ...rest }) => ({ ...from, ...rest }))
    // Nobody's own packets come in from outside.
    .filter((packet) => packet.source !== packet.destination || packet.inInterface === "remora0");
  return fc
    .record({
      protocol: fc.constantFrom("tcp" as const, "tcp" as const, "udp" as const, "sctp" as const),
      way: fc.oneof({ arbitrary: anywhere, weight: 15 }, { arbitrary: loopback, weight: 1 }),
    })
    .map(({ protocol, way }) => ({ protocol, ...way }));
}

/** A packet that a real peer can send, and whose end its answer tells. */
export function realPacketArbitrary(family: IPFamily): fc.Arbitrary<ModelPacket> {
  const at = addressesOf[family];
  const id = fc.integer({ min: 0, max: serviceCount - 1 });
  const source = fc.oneof(
    fc.integer({ min: 1, max: realHere }).map((n) => ({
      source: at.pod(n + 1),
      inInterface: "remora0",
    })),
    fc.constant({ source: at.outside, inInterface: "up0" }),
    fc.constant({ source: at.node, inInterface: "" }),
  );
  const destination = fc.oneof(
    { arbitrary: id.map((one) => at.clusterIP(one + 1)), weight: 4 },
    { arbitrary: fc.constantFrom(1, 2).map(at.external), weight: 3 },
    { arbitrary: fc.constantFrom(1, 2, 3).map(at.balancer), weight: 2 },
    { arbitrary: fc.constantFrom(at.node, at.node, at.secondNode), weight: 3 },
    { arbitrary: fc.constant(at.clusterIP(99)), weight: 1 },
  );
  const port = fc.oneof(
    { arbitrary: fc.constantFrom(80, 80, 53), weight: 6 },
    { arbitrary: id.map((one) => 30_000 + one * 10), weight: 3 },
    { arbitrary: fc.constant(443), weight: 1 },
  );
  return fc
    .record({
      source,
      destination,
      port,
      protocol: fc.constantFrom("tcp" as const, "tcp" as const, "udp" as const),
    })
    .map(({ source: from, ...rest }) => ({ ...from, ...rest }));
}
