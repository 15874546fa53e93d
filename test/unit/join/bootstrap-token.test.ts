import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  detachedSignature,
  isSignedWith,
  parseBootstrapToken,
  readTokenSecret,
} from "../../../src/api/bootstrap-token.ts";
import { userOfBootstrapToken } from "../../../src/controlplane/auth/bootstrap-tokens.ts";
import { signedClusterInfo } from "../../../src/controlplane/controllers/bootstrap-tokens/cluster-info-signer.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";

const token = { id: "abcdef", secret: "0123456789abcdef" };
const now = Date.UTC(2026, 0, 1);

function encoded(data: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString("base64")]),
  );
}

const good = {
  "token-id": token.id,
  "token-secret": token.secret,
  "usage-bootstrap-authentication": "true",
  "usage-bootstrap-signing": "true",
};

test("a token is six and sixteen characters", () => {
  assert.deepEqual(parseBootstrapToken("abcdef.0123456789abcdef"), token);
  for (const wrong of [
    "abcdef",
    "abcdef.0123",
    "ABCDEF.0123456789abcdef",
    "abcdef.0123456789abcdef\n",
  ])
    assert.equal(parseBootstrapToken(wrong), undefined, wrong);
});

test("the signature is a detached JWS, HS256, with the token's id as the key's", () => {
  // Made with another implementation of HMAC and base64.
  const signature =
    "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..3ZR7IfHD4V0NLYjj9trDyCFIZSwMzkyMpnxx9vCiSPI";
  const content = "kind: Config\n";
  assert.equal(detachedSignature(content, token), signature);
  assert.equal(isSignedWith(signature, content, token), true);
  assert.equal(isSignedWith(signature, `${content}#`, token), false);
  assert.equal(isSignedWith(signature, content, { ...token, secret: "fedcba9876543210" }), false);
  assert.equal(isSignedWith("", content, token), false);
});

describe("who comes with a token", () => {
  function userOf(
    data: Readonly<Record<string, string>>,
    secret: JsonObject = {},
    text = "abcdef.0123456789abcdef",
  ): readonly string[] | undefined {
    const object = {
      type: "bootstrap.kubernetes.io/token",
      metadata: { name: "bootstrap-token-abcdef", namespace: "kube-system" },
      data: encoded(data),
      ...secret,
    };
    const objects = {
      get: (resource: string, namespace: string, name: string) =>
        `${resource}/${namespace}/${name}` === "secrets/kube-system/bootstrap-token-abcdef"
          ? object
          : undefined,
      list: () => [],
    };
    return userOfBootstrapToken(text, objects, now)?.groups;
  }
  test("is a bootstrapper, with the further groups of the token", () => {
    assert.deepEqual(userOf(good), ["system:bootstrappers", "system:authenticated"]);
    const groups = "system:bootstrappers:b,system:bootstrappers:a:c";
    assert.deepEqual(userOf({ ...good, "auth-extra-groups": groups }), [
      "system:bootstrappers",
      "system:bootstrappers:a:c",
      "system:bootstrappers:b",
      "system:authenticated",
    ]);
    assert.notEqual(userOf({ ...good, expiration: "2026-01-01T00:00:01Z" }), undefined);
  });
  const refused: readonly [string, Parameters<typeof userOf>][] = [
    ["another secret", [{ ...good, "token-secret": "fedcba9876543210" }]],
    ["another id", [{ ...good, "token-id": "fedcba" }]],
    ["no such token", [good, {}, "fedcba.0123456789abcdef"]],
    ["no token at all", [good, {}, "abcdef"]],
    ["an expired one", [{ ...good, expiration: "2026-01-01T00:00:00Z" }]],
    ["an unreadable end", [{ ...good, expiration: "tomorrow" }]],
    ["not for authentication", [{ ...good, "usage-bootstrap-authentication": "yes" }]],
    ["another type of Secret", [good, { type: "Opaque" }]],
    [
      "one that is being deleted",
      [good, { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } }],
    ],
    ["a group that is none of these", [{ ...good, "auth-extra-groups": "system:masters" }]],
  ];
  for (const [title, args] of refused)
    test(`is nobody: ${title}`, () => assert.equal(userOf(...args), undefined));
});

describe("cluster-info is signed with every token", () => {
  const secret = (data: Readonly<Record<string, string>>, name = "bootstrap-token-abcdef") => ({
    metadata: { name },
    data: encoded(data),
  });
  const key = "jws-kubeconfig-abcdef";
  test("that may sign, and with no other", () => {
    const signed = signedClusterInfo({ kubeconfig: "text", other: "x" }, [secret(good)], now);
    assert.deepEqual(signed, {
      kubeconfig: "text",
      other: "x",
      [key]: detachedSignature("text", token),
    });
    assert.equal(signedClusterInfo(signed ?? {}, [secret(good)], now), undefined);
    for (const useless of [
      secret({ ...good, "usage-bootstrap-signing": "false" }),
      secret({ ...good, expiration: "2025-12-31T00:00:00Z" }),
      secret(good, "bootstrap-token-fedcba"),
    ])
      assert.deepEqual(signedClusterInfo(signed ?? {}, [useless], now), {
        kubeconfig: "text",
        other: "x",
      });
  });
  test("and again when what is signed has changed", () => {
    const before = { kubeconfig: "old", [key]: detachedSignature("old", token) };
    const after = signedClusterInfo({ ...before, kubeconfig: "new" }, [secret(good)], now);
    assert.equal(after?.[key], detachedSignature("new", token));
  });
  test("when there is something to sign", () => {
    assert.equal(signedClusterInfo({}, [secret(good)], now), undefined);
  });
});

test("what a Secret lacks is empty, never a crash", () => {
  assert.deepEqual(readTokenSecret({}), {
    id: "",
    secret: "",
    description: "",
    expiresAt: undefined,
    authenticates: false,
    signs: false,
    extraGroups: "",
  });
});
