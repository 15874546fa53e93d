import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, describe, test } from "node:test";

import { busyboxArchive, eventually, Machine, type MachineProcess } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const busybox = "docker.io/library/busybox:1.36";
/** Busybox whose USER is `web`: uid and gid 1000, also a member of group 3000. */
const accounts = "docker.io/library/accounts:1";

interface ContainerStatus {
  readonly name: string;
  readonly restartCount: number;
  readonly stopSignal?: string;
  readonly user?: { readonly linux?: object };
  readonly volumeMounts?: readonly object[];
  readonly state: {
    readonly waiting?: { readonly reason: string; readonly message?: string };
    readonly running?: object;
    readonly terminated?: { readonly exitCode: number; readonly message?: string };
  };
}

interface PodObject {
  readonly metadata: { readonly uid: string };
  readonly spec: { readonly nodeName: string };
  readonly status: {
    readonly phase: string;
    readonly reason?: string;
    readonly message?: string;
    readonly podIP?: string;
    readonly hostIP?: string;
    readonly containerStatuses?: readonly ContainerStatus[];
    readonly ephemeralContainerStatuses?: readonly ContainerStatus[];
  };
}

type Fields = Readonly<Record<string, unknown>>;

/** A pod that runs one script to its end; its log is what the test looks at. */
function script(name: string, text: string, spec: Fields = {}, container: Fields = {}): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: {
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 1,
      containers: [{ name: "c", image: busybox, command: ["sh", "-c", text], ...container }],
      ...spec,
    },
  };
}

const names = "hostname; echo $HOSTNAME; cat /etc/hostname; cat /etc/hosts";
const status = "grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs|Seccomp):' /proc/self/status";
const emptyDir = (name: string): object => ({ name, emptyDir: {} });
const writer = (text: string): object => ({
  name: "writer",
  image: busybox,
  command: ["sh", "-c", text],
  volumeMounts: [{ name: "config", mountPath: "/data" }],
});
const fromFile = (name: string, key: string, more: Fields = {}): object => ({
  name,
  valueFrom: { fileKeyRef: { volumeName: "config", path: "config.env", key, ...more } },
});
const envFile = "printf \"A='one'\\n# why\\nB='two\\n lines'\\n\" >/data/config.env";
const envFileSpec = { volumes: [emptyDir("config")], initContainers: [writer(envFile)] };
const sleeping = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

