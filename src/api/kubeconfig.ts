import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";

import { errorCode, errorMessage, SetupError } from "../lib/errors.ts";
import { isRecord, type JsonRecord } from "../lib/guard.ts";
import type {
  ExecPlugin,
  Kubeconfig,
  KubeconfigCluster,
  KubeconfigUser,
  PemSource,
} from "./kubeconfig-types.ts";
import { readYamlDocument, yamlRecord } from "./yaml.ts";

const execVersions = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/** One object of the file, with the way to name its fields in a message. */
class Section {
  readonly #file: string;
  readonly #path: string;
  readonly #members: JsonRecord;

  constructor(file: string, path: string, members: JsonRecord) {
    this.#file = file;
    this.#path = path;
    this.#members = members;
  }

  has(key: string): boolean {
    const value = this.#members[key];
    return value !== undefined && value !== null && value !== "";
  }

  text(key: string): string | undefined {
    if (!this.has(key)) return undefined;
    const value = this.#members[key];
    if (typeof value !== "string") throw this.problem(key, "must be a string");
    return value;
  }

  required(key: string, remedy: string): string {
    const value = this.text(key);
    if (value === undefined) throw this.problem(key, `is missing; ${remedy}`);
    return value;
  }

  flag(key: string): boolean {
    const value = this.#members[key] ?? false;
    if (typeof value !== "boolean") throw this.problem(key, "must be true or false");
    return value;
  }

  section(key: string): Section | undefined {
    if (!this.has(key)) return undefined;
    const value = this.#members[key];
    if (!isRecord(value)) throw this.problem(key, "must be an object");
    return new Section(this.#file, this.#at(key), value);
  }

  sections(key: string): Section[] {
    const value = this.#members[key] ?? [];
    if (!Array.isArray(value)) throw this.problem(key, "must be a list");
    return value.map((item, index) => {
      if (!isRecord(item)) throw this.problem(`${key}[${index}]`, "must be an object");
      return new Section(this.#file, this.#at(`${key}[${index}]`), item);
    });
  }

  texts(key: string): string[] {
    const value = this.#members[key] ?? [];
    if (!Array.isArray(value)) throw this.problem(key, "must be a list");
    return value.map((item, index) => {
      if (typeof item === "string") return item;
      throw this.problem(`${key}[${index}]`, "must be a string");
    });
  }

  /** The entry named `name` of a list of `{name, <member>}`. */
  named(list: string, name: string, member: string): Section {
    const entry = this.sections(list).find((candidate) => candidate.text("name") === name);
    const section = entry?.section(member);
    if (section !== undefined) return section;
    throw new SetupError(
      `kubeconfig ${this.#file}: ${entry === undefined ? `"${name}" is not in ${list}` : `${list} entry "${name}" has no ${member}`}; add it or correct current-context`,
    );
  }

  problem(key: string, what: string): SetupError {
    return new SetupError(`kubeconfig ${this.#file}: ${this.#at(key)} ${what}`);
  }

  #at(key: string): string {
    return this.#path === "" ? key : `${this.#path}.${key}`;
  }
}

/**
 * Reads a kubeconfig file and resolves its current context. Everything a client cannot honour is refused, never ignored.
 *
 * @throws {SetupError} naming file, field and remedy.
 */
export async function loadKubeconfig(path: string): Promise<Kubeconfig> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const missing = errorCode(error) === "ENOENT";
    throw new SetupError(
      missing
        ? `kubeconfig ${path} does not exist; create it or name another file`
        : `kubeconfig ${path} cannot be read: ${errorMessage(error)}; check its owner and mode`,
      { cause: error },
    );
  }
  const kubeconfig = await parseKubeconfig(text, resolve(path));
  await checkFiles(kubeconfig);
  return kubeconfig;
}

/** As {@link loadKubeconfig}, from text; relative paths in it count from the folder of `path`. */
export async function parseKubeconfig(text: string, path: string): Promise<Kubeconfig> {
  const document = await readYamlDocument(text, `kubeconfig ${path}`);
  const root = new Section(path, "", yamlRecord(document, `kubeconfig ${path}`));
  const kind = root.text("kind") ?? "Config";
  if (kind !== "Config") throw root.problem("kind", `must be Config, not ${kind}`);
  const name = root.required("current-context", "set it to one of contexts");
  const context = findContext(root, path, name);
  const clusterName = context.required("cluster", "name one of clusters");
  const userName = context.text("user");
  const cluster = root.named("clusters", clusterName, "cluster");
  const user = userName === undefined ? undefined : findUser(root, userName);
  return {
    path,
    context: name,
    namespace: context.text("namespace") ?? "default",
    cluster: readCluster(cluster, clusterName, path),
    user: user === undefined ? { name: "" } : readUser(user, userName ?? "", path),
  };
}

function findContext(root: Section, path: string, name: string): Section {
  const contexts = root.sections("contexts");
  const index = contexts.findIndex((entry) => entry.text("name") === name);
  const context = contexts[index]?.section("context");
  if (context === undefined) {
    throw new SetupError(
      `kubeconfig ${path}: current-context "${name}" is not in contexts; set current-context to one of: ${contexts.map((entry) => entry.text("name") ?? "?").join(", ") || "(there are none)"}`,
    );
  }
  for (const [list, member] of [
    ["clusters", "cluster"],
    ["users", "user"],
  ] as const) {
    const wanted = context.text(member);
    const known = root.sections(list).map((entry) => entry.text("name"));
    if (wanted !== undefined && !known.includes(wanted)) {
      throw new SetupError(
        `kubeconfig ${path}: contexts[${index}].context.${member} "${wanted}" is not in ${list}; add it or correct the name`,
      );
    }
  }
  return context;
}

