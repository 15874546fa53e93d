import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { askCredentialPlugin } from "../../../src/kubelet/images/credential-plugin.ts";
import {
  type CredentialProvider,
  loadCredentialProviders,
  parseCredentialProviders,
} from "../../../src/kubelet/images/credential-provider-config.ts";
import {
  type AccountSource,
  CredentialProviders,
} from "../../../src/kubelet/images/credential-providers.ts";
import type { Keyring } from "../../../src/kubelet/images/credentials.ts";
import type { AssignedPod } from "../../../src/kubelet/types.ts";
import type { Logger } from "../../../src/lib/log.ts";
import { pod } from "../../unit/kubelet-pods/builders.ts";
import { ManualClock } from "../api/manual-clock.ts";

const never = new AbortController().signal;
const v1 = "credentialprovider.kubelet.k8s.io/v1";

/** What a plug-in prints. */
function response(auth: object, more: object = {}): string {
  const kind = "CredentialProviderResponse";
  return JSON.stringify({ apiVersion: v1, kind, cacheKeyType: "Image", auth, ...more });
}

const alice = { "r.test": { username: "alice", password: "secret" } };

/** Programs in a directory of their own, and an agent that asks them. */
class Bench implements AsyncDisposable {
  readonly directory: string;
  readonly clock = new ManualClock();
  readonly logs: { readonly level: string; readonly error: unknown }[] = [];
  readonly accounts = {
    uid: "sa-uid",
    annotations: {} as Record<string, string>,
    token: "token-1",
    failure: undefined as Error | undefined,
  };
  /** For the provider `bad`; the others have all the time that a busy machine needs. */
  badTimeoutMs = 10_000;
  readonly #stop = new AbortController();

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Bench> {
    return new Bench(await mkdtemp(join(tmpdir(), "plugins-")));
  }

  /** A program that notes that it was asked and then does what `body` says. */
  async script(
    name: string,
    body: string,
    more: Partial<CredentialProvider> = {},
  ): Promise<CredentialProvider> {
    const program = join(this.directory, name);
    await writeFile(
      program,
      `#!/bin/sh\ncat >> '${this.directory}/${name}.asked'\necho >> '${this.directory}/${name}.asked'\n${body}\n`,
    );
    await chmod(program, 0o755);
    return {
      name,
      program,
      apiVersion: v1,
      matchImages: ["r.test", "*.r.test"],
      defaultCacheMs: 0,
      args: [],
      env: {},
      token: undefined,
      ...more,
    };
  }

  /** Requests that the program got, oldest first. */
  async asked(name: string): Promise<readonly unknown[]> {
    const text = await readFile(join(this.directory, `${name}.asked`), "utf8").catch(() => "");
    return text
      .split("\n")
      .filter((line) => line !== "")
      .map((line): unknown => JSON.parse(line));
  }

  providers(...providers: readonly CredentialProvider[]): CredentialProviders {
    const accounts: AccountSource = {
      account: async () => {
        if (this.accounts.failure !== undefined) throw this.accounts.failure;
        const { annotations, uid } = this.accounts;
        return { uid, annotations };
      },
      token: async (_, audience) => `${audience}/${this.accounts.token}`,
      forget: () => undefined,
    };
    const logger: Logger = {
      log: (level, _, fields) => {
        this.logs.push({ level, error: fields?.["error"] });
      },
      child: () => logger,
    };
    return new CredentialProviders({
      providers,
      accounts,
      environment: { WHO: "the agent", PATH: "/usr/bin:/bin" },
      clock: this.clock,
      logger,
      signal: this.#stop.signal,
      ask: (provider, request, run, signal) =>
        askCredentialPlugin(
          provider,
          request,
          { ...run, timeoutMs: this.#timeoutOf(provider) },
          signal,
        ),
    });
  }

  #timeoutOf({ name }: CredentialProvider): number {
    return name === "bad" ? this.badTimeoutMs : 10_000;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await rm(this.directory, { recursive: true, force: true });
  }
}

