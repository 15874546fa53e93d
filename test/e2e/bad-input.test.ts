import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import {
  type CommandResult,
  eventually,
  Machine,
  type MachineProcess,
  root,
} from "./lib/machine.ts";
import { cannotRun, ownContainers, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const program = [`${root}/bin/node`, `${root}/src/agent/main.ts`] as const;
const image = "docker.io/library/busybox:1.36";
const controlPlane = "/var/lib/remora/control-plane";

/** One sentence on stderr that matches, exit code 1, and nothing that looks like a bug or a secret. */
function assertRefused(result: CommandResult, sentence: RegExp): void {
  const said = result.stderr + result.stdout;
  assert.equal(result.exitCode, 1, said);
  assert.match(result.stderr, sentence);
  assert.match(result.stderr, /^remora: [^\n]+\n$/, "one line");
  assert.doesNotMatch(said, /\n {4}at |BEGIN [A-Z ]*PRIVATE KEY|client-key-data: \S/);
}

function pod(name: string, container: Readonly<Record<string, unknown>>): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: { terminationGracePeriodSeconds: 1, containers: [{ name: "c", image, ...container }] },
  });
}

interface Refusal {
  readonly what: string;
  readonly manifest: string;
  readonly says: RegExp;
}

const manifests: readonly Refusal[] = [
  {
    what: "broken YAML",
    manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: x\nspec: [",
    says: /error parsing|converting YAML/,
  },
  {
    what: "an unknown field",
    manifest: pod("x", { comand: ["a"] }),
    says: /strict decoding error: unknown field "spec\.containers\[0\]\.comand"/,
  },
  {
    what: "a wrong type",
    manifest: pod("x", { ports: [{ containerPort: "eighty" }] }),
    says: /cannot unmarshal string into Go struct field .*containerPort of type int32/,
  },
  {
    what: "a missing image",
    manifest: pod("x", { image: undefined }),
    says: /spec\.containers\[0\]\.image: Required value/,
  },
  {
    what: "an unknown kind",
    manifest: "apiVersion: v1\nkind: Podd\nmetadata: {name: x}\n",
    says: /no matches for kind "Podd" in version "v1"/,
  },
  {
    what: "a kind that is not served",
    manifest: "apiVersion: nowhere.example/v1\nkind: Job\nmetadata: {name: x}\n",
    says: /no matches for kind "Job" in version "nowhere\.example\/v1"/,
  },
  {
    what: "a name that cannot be",
    manifest: pod("X_y", {}),
    says: /metadata\.name: Invalid value: "X_y": a lowercase RFC 1123 subdomain/,
  },
];

interface ImageTrouble {
  readonly name: string;
  readonly container: Readonly<Record<string, unknown>>;
  readonly reasons: readonly string[];
  readonly event: RegExp;
}

const imageTroubles: readonly ImageTrouble[] = [
  {
    name: "absent",
    container: { image: "127.0.0.1:1/nothing/here:1" },
    reasons: ["ErrImagePull", "ImagePullBackOff"],
    event: /Failed to pull image "127\.0\.0\.1:1\/nothing\/here:1"/,
  },
  {
    name: "misnamed",
    container: { image: "UPPER:::x" },
    reasons: ["InvalidImageName"],
    event: /couldn't parse image name "UPPER:::x"/,
  },
  {
    name: "never",
    container: { image: "docker.io/library/nothere:1", imagePullPolicy: "Never" },
    reasons: ["ErrImageNeverPull"],
    event: /is not present with pull policy of Never/,
  },
];

describe("bad input", { skip: skip ?? false }, () => {
  let machine: Machine;
  let remora: MachineProcess | undefined;
  /** What runs and must not notice anything. */
  let healthy: ReadonlyMap<string, string> = new Map();

  const run = async (...args: string[]): Promise<CommandResult> =>
    machine.exec([...program, ...args], { allowFailure: true, timeoutMs: 60_000 });
  const shell = async (script: string): Promise<CommandResult> =>
    machine.exec(["sh", "-c", script], { allowFailure: true, timeoutMs: 60_000 });
  const assertUnharmed = async (): Promise<void> => {
    const now = await ownContainers(machine);
    for (const [name, id] of healthy) assert.equal(now.get(name), id, `${name} is as it was`);
  };
  const stop = async (): Promise<void> => {
    await remora?.signal("INT");
    assert.equal(await remora?.exited, 0, remora?.output());
    remora = undefined;
  };

  before(async () => {
    machine = await Machine.start("bad");
    await machine.loadBusybox();
  });
  after(async () => {
    await machine[Symbol.asyncDispose]();
  });

  test("a machine that lacks something: what it is and how to get it", async () => {
    assertRefused(
      await machine.exec(["setpriv", "--reuid=65534", "--clear-groups", ...program, "up"], {
        allowFailure: true,
      }),
      /must run as root.*sudo/,
    );
    assertRefused(
      await run("up", "--docker-socket", "/run/none.sock"),
      /no Docker Engine answers on \/run\/none\.sock \(.+\); start it .* --docker-socket/,
    );
    const without = async (tool: string): Promise<CommandResult> =>
      shell(
        `exec unshare -m sh -c 'for f in /usr/sbin/${tool} /sbin/${tool} /usr/bin/${tool} /bin/${tool}; do [ ! -e $f ] || mount --bind /dev/null $f; done; exec "$@"' sh ${program.join(" ")} up`,
      );
    assertRefused(await without("nft"), /nft .*install it: apt-get install nftables/);
    assertRefused(await without("ip"), /ip .*install it: apt-get install iproute2/);
  });

  test("a port in use: which one, for what, and nothing was started", async () => {
    // For those of the proxy the agent waits, unless it is told not to.
    const hardFail = ["--bind-address-hard-fail"];
    const needed: readonly (readonly [port: number, flags: readonly string[]])[] = [
      [6443, []],
      [10_250, []],
      [10_248, []],
      [10_256, hardFail],
      [10_249, hardFail],
    ];
    for (const [port, flags] of needed) {
      const listener = machine.spawn(["busybox", "nc", "-l", "-p", String(port)]);
      await eventually(
        async () => ((await shell(`ss -Hltn 'sport = :${port}'`)).stdout === "" ? undefined : true),
        { timeoutMs: 10_000, describe: () => listener.output() },
      );
      assertRefused(
        await run("up", ...flags),
        new RegExp(`port ${port} \\(.+\\) is in use by another program; stop it \\(ss -ltnp`),
      );
      await listener.signal("KILL");
      await listener.exited;
    }
    const { stdout } = await shell(
      "ls -A /var/lib/remora; ip -br link; nft list tables; ls ~/.kube",
    );
    assert.doesNotMatch(stdout, /remora|control-plane|config/);
  });

  test("manifests that cannot be: kubectl shows the reason, and nothing is stored", async () => {
    remora = await remoraUp(machine);
    await machine.kubectl(["create", "-f", "-"], {
      stdin: pod("healthy", { command: ["sleep", "100000"] }),
    });
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/healthy", "--timeout=30s"]);
    healthy = await ownContainers(machine);
    assert.equal(healthy.size, 2);
    for (const { what, manifest, says } of manifests) {
      const result = await machine.kubectl(["create", "-f", "-"], {
        stdin: manifest,
        allowFailure: true,
      });
      assert.equal(result.exitCode, 1, what);
      assert.match(result.stderr, says, what);
    }
    const { stdout } = await machine.kubectl(["get", "pods", "-o", "name"]);
    assert.equal(stdout, "pod/healthy\n");
  });

  test("images that cannot be had: the kubelet's reason on the pod, an event, all else unharmed", async () => {
    const items = imageTroubles.map(({ name, container }): unknown =>
      JSON.parse(pod(name, container)),
    );
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
    await machine.kubectl(["create", "-f", "-"], { stdin: list });
    const reasonOf = async (name: string): Promise<string> =>
      (
        await machine.kubectl([
          "get",
          "pod",
          name,
          "-o",
          "jsonpath={.status.phase}/{.status.containerStatuses[0].state.waiting.reason}",
        ])
      ).stdout;
    for (const { name, reasons, event } of imageTroubles) {
      for (const reason of reasons) {
        await eventually(
          async () => ((await reasonOf(name)) === `Pending/${reason}` ? true : undefined),
          {
            timeoutMs: 40_000,
            describe: async () => `${name}: ${reason}, is ${await reasonOf(name)}`,
          },
        );
      }
      await eventually(
        async () => {
          const { stdout } = await machine.kubectl([
            "get",
            "events",
            "--field-selector",
            `involvedObject.name=${name},type=Warning`,
            "-o",
            "jsonpath={.items[*].message}",
          ]);
          return event.test(stdout) ? true : undefined;
        },
        { timeoutMs: 20_000, describe: () => `an event of ${name} that says ${event.source}` },
      );
    }
    await machine.kubectl(["delete", "pods", ...imageTroubles.map(({ name }) => name)]);
    await assertUnharmed();
  });

  test("a second agent on the machine: refused whatever its directory, the first unharmed", async () => {
    const refusal = /another remora \(pid \d+, \/var\/lib\/remora\) already runs on this machine/;
    assertRefused(await run("up"), refusal);
    assertRefused(await run("up", "--state-dir", "/var/lib/kubelet/two"), refusal);
    const kubeconfig = `${controlPlane}/node.conf`;
    assertRefused(
      await run("run", "--kubeconfig", kubeconfig, "--root-dir", "/var/lib/remora/kubelet"),
      refusal,
    );
    assertRefused(
      await run("down", "--state-dir", "/var/lib/kubelet/two"),
      /runs on \/var\/lib\/remora: give --state-dir \/var\/lib\/remora/,
    );
    assert.match((await machine.kubectl(["get", "nodes"])).stdout, / Ready /);
    // Nobody who can see processes can see keys.
    const processes = await shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    assert.doesNotMatch(processes.stdout, /PRIVATE KEY|client-key|token/);
    await assertUnharmed();
    await stop();
    await assertUnharmed();
  });

  test("a kubeconfig that cannot work: which file, which field, what to do", async () => {
    const node = `${controlPlane}/admin.conf`;
    const cases: readonly (readonly [string, RegExp])[] = [
      ["printf 'a: [\\n' >/run/k", /kubeconfig \/run\/k is not YAML/],
      [
        `sed 's/current-context: .*/current-context: other/' ${node} >/run/k`,
        /current-context "other" is not in contexts; set current-context to one of: remora/,
      ],
      [
        `sed 's/client-key-data: .*/client-key-data: "@"/' ${node} >/run/k`,
        /users\[0\]\.user\.client-key-data must be base64/,
      ],
    ];
    const missing = await run("run", "--log-level", "warn", "--kubeconfig", "/run/missing");
    assert.equal(missing.exitCode, 1, missing.stderr);
    assert.equal(
      missing.stderr,
      "remora: the configuration cannot be used:\n" +
        "  --kubeconfig: RemoraConfiguration.kubeconfig: /run/missing is not there; give credentials of this node, or --join\n",
    );
    for (const [make, sentence] of cases) {
      await shell(make);
      assertRefused(await run("run", "--log-level", "warn", "--kubeconfig", "/run/k"), sentence);
    }
    // A server that does not answer is waited for, and that is said once.
    await shell(`sed 's/6443/1/' ${node} >/run/k`);
    const waiting = machine.spawn([
      ...program,
      "run",
      "--log-level",
      "warn",
      "--kubeconfig",
      "/run/k",
    ]);
    await eventually(
      async () => {
        await Promise.resolve();
        return waiting.output().includes("ECONNREFUSED") ? true : undefined;
      },
      { timeoutMs: 15_000, describe: () => waiting.output() },
    );
    await new Promise((resolve) => setTimeout(resolve, 4000));
    const resets = waiting.output().match(/API server does not answer/g) ?? [];
    // One for each of the two identities at most.
    assert.ok(resets.length <= 3, waiting.output());
    await waiting.signal("TERM");
    assert.equal(await waiting.exited, 0, waiting.output());
    await assertUnharmed();
  });

  test("state that is damaged, lost or newer: the file, the remedy, and nothing is overwritten", async () => {
    const store = `${controlPlane}/store.db`;
    const cases: readonly (readonly [string, RegExp])[] = [
      [`dd if=/dev/urandom of=${store} bs=1k count=2 conv=notrunc`, /store\.db is damaged \(/],
      [`: >${store}`, /store\.db is missing or empty although this cluster has run before/],
      [
        `${root}/bin/node -e 'new (require("node:sqlite").DatabaseSync)("${store}").exec("PRAGMA user_version=99")'`,
        /store\.db was written by a newer version of remora .*use that version or newer/,
      ],
      [`echo garbage >${controlPlane}/pki/apiserver.key`, /apiserver\.key is not a private key/],
      [`echo garbage >${controlPlane}/pki/ca.crt`, /pki\/ca\.crt is not a certificate/],
      [`rm ${controlPlane}/pki/ca.key`, /ca\.key is missing beside .*ca\.crt; restore it/],
      [`rm -r ${controlPlane}/pki/ca.crt; mkdir ${controlPlane}/pki/ca.crt`, /EISDIR/],
    ];
    await shell(`cp -a ${controlPlane} /run/saved`);
    for (const [damage, sentence] of cases) {
      await shell(damage);
      // A good store beside a damaged certificate is opened and closed, which may write to it.
      const files = damage.includes(store) ? "pki store.db" : "pki";
      const sums = `cd ${controlPlane} && find ${files} -type f -exec sha256sum {} + | sort`;
      const untouched = (await shell(sums)).stdout;
      const result = await run("up");
      const afterwards = (await shell(sums)).stdout;
      await shell(`rm -rf ${controlPlane} && cp -a /run/saved ${controlPlane}`);
      assertRefused(result, sentence);
      assert.equal(afterwards, untouched, damage);
    }
    await assertUnharmed();
  });

  test("the user's kubeconfig: broken it is left alone, other clusters and the current context stay", async () => {
    const path = "/run/home/.kube/config";
    await shell(`printf 'just: [broken\\n' >${path}`);
    remora = await remoraUp(machine).catch((error: unknown) => {
      throw new Error("a broken kubeconfig of the user must not keep the cluster from starting", {
        cause: error,
      });
    });
    assert.match(remora.output(), /kubectl --kubeconfig .*admin\.conf get nodes/);
    assert.match(remora.output(), /\/run\/home\/\.kube\/config was left alone/);
    assert.equal((await shell(`cat ${path}`)).stdout, "just: [broken\n");
    await stop();

    const theirs =
      "current-context: work\nclusters: [{name: work, cluster: {server: 'https://work.example'}}]\ncontexts: [{name: work, context: {cluster: work, user: jane}}]\nusers: [{name: jane, user: {auth-provider: {name: gone}}}]\n";
    await machine.exec(["tee", path], { stdin: theirs });
    await shell(`chown 65534 ${path}`);
    remora = await remoraUp(machine);
    assert.match(remora.output(), /kubectl --context remora get nodes/);
    const merged = (await shell(`cat ${path}`)).stdout;
    assert.match(merged, /current-context: work/);
    assert.match(merged, /https:\/\/work\.example/);
    assert.equal((await shell(`stat -c '%u %a' ${path}`)).stdout, "65534 600\n");
    assert.match(
      (await machine.kubectl(["--context", "remora", "get", "pods"])).stdout,
      /healthy +1\/1 +Running +0/,
    );
    await assertUnharmed();
  });

  test("down while it runs, with a container that ignores TERM, and down again; foreign containers survive", async () => {
    const context = ["--context", "remora"];
    await machine.kubectl([...context, "create", "-f", "-"], {
      stdin: JSON.stringify({
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "stubborn" },
        spec: {
          terminationGracePeriodSeconds: 3600,
          volumes: [{ name: "m", emptyDir: { medium: "Memory" } }],
          containers: [
            {
              name: "c",
              image,
              command: ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
              volumeMounts: [{ name: "m", mountPath: "/m" }],
            },
          ],
        },
      }),
    });
    await machine.kubectl([
      ...context,
      "wait",
      "--for=condition=Ready",
      "pod/stubborn",
      "--timeout=30s",
    ]);
    const foreign = await machine.exec([
      "docker",
      "run",
      "--detach",
      "--network=none",
      "busybox:1.36",
      "sleep",
      "100000",
    ]);

    const down = await run("down");
    assert.equal(down.exitCode, 0, down.stdout + down.stderr);
    assert.match(down.stdout, /stopping the remora that runs on \/var\/lib\/remora/);
    assert.match(down.stdout, /nothing is left of remora/);
    assert.equal(await remora?.exited, 0, remora?.output());
    remora = undefined;
    assert.equal((await ownContainers(machine)).size, 0);
    const again = await run("down");
    assert.equal(again.exitCode, 0, again.stdout + again.stderr);
    assert.match(again.stdout, /nothing is left of remora/);
    const inspected = await machine.docker("GET", `/containers/${foreign.stdout.trim()}/json`);
    assert.equal((inspected as { State: { Running: boolean } }).State.Running, true);
    const kubeconfig = (await shell("cat /run/home/.kube/config")).stdout;
    assert.match(kubeconfig, /current-context: work/);
    assert.doesNotMatch(kubeconfig, /remora/);
  });
});
