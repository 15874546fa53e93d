import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { Agent } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";

import type { TlsSource } from "../../../src/kubelet/server/tls-source.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import type { Logger } from "../../../src/lib/log.ts";
import { dayMs, NodeUnderTest, SettableClock, TestCA } from "./node-under-test.ts";

async function handshake(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = connect({ host: "127.0.0.1", port, rejectUnauthorized: false, ...options });
  await once(socket, "secureConnect");
  return socket;
}

async function servedName(port: number): Promise<string> {
  const socket = await handshake(port);
  const name = String(socket.getPeerCertificate().subject.CN);
  socket.destroy();
  return name;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  const { signal } = new AbortController();
  for (let tries = 0; tries < 200; tries += 1) {
    if (await condition()) return;
    await systemClock.sleep(5, signal);
  }
  assert.fail("it never came true");
}

describe("files of certificate, key and CA", () => {
  test("are served renewed without a restart, and a half-written pair is not", async () => {
    const directory = mkdtempSync(join(tmpdir(), "remora-tls-"));
    const clock = new SettableClock();
    const node = new NodeUnderTest();
    const files = {
      tlsCertFile: join(directory, "tls.crt"),
      tlsPrivateKeyFile: join(directory, "tls.key"),
      clientCAFile: join(directory, "ca.crt"),
    };
    const write = (name: string): void => {
      const { cert, key } = node.ca.issue(name, [], { usages: ["server"] });
      writeFileSync(files.tlsCertFile, cert);
      writeFileSync(files.tlsPrivateKeyFile, key);
    };
    try {
      write("old");
      writeFileSync(files.clientCAFile, node.ca.pem);
      // An undefined source is one that is not there.
      await node.start(files, { clock, ...({ tls: undefined } as object) });
      assert.equal(await servedName(node.port), "old");
      writeFileSync(files.tlsCertFile, node.ca.issue("torn", [], { usages: ["server"] }).cert);
      clock.tick();
      await systemClock.sleep(20, new AbortController().signal);
      assert.equal(await servedName(node.port), "old");
      write("new");
      await until(async () => {
        clock.tick();
        return (await servedName(node.port)) === "new";
      });
    } finally {
      await node.stop();
      rmSync(directory, { recursive: true });
    }
  });

  test("a torn pair keeps the CA that came with it out too", async () => {
    const directory = mkdtempSync(join(tmpdir(), "remora-tls-"));
    const clock = new SettableClock();
    const node = new NodeUnderTest();
    const clientCAFile = join(directory, "ca.crt");
    writeFileSync(clientCAFile, node.ca.pem);
    const whole = node.ca.issue("node", [], { usages: ["server"] });
    let pair = whole;
    const tls: TlsSource = { current: () => pair, onChange: () => () => undefined };
    const open = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      await node.start({ clientCAFile }, { clock, tls });
      assert.equal((await node.get("/pods", node.admin, { agent: open })).status, 200);
      writeFileSync(clientCAFile, new TestCA("later").pem);
      pair = { ...whole, cert: node.ca.issue("torn", [], { usages: ["server"] }).cert };
      clock.tick();
      await systemClock.sleep(20, new AbortController().signal);
      assert.equal((await node.get("/pods", node.admin, { agent: open })).status, 200);
      pair = whole;
      await until(async () => {
        clock.tick();
        return (await node.get("/pods", node.admin, { agent: new Agent() })).status === 401;
      });
      assert.equal((await node.get("/pods", node.admin, { agent: open })).status, 401);
    } finally {
      open.destroy();
      await node.stop();
      rmSync(directory, { recursive: true });
    }
  });

  test("what is wrong with them is said once, and again when it is something else", async () => {
    const directory = mkdtempSync(join(tmpdir(), "remora-tls-"));
    const clock = new SettableClock();
    const node = new NodeUnderTest();
    const clientCAFile = join(directory, "ca.crt");
    const said: string[] = [];
    let looks = 0;
    const logger: Logger = {
      log: (level, msg, fields) => {
        if (msg !== "serving certificate not reloaded") return;
        looks += 1;
        if (level === "warn") said.push(String(fields?.["error"]));
      },
      child: () => logger,
    };
    const looked = async (times: number): Promise<void> => {
      const enough = looks + times;
      await until(async () => {
        clock.tick();
        return looks >= enough;
      });
    };
    writeFileSync(clientCAFile, node.ca.pem);
    try {
      await node.start({ clientCAFile }, { clock, logger });
      rmSync(clientCAFile);
      await looked(5);
      assert.equal(said.length, 1);
      assert.match(said[0] ?? "", /cannot be read \(ENOENT/);
      writeFileSync(clientCAFile, "no certificate\n");
      await looked(5);
      assert.equal(said.length, 2);
      assert.match(said[1] ?? "", /no certificate/);
      writeFileSync(clientCAFile, node.ca.pem);
      const before = looks;
      for (let times = 0; times < 20; times += 1) {
        clock.tick();
        await systemClock.sleep(1, new AbortController().signal);
      }
      assert(looks - before <= 1, "a file that is whole again is no trouble");
      rmSync(clientCAFile);
      await looked(2);
      assert.equal(said.length, 3, "it had been well in between");
    } finally {
      await node.stop();
      rmSync(directory, { recursive: true });
    }
  });

  test("a CA that is taken away is trusted no more, also on open connections", async () => {
    const directory = mkdtempSync(join(tmpdir(), "remora-tls-"));
    const clock = new SettableClock();
    const node = new NodeUnderTest();
    const later = new TestCA("later");
    const clientCAFile = join(directory, "ca.crt");
    writeFileSync(clientCAFile, node.ca.pem);
    const one = new Agent({ keepAlive: true, maxSockets: 1 });
    const two = new Agent({ keepAlive: true, maxSockets: 1 });
    const [before, added] = [node.admin, later.issue("admin", ["system:masters"])];
    const ask = async (client: typeof before, agent: Agent): Promise<number> =>
      (await node.get("/pods", client, { agent })).status;
    try {
      await node.start({ clientCAFile }, { clock });
      assert.equal(await ask(before, one), 200);
      assert.equal(await ask(added, new Agent()), 401);
      writeFileSync(clientCAFile, `${node.ca.pem}\nwords between\n${later.pem}`);
      await until(async () => {
        clock.tick();
        return (await ask(added, new Agent())) === 200;
      });
      assert.equal(await ask(added, two), 200);
      assert.equal(await ask(before, one), 200, "its connection was made under the smaller bundle");
      writeFileSync(clientCAFile, later.pem);
      await until(async () => {
        clock.tick();
        return (await ask(before, new Agent())) === 401;
      });
      assert.equal(await ask(before, one), 401, "its connection is from before");
      assert.equal(await ask(added, two), 200);
      // Nothing but rubbish, or nothing yet: what was there stays.
      const rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
      for (const text of [rubbish, "no certificate at all\n", ""]) {
        writeFileSync(clientCAFile, text);
        clock.tick();
        await systemClock.sleep(20, new AbortController().signal);
        assert.equal(await ask(added, new Agent()), 200, JSON.stringify(text));
      }
    } finally {
      one.destroy();
      two.destroy();
      await node.stop();
      rmSync(directory, { recursive: true });
    }
  });
});

