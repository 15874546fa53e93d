import assert from "node:assert/strict";

import type { Check } from "../check.ts";
import { qemu, runs, says, script } from "../lib/manifests.ts";
import type { Node } from "../lib/node.ts";

const mib = 2 ** 20;
const root = "/sys/fs/cgroup/kubepods.slice";

/** Settings by file name, for each cgroup by its path below {@link root}; the root itself is "". */
type Cgroups = ReadonlyMap<string, Readonly<Record<string, string>>>;

const files = "memory.max memory.oom.group cpu.max cpu.weight pids.max hugetlb.2MB.max".split(" ");

async function cgroups(node: Node): Promise<Cgroups> {
  const include = files.map((file) => `--include=${file}`).join(" ");
  const text = await node.machine.sh(`grep -rs . ${root} ${include} || true`);
  const out = new Map<string, Record<string, string>>();
  for (const line of text.split("\n")) {
    const [, path = "", file = "", value = ""] = /^(.*)\/([^/:]+):(.*)$/.exec(line) ?? [];
    const name = path.slice(root.length + 1);
    out.set(name, { ...out.get(name), [file]: value });
  }
  return out;
}

/** The pod's slice, and the scope of each container in it, by its name in the spec. */
async function slices(
  node: Node,
  name: string,
  tier: "" | "besteffort" | "burstable",
): Promise<Readonly<Record<string, string>>> {
  const { metadata, status } = await node.started(name);
  const uid = (metadata?.uid ?? "").replaceAll("-", "_");
  const slice = tier === "" ? "" : `kubepods-${tier}.slice/`;
  const own = `${slice}kubepods-${tier === "" ? "" : `${tier}-`}pod${uid}.slice`;
  const out: Record<string, string> = { pod: own };
  for (const { containerID = "", name: container } of status?.containerStatuses ?? []) {
    out[container] = `${own}/${containerID.replace("docker://", "docker-")}.scope`;
  }
  return out;
}

/** What these files hold must be what is expected of them; files that are not named may hold anything. */
function holds(
  all: Cgroups,
  path: string | undefined,
  expected: Readonly<Record<string, string>>,
): void {
  const found = all.get(path ?? "?");
  assert.ok(found !== undefined, `${path} is not among ${[...all.keys()].join("\n")}`);
  const seen = Object.fromEntries(Object.keys(expected).map((name) => [name, found[name]]));
  assert.deepEqual(seen, expected, path);
}

const guaranteed = runs("guaranteed", {
  one: { resources: { limits: { cpu: "250m", memory: "48Mi" } } },
});
const burstable = runs("burstable", {
  one: { resources: { requests: { cpu: "100m", memory: "64Mi" }, limits: { memory: "128Mi" } } },
});
const bestEffort = runs("best-effort", { one: {} });
// The pod as a whole has a limit, one of its containers has none of its own (KEP-2837).
const sized = runs(
  "sized",
  { one: { resources: { limits: { memory: "32Mi" } } }, two: {} },
  { resources: { requests: { cpu: "500m" }, limits: { memory: "64Mi" } } },
);

/** A pod with limits of its own shares them between its containers. */
async function sharesItsLimits(node: Node): Promise<void> {
  const { one, pod, two } = await slices(node, "sized", "burstable");
  const all = await cgroups(node);
  holds(all, pod, { "memory.max": String(64 * mib), "cpu.weight": "20" });
  holds(all, one, { "memory.max": String(32 * mib) });
  holds(all, two, { "memory.max": String(64 * mib) });
}

/** The slice of the Guaranteed pod is a unit with the same limits. */
async function isKnownToSystemd(node: Node, slice: string): Promise<void> {
  const show = `systemctl show ${slice} -p ActiveState -p MemoryMax -p CPUQuotaPerSecUSec -p CPUWeight -p Slice`;
  assert.deepEqual((await node.machine.sh(show)).split("\n").toSorted(), [
    "ActiveState=active",
    "CPUQuotaPerSecUSec=250ms",
    "CPUWeight=10",
    `MemoryMax=${48 * mib}`,
    "Slice=kubepods.slice",
  ]);
}

/** The engine knows nothing of these: the agent sets them once the container runs. */
const dieTogether = "until grep -q 1 /sys/fs/cgroup/memory.oom.group; do sleep 0.2; done";

const allocate = `until [ "$(cat /sys/fs/cgroup/hugetlb.2MB.max)" != max ]; do sleep 0.2; done
allocate() {
  echo quit | qemu-system-x86_64 -M none -nodefaults -display none -monitor stdio \
    -object memory-backend-memfd,id=m,size=$1,hugetlb=on,hugetlbsize=2M,prealloc=on >/dev/null 2>&1 &&
    echo "$1 given" || echo "$1 refused"
}`;

