import { ipFamily } from "../lib/cidr.ts";
import type { Decoded, Setting } from "./decode.ts";
import type { kubeletShape } from "./kubelet-configuration.ts";
import type { proxyShape } from "./proxy-configuration.ts";
import type { Fields, ObjectShape, ValueOf } from "./shape.ts";

type Derived = Readonly<Record<string, readonly [value: unknown, because: string]>>;

function settled<S extends ObjectShape<Fields>>(decoded: Decoded<S>, derived: Derived): Decoded<S> {
  const settings = new Map<string, Setting>(decoded.settings);
  for (const [path, [value, because]] of Object.entries(derived)) {
    const setting = settings.get(path);
    if (setting !== undefined) settings.set(path, { ...setting, value, because });
  }
  const values = Object.entries(derived).map(([path, [value]]) => [path, value] as const);
  // All of them are fields of the first level, with values of the same type.
  const value = { ...(decoded.value as object), ...Object.fromEntries(values) } as ValueOf<S>;
  return { ...decoded, settings, value };
}

/** Defaults that depend on other fields (SetDefaults_KubeletConfiguration). */
export function settleKubelet(decoded: Decoded<typeof kubeletShape>): Decoded<typeof kubeletShape> {
  const { value, settings } = decoded;
  const given = (path: string): boolean => settings.get(path)?.origin !== undefined;
  const derived: Record<string, readonly [unknown, string]> = {};
  if (given("nodeStatusUpdateFrequency") && !given("nodeStatusReportFrequency")) {
    derived["nodeStatusReportFrequency"] = [
      value.nodeStatusUpdateFrequency,
      "nodeStatusUpdateFrequency is set",
    ];
  }
  if ((value.maxParallelImagePulls ?? 1) > 1 && !given("serializeImagePulls")) {
    derived["serializeImagePulls"] = [false, "maxParallelImagePulls is set"];
  }
  if (!value.cgroupsPerQOS && !given("enforceNodeAllocatable")) {
    derived["enforceNodeAllocatable"] = [[], "cgroupsPerQOS is off"];
  }
  if (value.podPidsLimit < -1) derived["podPidsLimit"] = [-1, "a negative number means no limit"];
  return settled(decoded, derived);
}

/** `address:port`, whatever of both is missing. */
function withPort(address: string, port: number): string {
  const family = ipFamily(address.replace(/^\[(.*)\]$/, "$1"));
  if (family === "IPv6") return `[${address.replaceAll(/[[\]]/g, "")}]:${port}`;
  return family === "IPv4" ? `${address}:${port}` : address;
}

/** Defaults that depend on other fields (SetDefaults_KubeProxyConfiguration). */
export function settleProxy(decoded: Decoded<typeof proxyShape>): Decoded<typeof proxyShape> {
  const { value, settings } = decoded;
  const v6 = ipFamily(value.bindAddress) === "IPv6";
  const derived: Record<string, readonly [unknown, string]> = {};
  for (const [path, port, six] of [
    ["healthzBindAddress", 10_256, "[::]:10256"],
    ["metricsBindAddress", 10_249, "[::1]:10249"],
  ] as const) {
    const given = settings.get(path)?.origin !== undefined;
    if (given) {
      const full = withPort(value[path], port);
      if (full !== value[path]) derived[path] = [full, "the port was left out"];
    } else if (v6) derived[path] = [six, "bindAddress is an IPv6 address"];
  }
  if (value.mode === "nftables" && value.nodePortAddresses.length === 0) {
    derived["nodePortAddresses"] = [["primary"], "mode is nftables"];
  }
  return settled(decoded, derived);
}
