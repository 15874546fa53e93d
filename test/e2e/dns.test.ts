import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, test } from "node:test";
import { promisify } from "node:util";

import { eventually, Machine, root } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();
const image = "names:1";
const dns = "10.96.0.10";

/** A tar of busybox and of this system's C library with getent: it resolves as programs do, by search path and ndots. */
async function getentArchive(): Promise<Buffer> {
  const make = `set -e; d=$(mktemp -d); mkdir -p "$d/bin" "$d/etc" "$d/tmp"; cp "$(command -v busybox)" "$d/bin/"
    for a in sh sleep cat nc; do ln -s busybox "$d/bin/$a"; done
    g=$(command -v getent); cp "$g" "$d/bin/"
    for l in $(ldd "$g" | grep -o '/[^ ]*'); do mkdir -p "$d$(dirname "$l")"; cp -L "$l" "$d$l"; done
    echo 'hosts: files dns' >"$d/etc/nsswitch.conf"; tar -C "$d" -c .; rm -rf "$d"`;
  const { stdout } = await promisify(execFile)("sh", ["-c", make], {
    encoding: "buffer",
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout;
}

function pod(name: string, spec: object): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, labels: { app: name.replace(/-.*/, "") } },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [{ name: "main", image, command: ["/bin/sh", "-c", "sleep 100000"] }],
      ...spec,
    },
  };
}

const objects = [
  pod("db-0", { hostname: "db-0", subdomain: "db" }),
  pod("web-1", {}),
  pod("host", { hostNetwork: true, dnsPolicy: "ClusterFirstWithHostNet" }),
  pod("plain", { dnsPolicy: "Default" }),
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "web" },
    spec: { selector: { app: "web" }, ports: [{ name: "http", port: 80 }] },
  },
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "db" },
    spec: { clusterIP: "None", selector: { app: "db" }, ports: [{ name: "pg", port: 5432 }] },
  },
  {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "far" },
    spec: { type: "ExternalName", externalName: "www.example.test" },
  },
];

describe("cluster DNS on the node", { skip: skip ?? false }, () => {
  test("pods and the node find Services, pods and the rest of the world by name", async () => {
    await using machine = await Machine.start("dns");
    await machine.exec(["ip", "addr", "add", "172.30.0.250/32", "dev", "lo"]);
    const upstream = machine.spawn([
      process.execPath,
      `${root}/test/e2e/lib/upstream.ts`,
      "172.30.0.250",
    ]);
    const query = new URLSearchParams([
      ["fromSrc", "-"],
      ["repo", "names"],
      ["tag", "1"],
      ["changes", "ENV PATH=/bin"],
    ]);
    await machine.docker("POST", `/images/create?${query.toString()}`, await getentArchive());
    const remora = await remoraUp(machine);
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
    await machine.exec(["sh", "-c", `kubectl create -f - <<'EOF'\n${list}\nEOF`]);
    await machine.kubectl(["wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s"]);

    const inside = async (name: string, ...argv: readonly string[]): Promise<string> =>
      (await machine.kubectl(["exec", name, "--", ...argv], { allowFailure: true })).stdout.trim();
    const find = async (from: string, name: string): Promise<string> => {
      const lines = (await inside(from, "getent", "ahostsv4", name)).split("\n");
      return [...new Set(lines.map((line) => line.split(/\s/)[0] ?? ""))].join(" ");
    };
    const field = async (kind: string, name: string, path: string): Promise<string> =>
      (await machine.kubectl(["get", kind, name, "-o", `jsonpath={${path}}`])).stdout;
    const serviceIP = await field("service", "web", ".spec.clusterIP");
    const dbIP = await field("pod", "db-0", ".status.podIP");

    assert.equal(
      await inside("web-1", "cat", "/etc/resolv.conf"),
      `search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver ${dns}\noptions ndots:5`,
    );
    await eventually(async () => ((await find("web-1", "db")) === dbIP ? true : undefined), {
      timeoutMs: 10_000,
      describe: async () => `${await find("web-1", "db")}\n${remora.output()}`,
    });
    for (const from of ["web-1", "host"]) {
      for (const [name, address] of [
        ["web", serviceIP],
        ["web.default", serviceIP],
        ["web.default.svc.cluster.local", serviceIP],
        ["db-0.db", dbIP],
        [`${dbIP.replaceAll(".", "-")}.default.pod.cluster.local`, dbIP],
        ["www.example.test", "192.0.2.7"],
        ["far", "192.0.2.7"],
        ["nobody", ""],
      ] as const) {
        assert.equal(await find(from, name), address, `${name} from ${from}`);
      }
    }
    assert.equal(await find("plain", "www.example.test"), "192.0.2.7");
    assert.equal(await find("plain", "web.default.svc.cluster.local"), "");
    assert.match(await inside("db-0", "getent", "hosts", dbIP), /db-0\.db\.default\.svc/);

    // The node itself asks too, and for other types.
    const ask = async (call: string): Promise<unknown> => {
      const code = `const r=new (require("node:dns").promises.Resolver)();r.setServers(["${dns}"]);r.${call}.then(a=>console.log(JSON.stringify(a)),e=>console.log(JSON.stringify(e.code)))`;
      const { stdout } = await machine.exec([process.execPath, "-e", code]);
      return JSON.parse(stdout);
    };
    const [srv] = (await ask(
      'resolveSrv("_pg._tcp.db.default.svc.cluster.local")',
    )) as readonly Record<string, unknown>[];
    assert.equal(srv?.["name"], "db-0.db.default.svc.cluster.local");
    assert.equal(srv["port"], 5432);
    assert.deepEqual(await ask(`reverse("${serviceIP}")`), ["web.default.svc.cluster.local"]);
    assert.deepEqual(await ask('resolveTxt("dns-version.cluster.local")'), [["1.1.0"]]);
    assert.deepEqual(await ask('resolve4("no.such.svc.cluster.local")'), "ENOTFOUND");

    // Endpoints and Services are known as soon as they change.
    await machine.kubectl(["delete", "service", "web"]);
    await machine.kubectl(["delete", "pod", "db-0"]);
    await eventually(
      async () =>
        (await find("web-1", "web")) === "" && (await find("web-1", "db")) === ""
          ? true
          : undefined,
      { timeoutMs: 10_000, describe: () => remora.output() },
    );

    // A bridge that somebody removed comes back with the address, and the server answers again.
    await machine.exec(["ip", "addr", "del", `${dns}/32`, "dev", "remora0"]);
    assert.equal(await find("web-1", "www.example.test"), "");
    await eventually(
      async () => ((await find("web-1", "www.example.test")) === "192.0.2.7" ? true : undefined),
      { timeoutMs: 45_000, describe: () => remora.output() },
    );

    // Who runs a name server of their own takes the label away: the node is silent and gives the address up.
    await machine.kubectl([
      "label",
      "service",
      "kube-dns",
      "--namespace=kube-system",
      "service.kubernetes.io/service-proxy-name-",
    ]);
    await eventually(
      async () => {
        const { stdout } = await machine.exec(["ip", "-4", "addr", "show", "dev", "remora0"]);
        return stdout.includes(dns) ? undefined : true;
      },
      { timeoutMs: 10_000, describe: () => remora.output() },
    );
    await remora.signal("TERM");
    assert.equal(await remora.exited, 0, remora.output());
    await upstream.signal("TERM");
    assert.match(await remoraDown(machine), /nothing is left/);
  });
});
