import assert from "node:assert/strict";
import { once } from "node:events";
import { rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createSecureServer, type Http2ServerRequest } from "node:http2";
import { createServer } from "node:https";
import { createServer as createMuteServer, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { TLSSocket } from "node:tls";

import { ApiError, ApiUnavailableError } from "../../../src/api/errors.ts";
import { createHttpClient, type HttpClient } from "../../../src/api/http-client.ts";
import type { Kubeconfig, KubeconfigUser } from "../../../src/api/kubeconfig-types.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { ManualClock, until } from "./manual-clock.ts";
import { makePki, type TestPki } from "./tls.ts";

const { signal } = new AbortController();

interface Seen {
  readonly path: string;
  readonly version: string;
  readonly commonName: string;
  readonly authorization: string | undefined;
}

interface Host {
  readonly url: string;
  readonly seen: Seen[];
  /** TLS connections accepted so far. */
  connections: number;
  close(): Promise<void>;
}

/** Answers `watch=true` with one event and an open stream, all else with `{}`. */
async function host(pki: TestPki, http2: boolean): Promise<Host> {
  const sockets = new Set<TLSSocket>();
  const options = {
    key: pki.server.key,
    cert: pki.server.cert,
    ca: pki.ca,
    requestCert: true,
    rejectUnauthorized: false,
  };
  const server = http2
    ? createSecureServer({ ...options, allowHTTP1: true })
    : createServer(options);
  const made: Host = {
    url: "",
    seen: [],
    connections: 0,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
  server.on("secureConnection", (socket: TLSSocket) => {
    made.connections += 1;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  const answer = (
    request: Http2ServerRequest | IncomingMessage,
    // The HTTP/2 response follows this interface; only its overloads differ.
    response: ServerResponse,
  ): void => {
    const socket = "stream" in request ? request.stream.session?.socket : request.socket;
    const { subject } = (socket as TLSSocket).getPeerCertificate();
    made.seen.push({
      path: request.url ?? "",
      version: request.httpVersion,
      commonName: String(subject?.CN ?? ""),
      authorization: request.headers.authorization,
    });
    if (request.headers.authorization === "Bearer stale") {
      response.writeHead(401, { "content-type": "application/json" });
      response.end('{"kind":"Status","code":401,"reason":"Unauthorized","message":"Unauthorized"}');
      return;
    }
    response.writeHead(200, { "content-type": "application/json" });
    if (request.url?.includes("watch=true") === true) response.write('{"type":"FIRST"}\n');
    else response.end("{}");
  };
  server.on("request", answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return Object.assign(made, { url: `https://127.0.0.1:${address.port}` });
}

describe("HTTP client over TLS", () => {
  let pki: TestPki;
  before(() => {
    pki = makePki();
  });
  after(() => pki.dispose());

  async function scene(
    body: (scene: { host: Host; client: HttpClient; clock: ManualClock }) => Promise<void>,
    options: {
      readonly http2?: boolean;
      readonly user?: Partial<KubeconfigUser>;
      readonly ca?: string;
      readonly caFile?: string;
      readonly tlsServerName?: string;
    } = {},
  ): Promise<void> {
    const made = await host(pki, options.http2 ?? true);
    const kubeconfig: Kubeconfig = {
      path: "/etc/test.conf",
      context: "t",
      namespace: "default",
      cluster: {
        name: "t",
        server: made.url,
        ca:
          options.caFile === undefined
            ? { kind: "data", pem: options.ca ?? pki.ca }
            : { kind: "file", path: options.caFile },
        insecureSkipTLSVerify: false,
        ...(options.tlsServerName === undefined ? {} : { tlsServerName: options.tlsServerName }),
      },
      user: { name: "t", ...options.user },
    };
    const clock = new ManualClock();
    const client = createHttpClient({ kubeconfig, userAgent: "t", clock, logger: silentLogger });
    try {
      await body({ host: made, client, clock });
    } finally {
      await client.close();
      await made.close();
    }
  }

  function openWatch(client: HttpClient, path: string): AsyncIterator<unknown> {
    return client.watch({ path, query: {}, stallMs: 60_000, signal })[Symbol.asyncIterator]();
  }

  async function closeAll(...watches: readonly AsyncIterator<unknown>[]): Promise<void> {
    for (const watch of watches) await watch.return?.();
  }

  it("outlives the answer to a request that is given up, at whatever moment", () =>
    scene(async ({ client }) => {
      await client.request({ method: "GET", path: "/warm", signal });
      for (let round = 0; round < 30; round += 1) {
        const given = new AbortController();
        const request = { method: "POST", path: "/x", body: {}, signal: given.signal } as const;
        const asked = assert.rejects(client.request(request));
        // So that some are given up before they are sent, some on their way.
        for (let turn = 0; turn < round % 3; turn += 1) await Promise.resolve();
        given.abort();
        await asked;
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      // An error on the connection is one on all its streams; nobody listening to one would end the process.
      client.reset();
      await new Promise((resolve) => setTimeout(resolve, 20));
      await client.request({ method: "GET", path: "/again", signal });
    }));

  it("runs all watches over one HTTP/2 connection", () =>
    scene(async ({ host, client }) => {
      const watches = Array.from({ length: 20 }, (_, index) => openWatch(client, `/w${index}`));
      const first = await Promise.all(watches.map((watch) => watch.next()));
      assert.ok(first.every(({ value }) => (value as { type: string }).type === "FIRST"));
      assert.deepEqual([...new Set(host.seen.map(({ version }) => version))], ["2.0"]);
      assert.equal(host.connections, 1);
      await closeAll(...watches);
    }));

  it("falls back to HTTP/1.1 with a connection per watch when the server offers no HTTP/2", () =>
    scene(
      async ({ host, client }) => {
        const watches = [openWatch(client, "/a"), openWatch(client, "/b"), openWatch(client, "/c")];
        await Promise.all(watches.map((watch) => watch.next()));
        assert.deepEqual([...new Set(host.seen.map(({ version }) => version))], ["1.1"]);
        assert.equal(host.connections, 3);
        await client.request({ method: "GET", path: "/x", signal });
        await closeAll(...watches);
      },
      { http2: false },
    ));

  it("keeps reading a server that swallows one stream of the shared connection", () =>
    scene(async ({ client }) => {
      const other = openWatch(client, "/a");
      await other.next();
      const stalled = client.watch({ path: "/hang", query: {}, stallMs: 100, signal });
      const iterator = stalled[Symbol.asyncIterator]();
      await iterator.next();
      await assert.rejects(iterator.next(), ApiUnavailableError);
      const again = openWatch(client, "/b");
      await again.next();
      await closeAll(other, again);
    }));

  it("changes to renewed certificates, and ends the watches so that they follow", () => {
    const paths = { cert: join(pki.directory, "node.crt"), key: join(pki.directory, "node.key") };
    const install = (name: string): void => {
      const { cert, key } = pki.client(name);
      writeFileSync(paths.cert, cert);
      writeFileSync(paths.key, key);
    };
    install("old");
    return scene(
      async ({ host, client, clock }) => {
        const watch = openWatch(client, "/a");
        await watch.next();
        const ended = watch.next();
        install("new");
        await client.request({ method: "GET", path: "/before", signal });
        clock.advance(61_000);
        await client.request({ method: "GET", path: "/after", signal });
        assert.deepEqual(await ended, { done: true, value: undefined });
        assert.deepEqual(
          host.seen.map(({ path, commonName }) => [path.split("?")[0], commonName]),
          [
            ["/a", "old"],
            ["/before", "old"],
            ["/after", "new"],
          ],
        );
      },
      {
        user: {
          clientCertificate: { kind: "file", path: paths.cert },
          clientKey: { kind: "file", path: paths.key },
        },
      },
    );
  });

  it("goes on with what it has while files are damaged", () => {
    const paths = ["torn.crt", "torn.key", "torn-ca.crt"].map((name) => join(pki.directory, name));
    const [certPath = "", keyPath = "", caPath = ""] = paths;
    const write = (cert: string, key: string, ca: string): void => {
      for (const [at, text] of [cert, key, ca].entries()) writeFileSync(paths[at] ?? "", text);
    };
    const { cert, key } = pki.client("old");
    write(cert, key, pki.ca);
    return scene(
      async ({ host: { seen }, client, clock }) => {
        await client.request({ method: "GET", path: "/whole", signal });
        const other = pki.client("new");
        const damages: readonly (readonly [string, string, string])[] = [
          [cert, key, ""],
          [cert, key, "garbage"],
          [other.cert, key, pki.ca],
          ["", key, pki.ca],
        ];
        for (const damage of damages) {
          write(...damage);
          clock.advance(61_000);
          await client.request({ method: "GET", path: "/damaged", signal });
        }
        write(other.cert, other.key, pki.ca);
        await client.request({ method: "GET", path: "/new", signal });
        assert.deepEqual(
          seen.map(({ commonName }) => commonName),
          ["old", "old", "old", "old", "old", "new"],
        );
        for (const path of paths) rmSync(path);
      },
      {
        caFile: caPath,
        user: {
          clientCertificate: { kind: "file", path: certPath },
          clientKey: { kind: "file", path: keyPath },
        },
      },
    );
  });

  it("reads a token file again each minute, on the same connections", () => {
    const path = join(pki.directory, "rotated.token");
    writeFileSync(path, "one\n");
    return scene(
      async ({ host, client, clock }) => {
        await client.request({ method: "GET", path: "/a", signal });
        writeFileSync(path, "two\n");
        await client.request({ method: "GET", path: "/b", signal });
        clock.advance(61_000);
        await client.request({ method: "GET", path: "/c", signal });
        rmSync(path);
        clock.advance(61_000);
        await client.request({ method: "GET", path: "/d", signal });
        assert.deepEqual(
          host.seen.map(({ authorization }) => authorization),
          ["Bearer one", "Bearer one", "Bearer two", "Bearer two"],
        );
        assert.ok(host.connections <= 2);
      },
      { user: { tokenFile: path } },
    );
  });

  it("reads the token again as soon as the server refuses it", () => {
    const path = join(pki.directory, "stale.token");
    writeFileSync(path, "stale");
    return scene(
      async ({ client }) => {
        const request = { method: "GET", path: "/a", signal } as const;
        await assert.rejects(
          client.request(request),
          (error) => error instanceof ApiError && error.status === 401,
        );
        writeFileSync(path, "fresh");
        await client.request(request);
      },
      { user: { tokenFile: path } },
    );
  });

  it("refuses a server that the CA does not vouch for, and says why", () => {
    const foreign = makePki();
    return scene(
      async ({ client }) => {
        await assert.rejects(client.request({ method: "GET", path: "/a", signal }), (error) => {
          assert.ok(error instanceof ApiUnavailableError);
          assert.match(error.message, /GET \/a: .*(signature|certificate)/);
          return true;
        });
      },
      { ca: foreign.ca },
    ).finally(() => foreign.dispose());
  });

  it("checks the certificate against tls-server-name", async () => {
    await scene(
      async ({ client }) => void (await client.request({ method: "GET", path: "/a", signal })),
      { tlsServerName: "kubernetes" },
    );
    await scene(
      ({ client }) =>
        assert.rejects(client.request({ method: "GET", path: "/a", signal }), /altnames|Hostname/),
      { tlsServerName: "other" },
    );
  });

  it("keeps its deadline while a connection is being made", { timeout: 5000 }, async () => {
    const sockets = new Set<Socket>();
    // Accepts, and never says a word.
    const mute = createMuteServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
    });
    mute.listen(0, "127.0.0.1");
    await once(mute, "listening");
    const address = mute.address();
    assert.ok(typeof address === "object" && address !== null);
    const server = `https://127.0.0.1:${address.port}`;
    const client = createHttpClient({
      kubeconfig: {
        path: "F",
        context: "t",
        namespace: "default",
        cluster: { name: "t", server, insecureSkipTLSVerify: true },
        user: { name: "t" },
      },
      userAgent: "t",
      clock: new ManualClock(),
      logger: silentLogger,
    });
    const request = { method: "GET", path: "/a", deadlineMs: 20, signal } as const;
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await assert.rejects(client.request(request), /no answer within 20 ms/);
    }
    await client.close();
    for (const socket of sockets) socket.destroy();
    mute.close();
    await once(mute, "close");
  });

  it("runs a credential plug-in once, until its token expires or is refused", () => {
    const script = `n=$(cat ${pki.directory}/count 2>/dev/null || echo 0); n=$((n+1)); echo $n > ${pki.directory}/count
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"t%s","expirationTimestamp":"%s"}}' $n "$EXPIRY"`;
    return scene(
      async ({ host, client, clock }) => {
        await client.request({ method: "GET", path: "/a", signal });
        await client.request({ method: "GET", path: "/b", signal });
        clock.advance(3_600_000);
        await client.request({ method: "GET", path: "/c", signal });
        assert.deepEqual(
          host.seen.map(({ authorization }) => authorization),
          ["Bearer t1", "Bearer t1", "Bearer t2"],
        );
      },
      {
        user: {
          exec: {
            apiVersion: "client.authentication.k8s.io/v1",
            command: "/bin/sh",
            args: ["-c", script],
            env: { EXPIRY: new Date(new ManualClock().now() + 1_800_000).toISOString() },
            provideClusterInfo: true,
            installHint: "",
          },
        },
      },
    );
  });

  it("says what is wrong with a credential plug-in, without its output", async () => {
    for (const [script, message] of [
      ["echo secret; echo oops >&2; exit 3", /\/bin\/sh exited with 3: oops/],
      ["echo secret", /did not print JSON/],
      ["echo '{}'", /did not print an ExecCredential object/],
      [
        `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1"}'`,
        /returned neither token nor clientCertificateData/,
      ],
    ] as const) {
      await scene(
        ({ client }) =>
          assert.rejects(client.request({ method: "GET", path: "/a", signal }), (error) => {
            assert.ok(error instanceof ApiUnavailableError);
            assert.match(error.message, message);
            assert.doesNotMatch(error.message, /secret/);
            assert.match(error.message, /kubeconfig \/etc\/test\.conf: users\[t\]\.exec/);
            return true;
          }),
        {
          user: {
            exec: {
              apiVersion: "client.authentication.k8s.io/v1",
              command: "/bin/sh",
              args: ["-c", script],
              env: {},
              provideClusterInfo: false,
              installHint: "",
            },
          },
        },
      );
    }
  });

  it("ends all watches of the shared connection on a reset, and then opens a new one", () =>
    scene(async ({ host, client }) => {
      const watches = [openWatch(client, "/a"), openWatch(client, "/b")];
      await Promise.all(watches.map((watch) => watch.next()));
      const pending = watches.map((watch) => watch.next());
      client.reset();
      const results = await Promise.allSettled(pending);
      assert.ok(
        results.every(
          (result) => result.status === "rejected" && result.reason instanceof ApiUnavailableError,
        ),
      );
      const again = openWatch(client, "/c");
      await again.next();
      await until(() => host.connections === 2);
      await closeAll(again);
    }));
});
