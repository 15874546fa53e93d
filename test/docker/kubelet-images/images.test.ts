import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { loadCredentialProviders } from "../../../src/kubelet/images/credential-provider-config.ts";
import { CredentialProviders } from "../../../src/kubelet/images/credential-providers.ts";
import { type Keyring, parseKeyring } from "../../../src/kubelet/images/credentials.ts";
import { ImageCollector } from "../../../src/kubelet/images/image-gc.ts";
import { PullRecords } from "../../../src/kubelet/images/pull-records.ts";
import { ImageError, ImagePuller } from "../../../src/kubelet/images/puller.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { tarFile } from "../../../src/runtime/docker/tar.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import { container, pod } from "../../unit/kubelet-pods/builders.ts";
import { createFixture, testSignal } from "../runtime/fixture.ts";

const program = fileURLToPath(new URL("../../fakes/registry.ts", import.meta.url));

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  assert(address !== null && typeof address === "object");
  return address.port;
}

/** A registry that opens to `jane:secret-word` only. */
async function startRegistry(
  layer: string,
): Promise<{ readonly child: ChildProcess; readonly host: string }> {
  const port = await freePort();
  const argv = [program, String(port), layer, "jane:secret-word"];
  const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return { child, host: `127.0.0.1:${port}` };
}

function podNamed(uid: string): AssignedPod {
  const base = pod();
  return { ...base, metadata: { ...base.metadata, name: uid, uid } };
}

async function reasonOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "ok";
  } catch (error) {
    assert(error instanceof ImageError, String(error));
    return error.reason;
  }
}

test("a private image is pulled with its secret, kept from other pods, and removed when it is unused and the disk is full", async () => {
  await using fixture = await createFixture();
  const { runtime } = fixture;
  const rootDir = await mkdtemp(join(tmpdir(), "images-"));
  const layer = join(rootDir, "layer.tar");
  // Not the bytes of any other image: it is removed by its id in the end.
  await writeFile(layer, tarFile("name", Buffer.from(fixture.scope), 0o644));
  const { child, host } = await startRegistry(layer);
  const name = `${host}/team/app:1`;
  const events: string[] = [];
  const shared = {
    images: runtime,
    clock: systemClock,
    events: {
      event: (_: unknown, type: string, reason: string, message: string) => {
        events.push(`${type} ${reason} ${message}`);
      },
    },
  };
  const records = new PullRecords(rootDir, () => systemClock.now());
  const puller = new ImagePuller({
    ...shared,
    config: { rootDir, imagePullProgressDeadlineMs: 30_000, serializeImagePulls: true },
    step: () => undefined,
    nodeKeyring: () => Promise.resolve([]),
    records,
  });
  const auths = (password: string): string =>
    JSON.stringify({ auths: { [host]: { username: "jane", password } } });
  const secret = (text: string): Keyring =>
    parseKeyring(text, { uid: "s", namespace: "ns", name: "pull" });
  const ensure = (uid: string, keyring: Keyring, imagePullPolicy: string) =>
    puller.ensure(
      podNamed(uid),
      {
        container: container("web", { image: name, imagePullPolicy: imagePullPolicy as "Never" }),
        role: "regular",
      },
      keyring,
      testSignal(),
    );
  try {
    assert.equal(await reasonOf(ensure("none", [], "IfNotPresent")), "ErrImagePull");
    assert.equal(
      await reasonOf(ensure("wrong", secret(auths("guess")), "IfNotPresent")),
      "ErrImagePull",
    );
    const image = await ensure("right", secret(auths("secret-word")), "IfNotPresent");
    assert.match(image.digests[0] ?? "", /^127\.0\.0\.1:\d+\/team\/app@sha256:[0-9a-f]{64}$/);
    assert.match(
      events.at(-1) ?? "",
      new RegExp(
        `^Normal Pulled Successfully pulled image "${name}" in [0-9.]+m?s \\([0-9.]+m?s including waiting\\)\\. Image size: ${image.sizeBytes} bytes\\.$`,
      ),
    );
    assert.equal(await reasonOf(ensure("other", [], "Never")), "ErrImageNeverPull");
    assert.equal(await reasonOf(ensure("other", [], "IfNotPresent")), "ErrImagePull");
    assert.equal(await reasonOf(ensure("same", secret(auths("secret-word")), "Never")), "ok");
    assert.doesNotMatch(events.join("\n"), /secret-word/);

    const before = await runtime.listImages(testSignal());
    const collector = new ImageCollector({
      ...shared,
      config: { nodeName: "worker" },
      runtime,
      records,
      disk: () => Promise.resolve({ capacityBytes: 100, availableBytes: 1 }),
      logger: silentLogger,
    });
    await collector.collect(testSignal()).catch(() => undefined);
    const after = new Set((await runtime.listImages(testSignal())).map(({ id }) => id));
    assert(!after.has(image.id), "what was pulled is gone");
    for (const { id } of before) assert(id === image.id || after.has(id), `${id} was not ours`);
    assert.equal((await records.broughtImages()).size, 0);
  } finally {
    child.kill();
    const left = await runtime.imageStatus(name, testSignal());
    if (left !== undefined) await runtime.removeImage(left.id, testSignal());
    await rm(rootDir, { recursive: true, force: true });
  }
});

