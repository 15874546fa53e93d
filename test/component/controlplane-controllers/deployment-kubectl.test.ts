import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { execResult } from "../../../src/lib/exec.ts";
import type { PlayedKubelet } from "./played-kubelet.ts";
import { playKubelet } from "./played-kubelet.ts";
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
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "shop:v1"}]}
`;

describe("Deployments by stock kubectl", { skip: await missing() }, () => {
  let world: World;
  let kubelet: PlayedKubelet;

  before(async () => {
    world = await startWorld();
    await registerNode(world, "n1");
    kubelet = playKubelet(world);
  });

  after(async () => {
    await kubelet.stop();
    await world.close();
  });

  /** Runs one command line; its words have no spaces. */
  async function k(line: string, stdin = ""): Promise<string> {
    const cacheDir = join(world.dataDir, "kubectl-cache");
    const config = world.controlPlane.files.adminKubeconfig;
    const result = await execResult(
      ["kubectl", `--kubeconfig=${config}`, `--cache-dir=${cacheDir}`, ...line.split(" ")],
      { stdin, signal: AbortSignal.timeout(30_000), env: { HOME: cacheDir } },
    );
    assert.equal(result.exitCode, 0, `kubectl ${line}: ${result.stderr}`);
    return result.stdout;
  }

  async function image(): Promise<string> {
    return k("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}");
  }

  test("apply, rollout status, set image, history, undo", async () => {
    await k("apply -f -", manifest);
    assert.match(
      await k("rollout status deployment/web --timeout=20s"),
      /deployment "web" successfully rolled out/,
    );
    assert.match(await k("get deployment web"), /web +2\/2 +2 +2 /);
    await k("set image deployment/web c=shop:v2");
    await k("rollout status deployment/web --timeout=20s");
    await k("annotate deployment/web kubernetes.io/change-cause=second");
    const history = await eventually("the change's cause", async () => {
      const text = await k("rollout history deployment/web");
      return text.includes("second") ? text : undefined;
    });
    assert.match(history, /1 +<none>\n2 +second/);
    assert.match(await k("rollout history deployment/web --revision=1"), /Image:\s+shop:v1/);
    await k("rollout undo deployment/web");
    await k("rollout status deployment/web --timeout=20s");
    assert.match(await k("rollout history deployment/web"), /2 +second\n3 +<none>/);
    await eventually("only the old image", async () =>
      (await image()) === "shop:v1 shop:v1" ? true : undefined,
    );
  });

  test("pause, scale, resume, restart", async () => {
    await k("rollout pause deployment/web");
    await k("set image deployment/web c=shop:v3");
    await k("scale deployment/web --replicas=3");
    await k("wait --for=jsonpath={.status.availableReplicas}=3 deployment/web --timeout=20s");
    assert.match(await k("get deployment web"), /web +3\/3 +0 +3 /);
    await k("rollout resume deployment/web");
    await k("rollout status deployment/web --timeout=20s");
    await eventually("the new image", async () =>
      (await image()) === "shop:v3 shop:v3 shop:v3" ? true : undefined,
    );
    const before = await k("get pods -l app=web -o name");
    await k("rollout restart deployment/web");
    await k("rollout status deployment/web --timeout=20s");
    const kept = (await k("get pods -l app=web -o name"))
      .split("\n")
      .filter((name) => name !== "" && before.includes(name));
    assert.deepEqual(kept, []);
    assert.match(
      await k("describe deployment web"),
      /NewReplicaSet: +web-\w+ \(3\/3 replicas created\)[\s\S]*ScalingReplicaSet/,
    );
  });

  test("delete with orphans, in the foreground, in the background", async () => {
    await k("delete deployment web --cascade=orphan");
    assert.equal((await image()).split(" ").length, 3);
    assert.match(await k("get replicasets -o name"), /replicaset\.apps\/web-/);
    await k("apply -f -", manifest);
    await k("rollout status deployment/web --timeout=20s");
    await k("delete deployment web --cascade=foreground --timeout=20s");
    assert.equal(await k("get replicasets,pods -l app=web -o name"), "");
    await k("apply -f -", manifest);
    await k("rollout status deployment/web --timeout=20s");
    await k("delete deployment web --cascade=background");
    await eventually("nothing left", async () =>
      (await k("get replicasets,pods -l app=web -o name")) === "" ? true : undefined,
    );
  });
});
