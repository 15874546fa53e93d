import assert from "node:assert/strict";
import { describe, it } from "node:test";

import * as fc from "fast-check";

import { createRedactor } from "../../../src/agent/support-bundle/redact.ts";
import {
  isSecretKey,
  secretValues,
  withoutSecrets,
  wordsWithoutSecrets,
} from "../../../src/agent/support-bundle/secret-keys.ts";

const redact = createRedactor([]);

describe("names of secrets", () => {
  it("are told from names that only have the word", () => {
    const secret = ["password", "DB_PASSWORD", "token", "bootstrap-token", "API_KEY", "apiKey"];
    const also = [
      "client-key-data",
      "auth",
      "auths",
      "identitytoken",
      "Cookie",
      "secret_id",
      "_auth",
    ];
    for (const key of [...secret, ...also]) assert.ok(isSecretKey(key), key);
    const harmless = [
      "secretName",
      "tokenFile",
      "token-file",
      "authenticationTokenWebhookCacheTTL",
    ];
    for (const key of [...harmless, "author", "key", "bypass-count", "cluster-ca-hash"]) {
      assert.ok(!isSecretKey(key), key);
    }
  });
});

describe("texts", () => {
  const key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nabc=\n-----END EC PRIVATE KEY-----";
  const cases: readonly (readonly [string, string])[] = [
    ["password=hunter2 user=me", "password=[removed] user=me"],
    ["  token: correct horse battery", "  token: [removed]"],
    ['{"token":"a\\"b c","pod":"x"}', '{"token":"[removed]","pod":"x"}'],
    [
      '"msg":"{\\"password\\":\\"abc\\",\\"a\\":1}"',
      '"msg":"{\\"password\\":\\"[removed]\\",\\"a\\":1}"',
    ],
    ["run --token abc --node-ip 10.0.0.1", "run --token [removed] --node-ip 10.0.0.1"],
    ["run --password='a b' x", "run --password='[removed]' x"],
    ["Authorization: Bearer abcdef", "Authorization: [removed]"],
    ["sent bearer abcdefgh12 twice", "sent bearer [removed] twice"],
    ["https://me:pa/ss@registry:5000/v2", "https://[removed]@registry:5000/v2"],
    ["https://me@registry/v2", "https://[removed]@registry/v2"],
    ["joins with abcdef.0123456789abcdef now", "joins with [removed] now"],
    ["jwt eyJhbGciOi.eyJzdWIiOi.c2lnbmF0 ends", "jwt [removed] ends"],
    [`before\n${key}\nafter`, "before\n[removed]\nafter"],
    [JSON.stringify({ k: key }), '{"k":"[removed]"}'],
    ["X-Api-Key: [one, two]", "X-Api-Key: [removed]"],
    ["msg=token=abc next", "msg=token=[removed] next"],
    ["error: listing failed: password: abc", "error: listing failed: password: [removed]"],
  ];
  for (const [text, wanted] of cases) {
    it(`${JSON.stringify(text).slice(0, 60)} loses its secret and nothing else`, () => {
      assert.equal(redact(text, { guess: true }), wanted);
    });
  }

  it("what is no secret stays as it is", () => {
    const texts = [
      "https://10.0.0.1:6443/api?x=a@b",
      "docker-pullable://registry:5000/web@sha256:abcdef0123",
      "secretName: web-tls",
      "automountServiceAccountToken: false",
      'apiserver_requests{resource="secrets",verb="list"} 3',
      "container 8f1d2c3b4a5968778695a4b3c2d1e0f08f1d2c3b4a5968778695a4b3c2d1e0f0 started",
      "/var/lib/kubelet/pods/6a1b2c3d-0000-4444-8888-abcdefabcdef/volumes/kubernetes.io~secret/tls",
      "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment default/kubernetes:https -j KUBE-SVC-NPX46M4PTMTKRN6Y",
      "pod default/web-1 Ready 12:30:01 image nginx:1.27 failed: no such file",
    ];
    for (const text of texts) assert.equal(redact(text, { guess: true }), text);
  });

  it("known values go wherever and however they stand", () => {
    const characters = fc.string({ minLength: 6, maxLength: 60, unit: "binary-ascii" });
    fc.assert(
      fc.property(characters, (secret) => {
        const value = secret.trim();
        fc.pre(value.length >= 6 && !"[removed]".includes(value));
        const forms = [
          value,
          JSON.stringify(value).slice(1, -1),
          encodeURIComponent(value),
          Buffer.from(value).toString("base64"),
        ];
        const out = createRedactor([secret])(`a ${forms.join(" ; ")} b`, { guess: false });
        for (const form of forms) assert.ok(!out.includes(form), out);
      }),
    );
  });

  it("a long text is done in a moment", () => {
    const line = "2026-01-01T00:00:00 info pod=default/web-1 container=main msg=started a=b c:d\n";
    const started = process.cpuUsage().user;
    redact(line.repeat(20_000), { guess: true });
    assert.ok(process.cpuUsage().user - started < 5_000_000);
  });
});

describe("values", () => {
  it("lose environments, headers and what is secret by its name", () => {
    const value = {
      staticPodURLHeader: { "X-Any": ["v1"] },
      authorization: { mode: "Webhook" },
      password: "p",
      list: [{ name: "DB_PASSWORD", value: "v2" }],
      env: [{ name: "GREETING", value: "v3" }],
      imagePullSecrets: [{ name: "registry" }],
      tokenFile: "/etc/token",
    };
    assert.deepEqual(withoutSecrets(value), {
      staticPodURLHeader: { "X-Any": ["[removed]"] },
      authorization: { mode: "Webhook" },
      password: "[removed]",
      list: [{ name: "DB_PASSWORD", value: "[removed]" }],
      env: [{ name: "GREETING", value: "[removed]" }],
      imagePullSecrets: [{ name: "registry" }],
      tokenFile: "/etc/token",
    });
    assert.deepEqual([...secretValues(value)].toSorted(), ["p", "v1", "v2"]);
  });

  it("command lines lose what flags of secrets are given", () => {
    assert.deepEqual(wordsWithoutSecrets(["remora", "--token", "a", "--password=b", "--v", "c"]), [
      "remora",
      "--token",
      "[removed]",
      "--password=[removed]",
      "--v",
      "c",
    ]);
  });
});