const pods: readonly object[] = [
  script(
    "env-file",
    'echo "$A|$B|${C-unset}|$D|$(cat /proc/mounts | grep -c config)"',
    envFileSpec,
    {
      env: [
        fromFile("A", "A"),
        fromFile("B", "B"),
        fromFile("C", "C", { optional: true }),
        { name: "D", value: "<$(A)>" },
      ],
    },
  ),
  script("env-no-key", "exit 0", envFileSpec, { env: [fromFile("A", "NONE")] }),
  script(
    "env-bad-file",
    "exit 0",
    {
      ...envFileSpec,
      initContainers: [writer("ln -s /etc/passwd /data/config.env")],
    },
    { env: [fromFile("A", "A", { optional: true })] },
  ),
  script(
    "env-fields",
    "env | grep ^F_ | sort",
    {},
    {
      resources: { limits: { cpu: "1500m", memory: "32Mi" } },
      env: [
        ["F_NAME", { fieldRef: { fieldPath: "metadata.name" } }],
        ["F_NODE", { fieldRef: { fieldPath: "spec.nodeName" } }],
        ["F_POD_IP", { fieldRef: { fieldPath: "status.podIP" } }],
        ["F_HOST_IP", { fieldRef: { fieldPath: "status.hostIP" } }],
        ["F_CPU", { resourceFieldRef: { resource: "limits.cpu" } }],
        ["F_MIB", { resourceFieldRef: { resource: "limits.memory", divisor: "1Mi" } }],
      ].map(([name, valueFrom]) => ({ name, valueFrom })),
    },
  ),
  script("named", names, {
    hostname: "db",
    subdomain: "sub",
    hostAliases: [{ ip: "192.0.2.7", hostnames: ["one", "two"] }],
  }),
  script("fqdn", names, { hostname: "db", subdomain: "sub", setHostnameAsFQDN: true }),
  script("fqdn-long", "exit 0", {
    hostname: "h".repeat(60),
    subdomain: "sub",
    setHostnameAsFQDN: true,
  }),
  script("overridden", names, { hostnameOverride: "any.name.example", subdomain: "sub" }),
  script(
    "on-node",
    `${names}; cat /proc/1/comm; cat /etc/resolv.conf; for n in net ipc pid; do readlink /proc/self/ns/$n; done`,
    {
      hostNetwork: true,
      hostPID: true,
      hostIPC: true,
      dnsPolicy: "ClusterFirstWithHostNet",
      hostAliases: [{ ip: "192.0.2.7", hostnames: ["one"] }],
    },
  ),
  script("dns-default", "cat /etc/resolv.conf", { dnsPolicy: "Default" }),
  script("dns-cluster", "cat /etc/resolv.conf", {
    dnsConfig: { searches: ["more.example"], options: [{ name: "ndots", value: "2" }] },
  }),
  script("dns-none", "cat /etc/resolv.conf", {
    dnsPolicy: "None",
    dnsConfig: {
      nameservers: ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
      searches: [".", "a.example"],
      options: [{ name: "edns0" }],
    },
  }),
  script("dns-many", "cat /etc/resolv.conf", {
    dnsConfig: { nameservers: ["192.0.2.1", "192.0.2.2", "192.0.2.3"] },
  }),
  script(
    "privileged",
    `${status}; grep -c ' /proc/' /proc/mounts; test -c /dev/kmsg && echo kmsg`,
    {},
    { securityContext: { privileged: true, seccompProfile: { type: "RuntimeDefault" } } },
  ),
  script("sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", {
    securityContext: { sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "80" }] },
  }),
  script("sysctl-unsafe", "exit 0", {
    securityContext: { sysctls: [{ name: "net.core.somaxconn", value: "80" }] },
  }),
  script(
    "restricted",
    status,
    {
      securityContext: {
        runAsUser: 1000,
        runAsNonRoot: true,
        fsGroup: 2000,
        supplementalGroups: [4000],
        seccompProfile: { type: "RuntimeDefault" },
      },
    },
    {
      image: accounts,
      securityContext: {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ["ALL"], add: ["NET_BIND_SERVICE"] },
      },
    },
  ),
  script(
    "strict",
    `sleep 1; ${status}`,
    {
      securityContext: {
        runAsUser: 1000,
        supplementalGroups: [4000],
        supplementalGroupsPolicy: "Strict",
      },
    },
    { image: accounts },
  ),
  script("image-user", status, {}, { image: accounts, securityContext: { runAsGroup: 50 } }),
  script("non-root", "exit 0", { securityContext: { runAsNonRoot: true } }, { image: accounts }),
  script("as-root", "exit 0", { securityContext: { runAsNonRoot: true } }),
  script(
    "seccomp-file",
    "mkdir /made 2>&1; exit 0",
    {},
    {
      securityContext: {
        seccompProfile: { type: "Localhost", localhostProfile: "profiles/no-mkdir.json" },
      },
    },
  ),
  script(
    "read-only",
    "exec 2>&1; touch /x; touch /v/x && ls -ld /v; touch /proc/sys/kernel/domainname; cat /proc/interrupts | wc -c",
    { volumes: [emptyDir("v")], securityContext: { fsGroup: 2000 } },
    {
      securityContext: { readOnlyRootFilesystem: true },
      volumeMounts: [{ name: "v", mountPath: "/v" }],
    },
  ),
  script(
    "mounts",
    "touch /ro/x 2>&1; echo $POD >/sub/name; cat /v/dir-mounts/name",
    { volumes: [emptyDir("v")] },
    {
      env: [{ name: "POD", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } }],
      volumeMounts: [
        { name: "v", mountPath: "/ro", readOnly: true, recursiveReadOnly: "IfPossible" },
        { name: "v", mountPath: "/sub", subPathExpr: "dir-$(POD)" },
        { name: "v", mountPath: "/v" },
      ],
    },
  ),
  script(
    "mounts-recursive",
    "exit 0",
    { volumes: [emptyDir("v")] },
    {
      volumeMounts: [{ name: "v", mountPath: "/ro", readOnly: true, recursiveReadOnly: "Enabled" }],
    },
  ),
  script(
    "sub-path-empty",
    "exit 0",
    { volumes: [emptyDir("v")] },
    {
      env: [{ name: "NOTHING", value: "" }],
      volumeMounts: [{ name: "v", mountPath: "/sub", subPathExpr: "$(NOTHING)" }],
    },
  ),
  script(
    "process",
    "pwd; tty; echo last words >/dev/words",
    {},
    { workingDir: "/some/where", tty: true, stdin: true, terminationMessagePath: "/dev/words" },
  ),
  script(
    "falls-back",
    "echo from the log; exit 3",
    {},
    {
      terminationMessagePolicy: "FallbackToLogsOnError",
    },
  ),
  script(
    "hooked",
    sleeping,
    {},
    {
      lifecycle: {
        postStart: { exec: { command: ["sh", "-c", "echo started >/proc/1/fd/1"] } },
        preStop: { exec: { command: ["sh", "-c", "echo stopping >/proc/1/fd/1"] } },
      },
    },
  ),
  script("armoured", "exit 0", {
    securityContext: { appArmorProfile: { type: "RuntimeDefault" } },
  }),
  script("classy", "exit 0", { runtimeClassName: "nowhere" }),
  script("shared", sleeping, {
    shareProcessNamespace: true,
    containers: ["one", "two"].map((name) => ({
      name,
      image: busybox,
      command: ["sh", "-c", sleeping],
    })),
  }),
  script(
    "apart",
    sleeping,
    { restartPolicy: "Always", os: { name: "linux" } },
    { lifecycle: { stopSignal: "SIGUSR1" } },
  ),
];