/** Cgroups, as systemd and the kernel hold them. */
export const resourceChecks: readonly Check[] = [
  {
    name: "each class of pods has its slice, and kernel and systemd hold pods and containers to their limits",
    objects: [guaranteed, burstable, bestEffort, sized],
    run: async (node) => {
      const [sure, some, none] = [
        await slices(node, "guaranteed", ""),
        await slices(node, "burstable", "burstable"),
        await slices(node, "best-effort", "besteffort"),
      ];
      const all = await cgroups(node);
      const max = { "memory.max": "max", "cpu.max": "max 100000" };
      const quarter = {
        "memory.max": String(48 * mib),
        "cpu.max": "25000 100000",
        "cpu.weight": "10",
      };
      holds(all, sure["pod"], quarter);
      holds(all, sure["one"], quarter);
      const upTo = { ...max, "memory.max": String(128 * mib), "cpu.weight": "4" };
      holds(all, some["pod"], upTo);
      holds(all, some["one"], upTo);
      holds(all, none["pod"], { ...max, "cpu.weight": "1" });
      holds(all, "kubepods-besteffort.slice", { ...max, "cpu.weight": "1" });
      // 100m and 500m: what all Burstable pods here ask for together.
      await node.podReady("sized");
      holds(await cgroups(node), "kubepods-burstable.slice", { ...max, "cpu.weight": "24" });
      await sharesItsLimits(node);
      await isKnownToSystemd(node, sure["pod"] ?? "");
    },
  },
  {
    name: "the OOM killer spares pods in the order of their classes, and a container ends with all of its processes",
    objects: [
      // The shell itself would live on.
      says("greedy", {
        one: script(`${dieTogether}; tail /dev/zero & wait $!; echo survived; sleep 3600`, {
          resources: { limits: { memory: "32Mi" } },
        }),
      }),
    ],
    run: async (node) => {
      for (const name of ["guaranteed", "burstable", "best-effort"]) await node.podReady(name);
      const text = await node.machine.sh(`docker ps -q --filter name=k8s_ |
        xargs docker inspect -f '{{.Name}} {{.State.Pid}}' | while read -r name pid; do
          echo "$name $(cat "/proc/$pid/oom_score_adj" 2>/dev/null)"; done`);
      const score = (container: string, pod: string): number => {
        const line = text.split("\n").find((each) => each.startsWith(`/k8s_${container}_${pod}_`));
        return Number(line?.split(" ")[1] ?? Number.NaN);
      };
      assert.equal(score("POD", "guaranteed"), -998, text);
      assert.equal(score("one", "guaranteed"), -997, text);
      assert.equal(score("one", "best-effort"), 1000, text);
      const total = await node.machine.sh(
        "awk '$1 == \"MemTotal:\" { print $2 * 1024 }' /proc/meminfo",
      );
      const share = Math.floor((1000 * 64 * mib) / Number(total));
      assert.equal(score("one", "burstable"), 1000 - share, text);
      const { status } = await node.ended("greedy");
      const { exitCode, message, reason } = status?.containerStatuses?.[0]?.state?.terminated ?? {};
      assert.deepEqual([status?.phase, exitCode], ["Failed", 137]);
      // The engine's word, and on a busy machine it comes after the end that it explains.
      assert.ok(["OOMKilled", "Error"].includes(reason ?? ""), reason);
      assert.doesNotMatch(message ?? "", /survived/);
      const { one } = await slices(node, "guaranteed", "");
      holds(await cgroups(node), one, { "memory.oom.group": "1" });
    },
  },
  {
    name: "huge pages are counted, and a pod gets as many as it asked for",
    // 32 MiB that only huge pages can use.
    prepare: async ({ machine }) => {
      await machine.sh("sysctl -qw vm.nr_hugepages=16");
    },
    objects: [
      says(
        "huge",
        {
          one: script(`${allocate}; allocate 4M; allocate 6M`, {
            volumeMounts: qemu.volumeMounts,
            resources: { limits: { "hugepages-2Mi": "4Mi", memory: "256Mi" } },
          }),
          two: { resources: { limits: { "hugepages-2Mi": "2Mi", memory: "32Mi" } } },
        },
        { volumes: qemu.volumes },
      ),
    ],
    run: async (node) => {
      const { items } = await node.get<{
        readonly items: readonly {
          readonly status: Readonly<Record<string, Readonly<Record<string, string>>>>;
        }[];
      }>("/api/v1/nodes");
      assert.equal(items[0]?.status["capacity"]?.["hugepages-2Mi"], "32Mi");
      assert.equal(await node.words("huge", "one"), "4M given\n6M refused");
      const { pod, two } = await slices(node, "huge", "burstable");
      const all = await cgroups(node);
      holds(all, two, { "hugetlb.2MB.max": String(2 * mib) });
      holds(all, pod, { "hugetlb.2MB.max": String(6 * mib) });
    },
  },
  {
    name: "limits outlive systemctl daemon-reload",
    run: async (node) => {
      const { pod = "", two = "" } = await slices(node, "huge", "burstable");
      const others = [
        await slices(node, "guaranteed", ""),
        await slices(node, "burstable", "burstable"),
        await slices(node, "best-effort", "besteffort"),
        await slices(node, "sized", "burstable"),
      ];
      const living = [pod, two, ...others.flatMap((paths) => Object.values(paths))];
      const tiers = ["", "kubepods-burstable.slice", "kubepods-besteffort.slice"];
      const before = await cgroups(node);
      await node.machine.sh("systemctl daemon-reload");
      const after = await cgroups(node);
      for (const path of [...tiers, ...living]) {
        assert.ok(before.has(path), path);
        // Not a limit, and systemd has no word for it in a scope: it writes its own.
        const same = { ...before.get(path), "memory.oom.group": undefined };
        assert.deepEqual({ ...after.get(path), "memory.oom.group": undefined }, same, path);
      }
    },
  },
];
