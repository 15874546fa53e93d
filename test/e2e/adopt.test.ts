import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { cannotHave, EarlierVersion } from "./lib/earlier-version.ts";
import { eventually, Machine, root } from "./lib/machine.ts";
import { cannotRun, hasSaid, remoraUp } from "./lib/remora.ts";

/** Before there were markers, ledgers, attachments of plug-ins, records of DNS or iptables rules. */
const earlier = "1e46cbfc";
const skip = cannotRun() ?? cannotHave(earlier);
const program = `${root}/bin/remora`;

const manifests = [
  {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "page" },
    data: { "index.html": "from the earlier version\n" },
  },
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "web" },
    spec: { selector: { app: "web" }, ports: [{ port: 80, nodePort: 30_080 }], type: "NodePort" },
  },
  {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "web" },
    spec: {
      replicas: 2,
      selector: { matchLabels: { app: "web" } },
      template: {
        metadata: { labels: { app: "web" } },
        spec: {
          volumes: [
            { name: "page", configMap: { name: "page" } },
            { name: "scratch", emptyDir: { medium: "Memory" } },
          ],
          containers: [
            {
              name: "httpd",
              image: "busybox:1.36",
              command: ["sh", "-c", "echo born >/scratch/note; exec httpd -f -h /www"],
              env: [{ name: "NODE", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } }],
              resources: { requests: { cpu: "10m" }, limits: { memory: "64Mi" } },
              readinessProbe: { httpGet: { port: 80 }, periodSeconds: 1 },
              volumeMounts: [
                { name: "page", mountPath: "/www" },
                { name: "scratch", mountPath: "/scratch" },
              ],
            },
          ],
        },
      },
    },
  },
  {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "lone" },
    spec: {
      terminationGracePeriodSeconds: 0,
      initContainers: [{ name: "first", image: "busybox:1.36", command: ["true"] }],
      containers: [
        {
          name: "c",
          image: "busybox:1.36",
          command: ["sh", "-c", "while :; do echo tick; sleep 1; done"],
          ports: [{ containerPort: 7, hostPort: 8097 }],
        },
      ],
    },
  },
];

describe("the state of an earlier version", { skip: skip ?? false }, () => {
  test("is taken over with everything that runs; that of a later one is refused and left alone", async () => {
    await using old = await EarlierVersion.at(earlier);
    await using machine = await Machine.start("adpt");
    await machine.loadBusybox();
    const shell = async (script: string): Promise<string> =>
      (await machine.exec(["sh", "-c", script], { allowFailure: true })).stdout;
    const containers = (): Promise<string> =>
      shell(
        "docker ps --all --no-trunc --format '{{.Names}} {{.ID}}' | sort | while read name id; do echo $name $id $(docker inspect -f '{{.State.StartedAt}} {{.RestartCount}}' $id); done",
      );
    const objects = async (): Promise<string> => {
      const columns = "NAME:.metadata.name,UID:.metadata.uid,IP:.status.podIP,AT:.spec.nodeName";
      const kinds = "pods,services,deployments,replicasets,configmaps,nodes,secrets,namespaces";
      return (await machine.kubectl(["get", kinds, "-A", "-o", `custom-columns=${columns}`]))
        .stdout;
    };
    const restarts = async (): Promise<string> =>
      (
        await machine.kubectl([
          "get",
          "pods",
          "-o",
          "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
        ])
      ).stdout;

    const first = await hasSaid(machine.spawn([...old.argv, "up"]), /^Next: kubectl .*get nodes$/m);
    await machine.kubectl(["create", "-f", "-"], {
      stdin: manifests.map((manifest) => JSON.stringify(manifest)).join("\n"),
    });
    await machine.kubectl(["rollout", "status", "deployment/web", "--timeout=60s"]);
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/lone", "--timeout=30s"]);
    const [running, known] = [await containers(), await objects()];
    assert.equal(running.trim().split("\n").length, 7, running);
    const ip = await shell("kubectl get service web -o jsonpath={.spec.clusterIP}");
    const ask = `wget -q -T 2 -O - http://${ip}/`;
    assert.equal(await shell(ask), "from the earlier version\n");
    await first.signal("TERM");
    assert.equal(await first.exited, 0, first.output());

    const second = await remoraUp(machine);
    await eventually(async () => ((await shell(ask)) === "" ? undefined : true), {
      timeoutMs: 10_000,
      describe: () => second.output(),
    });
    // Whatever would have been restarted is by the time that this has come and gone.
    await machine.kubectl(["run", "new", "--image=busybox:1.36", "--", "sleep", "1000"]);
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/new", "--timeout=30s"]);
    await machine.kubectl(["delete", "pod", "new", "--now"]);
    await machine.kubectl(["wait", "--for=condition=Ready", "pods", "--all", "--timeout=30s"]);
    assert.equal(await containers(), running, second.output());
    assert.equal(await objects(), known);
    assert.equal(await restarts(), "0 0 0");
    assert.match(await shell("kubectl logs lone --tail=1"), /^tick$/m);
    assert.match(await shell("kubectl exec deployment/web -- cat /scratch/note"), /^born$/m);
    assert.equal(
      await shell(`wget -q -T 2 -O - http://${machine.address}:30080/`),
      await shell(ask),
    );
    await second.signal("TERM");
    assert.equal(await second.exited, 0, second.output());

    const marker = JSON.parse(await shell("cat /var/lib/remora/remora.json")) as object;
    const later = JSON.stringify({ ...marker, schema: 99, version: "9.8.7" });
    await shell(`echo '${later}' >/var/lib/remora/remora.json`);
    const census = "find /var/lib/remora -type f | sort | xargs sha256sum; nft -s list ruleset";
    const before = await shell(census);
    for (const command of [["up"], ["down"], ["uninstall", "--yes"], ["uninstall", "--dry-run"]]) {
      const refused = await machine.exec([program, ...command], { allowFailure: true });
      assert.equal(refused.exitCode, 1, refused.stdout);
      assert.match(
        refused.stderr,
        /was written by remora 9\.8\.7 \(state schema 99\), and this is remora \d+\.\d+\.\d+.*: install remora 9\.8\.7 or newer again; nothing was changed/,
      );
    }
    assert.equal(await shell(census), before);
    assert.equal(await containers(), running);

    await shell(`echo '${JSON.stringify(marker)}' >/var/lib/remora/remora.json`);
    const gone = await machine.exec([program, "uninstall", "--yes"], { allowFailure: true });
    assert.equal(gone.exitCode, 0, gone.stdout + gone.stderr);
    assert.match(gone.stdout, /^0 left$/m);
    assert.equal(await containers(), "");
    assert.equal(
      await shell("find /var/lib/remora; nft list tables | grep remora"),
      "/var/lib/remora\n",
    );
  });
});
