import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import {
  type CredentialSource,
  type Keyring,
  keyringOf,
  parseKeyring,
} from "../../../src/kubelet/images/credentials.ts";
import { nodeKeyring } from "../../../src/kubelet/images/node-credentials.ts";
import {
  formatDuration,
  ImageError,
  ImagePuller,
  type ImagePullerOptions,
} from "../../../src/kubelet/images/puller.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import type {
  Image,
  ImageService,
  PullProgress,
  RegistryAuth,
} from "../../../src/runtime/types.ts";
import { container, pod } from "../../unit/kubelet-pods/builders.ts";

const never = new AbortController().signal;
const image: Image = {
  id: `sha256:${"1".repeat(64)}`,
  tags: [],
  digests: [],
  sizeBytes: 4242,
  user: {},
  stopSignal: undefined,
};

type Answer = (auth: RegistryAuth | undefined) => Promise<Image>;

/** Images on a node, a registry behind them, and a clock that is set by hand. */
class World implements AsyncDisposable {
  readonly present = new Map<string, Image>();
  readonly pulls: (string | undefined)[] = [];
  readonly events: string[] = [];
  answer: Answer = () => Promise.resolve(image);
  now = Date.parse("2026-01-01T00:00:00Z");
  readonly rootDir: string;
  readonly #listeners = new Map<string, ((progress: PullProgress) => void) | undefined>();

  private constructor(rootDir: string) {
    this.rootDir = rootDir;
  }

  static async make(): Promise<World> {
    return new World(await mkdtemp(join(tmpdir(), "images-")));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.rootDir, { recursive: true, force: true });
  }

  /** The registry has sent a part of an image. */
  progress(reference: string, progress: PullProgress): void {
    this.#listeners.get(reference)?.(progress);
  }

  puller(
    config: Partial<ImagePullerOptions["config"]> = {},
    more: Pick<ImagePullerOptions, "credentialProviders"> = {},
  ): ImagePuller {
    const images: ImageService = {
      listImages: () => Promise.resolve([...this.present.values()]),
      imageStatus: (reference) => Promise.resolve(this.present.get(reference)),
      pullImage: async (reference, { auth, onProgress }) => {
        this.pulls.push(auth?.username);
        this.#listeners.set(reference, onProgress);
        const pulled = await this.answer(auth);
        this.present.set(reference, pulled);
        return pulled;
      },
      removeImage: () => Promise.resolve(),
    };
    const clock: Clock = {
      now: () => this.now,
      monotonic: () => this.now,
      sleep: () => Promise.reject(new Error("nothing sleeps here")),
    };
    return new ImagePuller({
      ...more,
      config: {
        rootDir: this.rootDir,
        imagePullProgressDeadlineMs: 1000,
        serializeImagePulls: true,
        ...config,
      },
      images,
      clock,
      step: () => undefined,
      nodeKeyring: () => nodeKeyring(this.rootDir, join(this.rootDir, "home")),
      events: {
        event: (_, type, reason, message) => {
          this.events.push(`${type} ${reason} ${message}`);
        },
      },
    });
  }

  async records(directory: "pulling" | "pulled"): Promise<readonly unknown[]> {
    const path = join(this.rootDir, "image_manager", directory);
    const all = await readdir(path).catch(() => []);
    const names = all.filter((name) => !name.endsWith(".tmp"));
    return Promise.all(
      names.map(async (name) => JSON.parse(await readFile(join(path, name), "utf8")) as unknown),
    );
  }
}

function podNamed(uid: string): AssignedPod {
  const base = pod();
  return { ...base, metadata: { ...base.metadata, name: uid, uid } };
}

type Policy = "Always" | "IfNotPresent" | "Never";
const entryOf = (name: string, imagePullPolicy: Policy = "IfNotPresent") =>
  ({ container: container("web", { image: name, imagePullPolicy }), role: "regular" }) as const;

function keyring(name: string, username: string, uid = name): Keyring {
  const text = JSON.stringify({ auths: { "r.test": { username, password: "x" } } });
  return parseKeyring(text, { uid, namespace: "ns", name });
}

/** A program that knows one user, on behalf of `source`. */
function providersOf(
  username: string,
  source: CredentialSource | undefined,
): NonNullable<ImagePullerOptions["credentialProviders"]> & {
  readonly asked: string[];
  readonly forgotten: string[];
} {
  const asked: string[] = [];
  const forgotten: string[] = [];
  return {
    asked,
    forgotten,
    keyringFor: async ({ metadata }, repository) => {
      asked.push(`${metadata.uid} ${repository}`);
      return keyringOf(new Map([["r.test", { username, password: "x" }]]), source);
    },
    forget: (uid) => {
      forgotten.push(uid);
    },
  };
}

