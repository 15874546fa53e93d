import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createAuthenticator, userOfClaims } from "../../../src/controlplane/auth/authenticator.ts";
import { ServiceAccountTokens, type TokenClaims } from "../../../src/controlplane/auth/tokens.ts";
import type { JsonObject } from "../../../src/controlplane/types.ts";
import { newPrivateKey, privateKeyPEM } from "../../../src/lib/x509.ts";

const issuer = "https://kubernetes.default.svc.cluster.local";
const tokens = new ServiceAccountTokens({ privateKeyPEM: privateKeyPEM(newPrivateKey()), issuer });
const claims: TokenClaims = {
  namespace: "default",
  serviceAccount: "web",
  serviceAccountUID: "sa-1",
  audiences: [issuer],
  issuedAt: 1000,
  expiresAt: 4600,
  tokenID: "t-1",
  bound: { kind: "Pod", name: "web-0", uid: "pod-1" },
  node: { name: "n1", uid: "node-1" },
};

function authenticator(stored: Readonly<Record<string, string>>, nowSeconds = 2000) {
  return createAuthenticator({
    objects: {
      get: (resource, namespace, name): JsonObject | undefined => {
        const uid = stored[`${resource}/${namespace}/${name}`];
        return uid === undefined ? undefined : { metadata: { uid } };
      },
      list: () => [],
    },
    tokens,
    audiences: [issuer],
    now: () => nowSeconds * 1000,
  });
}

const living = { "serviceaccounts/default/web": "sa-1", "pods/default/web-0": "pod-1" };
const refused = { name: "StatusError", status: 401, message: "Unauthorized" };

describe("ServiceAccount tokens", () => {
  test("a token carries its claims through", () => {
    assert.deepEqual(tokens.verify(tokens.sign(claims), 2_000_000), claims);
  });

  test("a token bound to a node dies with the node", () => {
    const bound = { kind: "Node", name: "n1", uid: "node-1" } as const;
    const bearerToken = tokens.sign({ ...claims, bound });
    const account = { "serviceaccounts/default/web": "sa-1" };
    const user = authenticator({ ...account, "nodes//n1": "node-1" }).authenticate({
      certificate: undefined,
      bearerToken,
    });
    assert.deepEqual(user?.extra["authentication.kubernetes.io/node-name"], ["n1"]);
    for (const stored of [account, { ...account, "nodes//n1": "node-2" }])
      assert.throws(
        () => authenticator(stored).authenticate({ certificate: undefined, bearerToken }),
        refused,
      );
  });

  test("a pod that finalizers keep vouches for its token for one more minute", () => {
    const deletionTimestamp = "2026-01-01T00:00:00Z";
    const ask = (seconds: number): unknown =>
      userOfClaims(
        claims,
        {
          get: (resource) =>
            resource === "pods"
              ? { metadata: { uid: "pod-1", deletionTimestamp } }
              : { metadata: { uid: "sa-1" } },
          list: () => [],
        },
        Date.parse(deletionTimestamp) + seconds * 1000,
      );
    assert.notEqual(ask(60), undefined);
    assert.equal(ask(61), undefined);
  });

  test("its user is the account, with the groups and the pod it is bound to", () => {
    const user = authenticator(living).authenticate({
      certificate: undefined,
      bearerToken: tokens.sign(claims),
    });
    assert.equal(user?.name, "system:serviceaccount:default:web");
    assert.deepEqual(user.groups, [
      "system:serviceaccounts",
      "system:serviceaccounts:default",
      "system:authenticated",
    ]);
    assert.deepEqual(user.extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
  });

  const bad: readonly (readonly [string, string, Readonly<Record<string, string>>, number])[] = [
    ["expired", tokens.sign(claims), living, 4600],
    [
      "of an account that was made anew",
      tokens.sign(claims),
      { ...living, "serviceaccounts/default/web": "sa-2" },
      2000,
    ],
    ["of a pod that is gone", tokens.sign(claims), { "serviceaccounts/default/web": "sa-1" }, 2000],
    ["for another audience", tokens.sign({ ...claims, audiences: ["vault"] }), living, 2000],
    [
      "with a changed payload",
      tokens.sign(claims).replace(/\.(.)/, (_, c: string) => `.${c === "A" ? "B" : "A"}`),
      living,
      2000,
    ],
    [
      "signed by somebody else",
      new ServiceAccountTokens({ privateKeyPEM: privateKeyPEM(newPrivateKey()), issuer }).sign(
        claims,
      ),
      living,
      2000,
    ],
    ["that is no token", "x.y.z", living, 2000],
    ["that is empty", "", living, 2000],
  ];
  for (const [what, token, stored, now] of bad) {
    test(`a token ${what} is refused with 401`, () => {
      assert.throws(
        () =>
          authenticator(stored, now).authenticate({ certificate: undefined, bearerToken: token }),
        refused,
      );
    });
  }

  test("without any credential the request is anonymous, not refused", () => {
    assert.equal(
      authenticator(living).authenticate({ certificate: undefined, bearerToken: undefined }),
      undefined,
    );
  });
});