test("a private image is pulled with what a credential provider says, and another one that is broken does no harm", async () => {
  await using fixture = await createFixture();
  const { runtime } = fixture;
  const rootDir = await mkdtemp(join(tmpdir(), "images-"));
  const layer = join(rootDir, "layer.tar");
  await writeFile(layer, tarFile("name", Buffer.from(fixture.scope), 0o644));
  const { child, host } = await startRegistry(layer);
  const name = `${host}/team/app:1`;
  const apiVersion = "credentialprovider.kubelet.k8s.io/v1";
  const answer = JSON.stringify({
    apiVersion,
    kind: "CredentialProviderResponse",
    cacheKeyType: "Registry",
    auth: { [host]: { username: "jane", password: "secret-word" } },
  });
  const script = async (program: string, body: string): Promise<void> => {
    await writeFile(join(rootDir, program), `#!/bin/sh\n${body}\n`);
    await chmod(join(rootDir, program), 0o755);
  };
  await script("broken", "exit 1");
  await script("knows", `grep -q '"image":"${host}/team/app"' && echo '${answer}'`);
  const providers = ["broken", "knows"].map((program) => ({
    name: program,
    apiVersion,
    matchImages: [host],
    defaultCacheDuration: "1m",
  }));
  const config = {
    apiVersion: "kubelet.config.k8s.io/v1",
    kind: "CredentialProviderConfig",
    providers,
  };
  await writeFile(join(rootDir, "providers.json"), JSON.stringify(config));
  const stop = new AbortController();
  const credentialProviders = new CredentialProviders({
    providers: await loadCredentialProviders(join(rootDir, "providers.json"), rootDir),
    accounts: {
      account: () => Promise.reject(new Error("nobody asks")),
      token: () => Promise.reject(new Error("nobody asks")),
      forget: () => undefined,
    },
    environment: {},
    clock: systemClock,
    logger: silentLogger,
    signal: stop.signal,
  });
  const options = {
    images: runtime,
    clock: systemClock,
    events: { event: () => undefined },
    config: { rootDir, imagePullProgressDeadlineMs: 30_000, serializeImagePulls: true },
    step: () => undefined,
    nodeKeyring: () => Promise.resolve([]),
  };
  const entry = {
    container: container("web", { image: name, imagePullPolicy: "Always" }),
    role: "regular",
  } as const;
  const ensure = (puller: ImagePuller): Promise<string> =>
    reasonOf(puller.ensure(podNamed("a"), entry, [], testSignal()));
  try {
    assert.equal(await ensure(new ImagePuller(options)), "ErrImagePull");
    assert.equal(await ensure(new ImagePuller({ ...options, credentialProviders })), "ok");
  } finally {
    stop.abort();
    child.kill();
    const left = await runtime.imageStatus(name, testSignal());
    if (left !== undefined) await runtime.removeImage(left.id, testSignal());
    await rm(rootDir, { recursive: true, force: true });
  }
});