async function reasonOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "ok";
  } catch (error) {
    assert(error instanceof ImageError, String(error));
    return `${error.reason}: ${error.message}`;
  }
}

const name = "r.test/team/app:1";
const cause = (text: string) => () => Promise.reject(new Error(text));

describe("images of containers", () => {
  test("are pulled when they are not there, and the event has the words of the kubelet", async () => {
    await using world = await World.make();
    world.answer = () => {
      world.now += 1234;
      return Promise.resolve(image);
    };
    const found = await world.puller().ensure(podNamed("a"), entryOf(name), [], never);
    assert.equal(found.id, image.id);
    assert.deepEqual(world.events, [
      `Normal Pulling Pulling image "${name}"`,
      `Normal Pulled Successfully pulled image "${name}" in 1.234s (1.234s including waiting). Image size: 4242 bytes.`,
    ]);
  });

  test("are not asked for when they are there, unless the policy says Always; Never never asks", async () => {
    await using world = await World.make();
    const puller = world.puller();
    assert.equal(
      await reasonOf(puller.ensure(podNamed("a"), entryOf(name, "Never"), [], never)),
      `ErrImageNeverPull: Container image "${name}" is not present with pull policy of Never`,
    );
    world.present.set(name, image);
    await puller.ensure(podNamed("a"), entryOf(name, "Never"), [], never);
    await puller.ensure(podNamed("a"), entryOf(name), [], never);
    assert.deepEqual(world.pulls, []);
    assert.equal(
      world.events.at(-1),
      `Normal Pulled Container image "${name}" already present on machine and can be accessed by the pod`,
    );
    await puller.ensure(podNamed("a"), entryOf(name, "Always"), [], never);
    assert.equal(world.pulls.length, 1);
  });

  test("that cannot be pulled are asked for after 10 s, then twice that, up to 300 s, per pod", async () => {
    await using world = await World.make();
    world.answer = cause("manifest unknown");
    const puller = world.puller();
    const ensure = (uid: string) =>
      reasonOf(puller.ensure(podNamed(uid), entryOf(name), [], never));
    for (const seconds of [10, 20, 40, 80, 160, 300, 300]) {
      assert.equal(await ensure("a"), "ErrImagePull: manifest unknown");
      world.now += seconds * 1000 - 1;
      assert.equal(
        await ensure("a"),
        `ImagePullBackOff: Back-off pulling image "${name}": ErrImagePull: manifest unknown`,
      );
      world.now += 1;
    }
    assert(
      world.events.includes(`Warning Failed Failed to pull image "${name}": manifest unknown`),
    );
    assert(world.events.includes(`Normal BackOff Back-off pulling image "${name}"`));
    assert.equal(await ensure("b"), "ErrImagePull: manifest unknown", "another pod has its own");
    world.now += 900_000;
    await ensure("a");
    world.now += 10_000;
    assert.equal(await ensure("a"), "ErrImagePull: manifest unknown", "a long time heals");
  });

  test("more pulls at once than configured are refused and tried again", async () => {
    await using world = await World.make();
    const puller = world.puller({ registryPullQPS: 1, registryBurst: 2 });
    const ensure = (at: number) =>
      reasonOf(puller.ensure(podNamed("a"), entryOf(`r.test/app:${at}`), [], never));
    assert.deepEqual(await Promise.all([ensure(1), ensure(2)]), ["ok", "ok"]);
    assert.equal(await ensure(3), "ErrImagePull: pull QPS exceeded");
    world.now += 10_000;
    assert.equal(await ensure(3), "ok");
  });

  test("one pull serves all who want the same", async () => {
    await using world = await World.make();
    const gate = Promise.withResolvers<void>();
    world.answer = async () => {
      await gate.promise;
      return image;
    };
    const puller = world.puller();
    const all = ["a", "b", "c"].map((uid) =>
      puller.ensure(podNamed(uid), entryOf(name), [], never),
    );
    // Each notes on disk what it is about to do.
    while (world.pulls.length === 0) await new Promise(setImmediate);
    await new Promise((resolve) => setTimeout(resolve, 30));
    gate.resolve();
    await Promise.all(all);
    assert.equal(world.pulls.length, 1);
  });

  for (const [what, config, expected] of [
    ["one at a time", { serializeImagePulls: true, maxParallelImagePulls: 3 }, 1],
    ["as many as configured", { serializeImagePulls: false, maxParallelImagePulls: 2 }, 2],
    ["all", { serializeImagePulls: false }, 4],
  ] as const) {
    test(`different images are pulled ${what} at a time`, async () => {
      await using world = await World.make();
      let now = 0;
      let most = 0;
      world.answer = async () => {
        now += 1;
        most = Math.max(most, now);
        await new Promise((resolve) => setTimeout(resolve, 5));
        now -= 1;
        return image;
      };
      const puller = world.puller(config);
      await Promise.all(
        [1, 2, 3, 4].map((at) =>
          puller.ensure(podNamed("a"), entryOf(`r.test/app:${at}`), [], never),
        ),
      );
      assert.equal(most, expected);
    });
  }

  test("whoever waits for an image is told how far it is, and when others are pulled before it", async () => {
    await using world = await World.make();
    const gates = [Promise.withResolvers<Image>(), Promise.withResolvers<Image>()];
    world.answer = () => gates[world.pulls.length - 1]?.promise ?? Promise.resolve(image);
    const puller = world.puller();
    const told = (): unknown =>
      puller.pulls().map((pull) => [pull.image, pull.queued, pull.progress?.doneBytes, pull.pods]);
    const ensure = (uid: string): Promise<Image> =>
      puller.ensure(podNamed(uid), entryOf(`r.test/app:${uid}`), [], never);
    const first = ensure("a");
    while (world.pulls.length === 0) await new Promise(setImmediate);
    const second = ensure("b");
    while (puller.pulls().length < 2) await new Promise(setImmediate);
    world.progress("r.test/app:a", { doneBytes: 7, totalBytes: 9, unpacking: false });
    assert.deepEqual(told(), [
      ["r.test/app:a", false, 7, ["ns/a"]],
      ["r.test/app:b", true, undefined, ["ns/b"]],
    ]);
    gates[0]?.resolve(image);
    await first;
    while (world.pulls.length === 1) await new Promise(setImmediate);
    assert.deepEqual(told(), [["r.test/app:b", false, undefined, ["ns/b"]]]);
    gates[1]?.resolve(image);
    await second;
    assert.deepEqual(told(), []);
  });

  test("names that are none are said to be so", async () => {
    await using world = await World.make();
    assert.match(
      await reasonOf(world.puller().ensure(podNamed("a"), entryOf("NOT/an image"), [], never)),
      /^InvalidImageName: Failed to apply default image tag "NOT\/an image": couldn't parse image name/,
    );
  });
});