test("a pair from elsewhere is served as soon as it changes", async () => {
  const node = new NodeUnderTest();
  let pair = node.ca.issue("first", [], { usages: ["server"] });
  const listeners = new Set<() => void>();
  const tls: TlsSource = {
    current: () => pair,
    onChange: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  await node.start({}, { tls });
  try {
    const open = new Agent({ keepAlive: true, maxSockets: 1 });
    assert.equal((await node.get("/pods", node.admin, { agent: open })).status, 200);
    assert.equal(await servedName(node.port), "first");
    pair = node.ca.issue("second", [], { usages: ["server"] });
    for (const listener of listeners) listener();
    await until(async () => (await servedName(node.port)) === "second");
    assert.equal((await node.get("/pods", node.admin, { agent: open })).status, 200);
    open.destroy();
  } finally {
    await node.stop();
  }
  assert.equal(listeners.size, 0);
});

test("a certificate that runs out ends its user's rights on the open connection", async () => {
  const clock = new SettableClock();
  const node = await new NodeUnderTest().start({}, { clock });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    assert.equal((await node.get("/pods", node.admin, { agent })).status, 200);
    clock.offsetMs = 2 * dayMs;
    assert.equal((await node.get("/pods", node.admin, { agent })).status, 401);
    clock.offsetMs = -2 * dayMs;
    assert.equal((await node.get("/pods", node.admin, { agent: new Agent() })).status, 401);
  } finally {
    agent.destroy();
    await node.stop();
  }
});