function podOf(serviceAccountName: string | undefined, uid = "uid-1"): AssignedPod {
  const base = pod(serviceAccountName === undefined ? {} : { serviceAccountName });
  return { ...base, metadata: { ...base.metadata, uid } };
}

const names = (keyring: Keyring): readonly string[] =>
  keyring.map(({ auth: { password = "", username = "" } }) => `${username}:${password}`);
const image = "r.test/team/app";

describe("a credential provider", () => {
  test("is asked on stdin, with its arguments and the agent's environment, and answers on stdout", async () => {
    await using bench = await Bench.make();
    const answer = response({ "r.test/team": { username: "$1-$WHO-$MORE", password: "p w" } });
    const body = `cat <<EOF\n${answer}\nEOF`;
    const provider = await bench.script("plugin", body, { args: ["get"], env: { MORE: "more" } });
    const keyring = await bench.providers(provider).keyringFor(podOf("sa"), image, never);
    assert.deepEqual(names(keyring), ["get-the agent-more:p w"]);
    assert.equal(keyring[0]?.source, undefined, "all pods of the node may use it");
    assert.deepEqual(await bench.asked("plugin"), [
      { kind: "CredentialProviderRequest", apiVersion: v1, image },
    ]);
  });

  test("is asked for images that its patterns match, and for no others", async () => {
    await using bench = await Bench.make();
    const matchImages = ["*.r.test", "a.*:5000/team", "docker.io/library"];
    const provider = await bench.script("plugin", `echo '${response({})}'`, { matchImages });
    const providers = bench.providers(provider);
    const asked: string[] = [];
    for (const wanted of [
      "x.r.test/app",
      "r.test/app",
      "x.y.r.test/app",
      "a.io:5000/teamwork/app",
      "a.io:5001/team/app",
      "a.io/team/app",
      "docker.io/library/busybox",
      "docker.io/other/busybox",
    ]) {
      await providers.keyringFor(podOf("sa"), wanted, never);
    }
    for (const request of await bench.asked("plugin")) {
      asked.push((request as { readonly image: string }).image);
    }
    const expected = ["x.r.test/app", "a.io:5000/teamwork/app", "docker.io/library/busybox"];
    assert.deepEqual(asked, expected);
  });

  test("comes in the order of the configuration, all of them", async () => {
    await using bench = await Bench.make();
    const of = (username: string) => `echo '${response({ "r.test": { username, password: "" } })}'`;
    const slow = await bench.script("slow", `sleep 0.05; ${of("first")}`);
    const fast = await bench.script("fast", of("second"));
    const keyring = await bench.providers(slow, fast).keyringFor(podOf("sa"), image, never);
    assert.deepEqual(names(keyring), ["first:", "second:"]);
  });

  test("runs once for many pods that start at the same time", async () => {
    await using bench = await Bench.make();
    const provider = await bench.script("plugin", `sleep 0.05; echo '${response(alice)}'`);
    const providers = bench.providers(provider);
    const keyrings = await Promise.all(
      ["a", "b", "c"].map((uid) => providers.keyringFor(podOf("sa", uid), image, never)),
    );
    assert.deepEqual(keyrings.flatMap(names), ["alice:secret", "alice:secret", "alice:secret"]);
    assert.equal((await bench.asked("plugin")).length, 1);
  });

  test("goes on for the others when one of them gives up waiting", async () => {
    await using bench = await Bench.make();
    const provider = await bench.script("plugin", `sleep 0.05; echo '${response(alice)}'`);
    const providers = bench.providers(provider);
    const stop = new AbortController();
    const first = providers.keyringFor(podOf("sa", "a"), image, stop.signal);
    const second = providers.keyringFor(podOf("sa", "b"), image, never);
    stop.abort();
    await assert.rejects(first, { name: "AbortError" });
    assert.deepEqual(names(await second), ["alice:secret"]);
  });
});

