import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { accessVerb } from "../../../src/kubelet/server/authorization.ts";
import { certificateUser } from "../../../src/kubelet/server/client-certificates.ts";
import { peerFilter } from "../../../src/kubelet/server/connections.ts";
import { HttpRefusal } from "../../../src/kubelet/server/http-refusal.ts";
import { bearerToken } from "../../../src/kubelet/server/identity.ts";
import { containerTarget } from "../../../src/kubelet/server/pod-route.ts";
import { matchRoute, type Route } from "../../../src/kubelet/server/route.ts";
import { routes, unknownPath } from "../../../src/kubelet/server/routes.ts";
import { tlsLimits } from "../../../src/kubelet/server/tls-limits.ts";

function refusedWith(status: number): (error: unknown) => boolean {
  return (error) => error instanceof HttpRefusal && error.status === status;
}

describe("rights a request needs", () => {
  for (const [method, path, verb, subresources] of [
    ["GET", "/pods", "get", "pods proxy"],
    ["GET", "/runningpods/", "get", "pods proxy"],
    ["GET", "/healthz/ping", "get", "healthz proxy"],
    ["GET", "/metrics/cadvisor", "get", "metrics"],
    ["GET", "/metrics/made/up", "get", "metrics"],
    ["GET", "/stats/summary", "get", "stats"],
    ["GET", "/logs/syslog", "get", "log"],
    ["GET", "/containerLogs/a/b/c", "get", "proxy"],
    ["GET", "/podsecret", "get", "proxy"],
    ["POST", "/exec/a/b/c", "create", "proxy"],
    ["GET", "/exec/a/b/c", "create", "proxy"],
    ["PATCH", "/exec/a/b/c", "create", "proxy"],
    ["GET", "/exec", "create", "proxy"],
    ["GET", "/run/a/b/c", "create", "proxy"],
    ["HEAD", "/pods", "", "pods proxy"],
    ["PROPFIND", "/pods", "", "pods proxy"],
  ] as const) {
    test(`${method} ${path} is ${verb || "no verb"} on ${subresources}`, () => {
      const { access } = matchRoute(routes, unknownPath, path).route;
      assert.equal(accessVerb(access, method), verb);
      assert.equal(access.subresources.join(" "), subresources);
    });
  }

  test("a row that does not say what it needs does not compile", () => {
    const serve = (): void => undefined;
    const page = { methods: ["GET"], withoutDebugging: "served", path: "/x", serve } as const;
    // @ts-expect-error no access
    const without: Route = page;
    // @ts-expect-error an empty list of rights
    const empty: Route = { ...page, access: { subresources: [] } };
    // @ts-expect-error a right that nobody can be given
    const madeUp: Route = { ...page, access: { subresources: ["everything"] } };
    const whole: Route = { ...page, access: { subresources: ["proxy"] } };
    assert.equal(new Set([without, empty, madeUp, whole]).size, 4);
  });
});

describe("which row answers", () => {
  for (const [path, row, params] of [
    ["/pods/", "/pods", {}],
    ["/pods//", "/pods", {}],
    ["/exec/ns/web/c", "/exec/{namespace}/{pod}/{container}", ["ns", "web", "c"]],
    ["/exec/ns/web/u/c", "/exec/{namespace}/{pod}/{uid}/{container}", ["ns", "web", "u", "c"]],
    ["/exec/n%20s/web/c/", "/exec/{namespace}/{pod}/{container}", ["n s", "web", "c"]],
    ["/exec/ns//c", "/exec/{path*}", ["ns//c"]],
    ["/exec", "/exec/{path*}", [""]],
    ["/logs/a/b%20c", "/logs/{path*}", ["a/b c"]],
    ["/", "", {}],
    ["", "", {}],
    ["//pods", "", {}],
    ["/PODS", "", {}],
  ] as const) {
    test(`${path} is ${row === "" ? "nobody's" : row}`, () => {
      const match = matchRoute(routes, unknownPath, path);
      assert.equal(match.route.path, row);
      assert.deepEqual(Object.values(match.params), Object.values(params));
    });
  }
  for (const path of ["/pods%2F", "/a%00", "/%", "/%ff", "/exec/a%2fb/c/d"]) {
    test(`${path} is the client's error`, () => {
      assert.throws(() => matchRoute(routes, unknownPath, path), refusedWith(400));
    });
  }
});

