import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Cluster, isReady } from "./lib/cluster.ts";
import { Machine } from "./lib/machine.ts";
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

describe("a cluster of two families", { skip: skip ?? false, concurrency: false }, () => {
  for (const [first, second] of [
    ["IPv4", "IPv6"],
    ["IPv6", "IPv4"],
  ] as const) {
    test(`${first} first: pods, Services and names have addresses of both`, async () => {
      const ranges = {
        IPv4: { service: "10.96.0.0/16", pods: "10.244.0.0/16" },
        IPv6: { service: "fd00:96::/112", pods: "fd00:244::/56" },
      };
      const families = [first, second] as const;
      await using machine = await Machine.start("dual");
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
        service("both", { ipFamilyPolicy: "RequireDualStack" }),
        service("usual", {}),
        service("other", { ipFamilies: [second] }),
        service("headless", { clusterIP: "None", ipFamilyPolicy: "PreferDualStack" }),
      );
      await cluster.until("the pod is ready", async () => isReady(await cluster.get("pod", "web")));

      const familyOf = (ip: string): string => (ip.includes(":") ? "IPv6" : "IPv4");
      const { status } = await cluster.get<PodItem>("pod", "web");
      const podIPs = status.podIPs.map(({ ip }) => ip);
      assert.deepEqual(podIPs.map(familyOf), families);
      const clusterIPs = async (name: string): Promise<readonly string[]> =>
        (await cluster.get<ServiceItem>("service", name)).spec.clusterIPs;
      assert.deepEqual((await clusterIPs("both")).map(familyOf), families);
      assert.deepEqual((await clusterIPs("usual")).map(familyOf), [first]);
      assert.deepEqual((await clusterIPs("other")).map(familyOf), [second]);

      const inPod = async (...argv: readonly string[]): Promise<string> =>
        (await machine.kubectl(["exec", "web", "--", ...argv], { allowFailure: true })).stdout;
      const fetchIt = ["busybox", "wget", "-T", "2", "-qO-"] as const;
      for (const name of ["both", "usual", "other"]) {
        for (const ip of await clusterIPs(name)) {
          const url = `http://${bracketed(ip)}/`;
          await cluster.until(`${url} (${name}) answers the machine`, async () => {
            const { stdout } = await machine.exec([...fetchIt, url], { allowFailure: true });
            return stdout.includes("it is me");
          });
          // The pod asks itself by way of its Service.
          assert.match(await inPod(...fetchIt.slice(1), url), /it is me/, `${url} from the pod`);
        }
      }
      for (const name of ["both", "headless"]) {
        const expected = name === "both" ? await clusterIPs(name) : podIPs;
        const found = await inPod("nslookup", `${name}.default.svc.cluster.local`);
        for (const ip of expected) assert.ok(found.includes(ip), `${name}: ${ip} in\n${found}`);
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
});