describe("an answer of a credential provider is kept", () => {
  const others = ["r.test/team/other", "x.r.test/team/app"];
  const asksFor: readonly (readonly [string, number])[] = [
    ["Image", 3],
    ["Registry", 2],
    ["Global", 1],
  ];
  for (const [cacheKeyType, asks] of asksFor) {
    test(`with cacheKeyType ${cacheKeyType}, so that three images are asked for ${asks} times`, async () => {
      await using bench = await Bench.make();
      const answer = response(alice, { cacheKeyType, cacheDuration: "1h" });
      const provider = await bench.script("plugin", `echo '${answer}'`);
      const providers = bench.providers(provider);
      for (const wanted of [image, ...others, image, ...others]) {
        await providers.keyringFor(podOf("sa"), wanted, never);
      }
      assert.equal((await bench.asked("plugin")).length, asks);
    });
  }

  const durations: readonly {
    readonly name: string;
    readonly cacheDuration?: string;
    readonly defaultCacheMs: number;
    readonly afterMs: number;
    readonly asks: number;
  }[] = [
    {
      name: "as long as it says",
      cacheDuration: "1m30s",
      defaultCacheMs: 0,
      afterMs: 90_000,
      asks: 1,
    },
    { name: "and no longer", cacheDuration: "1m30s", defaultCacheMs: 0, afterMs: 90_001, asks: 2 },
    { name: "not at all for 0s", cacheDuration: "0s", defaultCacheMs: 60_000, afterMs: 0, asks: 2 },
    { name: "for the default where it says nothing", defaultCacheMs: 60_000, afterMs: 1, asks: 1 },
    { name: "not at all where that is 0", defaultCacheMs: 0, afterMs: 0, asks: 2 },
    {
      name: "also after the cache was swept",
      cacheDuration: "1h",
      defaultCacheMs: 0,
      afterMs: 1_000_000,
      asks: 1,
    },
  ];
  for (const { afterMs, asks, cacheDuration, defaultCacheMs, name } of durations) {
    test(name, async () => {
      await using bench = await Bench.make();
      const answer = response(alice, cacheDuration === undefined ? {} : { cacheDuration });
      const provider = await bench.script("plugin", `echo '${answer}'`, { defaultCacheMs });
      const providers = bench.providers(provider);
      await providers.keyringFor(podOf("sa"), image, never);
      bench.clock.advance(afterMs);
      assert.deepEqual(names(await providers.keyringFor(podOf("sa"), image, never)), [
        "alice:secret",
      ]);
      assert.equal((await bench.asked("plugin")).length, asks);
    });
  }
});

