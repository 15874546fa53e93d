import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { execResult } from "../../../src/lib/exec.ts";
import type { World } from "./world.ts";
import { eventually, registerNode, startWorld } from "./world.ts";

async function missing(): Promise<string | false> {
  try {
    await execResult(["kubectl", "version", "--client"], { signal: AbortSignal.timeout(20_000) });
    return false;
  } catch {
    return "kubectl is not installed";
  }
}

const manifest = `
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`;

describe("stock kubectl", { skip: await missing() }, () => {
  let world: World;
  let cacheDir: string;

  before(async () => {
    world = await startWorld();
    cacheDir = join(world.dataDir, "kubectl-cache");
    await registerNode(world, "n1");
  });

  after(async () => {
    await rm(cacheDir, { recursive: true, force: true });
    await world.close();
  });

  async function run(
    args: readonly string[],
    stdin = "",
  ): Promise<{
    readonly out: string;
    readonly err: string;
    readonly exitCode: number | undefined;
  }> {
    const files = [
      `--kubeconfig=${world.controlPlane.files.adminKubeconfig}`,
      `--cache-dir=${cacheDir}`,
    ];
    const result = await execResult(["kubectl", ...files, ...args], {
      stdin,
      signal: AbortSignal.timeout(30_000),
      env: { HOME: cacheDir },
    });
    return { out: result.stdout, err: result.stderr, exitCode: result.exitCode };
  }

  async function kubectl(...args: readonly string[]): Promise<string> {
    const result = await run(args);
    assert.equal(result.exitCode, 0, `kubectl ${args.join(" ")}: ${result.err}`);
    return result.out;
  }

  test("create -f, get, describe, scale, label, delete", async () => {
    const created = await run(["create", "-f", "-"], manifest);
    assert.equal(created.out, "replicationcontroller/web created\nservice/web created\n");
    await eventually("two pods on n1", async () => {
      const pods = await kubectl("get", "pods", "-l", "app=web", "-o", "wide", "--no-headers");
      return pods
        .trim()
        .split("\n")
        .filter((line) => / n1 /.test(line)).length === 2
        ? true
        : undefined;
    });
    assert.match(
      await kubectl("get", "rc", "web"),
      /NAME +DESIRED +CURRENT +READY +AGE\nweb +2 +2 +0/,
    );
    await eventually("the events of the pods' creation", async () =>
      /SuccessfulCreate .* Created pod: web-/.test(await kubectl("describe", "rc", "web"))
        ? true
        : undefined,
    );
    assert.match(await kubectl("describe", "node", "n1"), /PodCIDR: +10\.244\.0\.0\/24/);
    assert.match(await kubectl("scale", "rc", "web", "--replicas=1"), /scaled/);
    assert.match(await kubectl("label", "svc", "web", "tier=front"), /labeled/);
    assert.match(await kubectl("get", "svc", "-l", "tier=front"), /web +ClusterIP +10\.96\./);
    assert.match(await kubectl("cordon", "n1"), /cordoned/);
    assert.match(await kubectl("get", "nodes"), /Ready,SchedulingDisabled/);
    await kubectl("uncordon", "n1");
    assert.match(await kubectl("delete", "rc,svc", "web", "--wait=false"), /deleted/);
    await kubectl("delete", "pods", "--all", "--grace-period=0", "--force");
    assert.equal((await kubectl("get", "rc")).trim(), "");
  });

  test("apply says created, configured, unchanged", async () => {
    const map = (value: string): string =>
      `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"a":"${value}"}}`;
    const apply = async (value: string): Promise<string> =>
      (await run(["apply", "-f", "-"], map(value))).out;
    assert.equal(await apply("1"), "configmap/m created\n");
    assert.equal(await apply("2"), "configmap/m configured\n");
    assert.equal(await apply("2"), "configmap/m unchanged\n");
  });

  test("apply --server-side: conflicts, force, and taking over from client-side apply", async () => {
    const map = (data: Readonly<Record<string, string>>): string =>
      JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "ssa" }, data });
    const apply = (data: Readonly<Record<string, string>>, ...args: readonly string[]) =>
      run(["apply", "-f", "-", ...args], map(data));
    const stored = async (): Promise<unknown> =>
      JSON.parse(await kubectl("get", "configmap", "ssa", "-o", "jsonpath={.data}"));
    await apply({ a: "1", b: "1" });
    const taken = await apply({ a: "2" }, "--server-side");
    assert.equal(taken.out, "configmap/ssa serverside-applied\n", taken.err);
    assert.deepEqual(await stored(), { a: "2" });
    const refused = await apply({ a: "3" }, "--server-side", "--field-manager=other");
    assert.match(refused.err, /Apply failed with 1 conflict: conflict with "kubectl": \.data\.a/);
    const forced = await apply(
      { a: "3" },
      "--server-side",
      "--field-manager=other",
      "--force-conflicts",
    );
    assert.equal(forced.exitCode, 0, forced.err);
    assert.deepEqual(await stored(), { a: "3" });
    const back = await apply({ a: "4" });
    assert.equal(back.out, "configmap/ssa configured\n", back.err);
    assert.deepEqual(await stored(), { a: "4" });
  });

  test("a namespace on its way out is seen as Terminating, with conditions", async () => {
    await kubectl("create", "ns", "leaving");
    await kubectl("create", "configmap", "content", "-n", "leaving");
    await kubectl("delete", "ns", "leaving", "--wait=false");
    assert.match(await kubectl("get", "ns", "leaving"), /leaving +Terminating/);
    await eventually("its content to go", async () => {
      const type = '{.status.conditions[?(@.type=="NamespaceContentRemaining")].reason}';
      const reason = await kubectl("get", "ns", "leaving", "-o", `jsonpath=${type}`);
      return reason === "ContentRemoved" ? true : undefined;
    });
    await kubectl("wait", "--for=delete", "ns/leaving", "--timeout=20s");
  });

  test("protobuf bodies, tokens, RBAC and impersonation", async () => {
    await kubectl("create", "ns", "team");
    await kubectl("create", "sa", "robot", "-n", "team");
    await kubectl("create", "role", "reader", "--verb=get", "--resource=pods", "-n", "team");
    const subject = "--serviceaccount=team:robot";
    await kubectl("create", "rolebinding", "b", "--role=reader", subject, "-n", "team");
    const token = (await kubectl("create", "token", "robot", "-n", "team")).trim();
    const as = async (...args: readonly string[]): Promise<string> =>
      (await run(["auth", "can-i", ...args])).out.trim();
    assert.equal(
      await as("get", "pods", "-n", "team", "--as=system:serviceaccount:team:robot"),
      "yes",
    );
    assert.equal(
      await as("list", "secrets", "-n", "team", "--as=system:serviceaccount:team:robot"),
      "no",
    );
    // A certificate wins over a token, so the token goes without the administrator's kubeconfig.
    const direct = await execResult(
      [
        "kubectl",
        "--kubeconfig=/dev/null",
        `--cache-dir=${cacheDir}`,
        `--server=${world.controlPlane.files.url}`,
        `--certificate-authority=${world.controlPlane.files.clientCA}`,
        `--token=${token}`,
        "get",
        "secrets",
        "--namespace=team",
      ],
      { signal: AbortSignal.timeout(30_000), env: { HOME: cacheDir } },
    );
    assert.match(
      direct.stderr,
      /User "system:serviceaccount:team:robot" cannot list resource "secrets" in API group "" in the namespace "team"/,
    );
    await kubectl("delete", "ns", "team");
  });

  test("a manifest with a mistake is refused with its place", async () => {
    const bad = manifest.replace("image: nginx", "imagee: nginx");
    const result = await run(["create", "-f", "-"], bad);
    assert.match(
      result.err,
      /strict decoding error: unknown field "spec\.template\.spec\.containers\[0\]\.imagee"/,
    );
  });
});