describe("credentials for a registry", () => {
  const onNode = async (world: World, username: string): Promise<void> => {
    const auths = { "r.test": { username, password: "x" } };
    await writeFile(join(world.rootDir, "config.json"), JSON.stringify({ auths }));
  };

  test("are the pod's first, then the node's, each until one is taken", async () => {
    await using world = await World.make();
    await onNode(world, "node");
    world.answer = (auth) =>
      auth?.username === "node" ? Promise.resolve(image) : Promise.reject(new Error("denied"));
    await world.puller().ensure(podNamed("a"), entryOf(name), keyring("s", "jane"), never);
    assert.deepEqual(world.pulls, ["jane", "node"]);
  });

  test("of programs are asked for last, by the repository and for the pod", async () => {
    await using world = await World.make();
    await onNode(world, "node");
    world.answer = (auth) =>
      auth?.username === "program" ? Promise.resolve(image) : Promise.reject(new Error("denied"));
    const providers = providersOf("program", undefined);
    const puller = world.puller({}, { credentialProviders: providers });
    await puller.ensure(podNamed("a"), entryOf(name), keyring("s", "jane"), never);
    assert.deepEqual(world.pulls, ["jane", "node", "program"]);
    assert.deepEqual(providers.asked, ["a r.test/team/app"]);
    // What opened the registry was nobody's in particular.
    assert.equal(
      await reasonOf(world.puller().ensure(podNamed("b"), entryOf(name, "Never"), [], never)),
      "ok",
    );
    puller.forget("a");
    assert.deepEqual(providers.forgotten, ["a"]);
  });

  test("are not asked for where the image is there for everybody", async () => {
    await using world = await World.make();
    world.present.set(name, image);
    const providers = providersOf("program", undefined);
    const puller = world.puller({}, { credentialProviders: providers });
    await puller.ensure(podNamed("a"), entryOf(name), [], never);
    assert.deepEqual(providers.asked, []);
  });

  test("fail with all that was said", async () => {
    await using world = await World.make();
    await onNode(world, "node");
    world.answer = (auth) => Promise.reject(new Error(`no ${auth?.username ?? "nobody"}`));
    const ensured = world
      .puller()
      .ensure(podNamed("a"), entryOf(name), keyring("s", "jane"), never);
    assert.equal(await reasonOf(ensured), "ErrImagePull: [no jane, no node]");
  });

  test("lie in .dockercfg too, in the older form", async () => {
    await using world = await World.make();
    const old = { "r.test": { auth: Buffer.from("old:x").toString("base64") } };
    await writeFile(join(world.rootDir, ".dockercfg"), JSON.stringify(old));
    await world.puller().ensure(podNamed("a"), entryOf(name), [], never);
    assert.deepEqual(world.pulls, ["old"]);
  });
});

