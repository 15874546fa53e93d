import { SetupError } from "../lib/errors.ts";
import { type Decoded, decodeShape, type Remark, remarkText, type Setting } from "./decode.ts";
import { judgeGate, judgeGates } from "./feature-gates.ts";
import type { Finding } from "./finding.ts";
import { type KubeletConfiguration, kubeletShape } from "./kubelet-configuration.ts";
import { type ConfigKind, type Loaded, loadDocuments } from "./load.ts";
import { type KubeProxyConfiguration, proxyShape } from "./proxy-configuration.ts";
import { mergePatch, type Raw } from "./raw.ts";
import { flagOnlyShape, type RemoraConfiguration, remoraShape } from "./remora-configuration.ts";
import { settleKubelet, settleProxy } from "./settle.ts";
import { type Fields, type Json, type Leaf, leavesOf, type ObjectShape } from "./shape.ts";
import { validateKubelet } from "./validate-kubelet.ts";
import { unusedProxyFields, validateProxy } from "./validate-proxy.ts";
import { validateRemora } from "./validate-remora.ts";

/** A flag of the command line with its values in the order they were given; "" for one without a value. */
export interface GivenFlag {
  /** Without dashes. */
  readonly name: string;
  readonly texts: readonly string[];
}

/** Everything that a configuration is made of. */
export interface ConfigurationSources {
  /** `--config`: files of one or more documents. */
  readonly files: readonly string[];
  /** `--config-dir` */
  readonly directory: string | undefined;
  readonly flags: readonly GivenFlag[];
}

/** A kind that fields belong to; flags that no file can say belong to `flags`. */
export type SettingKind = ConfigKind | "flags";

/** All settings with their values, and everything that is to be said about them. */
export interface Configuration {
  readonly kubelet: KubeletConfiguration;
  readonly proxy: KubeProxyConfiguration;
  readonly remora: RemoraConfiguration;
  readonly settings: Readonly<Record<SettingKind, ReadonlyMap<string, Setting>>>;
  /** Errors first. */
  readonly remarks: readonly Remark[];
  /** Files of the directory that were not looked at. */
  readonly skipped: readonly string[];
}

/** Flags win over files: lists and maps too are replaced, only feature gates add up, as in the kubelet. */
function withFlag(root: Raw | undefined, path: string, value: Raw): Raw {
  const merges = path === "featureGates";
  const place = (base: Raw | undefined, keys: readonly string[]): Raw => {
    const [key, ...rest] = keys;
    if (key === undefined) return merges ? mergePatch(base, value) : value;
    const entries = new Map(base?.kind === "map" ? base.entries : []);
    entries.set(key, place(entries.get(key), rest));
    return { kind: "map", entries, origin: base?.origin ?? value.origin };
  };
  return place(root, path.split("."));
}

function withFlags(
  shape: ObjectShape<Fields>,
  raw: Raw | undefined,
  flags: readonly GivenFlag[],
): Raw | undefined {
  let out = raw;
  for (const [path, leaf] of leavesOf(shape)) {
    const given = flags.find(({ name }) => name === leaf.flag);
    if (given !== undefined) out = withFlag(out, path, leaf.type.fromFlag(given.texts, given.name));
  }
  return out;
}

