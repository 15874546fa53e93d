import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import { ENDPOINT_SLICES, NODES, SERVICES } from "../../../src/api/resources.ts";
import { askAgent } from "../../../src/agent/service/agent-facts.ts";
import {
  findKubeconfig,
  readNode,
  readServedServices,
  readService,
  readSlices,
} from "../../../src/agent/service/cluster.ts";
import { targetsOf } from "../../../src/agent/service/kernel.ts";
import { explainService } from "../../../src/proxy/explain/explain.ts";
import { type FakeApiServer, startFakeApiServer } from "../../fakes/api-server.ts";
import { freePort } from "./ask.ts";

const never = new AbortController().signal;

describe("what remora service reads of the cluster", () => {
  let api: FakeApiServer;
  before(async () => {
    api = await startFakeApiServer();
    const spec = { clusterIP: "10.96.0.9", ports: [{ name: "", port: 80, nodePort: 30_080 }] };
    api.put(SERVICES, {
      metadata: { namespace: "ns", name: "web" },
      spec: { ...spec, type: "NodePort" },
    });
    const labels = { "service.kubernetes.io/service-proxy-name": "mesh" };
    api.put(SERVICES, { metadata: { namespace: "ns", name: "meshed", labels }, spec });
    api.put(ENDPOINT_SLICES, {
      metadata: {
        namespace: "ns",
        name: "web-1",
        labels: { "kubernetes.io/service-name": "web" },
      },
      addressType: "IPv4",
      ports: [{ name: "", port: 8080 }],
      endpoints: [{ addresses: ["10.244.0.1"], nodeName: "here" }],
    });
    api.put(NODES, {
      metadata: { name: "here", labels: { "topology.kubernetes.io/zone": "z1" } },
      status: {
        addresses: [
          { type: "InternalIP", address: "192.0.2.1" },
          { type: "Hostname", address: "here" },
        ],
      },
    });
  });
  after(() => api.close());

  it("needs no right to get a Service, which a proxy's identity does not have", async () => {
    const service = await readService(api.client, "ns", "web", never);
    const slices = await readSlices(api.client, "ns", "web", never);
    const { services } = await readServedServices(api.client, never);
    assert.deepEqual(
      services.map(({ key }) => key),
      ["ns/web"],
    );
    const { node } = await readNode(api.client, "here", never);
    assert.deepEqual(node, { zone: "z1", ips: ["192.0.2.1"] });
    const explanation = explainService({
      service,
      slices,
      others: services,
      node: { nodeName: "here", nodeIPs: node?.ips ?? [], zone: node?.zone },
      families: ["IPv4", "IPv6"],
      externalIPs: true,
    });
    assert.deepEqual(
      explanation.ports.flatMap(({ endpoints }) => endpoints.map(({ address }) => address)),
      ["10.244.0.1:8080"],
    );
    const facts = { nodeIPs: ["192.0.2.1", "fd00::1"], families: [] };
    assert.deepEqual(
      targetsOf(explanation, facts).map(({ ip, port }) => `${ip} ${port}`),
      ["10.96.0.9 80", "192.0.2.1 30080"],
    );
  });

  it("says in a sentence what is not there", async () => {
    await assert.rejects(readService(api.client, "ns", "nothing", never), {
      message: "there is no Service nothing in namespace ns; -n names another namespace",
    });
    const { node, missing } = await readNode(api.client, "gone", never);
    assert.equal(node, undefined);
    assert.equal(missing, "the cluster has no Node gone");
    const port = await freePort();
    assert.deepEqual(await askAgent(`127.0.0.1:${port}`, never), {
      facts: undefined,
      why: `no agent answers on 127.0.0.1:${port} (proxyMetricsPort)`,
    });
    const other = URL.parse(api.url)?.host ?? "";
    const asked = await askAgent(other, never);
    assert.equal(asked.facts, undefined);
    assert.match("why" in asked ? asked.why : "", /is no remora|failed/);
  });

  it("finds credentials: the user's, the administrator's, then the agent's", async () => {
    const home = await mkdtemp(join(tmpdir(), "remora-kubeconfig-"));
    try {
      const stateDir = join(home, "state");
      const admin = join(stateDir, "control-plane", "admin.conf");
      const agents = join(home, "proxy.conf");
      const own = join(home, ".kube", "config");
      const environment = { HOME: home };
      const find = (change: object = {}, env: Record<string, string> = environment) =>
        findKubeconfig({ stateDir, ...change }, agents, env);
      await assert.rejects(find(), /no kubeconfig found \(looked at .*give --kubeconfig/);
      await writeFile(agents, "");
      assert.equal(await find(), agents);
      await mkdir(join(stateDir, "control-plane"), { recursive: true });
      await writeFile(admin, "");
      assert.equal(await find(), admin);
      await mkdir(join(home, ".kube"));
      await writeFile(own, "");
      assert.equal(await find(), own);
      assert.equal(await find({}, { HOME: home, KUBECONFIG: `/nonexistent:${agents}` }), agents);
      assert.equal(await find({ kubeconfig: "/given" }), "/given");
    } finally {
      await rm(home, { recursive: true });
    }
  });
});