/** The archive of the image {@link accounts}. */
async function accountsArchive(): Promise<Buffer> {
  const make = `d=$(mktemp -d) && tar -C "$d" -x && chmod 755 "$d" &&
    echo 'web:x:1000:1000::/:/bin/sh' >>"$d/etc/passwd" &&
    printf 'root:x:0:\\nweb:x:1000:\\nmedia:x:3000:web\\n' >"$d/etc/group" && tar -C "$d" -c . && rm -rf "$d"`;
  return execFileSync("sh", ["-c", make], {
    input: await busyboxArchive(),
    maxBuffer: 64 * 1024 * 1024,
  });
}

describe("every field of a pod", { skip: skip ?? false }, () => {
  let machine: Machine;
  let remora: MachineProcess;

  const get = async (name: string): Promise<PodObject> =>
    JSON.parse((await machine.kubectl(["get", "pod", name, "-o", "json"])).stdout) as PodObject;
  const until = async <T>(what: string, check: () => Promise<T | undefined>): Promise<T> =>
    eventually(check, {
      timeoutMs: 60_000,
      describe: async () => {
        const described = await machine.kubectl(["describe", "pods"], { allowFailure: true });
        return `${what}\n${remora.output().slice(-4000)}\n${described.stdout.slice(-6000)}`;
      },
    });
  /** The log of a pod that has ended well. */
  const log = async (name: string): Promise<string> => {
    const phase = await until(`${name} ends`, async () => {
      const found = (await get(name)).status.phase;
      return found === "Succeeded" || found === "Failed" ? found : undefined;
    });
    assert.equal(phase, "Succeeded", name);
    return (await machine.kubectl(["logs", name])).stdout;
  };
  const waiting = async (name: string, reason: string): Promise<string> =>
    until(`${name} waits for ${reason}`, async () => {
      const [first] = (await get(name)).status.containerStatuses ?? [];
      const state = first?.state.waiting;
      return state?.reason === reason ? (state.message ?? "") : undefined;
    });
  const event = async (name: string, reason: string): Promise<string> =>
    until(`${name} has the event ${reason}`, async () => {
      const { stdout } = await machine.kubectl([
        "get",
        "events",
        "--field-selector",
        `involvedObject.name=${name},reason=${reason}`,
        "-o",
        "jsonpath={.items[*].message}",
      ]);
      return stdout === "" ? undefined : stdout;
    });
  const rejected = async (name: string): Promise<string> =>
    until(`${name} is rejected`, async () => {
      const { message, phase, reason } = (await get(name)).status;
      return phase === "Failed" ? `${reason ?? ""}: ${message ?? ""}` : undefined;
    });
  const nodeHostName = async (): Promise<string> =>
    (await machine.exec(["cat", "/proc/sys/kernel/hostname"])).stdout.trim();

  before(async () => {
    machine = await Machine.start("fields");
    await machine.loadBusybox();
    const image = new URLSearchParams([
      ["fromSrc", "-"],
      ["repo", "accounts"],
      ["tag", "1"],
      ["changes", "ENV PATH=/bin"],
      ["changes", "USER web"],
    ]);
    await machine.docker("POST", `/images/create?${image.toString()}`, await accountsArchive());
    remora = await remoraUp(machine);
    const profile = JSON.stringify({
      defaultAction: "SCMP_ACT_ALLOW",
      syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" }],
    });
    await machine.exec([
      "sh",
      "-c",
      'd=/var/lib/remora/kubelet/seccomp/profiles; mkdir -p $d && printf %s "$0" >$d/no-mkdir.json',
      profile,
    ]);
    const runtimeClass = {
      apiVersion: "node.k8s.io/v1",
      kind: "RuntimeClass",
      metadata: { name: "nowhere" },
      handler: "nowhere",
    };
    for (const items of [[runtimeClass], pods]) {
      const list = { apiVersion: "v1", kind: "List", items };
      await machine.kubectl(["create", "-f", "-"], { stdin: JSON.stringify(list) });
    }
  });
  after(async () => {
    await remora.signal("TERM");
    await remora.exited;
    assert.match(await remoraDown(machine), /nothing is left/);
    await machine[Symbol.asyncDispose]();
  });

  test("env: from a file that another container wrote, in a volume that is not mounted", async () => {
    assert.equal(await log("env-file"), "one|two\n lines|unset|<one>|0\n");
    assert.match(
      await waiting("env-no-key", "CreateContainerConfigError"),
      /^environment variable key "NONE" not found in file ".*\/config\.env"$/,
    );
    assert.equal(
      await waiting("env-bad-file", "CreateContainerConfigError"),
      "couldn't parse env file",
    );
  });

  test("env: from fields and resources", async () => {
    const text = await log("env-fields");
    const { spec, status: seen } = await get("env-fields");
    assert.equal(
      text,
      `F_CPU=2\nF_HOST_IP=${seen.hostIP}\nF_MIB=32\nF_NAME=env-fields\nF_NODE=${spec.nodeName}\nF_POD_IP=${seen.podIP}\n`,
    );
  });

  test("hostname, subdomain, FQDN, override and aliases: kernel, HOSTNAME, hostname and hosts files agree", async () => {
    const domain = "sub.default.svc.cluster.local";
    const cases = [
      ["named", "db", `db.${domain}\tdb`],
      ["fqdn", `db.${domain}`, `db.${domain}\tdb`],
      ["overridden", "any.name.example", "any.name.example"],
    ] as const;
    for (const [name, host, hosts] of cases) {
      const text = await log(name);
      const { podIP } = (await get(name)).status;
      assert.ok(text.startsWith(`${host}\n${host}\n${host}\n# Kubernetes-managed hosts`), text);
      assert.ok(text.includes(`\n${podIP}\t${hosts}\n`), text);
    }
    assert.match(
      await log("named"),
      /\n# Entries added by HostAliases\.\n192\.0\.2\.7\tone\ttwo\n$/,
    );
  });

  test("an FQDN that is too long keeps the pod pending, and says why", async () => {
    assert.match(
      await event("fqdn-long", "FailedCreatePodSandBox"),
      /^Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN h+\.sub\.default\.svc\.cluster\.local is too long \(64 characters is the max, \d+ characters requested\)/,
    );
    assert.equal((await get("fqdn-long")).status.phase, "Pending");
  });

  test("the node's network, processes and IPC", async () => {
    const text = await log("on-node");
    const host = await nodeHostName();
    assert.ok(
      text.startsWith(
        `${host}\n${host}\n${host}\n# Kubernetes-managed hosts file (host network).\n`,
      ),
      text,
    );
    assert.match(text, /\n# Entries added by HostAliases\.\n192\.0\.2\.7\tone\n/);
    const own = await machine.exec([
      "sh",
      "-c",
      "cat /proc/1/comm; for n in net ipc pid; do readlink /proc/1/ns/$n; done",
    ]);
    const [comm = "", ...namespaces] = own.stdout.trim().split("\n");
    assert.ok(text.includes(`\n${comm}\n`), text);
    assert.ok(text.endsWith(`${namespaces.join("\n")}\n`), text);
    assert.match(text, /\nsearch default\.svc\.cluster\.local svc\.cluster\.local cluster\.local/);
  });

  test("dnsPolicy and dnsConfig", async () => {
    assert.match(
      await log("dns-cluster"),
      /^search default\.svc\.cluster\.local svc\.cluster\.local cluster\.local (\S+ )*more\.example\nnameserver 10\.96\.0\.10\noptions ndots:2\n$/,
    );
    assert.equal(
      await log("dns-none"),
      "search . a.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\noptions edns0\n",
    );
    assert.doesNotMatch(await log("dns-default"), /cluster\.local/);
    const kept = ["10.96.0.10", "192.0.2.1", "192.0.2.2"];
    const servers = (await log("dns-many")).matchAll(/^nameserver (.*)$/gm);
    assert.deepEqual(
      [...servers].map(([, server]) => server),
      kept,
    );
    assert.equal(
      await event("dns-many", "DNSConfigForming"),
      `Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: ${kept.join(" ")}`,
    );
  });

  test("sysctls: the safe ones are set, the others refused", async () => {
    assert.equal(await log("sysctl"), "80\n");
    assert.equal(
      await rejected("sysctl-unsafe"),
      'SysctlForbidden: Pod was rejected: forbidden sysctl: "net.core.somaxconn" not allowlisted',
    );
  });

  const lines = (text: string): Readonly<Record<string, string>> =>
    Object.fromEntries(
      text.split("\n").map((line) => {
        const [name = "", ...values] = line.split(/[:\s]+/);
        return [name, values.filter(Boolean).join(" ")] as const;
      }),
    );
  const user = async (name: string): Promise<unknown> =>
    (await get(name)).status.containerStatuses?.[0]?.user?.linux;

  test("users and groups, in the process and in the status", async () => {
    const restricted = lines(await log("restricted"));
    assert.deepEqual(
      [restricted["Uid"]?.split(" ")[0], restricted["Gid"]?.split(" ")[0], restricted["Groups"]],
      ["1000", "1000", "1000 2000 3000 4000"],
    );
    assert.deepEqual(await user("restricted"), {
      uid: 1000,
      gid: 1000,
      supplementalGroups: [1000, 3000, 2000, 4000],
    });
    assert.equal(lines(await log("strict"))["Groups"], "1000 4000");
    assert.deepEqual(await user("strict"), {
      uid: 1000,
      gid: 1000,
      supplementalGroups: [1000, 4000],
    });
    const image = lines(await log("image-user"));
    assert.deepEqual([image["Uid"]?.split(" ")[0], image["Gid"]?.split(" ")[0]], ["1000", "50"]);
    assert.deepEqual(await user("image-user"), {
      uid: 1000,
      gid: 50,
      supplementalGroups: [50, 3000],
    });
  });

  test("capabilities, no_new_privs and seccomp", async () => {
    const restricted = lines(await log("restricted"));
    assert.deepEqual(
      [restricted["CapEff"], restricted["NoNewPrivs"], restricted["Seccomp"]],
      ["0000000000000000", "1", "2"],
    );
    const plain = lines(await log("image-user"));
    assert.deepEqual([plain["NoNewPrivs"], plain["Seccomp"]], ["0", "0"]);
    assert.match(await log("seccomp-file"), /Operation not permitted/);
  });

  test("privileged: the engine's capabilities and devices, no filter and no masks", async () => {
    const text = await log("privileged");
    const seen = lines(text);
    const capabilities = BigInt(`0x${seen["CapEff"] ?? "0"}`);
    for (const bit of [12n, 19n, 21n]) assert.equal((capabilities >> bit) & 1n, 1n, `bit ${bit}`);
    assert.equal(seen["Seccomp"], "0");
    assert.match(text, /\n0\nkmsg\n$/);
  });

  test("runAsNonRoot refuses root, and users that nobody can check", async () => {
    assert.match(
      await waiting("non-root", "CreateContainerConfigError"),
      /^container has runAsNonRoot and image has non-numeric user \(web\), cannot verify user is non-root/,
    );
    assert.match(
      await waiting("as-root", "CreateContainerConfigError"),
      /^container has runAsNonRoot and image will run as root/,
    );
  });

  test("a read-only root beside a volume with fsGroup, and a /proc that is masked", async () => {
    const text = await log("read-only");
    assert.match(text, /^touch: \/x: Read-only file system\n/);
    assert.match(text, /\ndrwxrwsrwx +\d+ +root +2000 /);
    assert.match(text, /domainname: Read-only file system\n0\n$/);
  });

  test("mounts: read-only, sub-paths by expression, and what the node cannot do", async () => {
    assert.match(await log("mounts"), /^touch: \/ro\/x: Read-only file system\nmounts\n$/);
    const shown = (await get("mounts")).status.containerStatuses?.[0]?.volumeMounts?.slice(0, 2);
    const handlers = await machine.kubectl([
      "get",
      "nodes",
      "-o",
      'jsonpath={.items[0].status.runtimeHandlers[?(@.name=="")].features.recursiveReadOnlyMounts}',
    ]);
    const supported = handlers.stdout === "true";
    assert.deepEqual(shown, [
      {
        name: "v",
        mountPath: "/ro",
        readOnly: true,
        recursiveReadOnly: supported ? "Enabled" : "Disabled",
      },
      { name: "v", mountPath: "/sub" },
    ]);
    if (supported) {
      await log("mounts-recursive");
    } else {
      assert.equal(
        await waiting("mounts-recursive", "CreateContainerConfigError"),
        'failed to resolve recursive read-only mode: volume "v" requested recursive read-only mode, but it is not supported by the runtime',
      );
    }
    assert.equal(
      await waiting("sub-path-empty", "CreateContainerConfigError"),
      "missing value for NOTHING",
    );
  });

  test("working directory, terminal, standard input and last words", async () => {
    assert.match(await log("process"), /^\/some\/where\r\n\/dev\/(pts\/\d+|console)\r\n$/);
    const last = async (name: string): Promise<string | undefined> =>
      (await get(name)).status.containerStatuses?.[0]?.state.terminated?.message;
    assert.equal(await last("process"), "last words\n");
    await rejected("falls-back");
    assert.equal(await last("falls-back"), "from the log\n");
  });

  test("AppArmor on a host without it, and a runtime class whose handler nobody has", async () => {
    const enabled = await machine.exec(
      ["sh", "-c", "grep -q Y /sys/module/apparmor/parameters/enabled"],
      {
        allowFailure: true,
      },
    );
    if (enabled.exitCode === 0) {
      await log("armoured");
    } else {
      assert.equal(
        await rejected("armoured"),
        "AppArmor: Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host",
      );
    }
    assert.match(
      await event("classy", "FailedCreatePodSandBox"),
      /^Failed to create pod sandbox: no runtime for "nowhere" is configured/,
    );
    assert.equal((await get("classy")).status.phase, "Pending");
  });

  test("processes: shared in the pod, or joined by an ephemeral container", async () => {
    await machine.kubectl([
      "wait",
      "--for=condition=Ready",
      "pod/shared",
      "pod/apart",
      "--timeout=60s",
    ]);
    const all = await machine.kubectl([
      "exec",
      "shared",
      "-c",
      "one",
      "--",
      "sh",
      "-c",
      "cat /proc/1/comm; ps",
    ]);
    assert.match(all.stdout, /^pause\n/);
    assert.equal(all.stdout.match(/trap 'exit 0' TERM/g)?.length, 2, all.stdout);
    const debug = [
      "debug",
      "apart",
      `--image=${busybox}`,
      "--image-pull-policy=Never",
      "--attach=false",
    ];
    await machine.kubectl([
      ...debug,
      "--container=near",
      "--target=c",
      "--",
      "cat",
      "/proc/1/cmdline",
    ]);
    await machine.kubectl([...debug, "--container=far", "--", "cat", "/proc/1/cmdline"]);
    const ended = async (name: string): Promise<string> => {
      await until(`${name} ends`, async () => {
        const statuses = (await get("apart")).status.ephemeralContainerStatuses;
        return statuses?.find((found) => found.name === name)?.state.terminated;
      });
      return (await machine.kubectl(["logs", "apart", "-c", name])).stdout;
    };
    assert.match(await ended("near"), /trap 'exit 0' TERM/);
    assert.match(await ended("far"), /^cat\0/);
  });

  test("hooks run before the pod is ready and before it is stopped", async () => {
    await machine.kubectl(["wait", "--for=condition=Ready", "pod/hooked", "--timeout=60s"]);
    assert.equal((await machine.kubectl(["logs", "hooked"])).stdout, "started\n");
    const following = machine.kubectl(["logs", "-f", "hooked"]);
    await machine.kubectl(["delete", "pod", "hooked"]);
    assert.equal((await following).stdout, "started\nstopping\n");
  });

  test("the stop signal is the one that was asked for", async () => {
    assert.equal((await get("apart")).status.containerStatuses?.[0]?.stopSignal, "SIGUSR1");
    const { stdout } = await machine.kubectl([
      "get",
      "pod",
      "apart",
      "-o",
      "jsonpath={.status.containerStatuses[0].containerID}",
    ]);
    const inspected = (await machine.docker(
      "GET",
      `/containers/${stdout.replace("docker://", "")}/json`,
    )) as {
      readonly Config: { readonly StopSignal?: string };
    };
    assert.equal(inspected.Config.StopSignal, "SIGUSR1");
  });
});