/** A user without credentials may be written `user: {}`, or leave `user` out. */
function findUser(root: Section, name: string): Section | undefined {
  return root
    .sections("users")
    .find((entry) => entry.text("name") === name)
    ?.section("user");
}

function readCluster(section: Section, name: string, path: string): KubeconfigCluster {
  const server = section.required("server", "set it to the URL of the API server");
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url === undefined || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw section.problem("server", `"${server}" must be a URL such as https://10.0.0.1:6443`);
  }
  if (url.username !== "" || url.password !== "") {
    throw section.problem("server", "must not hold a user name or password; use users instead");
  }
  if (section.has("proxy-url")) {
    throw section.problem("proxy-url", "is not supported; reach the API server without a proxy");
  }
  const insecureSkipTLSVerify = section.flag("insecure-skip-tls-verify");
  const ca = readPemSource(section, "certificate-authority", path);
  if (insecureSkipTLSVerify && ca !== undefined) {
    throw section.problem(
      "insecure-skip-tls-verify",
      "cannot be true together with certificate-authority; remove one of them",
    );
  }
  const tlsServerName = section.text("tls-server-name");
  return {
    name,
    server: server.replace(/\/+$/, ""),
    ...(ca === undefined ? {} : { ca }),
    ...(tlsServerName === undefined ? {} : { tlsServerName }),
    insecureSkipTLSVerify,
  };
}

const refusedUserFields: Readonly<Record<string, string>> = {
  as: "is not supported; use the credentials of the user itself",
  "as-uid": "is not supported; use the credentials of the user itself",
  "as-groups": "is not supported; use the credentials of the user itself",
  "as-user-extra": "is not supported; use the credentials of the user itself",
  username:
    "is not supported: API servers take no passwords any more; use a certificate or a token",
  password:
    "is not supported: API servers take no passwords any more; use a certificate or a token",
  "auth-provider": "was removed from Kubernetes; use exec",
};

function readUser(section: Section, name: string, path: string): KubeconfigUser {
  for (const [key, why] of Object.entries(refusedUserFields)) {
    if (section.has(key)) throw section.problem(key, why);
  }
  const clientCertificate = readPemSource(section, "client-certificate", path);
  const clientKey = readPemSource(section, "client-key", path);
  if (clientCertificate !== undefined && clientKey === undefined) {
    throw section.problem("client-key", "is missing; a client-certificate needs its key");
  }
  if (clientKey !== undefined && clientCertificate === undefined) {
    throw section.problem("client-certificate", "is missing; a client-key needs its certificate");
  }
  const token = section.text("token");
  const tokenFile = section.text("tokenFile");
  const exec = section.section("exec");
  if (exec !== undefined && (token ?? tokenFile ?? clientCertificate) !== undefined) {
    throw section.problem("exec", "cannot be used together with other credentials; remove one");
  }
  return {
    name,
    ...(clientCertificate === undefined ? {} : { clientCertificate }),
    ...(clientKey === undefined ? {} : { clientKey }),
    ...(token === undefined ? {} : { token }),
    ...(tokenFile === undefined ? {} : { tokenFile: resolve(dirname(path), tokenFile) }),
    ...(exec === undefined ? {} : { exec: readExec(exec, path) }),
  };
}

function readExec(section: Section, path: string): ExecPlugin {
  const apiVersion = section.required("apiVersion", `set it to ${execVersions[0]}`);
  if (!execVersions.includes(apiVersion)) {
    throw section.problem("apiVersion", `"${apiVersion}" must be ${execVersions[0]}`);
  }
  if (section.text("interactiveMode") === "Always") {
    throw section.problem("interactiveMode", "Always cannot work for a daemon; use Never");
  }
  const command = section.required("command", "name the program");
  const env = section.sections("env").map((entry) => {
    const name = entry.required("name", "name the variable");
    return [name, entry.text("value") ?? ""] as const;
  });
  return {
    apiVersion,
    // As client-go: a name is looked up in PATH, a path counts from the file.
    command: command.includes("/") ? resolve(dirname(path), command) : command,
    args: section.texts("args"),
    env: Object.fromEntries(env),
    provideClusterInfo: section.flag("provideClusterInfo"),
    installHint: section.text("installHint") ?? "",
  };
}

function readPemSource(section: Section, field: string, path: string): PemSource | undefined {
  const data = section.text(`${field}-data`);
  if (data !== undefined) {
    const pem = Buffer.from(data, "base64").toString("utf8");
    if (!pem.includes("-----BEGIN ")) {
      throw section.problem(`${field}-data`, "must be base64 of PEM text");
    }
    return { kind: "data", pem };
  }
  const file = section.text(field);
  return file === undefined ? undefined : { kind: "file", path: resolve(dirname(path), file) };
}

/** A file that is missing at start is a mistake; one that goes missing later is only retried. */
async function checkFiles(kubeconfig: Kubeconfig): Promise<void> {
  const { cluster, user } = kubeconfig;
  const files: readonly (readonly [string, PemSource | undefined])[] = [
    ["certificate-authority", cluster.ca],
    ["client-certificate", user.clientCertificate],
    ["client-key", user.clientKey],
    [
      "tokenFile",
      user.tokenFile === undefined ? undefined : { kind: "file", path: user.tokenFile },
    ],
  ];
  for (const [field, source] of files) {
    if (source?.kind !== "file") continue;
    try {
      await readFile(source.path);
    } catch (error) {
      throw new SetupError(
        `kubeconfig ${kubeconfig.path}: ${field}: cannot read ${source.path} (${errorMessage(error)}); create the file or correct the path`,
        { cause: error },
      );
    }
  }
}
