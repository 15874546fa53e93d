import * as fc from "fast-check";

/** Stands in every text that an attacker chose; must never reach a rule. */
export const marker = "hostile";

const fragments = [
  `${marker}"; }\nadd table ip ${marker} {`,
  `${marker}\n-A INPUT -j ACCEPT`,
  `x ; delete table ip remora-proxy # ${marker}`,
  `$(touch /${marker})`,
  `\`${marker}\``,
  `-j ${marker}`,
  `"${marker}"`,
  `10.0.0.1 . tcp . 80 : accept, ${marker}`,
  `fe80::1%${marker}`,
  `${marker}\0`,
  `${marker}\u2028`,
  `..${marker}/..`,
];

const hostile = fc.constantFrom<unknown>(...fragments);
const odd = fc.constantFrom<unknown>(
  undefined,
  null,
  "",
  " ",
  0,
  -1,
  65_536,
  1.5,
  Number.NaN,
  true,
  {},
  [],
  ["10.0.0.1"],
  "0.0.0.0",
  "255.255.255.255",
  "127.0.0.1",
  "224.0.0.1",
  "::",
  "::1",
  "::ffff:10.0.0.1",
  "ff02::1",
  "010.1.2.3",
  "10.1.2",
  "10.0.0.0/33",
  "0.0.0.0/0",
  "::/0",
  "None",
);
const bad = fc.oneof(hostile, odd);

function orBad(good: readonly unknown[]): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 12, arbitrary: fc.constantFrom<unknown>(...good) }, bad);
}

const ip = orBad(["10.96.0.10", "10.96.0.11", "fd00:96::10", "203.0.113.5", "10.244.0.3"]);
const name = orBad(["web", "a.b"]);
const portNumber = orBad([80, 443, 30_080]);
const range = orBad(["10.0.0.0/8", "10.1.0.0/16", " 010.0.0.0/8 ", "192.0.2.1/32", "fd00::/16"]);
const listOf = (of: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 15, arbitrary: fc.array(of, { minLength: 1, maxLength: 3 }) }, bad);

const port = fc.record({
  name,
  port: portNumber,
  nodePort: portNumber,
  protocol: orBad(["TCP", "UDP", "SCTP"]),
});

/** Services as no server would let them in. */
export const hostileService: fc.Arbitrary<unknown> = fc.record({
  metadata: fc.record({
    namespace: fc.constant("ns"),
    name: fc.oneof({ weight: 12, arbitrary: fc.constantFrom("web", "db") }, hostile),
    uid: hostile,
    creationTimestamp: orBad(["2026-01-01T00:00:00Z"]),
  }),
  spec: fc.record({
    type: orBad(["ClusterIP", "NodePort", "LoadBalancer"]),
    clusterIP: ip,
    clusterIPs: listOf(ip),
    externalIPs: listOf(ip),
    loadBalancerSourceRanges: listOf(range),
    sessionAffinity: orBad(["None", "ClientIP"]),
    sessionAffinityConfig: fc.record({
      clientIP: fc.record({ timeoutSeconds: orBad([1, 86_400]) }),
    }),
    internalTrafficPolicy: orBad(["Local", "Cluster"]),
    externalTrafficPolicy: orBad(["Local", "Cluster"]),
    healthCheckNodePort: portNumber,
    ports: listOf(fc.oneof({ weight: 15, arbitrary: port }, bad)),
  }),
  status: fc.record({
    loadBalancer: fc.record({
      ingress: listOf(fc.record({ ip, ipMode: orBad(["VIP", "Proxy"]), hostname: hostile })),
    }),
  }),
});

const endpoint = fc.record({
  addresses: listOf(ip),
  nodeName: orBad(["here", "there"]),
  conditions: fc.record({ ready: bad, serving: bad, terminating: bad }),
  hints: fc.record({
    forZones: listOf(fc.record({ name })),
    forNodes: listOf(fc.record({ name })),
  }),
});

/** EndpointSlices as no server would let them in. */
export const hostileSlice: fc.Arbitrary<unknown> = fc.record({
  metadata: fc.record({
    namespace: fc.constant("ns"),
    name: fc.oneof({ weight: 12, arbitrary: fc.constantFrom("one", "two") }, hostile),
    labels: fc.record({
      "kubernetes.io/service-name": fc.oneof(
        { weight: 12, arbitrary: fc.constantFrom<unknown>("web", "db") },
        bad,
      ),
    }),
    annotations: fc.record({ "endpoints.kubernetes.io/last-change-trigger-time": bad }),
  }),
  addressType: orBad(["IPv4", "IPv6", "FQDN"]),
  ports: listOf(fc.oneof({ weight: 15, arbitrary: port }, bad)),
  endpoints: listOf(fc.oneof({ weight: 15, arbitrary: endpoint }, bad)),
});