describe("a credential provider that is broken costs its credentials and nothing else", () => {
  const bad: readonly {
    readonly name: string;
    readonly body: string;
    readonly timeoutMs?: number;
    readonly error: RegExp;
  }[] = [
    {
      name: "hangs",
      body: "exec sleep 60",
      timeoutMs: 50,
      error: /plugin bad for image r\.test\/team\/app: no answer within 0\.05s$/,
    },
    {
      name: "hangs, does not listen to SIGTERM, and leaves a child with its output",
      body: "trap '' TERM; sleep 0.3 & wait; sleep 0.3",
      timeoutMs: 50,
      error: /no answer within/,
    },
    {
      name: "ends badly",
      body: "echo no metadata server >&2; exit 1",
      error: /exit status 1: no metadata server$/,
    },
    { name: "is killed", body: "kill -9 $$", error: /exit status SIGKILL: $/ },
    { name: "says nothing", body: "exit 0", error: /error decoding/ },
    { name: "says garbage", body: "echo hunter2", error: /: error decoding [^2]*$/ },
    {
      name: "does not stop talking",
      body: "exec head -c 30000000 /dev/zero",
      error: /error decoding/,
    },
    {
      name: "speaks another version",
      body: `echo '${response(alice, { apiVersion: "credentialprovider.kubelet.k8s.io/v2" })}'`,
      error: /did not match expected apiVersion:credentialprovider\.kubelet\.k8s\.io\/v1, actual/,
    },
    {
      name: "answers with another kind",
      body: `echo '${response(alice, { kind: "ExecCredential" })}'`,
      error: /error decoding/,
    },
    {
      name: "answers with a field that nobody knows",
      body: `echo '${response(alice, { cacheduration: "1h" })}'`,
      error: /error decoding/,
    },
    {
      name: "does not say what its answer is good for",
      body: `echo '${response(alice, { cacheKeyType: "Everything" })}'`,
      error: /did not return a valid cacheKeyType/,
    },
    {
      name: "answers with a password that is none",
      body: `echo '${response({ "r.test": { username: "u", password: 7 } })}'`,
      error: /error decoding/,
    },
    {
      name: "answers with a duration that is none",
      body: `echo '${response(alice, { cacheDuration: "soon" })}'`,
      error: /error decoding/,
    },
  ];
  for (const { body, error, name, timeoutMs } of bad) {
    test(`it ${name}`, async () => {
      await using bench = await Bench.make();
      if (timeoutMs !== undefined) bench.badTimeoutMs = timeoutMs;
      const provider = await bench.script("bad", body);
      const good = await bench.script("good", `echo '${response(alice)}'`);
      const providers = bench.providers(provider, good);
      assert.deepEqual(names(await providers.keyringFor(podOf("sa"), image, never)), [
        "alice:secret",
      ]);
      const [first] = bench.logs;
      assert.equal(first?.level, "warn");
      assert.match(String(first?.error), error);
      await providers.keyringFor(podOf("sa"), image, never);
      assert.equal(bench.logs[1]?.level, "debug", "the same again is no news");
    });
  }

  test("its program is not there", async () => {
    await using bench = await Bench.make();
    const provider = await bench.script("bad", "");
    await rm(provider.program);
    assert.deepEqual(await bench.providers(provider).keyringFor(podOf("sa"), image, never), []);
    assert.match(String(bench.logs[0]?.error), /ENOENT/);
  });
});