describe("an image that was pulled with a secret", () => {
  const pulledBy = async (world: World, config = {}): Promise<ImagePuller> => {
    world.answer = (auth) =>
      auth === undefined ? Promise.reject(new Error("denied")) : Promise.resolve(image);
    const puller = world.puller(config);
    await puller.ensure(podNamed("a"), entryOf(name), keyring("s", "jane"), never);
    world.pulls.length = 0;
    return puller;
  };

  test("is recorded in the kubelet's files", async () => {
    await using world = await World.make();
    await pulledBy(world);
    assert.deepEqual(await world.records("pulling"), []);
    const [hashed] = await readdir(join(world.rootDir, "image_manager", "pulled"));
    assert.equal(hashed, `sha256-${createHash("sha256").update(image.id).digest("hex")}`);
    const [record] = (await world.records("pulled")) as {
      credentialMapping: Record<string, { kubernetesSecrets: { credentialHash: string }[] }>;
    }[];
    const [known] = record?.credentialMapping["r.test/team/app"]?.kubernetesSecrets ?? [];
    assert.match(known?.credentialHash ?? "", /^[0-9a-f]{64}$/);
    assert.deepEqual(record, {
      apiVersion: "kubelet.config.k8s.io/v1beta1",
      kind: "ImagePulledRecord",
      lastUpdatedTime: "2026-01-01T00:00:00Z",
      imageRef: image.id,
      credentialMapping: {
        "r.test/team/app": {
          kubernetesSecrets: [
            { uid: "s", namespace: "ns", name: "s", credentialHash: known?.credentialHash },
          ],
        },
      },
    });
  });

  test("is not another pod's for the asking, also after a restart of the agent", async () => {
    await using world = await World.make();
    for (const puller of [await pulledBy(world), world.puller()]) {
      assert.match(
        await reasonOf(puller.ensure(podNamed("b"), entryOf(name), [], never)),
        /^ErrImagePull: denied/,
      );
      puller.forget("b");
      assert.equal(
        await reasonOf(puller.ensure(podNamed("b"), entryOf(name, "Never"), [], never)),
        `ErrImageNeverPull: Container image "${name}" is not present with pull policy of Never`,
      );
    }
  });

  test("is there for the same secret, the same content under another name, and the same name with new content", async () => {
    await using world = await World.make();
    const puller = await pulledBy(world);
    const ensure = (ring: Keyring) =>
      reasonOf(puller.ensure(podNamed("b"), entryOf(name, "Never"), ring, never));
    assert.equal(await ensure(keyring("s", "jane")), "ok");
    assert.equal(await ensure(keyring("other", "jane")), "ok");
    assert.equal(await ensure(keyring("s", "mary")), "ok");
    assert.equal(await ensure(keyring("third", "mary")), "ok", "what was seen is remembered");
    assert.match(await ensure(keyring("fourth", "eve")), /^ErrImageNeverPull/);
    assert.deepEqual(world.pulls, []);
  });

  test("is everybody's where it came without one, or with the node's", async () => {
    await using world = await World.make();
    const puller = world.puller();
    await puller.ensure(podNamed("a"), entryOf(name), [], never);
    assert.equal(
      await reasonOf(puller.ensure(podNamed("b"), entryOf(name, "Never"), [], never)),
      "ok",
    );
    const [record] = (await world.records("pulled")) as { credentialMapping: object }[];
    assert.deepEqual(record?.credentialMapping, {
      "r.test/team/app": { nodePodsAccessible: true },
    });
  });

  test("whose pull a crash interrupted asks for credentials again", async () => {
    await using world = await World.make();
    const stuck = Promise.withResolvers<Image>();
    world.answer = () => stuck.promise;
    const stop = new AbortController();
    const lost = world
      .puller()
      .ensure(podNamed("a"), entryOf(name), keyring("s", "jane"), stop.signal);
    while (world.pulls.length === 0) await new Promise(setImmediate);
    assert.equal((await world.records("pulling")).length, 1);
    // The process is gone, the engine went on.
    world.present.set(name, image);
    world.answer = (auth) =>
      auth === undefined ? Promise.reject(new Error("denied")) : Promise.resolve(image);
    const next = world.puller();
    assert.match(
      await reasonOf(next.ensure(podNamed("b"), entryOf(name), [], never)),
      /^ErrImagePull: denied/,
    );
    assert.equal(
      await reasonOf(next.ensure(podNamed("c"), entryOf(name), keyring("s", "jane"), never)),
      "ok",
    );
    stop.abort();
    await assert.rejects(lost, { name: "AbortError" });
    stuck.reject(new Error("gone"));
  });

  for (const [policy, list, own, foreign] of [
    ["NeverVerify", [], "ok", "ok"],
    ["AlwaysVerify", [], "ErrImageNeverPull", "ErrImageNeverPull"],
    ["NeverVerifyAllowlistedImages", ["r.test/team/*"], "ok", "ErrImageNeverPull"],
    ["NeverVerifyPreloadedImages", [], "ErrImageNeverPull", "ok"],
  ] as const) {
    test(`with the policy ${policy}: ours ${own}, preloaded ${foreign}`, async () => {
      await using world = await World.make();
      const config = {
        imagePullCredentialsVerificationPolicy: policy,
        preloadedImagesVerificationAllowlist: list,
      };
      const puller = await pulledBy(world, config);
      world.present.set("other.test/app:1", { ...image, id: `sha256:${"2".repeat(64)}` });
      const of = async (reference: string): Promise<string> => {
        const ensured = puller.ensure(podNamed("b"), entryOf(reference, "Never"), [], never);
        return (await reasonOf(ensured)).split(":")[0] ?? "";
      };
      assert.equal(await of(name), own);
      assert.equal(await of("other.test/app:1"), foreign);
    });
  }
});

