import {
  boolType,
  durationType,
  headersType,
  int32sType,
  int32Type,
  nanosOrDurationType,
  stringsType,
  stringType,
  uint32Type,
  wordType,
} from "./leaf-types.ts";
import { objectsType } from "./decode.ts";
import type { Raw } from "./raw.ts";
import { fixed, honoured, ignored, leaf, type Leaf, object, type ObjectShape } from "./shape.ts";

const unbuffered = "log lines are written as they come";

const vmodule = object({
  filePattern: leaf(stringType, "", honoured),
  verbosity: leaf(uint32Type, 0, honoured),
});

/** `pattern=level` */
function patternOfFlag(text: string, flag: string): Raw {
  const origin = { kind: "flag", flag } as const;
  const [filePattern = "", verbosity = ""] = text.split("=");
  const scalar = (part: string): Raw => ({ kind: "scalar", text: part, style: "flag", origin });
  const entries = new Map(
    Object.entries({ filePattern, verbosity }).map(([name, part]) => [name, scalar(part)]),
  );
  return { kind: "map", entries, origin };
}

function routing(format: string): ObjectShape<{
  readonly splitStream: Leaf<boolean>;
  readonly infoBufferSize: Leaf<string>;
}> {
  return object({
    splitStream: leaf(boolType, false, fixed("all log lines go to standard error"), {
      flag: `log-${format}-split-stream`,
    }),
    infoBufferSize: leaf(stringType, "0", fixed(unbuffered), {
      flag: `log-${format}-info-buffer-size`,
    }),
  });
}

/** `logging`, which both upstream kinds have. */
export const loggingFields = object({
  format: leaf(stringType, "text", honoured, { flag: "logging-format" }),
  flushFrequency: leaf(nanosOrDurationType, "5s", ignored(unbuffered), {
    flag: "log-flush-frequency",
  }),
  verbosity: leaf(uint32Type, 0, honoured, { flag: "v", pointer: true }),
  vmodule: leaf(
    objectsType("list of patterns", vmodule, patternOfFlag),
    [],
    fixed("all parts log at one level"),
    { flag: "vmodule" },
  ),
  options: object({ text: routing("text"), json: routing("json") }),
});

/** The node's own API, who may use it, and what it says. */
export const kubeletServerFields = {
  enableServer: leaf(boolType, true, fixed("kubectl logs and exec need the node's API"), {
    flag: "enable-server",
    pointer: true,
  }),
  address: leaf(stringType, "0.0.0.0", honoured, { flag: "address" }),
  port: leaf(int32Type, 10_250, honoured, { flag: "port" }),
  readOnlyPort: leaf(int32Type, 0, fixed("nothing is served to callers nobody knows"), {
    flag: "read-only-port",
  }),
  healthzPort: leaf(int32Type, 10_248, honoured, { flag: "healthz-port", pointer: true }),
  healthzBindAddress: leaf(stringType, "127.0.0.1", honoured, { flag: "healthz-bind-address" }),
  tlsCertFile: leaf(stringType, "", honoured, { flag: "tls-cert-file", path: true }),
  tlsPrivateKeyFile: leaf(stringType, "", honoured, { flag: "tls-private-key-file", path: true }),
  tlsCipherSuites: leaf(stringsType, [], honoured, { flag: "tls-cipher-suites" }),
  tlsCurvePreferences: leaf(int32sType, [], honoured),
  tlsMinVersion: leaf(
    wordType("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"),
    undefined,
    honoured,
    { flag: "tls-min-version" },
  ),
  rotateCertificates: leaf(boolType, false, honoured, {
    flag: "rotate-certificates",
    pointer: true,
  }),
  serverTLSBootstrap: leaf(boolType, false, honoured, {
    flag: "rotate-server-certificates",
    pointer: true,
  }),
  authentication: object({
    x509: object({
      clientCAFile: leaf(stringType, "", honoured, { flag: "client-ca-file", path: true }),
    }),
    webhook: object({
      enabled: leaf(boolType, true, honoured, {
        flag: "authentication-token-webhook",
        pointer: true,
      }),
      cacheTTL: leaf(durationType, "2m0s", honoured, {
        flag: "authentication-token-webhook-cache-ttl",
      }),
    }),
    anonymous: object({
      enabled: leaf(boolType, false, honoured, { flag: "anonymous-auth", pointer: true }),
    }),
  }),
  authorization: object({
    mode: leaf(wordType("AlwaysAllow", "Webhook"), "Webhook", honoured, {
      flag: "authorization-mode",
    }),
    webhook: object({
      cacheAuthorizedTTL: leaf(durationType, "5m0s", honoured, {
        flag: "authorization-webhook-cache-authorized-ttl",
      }),
      cacheUnauthorizedTTL: leaf(durationType, "30s", honoured, {
        flag: "authorization-webhook-cache-unauthorized-ttl",
      }),
    }),
  }),
  enableDebuggingHandlers: leaf(boolType, true, honoured, {
    flag: "enable-debugging-handlers",
    pointer: true,
  }),
  enableSystemLogHandler: leaf(boolType, true, honoured, { pointer: true }),
  enableSystemLogQuery: leaf(boolType, false, honoured, { pointer: true }),
  enableProfilingHandler: leaf(boolType, true, honoured, { pointer: true }),
  enableDebugFlagsHandler: leaf(boolType, true, ignored("/debug/flags is not served"), {
    pointer: true,
  }),
  enableContentionProfiling: leaf(boolType, false, ignored("there are no profiles of locks"), {
    flag: "contention-profiling",
  }),
  streamingConnectionIdleTimeout: leaf(
    durationType,
    "4h0m0s",
    ignored("streams end with their clients; the kubelet does not use it either"),
    { flag: "streaming-connection-idle-timeout" },
  ),
  showHiddenMetricsForVersion: leaf(stringType, "", ignored("no metrics are hidden"), {
    flag: "show-hidden-metrics-for-version",
  }),
  logging: loggingFields,
  tracing: object(
    {
      endpoint: leaf(stringType, undefined, fixed("no traces are recorded"), { pointer: true }),
      samplingRatePerMillion: leaf(int32Type, undefined, fixed("no traces are recorded"), {
        pointer: true,
      }),
    },
    true,
  ),
  staticPodPath: leaf(
    stringType,
    "",
    ignored("no static pods are run; a directory with manifests in it is refused"),
    { flag: "pod-manifest-path", path: true },
  ),
  staticPodURL: leaf(stringType, "", fixed("pods come from the API server only"), {
    flag: "manifest-url",
  }),
  staticPodURLHeader: leaf(headersType, {}, fixed("pods come from the API server only"), {
    flag: "manifest-url-header",
    secret: true,
  }),
  syncFrequency: leaf(durationType, "1m0s", ignored("events wake a pod; nothing is polled"), {
    flag: "sync-frequency",
  }),
  fileCheckFrequency: leaf(durationType, "20s", ignored("there are no static pods"), {
    flag: "file-check-frequency",
  }),
  httpCheckFrequency: leaf(durationType, "20s", ignored("there are no static pods"), {
    flag: "http-check-frequency",
  }),
};