describe("a credential provider with service accounts", () => {
  const token = {
    audience: "registry",
    cacheType: "ServiceAccount",
    requireServiceAccount: true,
    requiredAnnotations: ["corp.test/role"],
    optionalAnnotations: ["corp.test/zone"],
  } as const;
  const cached = `echo '${response(alice, { cacheDuration: "1h" })}'`;

  test("gets a token of the pod and the annotations that it asks for; what it has is that account's", async () => {
    await using bench = await Bench.make();
    bench.accounts.annotations = { "corp.test/role": "puller", "corp.test/secret": "no" };
    const provider = await bench.script("plugin", cached, { token });
    const keyring = await bench.providers(provider).keyringFor(podOf("robot"), image, never);
    assert.deepEqual(await bench.asked("plugin"), [
      {
        kind: "CredentialProviderRequest",
        apiVersion: v1,
        image,
        serviceAccountToken: "registry/token-1",
        serviceAccountAnnotations: { "corp.test/role": "puller" },
      },
    ]);
    const source = { kind: "serviceAccount", uid: "sa-uid", namespace: "ns", name: "robot" };
    assert.deepEqual(keyring[0]?.source, source);
  });

  test("is not asked without a required annotation, nor without the account that it requires", async () => {
    await using bench = await Bench.make();
    const provider = await bench.script("plugin", cached, { token });
    const providers = bench.providers(provider);
    assert.deepEqual(await providers.keyringFor(podOf("robot"), image, never), []);
    bench.accounts.annotations = { "corp.test/role": "puller" };
    assert.deepEqual(await providers.keyringFor(podOf(undefined), image, never), []);
    assert.deepEqual(await bench.asked("plugin"), []);
    assert.deepEqual(bench.logs, []);
  });

  test("is asked without a token for a pod without an account, where that is allowed", async () => {
    await using bench = await Bench.make();
    const lax = { ...token, requireServiceAccount: false, requiredAnnotations: [] };
    const provider = await bench.script("plugin", cached, { token: lax });
    const keyring = await bench.providers(provider).keyringFor(podOf(undefined), image, never);
    assert.equal(keyring[0]?.source, undefined);
    assert.deepEqual(await bench.asked("plugin"), [
      { kind: "CredentialProviderRequest", apiVersion: v1, image },
    ]);
  });

  test("an account that cannot be read costs the credentials only", async () => {
    await using bench = await Bench.make();
    bench.accounts.failure = new Error("forbidden");
    const provider = await bench.script("plugin", cached, { token });
    assert.deepEqual(await bench.providers(provider).keyringFor(podOf("sa"), image, never), []);
    assert.match(String(bench.logs[0]?.error), /failed to get service account: forbidden/);
  });

  test("cacheType ServiceAccount keeps an answer for the account, Token for its token", async () => {
    for (const [cacheType, asks] of [
      ["ServiceAccount", 3],
      ["Token", 4],
    ] as const) {
      await using bench = await Bench.make();
      bench.accounts.annotations = { "corp.test/role": "puller" };
      const provider = await bench.script("plugin", cached, { token: { ...token, cacheType } });
      const providers = bench.providers(provider);
      const ask = async (name: string): Promise<Keyring> =>
        providers.keyringFor(podOf(name), image, never);
      await ask("robot");
      await ask("robot");
      bench.accounts.token = "token-2";
      await ask("robot");
      bench.accounts.annotations = { "corp.test/role": "other" };
      await ask("robot");
      await ask("another");
      assert.equal((await bench.asked("plugin")).length, asks, cacheType);
    }
  });

  test("a token that is passed on as the password is refused, unless answers are kept per token", async () => {
    const echo = response({ "r.test": { username: "u", password: "registry/token-1" } });
    for (const [cacheType, expected] of [
      ["ServiceAccount", []],
      ["Token", ["u:registry/token-1"]],
    ] as const) {
      await using bench = await Bench.make();
      const own = { ...token, requiredAnnotations: [], cacheType };
      const provider = await bench.script("plugin", `echo '${echo}'`, { token: own });
      const keyring = await bench.providers(provider).keyringFor(podOf("sa"), image, never);
      assert.deepEqual(names(keyring), expected);
    }
  });
});

const config = (providers: string): string =>
  `apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n${providers}`;
const minimal = (name: string): string =>
  `- name: ${name}\n  matchImages: ["*.r.test"]\n  defaultCacheDuration: 12h\n  apiVersion: ${v1}\n`;

