import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Cluster, isReady } from "./lib/cluster.ts";
import { Machine, root } from "./lib/machine.ts";
import { cannotRun, remoraDown, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

const web = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "web", labels: { app: "web" } },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [
      {
        name: "web",
        image: "docker.io/library/busybox:1.36",
        command: [
          "sh",
          "-c",
          "mkdir /www; echo it is me >/www/index.html; httpd -f -p 8080 -h /www",
        ],
        readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
      },
    ],
  },
};

function service(name: string, spec: object): object {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name },
    spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort: 8080 }], ...spec },
  };
}

interface PodItem {
  readonly status: { readonly podIPs: readonly { readonly ip: string }[] };
}

interface ServiceItem {
  readonly spec: { readonly clusterIPs: readonly string[] };
}

function bracketed(ip: string): string {
  return ip.includes(":") ? `[${ip}]` : ip;
}

describe(
  "clusters of the families that were asked for",
  { skip: skip ?? false, concurrency: false },
  () => {
    for (const families of [["IPv4", "IPv6"], ["IPv6", "IPv4"], ["IPv6"]] as const) {
      const [first, second] = families;
      test(`${families.join(" and ")}: pods, Services and names have addresses of each`, async () => {
        const ranges = {
          IPv4: { service: "10.96.0.0/16", pods: "10.244.0.0/16" },
          IPv6: { service: "fd00:96::/112", pods: "fd00:244::/56" },
        };
        await using machine = await Machine.start("dual");
        await machine.loadBusybox();
        const remora = await remoraUp(machine, {}, [
          "--service-cidr",
          families.map((family) => ranges[family].service).join(),
          "--cluster-cidr",
          families.map((family) => ranges[family].pods).join(),
        ]);
        const cluster = new Cluster(machine);
        cluster.processes.push(remora);
        await cluster.create(
          web,
          service("both", { ipFamilyPolicy: "PreferDualStack" }),
          service("usual", {}),
          ...(second === undefined ? [] : [service("other", { ipFamilies: [second] })]),
          service("headless", { clusterIP: "None", ipFamilyPolicy: "PreferDualStack" }),
        );
        await cluster.until("the pod is ready", async () =>
          isReady(await cluster.get("pod", "web")),
        );

        const familyOf = (ip: string): string => (ip.includes(":") ? "IPv6" : "IPv4");
        const { status } = await cluster.get<PodItem>("pod", "web");
        const podIPs = status.podIPs.map(({ ip }) => ip);
        assert.deepEqual(podIPs.map(familyOf), families);
        const clusterIPs = async (name: string): Promise<readonly string[]> =>
          (await cluster.get<ServiceItem>("service", name)).spec.clusterIPs;
        assert.deepEqual((await clusterIPs("both")).map(familyOf), families);
        assert.deepEqual((await clusterIPs("usual")).map(familyOf), [first]);
        if (second !== undefined) {
          assert.deepEqual((await clusterIPs("other")).map(familyOf), [second]);
        }

        // Debian's static busybox has neither wget nor names: it says the words of HTTP itself.
        const ask = (ip: string): readonly string[] => {
          const text = String.raw`printf 'GET / HTTP/1.0\r\n\r\n' | timeout 2 busybox nc ${ip} 80`;
          return ["sh", "-c", text];
        };
        for (const name of ["both", "usual", ...(second === undefined ? [] : ["other"])]) {
          for (const ip of await clusterIPs(name)) {
            await cluster.until(`${ip} (${name}) answers the machine`, async () => {
              const { stdout } = await machine.exec(ask(ip), { allowFailure: true });
              return stdout.includes("it is me");
            });
            // The pod asks itself by way of its Service.
            const { stdout } = await machine.kubectl(["exec", "web", "--", ...ask(ip)]);
            assert.match(stdout, /it is me/, `${ip} from the pod`);
          }
        }
        const { stdout: resolvConf } = await machine.kubectl([
          "exec",
          "web",
          "--",
          "cat",
          "/etc/resolv.conf",
        ]);
        const [, server = ""] = /^nameserver (\S+)$/m.exec(resolvConf) ?? [];
        assert.equal(familyOf(server), first);
        const find = `${root}/test/e2e/lib/lookup.ts`;
        for (const name of ["both", "headless"]) {
          const expected = name === "both" ? await clusterIPs(name) : podIPs;
          const question = [server, `${name}.default.svc.cluster.local`];
          const { stdout } = await machine.exec([process.execPath, find, ...question]);
          assert.deepEqual(stdout.trim().split("\n").toSorted(), [...expected].toSorted(), name);
        }
        const [apiServer = ""] = await clusterIPs("kubernetes");
        assert.equal(familyOf(apiServer), first);
        await cluster.until("the API server answers at its Service", async () => {
          const health = `https://${bracketed(apiServer)}/healthz`;
          const { stdout } = await machine.exec(["curl", "-sk", "-m", "2", health], {
            allowFailure: true,
          });
          return /ok|Unauthorized|Forbidden/.test(stdout);
        });
        await remora.signal("INT");
        await remora.exited;
        assert.match(await remoraDown(machine), /nothing is left/);
      });
    }
  },
);
