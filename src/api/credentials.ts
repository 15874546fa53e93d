import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";

import { type Clock, deadline } from "../lib/clock.ts";
import { errorMessage, isAbort, SetupError } from "../lib/errors.ts";
import { execResult } from "../lib/exec.ts";
import { asRecord, isRecord, optionalString } from "../lib/guard.ts";
import type { ExecPlugin, Kubeconfig, PemSource } from "./kubeconfig-types.ts";

/** What a connection needs at one moment. */
export interface Credentials {
  readonly caPEM: string | undefined;
  readonly clientCertPEM: string | undefined;
  readonly clientKeyPEM: string | undefined;
  readonly token: string | undefined;
  /** Changes when a new TLS connection is needed: a digest of everything above but the token. */
  readonly tlsDigest: string;
}

/** Gives the credentials of one kubeconfig, always fresh enough. */
export interface CredentialSource {
  /**
   * @throws {SetupError} when a file cannot be read or a plug-in fails; the message names file, field and remedy.
   */
  current(signal: AbortSignal): Promise<Credentials>;
  /** The server refused the credentials: the next {@link current} reads and runs everything again. */
  invalidate(): void;
}

/** client-go reads token files each minute; certificates get the same rhythm. */
const rereadMs = 60_000;
const execDeadlineMs = 60_000;

interface ExecCredentials {
  readonly token: string | undefined;
  readonly certPEM: string | undefined;
  readonly keyPEM: string | undefined;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

interface Held {
  readonly credentials: Credentials;
  readonly readAt: number;
  /** Wall clock, for plug-ins. */
  readonly expiresAt: number;
}

/** Credentials from the files, values and plug-in that a kubeconfig names. */
export function createCredentialSource(
  kubeconfig: Kubeconfig,
  clock: Clock,
  pluginEnvironment: Readonly<Record<string, string>> = {},
): CredentialSource {
  let held: Held | undefined;
  let loading: Promise<Held> | undefined;
  let plugin: ExecCredentials | undefined;
  let generation = 0;

  async function load(signal: AbortSignal): Promise<Held> {
    const { cluster, user } = kubeconfig;
    const started = generation;
    if (user.exec !== undefined && (plugin === undefined || plugin.expiresAt <= clock.now())) {
      plugin = await runExecPlugin(kubeconfig, user.exec, pluginEnvironment, signal);
    }
    const caPEM = await readPem(kubeconfig, "certificate-authority", cluster.ca);
    const certPEM = await readPem(kubeconfig, "client-certificate", user.clientCertificate);
    const keyPEM = await readPem(kubeconfig, "client-key", user.clientKey);
    const fileToken =
      user.tokenFile === undefined
        ? undefined
        : (await readNamedFile(kubeconfig, "tokenFile", user.tokenFile)).trim();
    const credentials = withDigest({
      caPEM,
      clientCertPEM: certPEM ?? plugin?.certPEM,
      clientKeyPEM: keyPEM ?? plugin?.keyPEM,
      token: fileToken ?? user.token ?? plugin?.token,
    });
    // Caught by `current`, which goes on with what it holds.
    if (held !== undefined) refuseTorn(kubeconfig, credentials);
    const expiresAt = plugin?.expiresAt ?? Number.POSITIVE_INFINITY;
    const loaded = { credentials, readAt: clock.monotonic(), expiresAt };
    if (started === generation) held = loaded;
    return loaded;
  }

  function fresh(): Held | undefined {
    if (held === undefined || held.expiresAt <= clock.now()) return undefined;
    return clock.monotonic() - held.readAt < rereadMs ? held : undefined;
  }

  return {
    async current(signal) {
      const usable = fresh();
      if (usable !== undefined) return usable.credentials;
      loading ??= load(signal).finally(() => {
        loading = undefined;
      });
      try {
        return (await loading).credentials;
      } catch (error) {
        signal.throwIfAborted();
        // Whoever started the shared read may have been cancelled; that is not this caller's failure.
        if (isAbort(error)) return (await load(signal)).credentials;
        // A certificate that is being replaced right now must not cut off a client that still has good ones.
        if (held !== undefined && held.expiresAt > clock.now()) return held.credentials;
        throw error;
      }
    },
    invalidate() {
      generation += 1;
      held = undefined;
      plugin = undefined;
    },
  };
}

function withDigest(parts: Omit<Credentials, "tlsDigest">): Credentials {
  const hash = createHash("sha256");
  for (const part of [parts.caPEM, parts.clientCertPEM, parts.clientKeyPEM]) {
    hash.update(part ?? "").update("\0");
  }
  return { ...parts, tlsDigest: hash.digest("base64") };
}

/** @throws {SetupError} files that are being written: a CA without a certificate, a certificate without its key. */
function refuseTorn({ path }: Kubeconfig, credentials: Credentials): void {
  const { caPEM, clientCertPEM, clientKeyPEM } = credentials;
  try {
    // Node.js takes these for none at all.
    if ([caPEM, clientCertPEM].some((pem) => pem?.includes("-----END CERTIFICATE-----") === false))
      throw new Error("a file of certificates holds none");
    createSecureContext({
      ...(clientCertPEM === undefined ? {} : { cert: clientCertPEM }),
      ...(clientKeyPEM === undefined ? {} : { key: clientKeyPEM }),
    });
  } catch (error) {
    throw new SetupError(
      `kubeconfig ${path}: its files do not go together (${errorMessage(error)}); restore them`,
      { cause: error },
    );
  }
}

async function readPem(
  kubeconfig: Kubeconfig,
  field: string,
  source: PemSource | undefined,
): Promise<string | undefined> {
  if (source === undefined) return undefined;
  return source.kind === "data" ? source.pem : readNamedFile(kubeconfig, field, source.path);
}

async function readNamedFile(kubeconfig: Kubeconfig, field: string, path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new SetupError(
      `kubeconfig ${kubeconfig.path}: ${field}: cannot read ${path} (${errorMessage(error)}); create the file or correct the path`,
      { cause: error },
    );
  }
}