describe("users", () => {
  test("a certificate's CN is the name and each O a group", () => {
    assert.deepEqual(certificateUser({ CN: "admin", O: ["a", "b"] }), {
      name: "admin",
      uid: "",
      groups: ["a", "b"],
    });
    assert.deepEqual(certificateUser({ CN: "x", O: "one" })?.groups, ["one"]);
    assert.equal(certificateUser({ CN: "x", "1.3.6.1.4.1.57683.2": "u-1" })?.uid, "u-1");
    for (const subject of [{ O: "a" }, { CN: "" }, { CN: ["a", "b"] }, undefined]) {
      assert.equal(certificateUser(subject), undefined);
    }
  });

  for (const [headers, token] of [
    [{}, undefined],
    [{ authorization: "Bearer abc" }, "abc"],
    [{ authorization: "bearer abc" }, "abc"],
    [{ authorization: " Bearer abc " }, "abc"],
    [{ authorization: "Bearer  abc" }, undefined],
    [{ authorization: "Bearer" }, undefined],
    [{ authorization: "Basic abc" }, undefined],
    [{ "sec-websocket-protocol": "base64url.bearer.authorization.k8s.io.YWJj, v5" }, "abc"],
    [{ "sec-websocket-protocol": "v5,base64url.bearer.authorization.k8s.io.YWJj" }, "abc"],
    [{ "sec-websocket-protocol": "base64url.bearer.authorization.k8s.io." }, undefined],
    [{ "sec-websocket-protocol": "v5.channel.k8s.io" }, undefined],
  ] as const) {
    test(`${JSON.stringify(headers)} bears ${token ?? "no token"}`, () => {
      assert.equal(bearerToken(headers), token);
    });
  }
});

describe("who may connect", () => {
  const allowed = peerFilter(["10.244.0.0/16", "fd00::/64"]);
  for (const [remote, local, expected] of [
    ["127.0.0.1", "127.0.0.1", true],
    ["::1", "::1", true],
    ["192.0.2.7", "192.0.2.7", true],
    ["::ffff:192.0.2.7", "::ffff:192.0.2.7", true],
    ["10.244.3.4", "192.0.2.7", true],
    ["::ffff:10.244.3.4", "::ffff:192.0.2.7", true],
    ["fd00::5", "2001:db8::1", true],
    ["10.245.0.1", "192.0.2.7", false],
    ["192.0.2.8", "192.0.2.7", false],
    ["2001:db8::2", "2001:db8::1", false],
    ["fe80::1%eth0", "fe80::2%eth0", false],
    [undefined, undefined, false],
  ] as const) {
    test(`${remote ?? "nobody"} to ${local ?? "nowhere"}: ${expected ? "yes" : "no"}`, () => {
      assert.equal(allowed(remote, local), expected);
    });
  }
  test("nodes of the cluster are let in besides the networks, as long as they are such", () => {
    const nodes = new Set(["192.0.2.8"]);
    const withNodes = peerFilter(["10.244.0.0/16"], (address) => nodes.has(address));
    assert.equal(withNodes("::ffff:192.0.2.8", "::ffff:192.0.2.7"), true);
    assert.equal(withNodes("192.0.2.9", "192.0.2.7"), false);
    nodes.clear();
    assert.equal(withNodes("192.0.2.8", "192.0.2.7"), false);
  });
  test("without a list, everybody; a list that cannot be read is refused", () => {
    assert.equal(peerFilter(undefined)("203.0.113.1", "192.0.2.7"), true);
    assert.throws(() => peerFilter(["pods"]), /kubeletPeerCIDRs/);
  });
});

test("TLS names are those of KubeletConfiguration", () => {
  assert.deepEqual(tlsLimits({}), { minVersion: "TLSv1.2" });
  const { ciphers, minVersion } = tlsLimits({
    tlsMinVersion: "VersionTLS13",
    tlsCipherSuites: [
      "TLS_AES_128_GCM_SHA256",
      "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
      "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ],
  });
  assert.equal(minVersion, "TLSv1.3");
  assert.match(
    ciphers ?? "",
    /^TLS_AES_128_GCM_SHA256:.*:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256$/,
  );
  assert.equal(tlsLimits({ tlsCurvePreferences: [29, 23] }).ecdhCurve, "X25519:P-256");
  assert.throws(
    () => tlsLimits({ tlsCipherSuites: ["TLS_RSA_WITH_RC4_128_SHA"] }),
    /not supported or doesn't exist/,
  );
});

describe("a container's path", () => {
  test("has the uid in the middle when there is one", () => {
    assert.deepEqual(containerTarget("/exec/ns/web/c"), {
      namespace: "ns",
      pod: "web",
      uid: undefined,
      container: "c",
    });
    assert.equal(containerTarget("/exec/ns/web/uid-1/c")?.uid, "uid-1");
    assert.equal(containerTarget("/exec/n%20s/web/c")?.namespace, "n s");
  });
  for (const path of ["/exec", "/exec/ns/web", "/exec/ns//c", "/exec/a/b/c/d/e"]) {
    test(`${path} names none`, () => {
      assert.equal(containerTarget(path), undefined);
    });
  }
  test("broken encoding is the client's error", () => {
    assert.throws(() => containerTarget("/exec/%zz/b/c"), refusedWith(400));
  });
});