test("without a client CA certificates are not looked at", async () => {
  const node = await new NodeUnderTest().start(
    { authentication: { anonymousEnabled: true } },
    { clientCA: "" },
  );
  try {
    assert.match((await node.get("/pods", node.admin)).body, /user=system:anonymous/);
  } finally {
    await node.stop();
  }
  const nobody = new NodeUnderTest();
  await assert.rejects(
    nobody.start({ authentication: { webhookEnabled: false } }, { clientCA: "" }),
    /no authentication method configured; set clientCAFile/,
  );
});

test("sessions are not resumed: each handshake looks at the client's certificate", async () => {
  const node = await new NodeUnderTest().start();
  try {
    for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
      const first = await handshake(node.port, { ...node.admin, maxVersion });
      const session = first.getSession();
      first.destroy();
      const second = await handshake(node.port, { maxVersion, session });
      assert.equal(second.isSessionReused(), false, maxVersion);
      second.destroy();
    }
  } finally {
    await node.stop();
  }
});

describe("what of TLS is spoken", () => {
  test("at least 1.2, and HTTP/1.1 whatever else is offered", async () => {
    const node = await new NodeUnderTest().start();
    try {
      await assert.rejects(handshake(node.port, { minVersion: "TLSv1.1", maxVersion: "TLSv1.1" }));
      const socket = await handshake(node.port, { ALPNProtocols: ["h2", "http/1.1"] });
      assert.equal(socket.alpnProtocol, "http/1.1");
      socket.destroy();
    } finally {
      await node.stop();
    }
  });

  test("tlsMinVersion, tlsCipherSuites and tlsCurvePreferences", async () => {
    const node = await new NodeUnderTest().start({
      tlsCipherSuites: ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
      tlsCurvePreferences: [23],
    });
    try {
      const maxVersion = "TLSv1.2";
      const old = await handshake(node.port, { maxVersion });
      assert.equal(old.getCipher().standardName, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
      old.destroy();
      const ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
      await assert.rejects(handshake(node.port, { maxVersion, ciphers }));
      await assert.rejects(handshake(node.port, { ecdhCurve: "X25519" }));
      const now = await handshake(node.port, { ecdhCurve: "P-256" });
      assert.equal(now.getProtocol(), "TLSv1.3");
      now.destroy();
    } finally {
      await node.stop();
    }
    const strict = await new NodeUnderTest().start({ tlsMinVersion: "VersionTLS13" });
    try {
      await assert.rejects(handshake(strict.port, { maxVersion: "TLSv1.2" }));
    } finally {
      await strict.stop();
    }
  });

  test("a suite that is not there is a setup error", async () => {
    await assert.rejects(
      async () => new NodeUnderTest().start({ tlsCipherSuites: ["TLS_NULL"] }),
      /tlsCipherSuites: Cipher suite TLS_NULL not supported or doesn't exist/,
    );
    await assert.rejects(
      async () => new NodeUnderTest().start({ tlsCurvePreferences: [1] }),
      /tlsCurvePreferences: 1 is no key exchange/,
    );
  });
});