describe("an image that was pulled with a service account", () => {
  const account = { uid: "u1", namespace: "ns", name: "robot" };
  const of = (more: Partial<CredentialSource> = {}) => ({
    credentialProviders: providersOf("program", { kind: "serviceAccount", ...account, ...more }),
  });

  test("is recorded beside secrets, and there for that account in all its pods and no other", async () => {
    await using world = await World.make();
    world.answer = (auth) =>
      auth === undefined ? Promise.reject(new Error("denied")) : Promise.resolve(image);
    await world.puller().ensure(podNamed("a"), entryOf(name), keyring("s", "jane"), never);
    await world.puller({}, of()).ensure(podNamed("a"), entryOf(name), [], never);
    const [record] = (await world.records("pulled")) as {
      credentialMapping: Record<string, { kubernetesSecrets?: object[] }>;
    }[];
    const known = record?.credentialMapping["r.test/team/app"];
    assert.equal(known?.kubernetesSecrets?.length, 1);
    const accounts = { ...known, kubernetesSecrets: undefined };
    assert.deepEqual(accounts, {
      kubernetesSecrets: undefined,
      kubernetesServiceAccounts: [account],
    });
    const use = (puller: ImagePuller, ring: Keyring = []): Promise<string> =>
      reasonOf(puller.ensure(podNamed("b"), entryOf(name, "Never"), ring, never));
    assert.equal(await use(world.puller({}, of())), "ok");
    assert.equal(await use(world.puller(), keyring("s", "jane")), "ok");
    for (const other of [{ uid: "u2" }, { namespace: "other" }, { name: "other" }]) {
      assert.match(await use(world.puller({}, of(other))), /^ErrImageNeverPull/);
    }
    assert.match(await use(world.puller()), /^ErrImageNeverPull/);
  });
});

test("durations are written as Go writes them", () => {
  const texts = [0, 0.4, 523.9, 1000, 1234, 62_500, 3_600_000].map(formatDuration);
  assert.deepEqual(texts, ["0s", "0s", "523ms", "1s", "1.234s", "1m2.5s", "1h0m0s"]);
});
