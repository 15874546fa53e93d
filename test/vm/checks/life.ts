import assert from "node:assert/strict";

import type { Service } from "../../../src/api/types.gen.ts";
import type { Check } from "../check.ts";
import { runs } from "../lib/manifests.ts";
import type { Node } from "../lib/node.ts";

const serve = "mkdir /w; echo served >/w/index.html; exec httpd -f -p 8080 -h /w";

/** A request without wget: that of a static busybox cannot look up names. */
const ask = (address: string): string =>
  `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 20 ${address} 80 | tail -n 1`;

async function containerIDs(node: Node): Promise<readonly string[]> {
  const text = await node.machine.sh("docker ps -q --no-trunc --filter name=k8s_");
  return text.split("\n").toSorted();
}

/** What must not change for a pod that nobody touched. */
async function running(node: Node): Promise<readonly string[]> {
  return (await node.pods())
    .filter(({ status }) => status?.phase === "Running")
    .map(({ metadata, status }) => {
      const ready = status?.conditions?.find(({ type }) => type === "Ready");
      const states = (status?.containerStatuses ?? []).map(
        ({ containerID, restartCount, state }) =>
          `${containerID} ${restartCount} ${state?.running?.startedAt}`,
      );
      return [metadata?.name, ready?.status, ready?.lastTransitionTime, ...states].join(" ");
    })
    .toSorted();
}

/** Of pods and their agent, while there are many of them. */
export const lifeChecks: readonly Check[] = [
  {
    name: "a Service is answered on its virtual IP beside Docker's own firewall rules",
    objects: [
      runs("web", { server: { command: ["sh", "-c", serve] } }),
      {
        kind: "Service",
        metadata: { name: "web" },
        spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort: 8080 }] },
      },
    ],
    run: async (node) => {
      await node.podReady("web");
      const { spec } = await node.get<Service>("/api/v1/namespaces/default/services/web");
      const request = ask(spec?.clusterIP ?? "");
      const { status } = await node.podReady("best-effort");
      const id = status?.containerStatuses?.[0]?.containerID?.replace("docker://", "") ?? "";
      const inPod = ["docker", "exec", id, "sh", "-c", request];
      for (const argv of [["sh", "-c", request], inPod]) {
        await node.until(`${argv[0]} is served`, async () =>
          (await node.machine.exec(argv)).stdout === "served\n" ? true : undefined,
        );
      }
    },
  },
  {
    name: "kill -9 of the agent costs nothing: systemd starts it again and it adopts what runs",
    run: async (node) => {
      const [ids, before] = [await containerIDs(node), await running(node)];
      assert.ok(before.length > 0);
      await node.signal("KILL");
      assert.deepEqual(await containerIDs(node), ids);
      await node.create(runs("later", { one: {} }));
      await node.podReady("later");
      assert.deepEqual(
        (await running(node)).filter((line) => !line.startsWith("later ")),
        before,
      );
      const now = await containerIDs(node);
      assert.deepEqual(
        ids.filter((id) => !now.includes(id)),
        [],
      );
    },
  },
  {
    name: "deleted pods leave no slice, and their tier weighs nothing any more",
    run: async (node) => {
      await node.deletePods();
      await node.until("all slices of pods are gone", async () => {
        const left = await node.machine.sh(`find /sys/fs/cgroup -name '*-pod*.slice'
          systemctl list-units --all --plain --no-legend 'kubepods*pod*'
          ls /run/systemd/transient | grep 'kubepods.*-pod' || true`);
        return left === "" ? true : undefined;
      });
      const path = "/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/cpu.weight";
      assert.equal(await node.machine.sh(`cat ${path}`), "1");
    },
  },
];