/** Runs a client.authentication.k8s.io plug-in once. Its output is secret and never part of a message. */
async function runExecPlugin(
  kubeconfig: Kubeconfig,
  plugin: ExecPlugin,
  environment: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<ExecCredentials> {
  const where = `kubeconfig ${kubeconfig.path}: users[${kubeconfig.user.name}].exec: ${plugin.command}`;
  const info = {
    apiVersion: plugin.apiVersion,
    kind: "ExecCredential",
    spec: {
      interactive: false,
      ...(plugin.provideClusterInfo ? { cluster: await clusterInfo(kubeconfig) } : {}),
    },
  };
  let stdout: string;
  try {
    const result = await execResult([plugin.command, ...plugin.args], {
      signal: deadline(signal, execDeadlineMs),
      env: { ...environment, ...plugin.env, KUBERNETES_EXEC_INFO: JSON.stringify(info) },
    });
    if (result.exitCode !== 0) {
      const said = result.stderr.trim().slice(0, 300);
      throw new SetupError(`${where} exited with ${result.exitCode ?? "a signal"}: ${said}`);
    }
    ({ stdout } = result);
  } catch (error) {
    if (error instanceof SetupError) throw error;
    signal.throwIfAborted();
    const hint = plugin.installHint === "" ? "install it or correct the path" : plugin.installHint;
    throw new SetupError(`${where}: ${errorMessage(error)}; ${hint}`, { cause: error });
  }
  return parseExecCredential(stdout, plugin, where);
}

async function clusterInfo(kubeconfig: Kubeconfig): Promise<Record<string, unknown>> {
  const { cluster } = kubeconfig;
  const ca = await readPem(kubeconfig, "certificate-authority", cluster.ca);
  return {
    server: cluster.server,
    ...(cluster.tlsServerName === undefined ? {} : { "tls-server-name": cluster.tlsServerName }),
    ...(cluster.insecureSkipTLSVerify ? { "insecure-skip-tls-verify": true } : {}),
    ...(ca === undefined
      ? {}
      : { "certificate-authority-data": Buffer.from(ca).toString("base64") }),
  };
}

function parseExecCredential(stdout: string, plugin: ExecPlugin, where: string): ExecCredentials {
  let json: unknown;
  try {
    json = JSON.parse(stdout);
  } catch {
    throw new SetupError(`${where} did not print JSON; it must print an ExecCredential`);
  }
  if (!isRecord(json) || json["kind"] !== "ExecCredential") {
    throw new SetupError(`${where} did not print an ExecCredential object`);
  }
  if (json["apiVersion"] !== plugin.apiVersion) {
    throw new SetupError(
      `${where} answered with apiVersion ${String(json["apiVersion"])}, the kubeconfig asks for ${plugin.apiVersion}; make them equal`,
    );
  }
  const status = isRecord(json["status"]) ? asRecord(json["status"], "status") : {};
  const token = optionalString(status["token"]);
  const certPEM = optionalString(status["clientCertificateData"]);
  const keyPEM = optionalString(status["clientKeyData"]);
  if (token === undefined && certPEM === undefined) {
    throw new SetupError(`${where} returned neither token nor clientCertificateData`);
  }
  if ((certPEM === undefined) !== (keyPEM === undefined)) {
    throw new SetupError(`${where} must return clientCertificateData and clientKeyData together`);
  }
  const expiration = optionalString(status["expirationTimestamp"]);
  const expiresAt = expiration === undefined ? Number.POSITIVE_INFINITY : Date.parse(expiration);
  if (Number.isNaN(expiresAt)) {
    throw new SetupError(`${where} returned an expirationTimestamp that is not RFC 3339`);
  }
  return { token, certPEM, keyPEM, expiresAt };
}
