import { isRecord, type JsonRecord } from "../../lib/guard.ts";
import { errorMessage } from "../../lib/errors.ts";
import { CniConfigError } from "./errors.ts";
import { isSpoken, isVersion, compareVersions, oldestVersion } from "./versions.ts";

/** One plug-in of a network, as the configuration has it. */
export interface PluginConfig {
  readonly type: string;
  /** Capabilities it asks the runtime for (`portMappings`, `bandwidth`, ...). */
  readonly capabilities: ReadonlySet<string>;
  /** Everything that the configuration says about it. */
  readonly raw: Readonly<JsonRecord>;
}

/** A network of CNI: plug-ins that are run one after the other (specification 1.1.0, section 1). */
export interface NetworkList {
  readonly name: string;
  readonly cniVersion: string;
  readonly disableCheck: boolean;
  readonly disableGC: boolean;
  readonly plugins: readonly PluginConfig[];
}

/** A list of the file, and whether plug-ins from the directory of its name belong to it. */
export interface ParsedList extends NetworkList {
  readonly loadOnlyInlinedPlugins: boolean;
}

const networkName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** It becomes a file name, together with a sandbox's id. */
const maxNameLength = 128;

function refuse(text: string): never {
  throw new CniConfigError(`error parsing configuration list: ${text}`);
}

function json(text: string): JsonRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    refuse(errorMessage(error));
  }
  if (!isRecord(value)) refuse("no JSON object");
  return value;
}

function parseName(value: unknown): string {
  if (value === undefined || value === "") refuse("no name");
  if (typeof value !== "string") refuse(`invalid name type ${typeof value}`);
  if (!networkName.test(value) || value.length > maxNameLength) {
    refuse(`invalid characters found in network name ${JSON.stringify(value)}`);
  }
  return value;
}

/** Booleans may be written as text. */
function parseBool(record: JsonRecord, key: string): boolean {
  const value = record[key];
  if (value === undefined || typeof value === "boolean") return value ?? false;
  const text = typeof value === "string" ? value.toLowerCase() : undefined;
  if (text === "true" || text === "false") return text === "true";
  return refuse(`invalid value ${JSON.stringify(value)} for ${key}`);
}

function parseVersion(record: JsonRecord): string {
  const { cniVersion, cniVersions } = record;
  if (cniVersion !== undefined && typeof cniVersion !== "string") {
    refuse(`invalid cniVersion type ${typeof cniVersion}`);
  }
  if (cniVersions !== undefined && !Array.isArray(cniVersions)) {
    refuse(`invalid type for cniVersions: ${typeof cniVersions}`);
  }
  const offered = [...((cniVersions as readonly unknown[] | undefined) ?? [])].map(
    (each, index) => {
      if (typeof each !== "string" || !isVersion(each)) {
        refuse(`invalid cniVersions entry ${JSON.stringify(each)} at index ${index}`);
      }
      return each;
    },
  );
  const own = cniVersion === undefined || cniVersion === "" ? [] : [cniVersion];
  const all = [...offered, ...own];
  if (all.length === 0) return oldestVersion;
  const [best] = all.filter(isSpoken).toSorted((a, b) => compareVersions(b, a));
  return best ?? refuse(`unsupported CNI config version ${JSON.stringify(all.join(", "))}`);
}

/** @throws {CniConfigError} */
export function parsePlugin(value: unknown): PluginConfig {
  if (!isRecord(value)) throw new CniConfigError("error parsing configuration: no JSON object");
  const { capabilities, type } = value;
  if (typeof type !== "string" || type === "") {
    throw new CniConfigError("error parsing configuration: missing 'type'");
  }
  // It is looked for in directories: a path would be run from anywhere.
  if (type.includes("/") || type === "." || type === "..") {
    throw new CniConfigError(`invalid plugin name: ${type}`);
  }
  const asked = isRecord(capabilities) ? Object.entries(capabilities) : [];
  return {
    type,
    capabilities: new Set(asked.flatMap(([name, on]) => (on === true ? [name] : []))),
    raw: value,
  };
}

/**
 * Reads a configuration list (`.conflist`).
 *
 * @throws {CniConfigError} in libcni's words.
 */
export function parseConfigList(text: string): ParsedList {
  const record = json(text);
  const name = parseName(record["name"]);
  const cniVersion = parseVersion(record);
  const disableCheck = parseBool(record, "disableCheck");
  const disableGC = parseBool(record, "disableGC");
  const loadOnlyInlinedPlugins = parseBool(record, "loadOnlyInlinedPlugins");
  const { plugins } = record;
  if (plugins === undefined && loadOnlyInlinedPlugins) {
    refuse("`loadOnlyInlinedPlugins` is true, and no 'plugins' key");
  }
  if (plugins !== undefined && !Array.isArray(plugins)) {
    refuse(`invalid 'plugins' type ${typeof plugins}`);
  }
  if (plugins?.length === 0) refuse("no plugins in list");
  const parsed = [...((plugins as readonly unknown[] | undefined) ?? [])].map((plugin, index) => {
    try {
      return parsePlugin(plugin);
    } catch (error) {
      throw new CniConfigError(`failed to parse plugin config ${index}: ${errorMessage(error)}`);
    }
  });
  return { name, cniVersion, disableCheck, disableGC, loadOnlyInlinedPlugins, plugins: parsed };
}

/**
 * Reads the configuration of a single plug-in (`.conf`, `.json`; gone from the specification with 1.0.0, and still used)
 * as a list of one.
 *
 * @throws {CniConfigError}
 */
export function parseSingleConfig(text: string): ParsedList {
  const record = json(text);
  if (record["type"] === undefined && record["plugins"] !== undefined) {
    refuse("a list of plugins: its file name must end in .conflist");
  }
  const plugin = parsePlugin(record);
  return {
    name: parseName(record["name"]),
    cniVersion: parseVersion(record),
    disableCheck: false,
    disableGC: false,
    loadOnlyInlinedPlugins: true,
    plugins: [plugin],
  };
}

/** The list as a file that says the same, all plug-ins inlined. */
export function formatList(list: NetworkList): string {
  return JSON.stringify({
    cniVersion: list.cniVersion,
    name: list.name,
    ...(list.disableCheck ? { disableCheck: true } : {}),
    ...(list.disableGC ? { disableGC: true } : {}),
    loadOnlyInlinedPlugins: true,
    plugins: list.plugins.map(({ raw }) => raw),
  });
}

/** Whether any plug-in of the network asks for the capability. */
export function hasCapability({ plugins }: NetworkList, capability: string): boolean {
  return plugins.some(({ capabilities }) => capabilities.has(capability));
}