function same(a: Json | undefined, b: Json | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** What is to be said about a value because of what Remora does with its field. */
function standingRemark(kind: string, { path, leaf, value, origin }: Setting): Remark | undefined {
  if (origin === undefined || value === undefined || leaf.standing.kind === "honoured")
    return undefined;
  const json = leaf.type.encode(value ?? "");
  if (same(json, leaf.fallback)) return undefined;
  const { standing } = leaf;
  if (standing.kind === "ignored") {
    return { severity: "ignored", kind, path, origin, text: `has no effect: ${standing.reason}` };
  }
  if (standing.also.some((each) => same(json, each))) return undefined;
  const shown = leaf.secret ? "this" : JSON.stringify(json);
  return {
    severity: "error",
    kind,
    path,
    origin,
    text: `${shown} is not supported: ${standing.reason}`,
  };
}

function gateFindings(gates: Readonly<Record<string, boolean>>): Finding[] {
  const alone = Object.entries(gates).flatMap(([name, value]) => judgeGate(name, value) ?? []);
  return [...alone, ...judgeGates(gates)].map((verdict) => ({ path: "featureGates", ...verdict }));
}

/** Everything to be said about one kind: what does not decode, what breaks a rule, what is not done here. */
function remarksOf<S extends ObjectShape<Fields>>(
  kind: string,
  { settings, remarks }: Pick<Decoded<S>, "settings" | "remarks">,
  findings: readonly Finding[],
): readonly Remark[] {
  const out: Remark[] = [...remarks];
  for (const { path, text, severity = "error" } of findings)
    out.push({ severity, kind, path, origin: settings.get(path)?.origin, text });
  const wrong = new Set(out.filter(({ severity }) => severity === "error").map(({ path }) => path));
  for (const setting of settings.values()) {
    const remark = wrong.has(setting.path) ? undefined : standingRemark(kind, setting);
    if (remark !== undefined) out.push(remark);
  }
  return out;
}

/** Whether a field was set to something else than its default, and not by a flag that sets others as well. */
function saidAlone(settings: ReadonlyMap<string, Setting>, path: string): boolean {
  const setting = settings.get(path);
  if (setting?.origin === undefined || setting.value === undefined) return false;
  const { flag } = setting.leaf;
  const shared = [...settings.values()].filter(({ leaf }) => leaf.flag === flag).length > 1;
  if (setting.origin.kind === "flag" && shared) return false;
  return !same(setting.leaf.type.encode(setting.value ?? ""), setting.leaf.fallback);
}

/** A flag that fields of several kinds have is judged once. */
function once(remarks: readonly Remark[]): readonly Remark[] {
  const told = new Set<string>();
  return remarks.filter(({ origin, severity, text }) => {
    if (origin?.kind !== "flag") return true;
    const id = JSON.stringify([origin.flag, severity, text]);
    if (told.has(id)) return false;
    told.add(id);
    return true;
  });
}

const severities: readonly Remark["severity"][] = ["error", "warning", "unknown", "ignored"];

/**
 * Gives every field its value, from `documents` and from `flags` over them. Never throws for what they say: everything
 * that is wrong is among the remarks, so that it can be told at once.
 */
export function composeConfiguration(
  { documents, troubles, skipped }: Loaded,
  flags: readonly GivenFlag[],
): Configuration {
  const decode = <S extends ObjectShape<Fields>>(kind: ConfigKind, shape: S): Decoded<S> =>
    decodeShape(
      kind,
      shape,
      withFlags(shape, documents.get(kind), flags),
      kind === "RemoraConfiguration" ? "error" : "unknown",
    );
  const kubelet = settleKubelet(decode("KubeletConfiguration", kubeletShape));
  const proxy = settleProxy(decode("KubeProxyConfiguration", proxyShape));
  const remora = decode("RemoraConfiguration", remoraShape);
  const others = decodeShape("", flagOnlyShape, withFlags(flagOnlyShape, undefined, flags));
  const remarks: readonly Remark[] = [
    ...troubles.map((trouble) => ({ ...trouble, kind: "", path: "", origin: undefined })),
    ...remarksOf("KubeletConfiguration", kubelet, [
      ...validateKubelet(kubelet.value),
      ...gateFindings(kubelet.value.featureGates),
    ]),
    ...remarksOf("KubeProxyConfiguration", proxy, [
      ...validateProxy(proxy.value),
      ...unusedProxyFields(proxy.value, (path) => saidAlone(proxy.settings, path)),
      ...gateFindings(proxy.value.featureGates),
    ]),
    ...remarksOf("RemoraConfiguration", remora, validateRemora(remora.value)),
    ...remarksOf("", others, []),
  ];
  return {
    kubelet: kubelet.value,
    proxy: proxy.value,
    remora: remora.value,
    settings: {
      KubeletConfiguration: kubelet.settings,
      KubeProxyConfiguration: proxy.settings,
      RemoraConfiguration: remora.settings,
      flags: others.settings,
    },
    remarks: severities.flatMap((severity) =>
      once(remarks).filter((each) => each.severity === severity),
    ),
    skipped,
  };
}

/** Makes one configuration of defaults, files, the directory's files and flags, each over the ones before. */
export async function readConfiguration(sources: ConfigurationSources): Promise<Configuration> {
  return composeConfiguration(await loadDocuments(sources.files, sources.directory), sources.flags);
}

/** Names of all flags that set a field, each with the fields that it sets. */
export function configurationFlags(): ReadonlyMap<
  string,
  { readonly kind: SettingKind; readonly path: string; readonly leaf: Leaf<unknown> }
> {
  const shapes: readonly (readonly [SettingKind, ObjectShape<Fields>])[] = [
    ["RemoraConfiguration", remoraShape],
    ["KubeletConfiguration", kubeletShape],
    ["KubeProxyConfiguration", proxyShape],
    ["flags", flagOnlyShape],
  ];
  const out = new Map<string, { kind: SettingKind; path: string; leaf: Leaf<unknown> }>();
  for (const [kind, shape] of shapes) {
    for (const [path, leaf] of leavesOf(shape)) {
      if (leaf.flag !== undefined && !out.has(leaf.flag)) out.set(leaf.flag, { kind, path, leaf });
    }
  }
  return out;
}

/** @throws {SetupError} that lists everything which has to be put right. */
export function refuseErrors(configuration: Pick<Configuration, "remarks">): void {
  const errors = configuration.remarks.filter(({ severity }) => severity === "error");
  if (errors.length === 0) return;
  const lines = errors.map((remark) => `\n  ${remarkText(remark)}`);
  throw new SetupError(`the configuration cannot be used:${lines.join("")}`);
}
