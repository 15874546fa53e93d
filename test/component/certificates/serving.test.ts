import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, test } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";

import { PairStore } from "../../../src/agent/certificates/pair-store.ts";
import {
  openServingCertificate,
  type ServingCertificate,
  type ServingOptions,
  servingWishOf,
} from "../../../src/agent/certificates/serving-certificate.ts";
import type { TlsSource } from "../../../src/kubelet/server/tls-source.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { jsonLogger, silentLogger } from "../../../src/lib/log.ts";
import { eventually } from "../controlplane-controllers/world.ts";
import { CsrApi } from "./csr-api.ts";
import {
  afterwards,
  directoryFor,
  internalIP,
  NodeDouble,
  PatientClock,
  pairOf,
  subjectOf,
  type Test,
} from "./fixture.ts";

const dayMs = 86_400_000;

interface Rig {
  readonly serving: ServingCertificate;
  readonly clock: PatientClock;
  readonly api: CsrApi;
  readonly node: NodeDouble;
  readonly rootDir: string;
}

async function open(
  t: Test,
  config: Partial<ServingOptions["config"]> = {},
  other: Partial<ServingOptions> = {},
): Promise<Rig> {
  const rootDir = config.rootDir ?? (await directoryFor(t));
  const clock = new PatientClock();
  const api = new CsrApi(clock);
  const node = new NodeDouble();
  const serving = await openServingCertificate({
    config: {
      nodeName: "n1",
      nodeIPs: ["192.0.2.1"],
      tlsCertFile: "",
      tlsPrivateKeyFile: "",
      ...config,
      rootDir,
    },
    client: api,
    node,
    clock,
    logger: silentLogger,
    random: () => 0.5,
    ...other,
  });
  return { serving, clock, api, node, rootDir };
}

function run(t: Test, serving: ServingCertificate): void {
  const stop = new AbortController();
  const running = serving.run(stop.signal);
  afterwards(t, async () => {
    stop.abort();
    await running;
  });
}

function current(source: TlsSource): X509Certificate {
  return new X509Certificate(source.current().cert);
}

