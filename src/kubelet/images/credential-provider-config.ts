import { access, constants, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";

import { readYamlDocument, yamlRecord } from "../../api/yaml.ts";
import { parseGoDuration } from "../../config/go-duration.ts";
import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";
import { isRecord, type JsonRecord } from "../../lib/guard.ts";
import { splitPattern } from "./credentials.ts";

/** What a plug-in wants to know of the pod's service account (KEP-4412). */
export interface TokenAttributes {
  readonly audience: string;
  /** `Token`: answers are kept for one token; `ServiceAccount`: for all pods of the account. */
  readonly cacheType: "Token" | "ServiceAccount";
  /** False: pods without a service account are asked for, too, without a token. */
  readonly requireServiceAccount: boolean;
  /** Annotations of the service account that the plug-in gets; without these it is not asked. */
  readonly requiredAnnotations: readonly string[];
  readonly optionalAnnotations: readonly string[];
}

/** A program that knows credentials for images (CredentialProvider in kubelet.config.k8s.io/v1). */
export interface CredentialProvider {
  readonly name: string;
  readonly program: string;
  /** Of request and answer: `credentialprovider.kubelet.k8s.io/v1` and older ones. */
  readonly apiVersion: string;
  /** `*.registry.io`, `registry.io:8080/path`: which images it is asked for. */
  readonly matchImages: readonly string[];
  /** How long an answer is kept that does not say it. Milliseconds; 0 = not at all. */
  readonly defaultCacheMs: number;
  readonly args: readonly string[];
  /** Added to the agent's own environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly token: TokenAttributes | undefined;
}

const configVersions = ["v1", "v1beta1", "v1alpha1"].map(
  (version) => `kubelet.config.k8s.io/${version}`,
);
const protocol = "credentialprovider.kubelet.k8s.io";
const protocolVersions = ["v1", "v1beta1", "v1alpha1"].map((version) => `${protocol}/${version}`);
const cacheTypes = ["ServiceAccount", "Token"] as const;
/** A qualified name, in lower case: an optional DNS subdomain and a name of at most 63 characters. */
const annotationKey =
  /^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?$/;

/** Reads one object; collects all that is wrong with it. */
class Reader {
  readonly #fields: JsonRecord;
  readonly #path: string;
  readonly #problems: string[];

  constructor(value: unknown, path: string, problems: string[]) {
    this.#path = path;
    this.#problems = problems;
    this.#fields = isRecord(value) ? value : {};
    if (!isRecord(value)) this.refuse("", "must be an object");
  }

  refuse(field: string, why: string): void {
    this.#problems.push(`${[this.#path, field].filter((part) => part !== "").join(".")}: ${why}`);
  }

  /** Fields that nobody knows are refused: a misspelt one would be ignored else. */
  only(...known: readonly string[]): void {
    for (const field of Object.keys(this.#fields)) {
      if (!known.includes(field)) this.refuse(field, "is not a field of this object");
    }
  }

  has(field: string): boolean {
    return this.#fields[field] !== undefined && this.#fields[field] !== null;
  }

  text(field: string): string {
    const value = this.#fields[field];
    if (typeof value === "string") return value;
    if (this.has(field)) this.refuse(field, "must be a string");
    return "";
  }

  requiredText(field: string, what = "is required"): string {
    const text = this.text(field);
    if (text === "") this.refuse(field, what);
    return text;
  }

  flag(field: string): boolean {
    const value = this.#fields[field];
    if (typeof value !== "boolean") this.refuse(field, "is required: true or false");
    return value === true;
  }

  list(field: string): readonly unknown[] {
    const value = this.#fields[field];
    if (Array.isArray(value)) return value as readonly unknown[];
    if (this.has(field)) this.refuse(field, "must be a list");
    return [];
  }

  texts(field: string): readonly string[] {
    return this.list(field).flatMap((value, index) => {
      if (typeof value === "string") return [value];
      this.refuse(`${field}[${index}]`, "must be a string");
      return [];
    });
  }

  objects(field: string): readonly Reader[] {
    return this.list(field).map((value, index) => this.#below(value, `${field}[${index}]`));
  }

  object(field: string): Reader | undefined {
    return this.has(field) ? this.#below(this.#fields[field], field) : undefined;
  }

  #below(value: unknown, field: string): Reader {
    return new Reader(value, this.#path === "" ? field : `${this.#path}.${field}`, this.#problems);
  }
}

function nameOf(reader: Reader): string {
  const name = reader.requiredText("name");
  if (name.includes("/")) reader.refuse("name", "provider name cannot contain '/'");
  if (name.includes(" ")) reader.refuse("name", "provider name cannot contain spaces");
  if (name === "." || name === "..") {
    reader.refuse("name", `provider name cannot be '${name}'`);
  }
  return name;
}

function patternsOf(reader: Reader): readonly string[] {
  const patterns = reader.texts("matchImages");
  if (patterns.length === 0) {
    reader.refuse("matchImages", "at least 1 item in matchImages is required");
  }
  for (const pattern of patterns) {
    if (splitPattern(pattern) === undefined) {
      reader.refuse("matchImages", `match image is invalid: "${pattern}"`);
    }
  }
  return patterns;
}

function cacheMsOf(reader: Reader): number {
  const text = reader.requiredText("defaultCacheDuration");
  const ms = text === "" ? 0 : parseGoDuration(text);
  if (ms === undefined) {
    reader.refuse("defaultCacheDuration", `"${text}" is no duration such as 12h or 30m`);
  } else if (ms < 0) {
    reader.refuse("defaultCacheDuration", "must be greater than or equal to 0");
  }
  return ms ?? 0;
}

function envOf(reader: Reader): Readonly<Record<string, string>> {
  const env: Record<string, string> = {};
  for (const entry of reader.objects("env")) {
    entry.only("name", "value");
    env[entry.requiredText("name")] = entry.text("value");
  }
  return env;
}

function annotationsOf(reader: Reader, field: string): readonly string[] {
  const keys = reader.texts(field);
  for (const [index, key] of keys.entries()) {
    if (!annotationKey.test(key.toLowerCase())) {
      reader.refuse(field, `"${key}" is no name of an annotation`);
    }
    if (keys.indexOf(key) !== index) reader.refuse(field, `Duplicate value: "${key}"`);
  }
  return keys;
}

function tokenOf(reader: Reader | undefined, apiVersion: string): TokenAttributes | undefined {
  if (reader === undefined) return undefined;
  reader.only(
    "serviceAccountTokenAudience",
    "cacheType",
    "requireServiceAccount",
    "requiredServiceAccountAnnotationKeys",
    "optionalServiceAccountAnnotationKeys",
  );
  if (apiVersion !== `${protocol}/v1`) {
    reader.refuse("", `tokenAttributes is only supported for ${protocol}/v1 API version`);
  }
  const requiredAnnotations = annotationsOf(reader, "requiredServiceAccountAnnotationKeys");
  const optionalAnnotations = annotationsOf(reader, "optionalServiceAccountAnnotationKeys");
  if (requiredAnnotations.some((key) => optionalAnnotations.includes(key))) {
    reader.refuse("", "annotation keys cannot be both required and optional");
  }
  const audience = reader.requiredText("serviceAccountTokenAudience");
  const requireServiceAccount = reader.flag("requireServiceAccount");
  if (!requireServiceAccount && requiredAnnotations.length > 0) {
    reader.refuse(
      "requiredServiceAccountAnnotationKeys",
      "requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set",
    );
  }
  const written = reader.requiredText("cacheType", `is required: ${cacheTypes.join(" or ")}`);
  const cacheType = cacheTypes.find((type) => type === written);
  if (written !== "" && cacheType === undefined) {
    reader.refuse("cacheType", `supported values: ${cacheTypes.join(", ")}`);
  }
  return {
    audience,
    cacheType: cacheType ?? "Token",
    requireServiceAccount,
    requiredAnnotations,
    optionalAnnotations,
  };
}

function providerOf(reader: Reader, binDir: string): CredentialProvider {
  reader.only(
    "name",
    "matchImages",
    "defaultCacheDuration",
    "apiVersion",
    "args",
    "env",
    "tokenAttributes",
  );
  const name = nameOf(reader);
  const apiVersion = reader.requiredText("apiVersion");
  if (apiVersion !== "" && !protocolVersions.includes(apiVersion)) {
    reader.refuse("apiVersion", `supported values: ${protocolVersions.join(", ")}`);
  }
  return {
    name,
    program: join(binDir, name),
    apiVersion,
    matchImages: patternsOf(reader),
    defaultCacheMs: cacheMsOf(reader),
    args: reader.texts("args"),
    env: envOf(reader),
    token: tokenOf(reader.object("tokenAttributes"), apiVersion),
  };
}

/**
 * Reads one CredentialProviderConfig (kubelet.config.k8s.io), YAML or JSON.
 *
 * @throws {SetupError} naming `file` and everything that is wrong in it.
 */
export async function parseCredentialProviders(
  text: string,
  file: string,
  binDir: string,
): Promise<readonly CredentialProvider[]> {
  const problems: string[] = [];
  const reader = new Reader(yamlRecord(await readYamlDocument(text, file), file), "", problems);
  reader.only("apiVersion", "kind", "providers");
  if (!configVersions.includes(reader.text("apiVersion"))) {
    reader.refuse("apiVersion", `supported values: ${configVersions.join(", ")}`);
  }
  if (reader.text("kind") !== "CredentialProviderConfig") {
    reader.refuse("kind", "must be CredentialProviderConfig");
  }
  const providers = reader.objects("providers").map((entry) => providerOf(entry, binDir));
  if (providers.length === 0) reader.refuse("providers", "at least 1 item in plugins is required");
  if (problems.length > 0) throw new SetupError(`${file}: ${problems.join("; ")}`);
  return providers;
}

async function configFiles(path: string): Promise<readonly string[]> {
  if (!(await stat(path)).isDirectory()) return [path];
  const entries = await readdir(path, { withFileTypes: true });
  const files = entries
    .filter((entry) => !entry.isDirectory() && /\.(json|yaml|yml)$/.test(entry.name))
    .map(({ name }) => join(path, name))
    .toSorted();
  if (files.length === 0) {
    throw new SetupError(`no configuration files (*.yaml, *.yml, *.json) found in ${path}`);
  }
  return files;
}

/** A program that is not there would fail every pull later, and nobody would know why. */
async function checkProgram({ program }: CredentialProvider): Promise<void> {
  try {
    await access(program, constants.X_OK);
    if ((await stat(program)).isFile()) return;
  } catch (error) {
    if (errorCode(error) !== "ENOENT") {
      throw new SetupError(
        `credential provider ${program} cannot be run: ${errorMessage(error)}; make it executable`,
        { cause: error },
      );
    }
  }
  throw new SetupError(
    `credential provider ${program} did not exist; install it or take it out of the configuration`,
  );
}

/**
 * The credential providers of a node (`--image-credential-provider-config`, `--image-credential-provider-bin-dir`).
 *
 * @param path A file, or a directory whose *.yaml, *.yml and *.json files are read in the order of their names.
 * @throws {SetupError} for anything that is wrong: a node whose providers are missing would refuse images at random.
 */
export async function loadCredentialProviders(
  path: string,
  binDir: string,
): Promise<readonly CredentialProvider[]> {
  const all: CredentialProvider[] = [];
  try {
    for (const file of await configFiles(path)) {
      for (const provider of await parseCredentialProviders(
        await readFile(file, "utf8"),
        file,
        binDir,
      )) {
        if (all.some(({ name }) => name === provider.name)) {
          throw new SetupError(`${file}: duplicate provider name "${provider.name}"`);
        }
        all.push(provider);
      }
    }
  } catch (error) {
    if (error instanceof SetupError) throw error;
    throw new SetupError(
      `the configuration of credential providers cannot be read: ${errorMessage(error)}`,
      { cause: error },
    );
  }
  for (const provider of all) await checkProgram(provider);
  return all;
}
