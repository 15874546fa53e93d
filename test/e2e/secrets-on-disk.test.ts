import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const secret = randomBytes(24).toString("hex");
const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount/token";

const manifest = {
  apiVersion: "v1",
  kind: "List",
  items: [
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "hidden" },
      stringData: { password: secret, "odd..name": "x" },
    },
    { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "plain" }, data: { key: "1" } },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "reader", labels: { shown: "1" } },
      spec: {
        terminationGracePeriodSeconds: 0,
        containers: [
          {
            name: "c",
            image: "docker.io/library/busybox:1.36",
            command: ["sh", "-c", "sleep 2147483"],
            volumeMounts: [
              { name: "secret", mountPath: "/secret" },
              { name: "many", mountPath: "/many" },
              { name: "plain", mountPath: "/plain" },
            ],
          },
        ],
        volumes: [
          { name: "secret", secret: { secretName: "hidden" } },
          {
            name: "many",
            projected: {
              sources: [
                { serviceAccountToken: { path: "deep/token", audience: "vault" } },
                { secret: { name: "hidden", items: [{ key: "password", path: "new\nline" }] } },
                {
                  downwardAPI: {
                    items: [{ path: "labels", fieldRef: { fieldPath: "metadata.labels" } }],
                  },
                },
                { configMap: { name: "late", optional: true } },
              ],
            },
          },
          { name: "plain", configMap: { name: "plain" } },
        ],
      },
    },
  ],
};

describe("what is secret", { skip }, () => {
  let machine: Machine;
  let remora: MachineProcess;

  const cat = async (path: string): Promise<string> => {
    const argv = ["exec", "reader", "--", "cat", path];
    return (await machine.kubectl(argv, { allowFailure: true })).stdout.trim();
  };

  /** Files on disks, not in memory, that hold one of these texts. */
  const found = async (texts: readonly string[]): Promise<string> => {
    const stdin = `${texts.join("\n")}\n`;
    await machine.exec(["sh", "-c", "cat >/run/patterns"], { stdin });
    const places = "/var/lib/remora /var/lib/docker /var/log/pods /var/log/containers";
    const scan = `find ${places} -xdev -type f -exec grep -l -a -F -f /run/patterns {} + || true`;
    return (await machine.exec(["sh", "-c", scan])).stdout;
  };

  const ready = async (): Promise<void> => {
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/reader", "--timeout=60s"]);
  };

  before(async () => {
    machine = await Machine.start("sec");
    await machine.loadBusybox();
    remora = await remoraUp(machine);
    const argv = ["get", "serviceaccount", "default"];
    await eventually(
      async () =>
        (await machine.kubectl(argv, { allowFailure: true })).exitCode === 0 ? true : undefined,
      { timeoutMs: 30_000, describe: () => "there is no service account" },
    );
    await machine.kubectl(["apply", "-f", "-"], { stdin: JSON.stringify(manifest) });
    await ready();
  });

  after(async () => {
    await remora.signal("TERM");
    await remora.exited;
    await remoraDown(machine);
    await machine[Symbol.asyncDispose]();
  });

  test("is in memory only: tokens and passwords lie on no disk of the node", async () => {
    const tokens = [await cat(tokenPath), await cat("/many/deep/token")];
    for (const token of tokens) assert.match(token, /^ey[\w-]+\.[\w-]+\.[\w-]+$/);
    assert.equal(await cat("/secret/password"), secret);
    assert.equal(await cat("/many/new\nline"), secret);
    assert.equal(await found(tokens), "");
    // The control plane keeps its objects in its own store, and there alone.
    const holders = (await found([secret]))
      .trim()
      .split("\n")
      .filter((path) => path !== "");
    assert.deepEqual(
      holders.filter((path) => !path.startsWith("/var/lib/remora/control-plane/")),
      [],
    );
    const planted = "/var/lib/remora/kubelet/planted";
    await machine.exec(["sh", "-c", `cat >${planted}`], { stdin: tokens[0] ?? "" });
    assert.equal((await found(tokens)).trim(), planted, "the scan sees what there is");
    await machine.exec(["rm", planted]);
  });

  test("stays so when the agent is killed and comes back", async () => {
    const before = await cat(tokenPath);
    await remora.signal("KILL");
    await remora.exited;
    remora = await remoraUp(machine);
    await ready();
    const tokens = await eventually(
      async () => {
        const after = await cat(tokenPath);
        return after !== "" && after !== before
          ? [before, after, await cat("/many/deep/token")]
          : undefined;
      },
      { timeoutMs: 60_000, describe: () => "the token is the one of before" },
    );
    assert.equal(await found(tokens), "");
  });

  test("changes reach the files of a running pod within seconds", async () => {
    const shows = async (path: string, text: string): Promise<void> => {
      await eventually(async () => ((await cat(path)) === text ? true : undefined), {
        timeoutMs: 10_000,
        describe: () => `${path} does not show ${text}`,
      });
    };
    const merge = async (kind: string, patch: object): Promise<void> => {
      await machine.kubectl(["patch", kind, "--type=merge", "-p", JSON.stringify(patch)]);
    };
    await merge("configmap/plain", { data: { key: "2" } });
    await shows("/plain/key", "2");
    await machine.kubectl(["label", "pod", "reader", "shown=2", "--overwrite"]);
    await shows("/many/labels", 'shown="2"');
    await machine.kubectl(["create", "configmap", "late", "--from-literal=late=yes"]);
    await shows("/many/late", "yes");
    await machine.kubectl(["delete", "configmap", "late"]);
    await shows("/many/late", "");
    await merge("configmap/plain", { immutable: true });
    await machine.kubectl(["delete", "configmap", "plain"]);
    await shows("/plain/key", "2");
  });

  test("goes with the pod: no mount and no directory is left", async () => {
    const { stdout: uid } = await machine.kubectl([
      "get",
      "pod",
      "reader",
      "-o",
      "jsonpath={.metadata.uid}",
    ]);
    await machine.kubectl(["delete", "pod", "reader", "--wait"]);
    // A pod without grace is gone from the API before it is from the node.
    const left = `grep ${uid} /proc/self/mountinfo; ls /var/lib/remora/kubelet/pods`;
    let seen = "";
    await eventually(
      async () => {
        const { stdout } = await machine.exec(["sh", "-c", left]);
        seen = stdout;
        return stdout.includes(uid) ? undefined : true;
      },
      { timeoutMs: 20_000, describe: () => seen },
    );
  });
});