/** A server that shows what the source has, as the node's server does, and echoes what it hears. */
async function serve(t: Test, source: TlsSource): Promise<number> {
  const sockets = new Set<TLSSocket>();
  const server = createServer(source.current(), (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  const end = source.onChange(() => {
    server.setSecureContext(source.current());
  });
  server.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  afterwards(t, async () => {
    end();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

async function dial(t: Test, port: number): Promise<TLSSocket> {
  const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
  afterwards(t, () => Promise.resolve(void socket.destroy()));
  await new Promise((resolve) => socket.once("secureConnect", resolve));
  return socket;
}

async function echo(socket: TLSSocket, text: string): Promise<string> {
  socket.write(text);
  const [chunk] = (await new Promise((resolve) => {
    socket.once("data", (data: Buffer) => resolve([data]));
  })) as [Buffer];
  return chunk.toString();
}

function shown(socket: TLSSocket): string {
  return socket.getPeerX509Certificate()?.subject ?? "";
}

describe("files that the user gave", () => {
  async function given(
    t: Test,
  ): Promise<{ cert: string; key: string; write: (name: string) => Promise<void> }> {
    const directory = await directoryFor(t);
    const cert = join(directory, "tls.crt");
    const key = join(directory, "tls.key");
    const write = async (name: string): Promise<void> => {
      const pair = pairOf(name);
      await writeFile(key, pair.key);
      await writeFile(cert, pair.cert);
    };
    await write("first");
    return { cert, key, write };
  }

  test("are shown to new connections when they change, and open streams go on", async (t) => {
    const { cert, key, write } = await given(t);
    const { serving } = await open(t, { tlsCertFile: cert, tlsPrivateKeyFile: key });
    run(t, serving);
    const port = await serve(t, serving.source);
    const stream = await dial(t, port);
    assert.equal(shown(stream), "CN=first");
    assert.equal(await echo(stream, "before"), "before");
    for (const name of ["second", "third"]) {
      await write(name);
      await eventually(name, () =>
        Promise.resolve(subjectOf(serving.source.current().cert) === `CN=${name}` || undefined),
      );
      assert.equal(await echo(stream, "still here"), "still here");
      assert.equal(shown(stream), "CN=first");
      const next = await dial(t, port);
      assert.equal(shown(next), `CN=${name}`);
    }
  });

  test("that do not fit are said once and not shown, until they do", async (t) => {
    const { cert, key, write } = await given(t);
    const lines: string[] = [];
    const logger = jsonLogger({ write: (line) => lines.push(line), now: Date.now, level: "info" });
    const { serving } = await open(
      t,
      { tlsCertFile: cert, tlsPrivateKeyFile: key },
      { logger, clock: systemClock },
    );
    run(t, serving);
    let changes = 0;
    serving.source.onChange(() => {
      changes += 1;
    });
    await writeFile(key, pairOf("other").key);
    const said = (text: string) => (): Promise<true | undefined> =>
      Promise.resolve(lines.some((line) => line.includes(text)) || undefined);
    await eventually("the warning", said("are no certificate and its key (the key is another's)"));
    assert.equal(subjectOf(serving.source.current().cert), "CN=first");
    await rm(key);
    await eventually("another", said('tls.key\\" cannot be read'));
    assert.equal(changes, 0);
    await write("whole");
    await eventually("the new pair", () => Promise.resolve(changes === 1 || undefined));
    assert.equal(subjectOf(serving.source.current().cert), "CN=whole");
  });

  test("may be links to links, as in a volume of a Secret", async (t) => {
    const directory = await directoryFor(t);
    const put = async (name: string): Promise<void> => {
      const pair = pairOf(name);
      await mkdir(join(directory, `..${name}`));
      await writeFile(join(directory, `..${name}`, "tls.crt"), pair.cert);
      await writeFile(join(directory, `..${name}`, "tls.key"), pair.key);
      await symlink(`..${name}`, join(directory, "..data_tmp"));
      await rename(join(directory, "..data_tmp"), join(directory, "..data"));
    };
    await put("v1");
    const [cert = "", key = ""] = ["tls.crt", "tls.key"].map((name) => join(directory, name));
    for (const path of [cert, key])
      await symlink(`..data/${path.slice(directory.length + 1)}`, path);
    const { serving } = await open(t, { tlsCertFile: cert, tlsPrivateKeyFile: key });
    run(t, serving);
    for (const name of ["v2", "v3"]) {
      await put(name);
      await eventually(name, () =>
        Promise.resolve(subjectOf(serving.source.current().cert) === `CN=${name}` || undefined),
      );
    }
  });

  test("that cannot be used end the start with a sentence", async (t) => {
    const { cert, key } = await given(t);
    await assert.rejects(open(t, { tlsCertFile: "/nowhere", tlsPrivateKeyFile: key }), {
      name: "SetupError",
      message: /^tlsCertFile "\/nowhere" cannot be read .*; set it to a PEM file$/,
    });
    await writeFile(key, "nonsense");
    await assert.rejects(open(t, { tlsCertFile: cert, tlsPrivateKeyFile: key }), {
      name: "SetupError",
      message: /are no certificate and its key .*; correct one of them$/,
    });
  });
});

describe("a self-signed certificate", () => {
  test("is kept over restarts, names the node, and is made anew when the node gets another address", async (t) => {
    const { serving, rootDir } = await open(t);
    const first = current(serving.source);
    assert.equal(first.issuer, first.subject);
    assert.equal(first.checkHost("n1", { subject: "never" }), "n1");
    assert.equal(first.checkIP("192.0.2.1"), "192.0.2.1");
    const again = await open(t, { rootDir });
    assert.equal(current(again.serving.source).fingerprint256, first.fingerprint256);
    const moved = await open(t, { rootDir, nodeIPs: ["192.0.2.2"] });
    assert.equal(current(moved.serving.source).checkIP("192.0.2.2"), "192.0.2.2");
    await writeFile(join(rootDir, "pki", "kubelet.key"), pairOf("other").key);
    const mended = await open(t, { rootDir });
    const { cert, key } = mended.serving.source.current();
    assert.equal(await readFile(join(rootDir, "pki", "kubelet.key"), "utf8"), key);
    assert.equal(await readFile(join(rootDir, "pki", "kubelet.crt"), "utf8"), cert);
  });

  test("is made anew under way when the machine gets another address, and open streams go on", async (t) => {
    const { serving, node } = await open(t, { nodeIPs: [] });
    run(t, serving);
    const port = await serve(t, serving.source);
    const stream = await dial(t, port);
    const names = (): string => current(serving.source).subjectAltName ?? "";
    assert.equal(names(), "DNS:n1");
    await eventually("the subscription", () => Promise.resolve(node.listeners > 0 || undefined));
    node.setAddresses(internalIP("192.0.2.1"));
    await eventually("the first address", () =>
      Promise.resolve(names() === "DNS:n1, IP Address:192.0.2.1" || undefined),
    );
    const before = current(serving.source).serialNumber;
    // A heartbeat.
    node.setAddresses(internalIP("192.0.2.1"));
    node.setAddresses(internalIP("198.51.100.7"));
    await eventually("the second address", () =>
      Promise.resolve(names() === "DNS:n1, IP Address:198.51.100.7" || undefined),
    );
    const now = await dial(t, port);
    assert.notEqual(now.getPeerX509Certificate()?.serialNumber, before);
    assert.equal(await echo(stream, "still here"), "still here");
  });

  test("never expires while the agent runs, for ten years", async (t) => {
    const { serving, clock } = await open(t);
    run(t, serving);
    let changes = 0;
    serving.source.onChange(() => {
      changes += 1;
    });
    for (let day = 0; day < 3650; day += 30) {
      const before = current(serving.source);
      await clock.pass(30 * dayMs);
      if (before.validToDate.getTime() - clock.now() < (365 / 3) * dayMs) {
        await eventually("another", () =>
          Promise.resolve(
            current(serving.source).fingerprint256 === before.fingerprint256 ? undefined : true,
          ),
        );
      }
      assert.ok(current(serving.source).validToDate.getTime() > clock.now() + 90 * dayMs);
    }
    assert.ok(changes >= 12 && changes <= 16, `${changes} changes`);
  });
});

describe("a certificate that the cluster issues", () => {
  const config = { serverTLSBootstrap: true };

  test("is asked for when the node has an address; until it is there the self-signed one is shown", async (t) => {
    const { serving, api, node } = await open(t, config);
    api.decide = "wait";
    run(t, serving);
    await eventually("the subscription", () => Promise.resolve(node.listeners > 0 || undefined));
    node.setAddresses({ type: "Hostname", address: "n1" });
    const self = current(serving.source);
    assert.equal(self.issuer, self.subject);
    assert.equal(api.requests.size, 0, "a name alone could be anybody's");
    node.setAddresses({ type: "Hostname", address: "n1" }, internalIP("192.0.2.1"));
    const name = await eventually("the request", () => Promise.resolve(api.names[0]));
    const port = await serve(t, serving.source);
    assert.match(shown(await dial(t, port)), /^CN=n1@\d+$/);
    api.approve(name);
    const issued = await eventually("the issued one", () => {
      const found = current(serving.source);
      return Promise.resolve(found.issuer === "CN=test-ca" ? found : undefined);
    });
    assert.equal(issued.subject, "O=system:nodes\nCN=system:node:n1");
    assert.equal(issued.subjectAltName, "DNS:n1, IP Address:192.0.2.1");
    assert.equal(shown(await dial(t, port)), issued.subject);
    assert.match(serving.metrics(), /^kubelet_certificate_manager_server_ttl_seconds 31535\d{3}$/m);
  });

  test("is shown again after a restart, unless it is damaged or has expired", async (t) => {
    const rootDir = await directoryFor(t);
    const store = new PairStore(join(rootDir, "pki"), "kubelet-server");
    await store.write(pairOf("held").pem, Date.now());
    const held = await open(t, { ...config, rootDir });
    assert.equal(current(held.serving.source).subject, "CN=held");
    await store.write(pairOf("old", { notBefore: 0, notAfter: 1000 }).pem, Date.now() + 1000);
    const old = await open(t, { ...config, rootDir });
    assert.match(current(old.serving.source).subject, /^CN=n1@/);
    await writeFile(store.currentPath, "nonsense");
    const damaged = await open(t, { ...config, rootDir });
    assert.match(current(damaged.serving.source).subject, /^CN=n1@/);
    run(t, damaged.serving);
    damaged.node.setAddresses(internalIP("192.0.2.1"));
    await eventually("the mended one", () =>
      Promise.resolve(current(damaged.serving.source).issuer === "CN=test-ca" || undefined),
    );
  });

  test("what it is asked for are the names and addresses of the Node's status", () => {
    const wish = servingWishOf("n1", [
      { type: "Hostname", address: "n1" },
      { type: "InternalIP", address: "192.0.2.1" },
      { type: "InternalIP", address: "2001:DB8:0::1" },
      { type: "ExternalIP", address: "not an address" },
      { type: "ExternalDNS", address: "n1.example.com" },
      { type: "InternalDNS", address: "n1" },
      { type: "Hostname", address: "192.0.2.1" },
    ]);
    assert.deepEqual(wish?.alternativeNames, ["n1", "n1.example.com", "192.0.2.1", "2001:db8::1"]);
    assert.equal(wish.signerName, "kubernetes.io/kubelet-serving");
    assert.deepEqual(wish.usages, ["digital signature", "server auth"]);
    assert.equal(
      servingWishOf("n1", [{ type: "ExternalDNS", address: "n1.example.com" }]),
      undefined,
    );
  });
});
