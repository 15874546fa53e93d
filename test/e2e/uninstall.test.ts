import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { type CommandResult, Machine, root } from "./lib/machine.ts";
import { cannotRun, ownContainers, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const program = `${root}/bin/remora`;
const image = "docker.io/library/busybox:1.36";

/** Steps before which a removal is interrupted, in order: one behind each that has something to remove here. */
const steps = [
  "stopAgent",
  "removeContainers",
  "removeNetworkRules",
  "removeNetworkAttachments",
  "removeISCSISessions",
  "removeLogLinks",
  "removeOwnImages",
  "removeKernelSettings",
  "removeKubeconfigContexts",
  "removeFiles",
  "removeDirectories",
  "removeRecords",
  "removeMarker",
  "removeStateDirectory",
  "stopEngine",
] as const;

/** Things of others, beside and in between ours. */
const zoo = `set -e
docker run --detach --name foreign --network bridge --publish 8099:80 busybox:1.36 sleep 100000 >/dev/null
docker tag busybox:1.36 zoo/parrot:1
nft 'table inet zoo { set s { type ipv4_addr; elements = { 192.0.2.7 } }; chain c { type filter hook input priority 5; policy accept; ip saddr @s drop; }; }'
iptables -N ZOO; iptables -A ZOO -s 192.0.2.8 -j DROP; iptables -A FORWARD -j ZOO
iptables -t nat -N ZOO-NAT; iptables -t nat -A ZOO-NAT -d 192.0.2.9 -j RETURN
ip link add zoo0 type bridge; ip addr add 192.0.2.1/32 dev zoo0; ip link set zoo0 up
ip route add 192.0.2.64/26 dev zoo0
mkdir -p /var/log/containers /var/log/pods/zoo_lion_1 /run/home/.kube
ln -sf /var/log/pods/zoo_lion_1/0.log /var/log/containers/lion.log
cat >/run/home/.kube/config <<'EOF'
apiVersion: v1
# As kubectl writes it, with a remark.
clusters:
- cluster:
    server: https://zoo.example
  name: zoo
contexts:
- context:
    cluster: zoo
    user: keeper
  name: zoo
current-context: zoo
kind: Config
preferences: {}
users:
- name: keeper
  user:
    token: "0123"
EOF
`;

/** All that anybody could miss afterwards, in one text. */
const census = `
nft -s list ruleset
for t in filter nat mangle; do iptables-save -t $t; ip6tables-save -t $t; done | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'
ip -o link | sed 's/^[0-9]*: //; s/ qdisc.*//' | grep -v veth; ip route; ip -6 route; ip rule
docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.State}}'
docker image ls --format '{{.Repository}}:{{.Tag}}' | sort; docker volume ls -q; docker network ls --format '{{.Name}}' | sort
find /var/lib/remora /var/lib/kubelet /var/log/pods /var/log/containers /run/remora /run/home -path '*/.kube/cache' -prune -o -print | sort
cat /run/home/.kube/config; cat /var/lib/remora/notes.txt
for s in ipv4.ip_forward ipv6.conf.all.forwarding ipv4.conf.all.forwarding; do sysctl net.$s; done
cut -d' ' -f5 /proc/self/mountinfo | sort
find /sys/fs/cgroup -name 'kubepods*'
`;

describe("remora uninstall", { skip: skip ?? false, concurrency: false }, () => {
  test("removes what a dry run listed and nothing else, also when it is killed at every step", async () => {
    await using machine = await Machine.start("unin");
    await machine.loadBusybox();
    const shell = (script: string): Promise<CommandResult> =>
      machine.exec(["sh", "-c", script], { allowFailure: true });
    const count = async (): Promise<string> => (await shell(`(${census}) 2>&1`)).stdout;
    const uninstall = (
      args: readonly string[],
      env: readonly string[] = [],
    ): Promise<CommandResult> =>
      machine.exec(["env", ...env, program, "uninstall", ...args], { allowFailure: true });

    const made = await shell(zoo);
    assert.equal(made.exitCode, 0, made.stderr);
    // As on a machine where nobody has needed it yet.
    await shell("sysctl -w net.ipv4.ip_forward=0");
    const empty = await count();

    const live = async (): Promise<void> => {
      await remoraUp(machine);
      const pod = {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: "tenant", labels: { app: "tenant" } },
        spec: {
          volumes: [{ name: "m", emptyDir: { medium: "Memory" } }],
          containers: [
            {
              name: "c",
              image,
              command: ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
              ports: [{ containerPort: 80, hostPort: 8098 }],
              volumeMounts: [{ name: "m", mountPath: "/m" }],
            },
          ],
        },
      };
      // The file of whoever asks has a context of their own, which stays the current one.
      await machine.kubectl(["--context=remora", "create", "-f", "-"], {
        stdin: JSON.stringify(pod),
      });
      await machine.kubectl(["--context=remora", "wait", "--for=condition=Ready", "pod/tenant"]);
      assert.equal((await shell("sysctl -n net.ipv4.ip_forward")).stdout, "1\n");
      await shell("echo mine >/var/lib/remora/notes.txt");
    };

    await live();
    const refused = await uninstall([]);
    assert.equal(refused.exitCode, 1);
    assert.match(refused.stderr, /^remora: nothing was removed: give --yes, or --dry-run/m);
    // The agent writes the records of its name server down when it has time for it.
    const still = async (): Promise<string> =>
      (await count()).replaceAll(/^\/var\/lib\/remora\/kubelet\/dns\b.*\n/gm, "");
    const before = await still();
    const dry = await uninstall(["--dry-run"]);
    assert.equal(dry.exitCode, 0, dry.stderr);
    assert.equal(await still(), before, "a dry run changes nothing");
    const lines = (text: string, verb: string): string[] =>
      text
        .split("\n")
        .filter((line) => line.startsWith(verb))
        .map((line) => line.slice(verb.length).trim())
        .toSorted();
    const promised = lines(dry.stdout, "would remove");
    assert.ok(promised.length > 15, dry.stdout);
    for (const what of ["containers", "network rules", "mounts", "kernel settings", "log links"]) {
      assert.ok(
        promised.some((line) => line.startsWith(`${what}: `)),
        `${what} in ${dry.stdout}`,
      );
    }
    const real = await uninstall(["--yes"]);
    assert.equal(real.exitCode, 0, real.stdout + real.stderr);
    assert.deepEqual(lines(real.stdout, "removed"), promised);
    assert.match(real.stdout, /^0 left$/m);
    assert.match(real.stdout, /^kept +\/var\/lib\/remora\/notes\.txt is not remora's and stays$/m);
    assert.equal((await ownContainers(machine)).size, 0);
    assert.equal((await shell("cat /var/lib/remora/notes.txt")).stdout, "mine\n");
    await shell("rm /var/lib/remora/notes.txt");
    assert.equal(await count(), empty, "everything else is as it was");

    await live();
    for (const step of steps) {
      const killed = await uninstall(["--yes"], [`REMORA_CRASH_AT=${step}`]);
      assert.equal(killed.exitCode, 137, `killed at ${step}: ${killed.stdout}${killed.stderr}`);
    }
    const last = await uninstall(["--yes"]);
    assert.equal(last.exitCode, 0, last.stdout + last.stderr);
    assert.match(last.stdout, /^0 left$/m);
    await shell("rm /var/lib/remora/notes.txt");
    assert.equal(await count(), empty, "a removal that was interrupted is finished");
    const again = await uninstall(["--yes"]);
    assert.deepEqual(lines(again.stdout, "removed"), []);
  });

  test("a directory that is not ours is not removed, and is not taken either", async () => {
    await using machine = await Machine.start("unin");
    await machine.exec(["sh", "-c", "mkdir -p /run/home/thesis; echo 1 >/run/home/thesis/a.tex"]);
    for (const command of ["up", "down", "uninstall"]) {
      const args = [program, command, "--state-dir", "/run/home/thesis"];
      const result = await machine.exec(args, { allowFailure: true });
      assert.equal(result.exitCode, 1, result.stdout + result.stderr);
      assert.match(result.stderr, /\/run\/home\/thesis (holds something else|is not remora's)/);
    }
    const { stdout } = await machine.exec(["find", "/run/home/thesis", "-type", "f"]);
    assert.equal(stdout, "/run/home/thesis/a.tex\n");
  });
});