describe("a CredentialProviderConfig", () => {
  const full = config(
    `- name: plugin
  matchImages: ["*.r.test", "r.test:5000/team"]
  defaultCacheDuration: "1h30m"
  apiVersion: ${v1}
  args: [get, --fast]
  env: [{name: A, value: "1"}]
  tokenAttributes:
    serviceAccountTokenAudience: registry
    cacheType: Token
    requireServiceAccount: true
    requiredServiceAccountAnnotationKeys: [corp.test/role]
    optionalServiceAccountAnnotationKeys: [Zone]
`,
  );

  test("is read with all its fields", async () => {
    assert.deepEqual(await parseCredentialProviders(full, "f", "/bin"), [
      {
        name: "plugin",
        program: "/bin/plugin",
        apiVersion: v1,
        matchImages: ["*.r.test", "r.test:5000/team"],
        defaultCacheMs: 5_400_000,
        args: ["get", "--fast"],
        env: { A: "1" },
        token: {
          audience: "registry",
          cacheType: "Token",
          requireServiceAccount: true,
          requiredAnnotations: ["corp.test/role"],
          optionalAnnotations: ["Zone"],
        },
      },
    ]);
  });

  const refused: readonly (readonly [string, string, RegExp])[] = [
    ["no YAML", "{", /is not YAML/],
    ["another kind", full.replace("Credential", "Other"), /kind: must be CredentialProviderConfig/],
    ["another version", full.replace("io/v1\n", "io/v7\n"), /apiVersion: supported values: kube/],
    ["no providers", config(""), /at least 1 item in plugins is required/],
    ["an unknown field", full.replace("args:", "arguments:"), /arguments: is not a field/],
    ["an unknown field of a token", full.replace("cacheType", "cachetype"), /cachetype: is not/],
    ["a path for a name", full.replace("name: plugin", "name: a/b"), /cannot contain '\/'/],
    ["no name", full.replace("name: plugin", "name: ''"), /providers\[0\]\.name: is required/],
    ["..", full.replace("name: plugin", "name: .."), /provider name cannot be '\.\.'/],
    ["a space in the name", full.replace("plugin", "a b"), /cannot contain spaces/],
    ["no images", full.replace(/matchImages: .*/, "matchImages: []"), /at least 1 item in matchI/],
    ["an image that is none", full.replace("*.r.test", "a b:x"), /match image is invalid: "a b:x"/],
    ["no duration", full.replace(/ {2}defaultCacheDuration.*\n/, ""), /defaultCacheDuration: is r/],
    ["a duration that is none", full.replace("1h30m", "soon"), /"soon" is no duration/],
    ["a negative duration", full.replace("1h30m", "-1s"), /must be greater than or equal to 0/],
    ["a protocol of tomorrow", full.replace(v1, `${v1}0`), /apiVersion: supported values: cred/],
    ["tokens with an old protocol", full.replace(v1, `${v1}beta1`), /only supported for/],
    ["no audience", full.replace(/ {4}serviceAccountTokenA.*\n/, ""), /Audience: is required/],
    ["no cacheType", full.replace(/ {4}cacheType.*\n/, ""), /cacheType: is required/],
    ["a wrong cacheType", full.replace("Token\n", "Pod\n"), /cacheType: supported values/],
    [
      "an annotation twice",
      full.replace("[Zone]", "[corp.test/role]"),
      /both required and optional/,
    ],
    ["an annotation that is none", full.replace("[Zone]", "['a b']"), /is no name of an annot/],
    [
      "required annotations of no account",
      full.replace("requireServiceAccount: true", "requireServiceAccount: false"),
      /requireServiceAccount cannot be false/,
    ],
  ];
  for (const [what, text, message] of refused) {
    test(`with ${what} is refused`, async () => {
      await assert.rejects(parseCredentialProviders(text, "f", "/bin"), message);
    });
  }

  test("may be a directory: all its files in order; programs must be there", async () => {
    await using bench = await Bench.make();
    const directory = join(bench.directory, "config");
    const load = async (): Promise<readonly string[]> => {
      const providers = await loadCredentialProviders(directory, bench.directory);
      return providers.map(({ name }) => name);
    };
    await assert.rejects(load(), /cannot be read: ENOENT/);
    await mkdir(join(directory, "sub.yaml"), { recursive: true });
    await assert.rejects(load(), /no configuration files/);
    await writeFile(join(directory, "2.yaml"), config(minimal("two")));
    await writeFile(join(directory, "1.yml"), config(minimal("one")));
    await writeFile(join(directory, "readme.txt"), "not this one");
    await bench.script("one", "");
    await assert.rejects(load(), /two did not exist/);
    const { program } = await bench.script("two", "");
    assert.deepEqual(await load(), ["one", "two"]);
    await writeFile(join(directory, "3.json"), config(minimal("one")));
    await assert.rejects(load(), /3\.json: duplicate provider name "one"/);
    await rm(join(directory, "3.json"));
    await rm(program);
    await mkdir(program);
    await assert.rejects(load(), /two did not exist/);
  });
});
