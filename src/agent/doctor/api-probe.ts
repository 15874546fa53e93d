import { X509Certificate } from "node:crypto";
import { type IncomingMessage, request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import type { TLSSocket } from "node:tls";

import { createCredentialSource, type Credentials } from "../../api/credentials.ts";
import { loadKubeconfig } from "../../api/kubeconfig.ts";
import type { Kubeconfig } from "../../api/kubeconfig-types.ts";
import { tlsHints } from "../../api/tls-hints.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorCode, errorMessage, isAbort } from "../../lib/errors.ts";
import { isRecord, optionalString } from "../../lib/guard.ts";
import type { Machine } from "./machine.ts";
import type { Identity } from "./site.ts";

/** A certificate, as far as its time goes. */
export interface CertificateFacts {
  readonly what: string;
  readonly name: string;
  /** Milliseconds since the epoch. */
  readonly from: number;
  readonly to: number;
}

/** How an API server answered to one identity. */
export type ApiOutcome =
  | {
      readonly kind: "answered";
      readonly status: number;
      /** Its clock, milliseconds since the epoch, from the header Date; whole seconds. */
      readonly serverTime: number | undefined;
      /** This machine's clock in the middle of the request. */
      readonly ownTime: number;
      /** As `v1.36.2`. */
      readonly version: string;
    }
  | { readonly kind: "failed"; readonly code: string; readonly text: string }
  /** The kubeconfig cannot be used. */
  | { readonly kind: "unusable"; readonly text: string };

export interface ApiProbe {
  readonly identity: Identity;
  readonly server: string;
  readonly outcome: ApiOutcome;
  readonly certificates: readonly CertificateFacts[];
}

function certificateFacts(what: string, pem: string | undefined): readonly CertificateFacts[] {
  if (pem === undefined) return [];
  try {
    const certificate = new X509Certificate(pem);
    return [
      {
        what,
        name: /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? certificate.subject,
        from: certificate.validFromDate.getTime(),
        to: certificate.validToDate.getTime(),
      },
    ];
  } catch {
    // Who loads it says what is wrong with it.
    return [];
  }
}

interface Answer {
  readonly status: number;
  readonly date: string | undefined;
  readonly body: string;
  readonly peer: string | undefined;
}

async function readAnswer(incoming: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > 2 ** 20) break;
    chunks.push(chunk);
  }
  return {
    status: incoming.statusCode ?? 0,
    date: incoming.headers.date,
    body: Buffer.concat(chunks).toString("utf8"),
    peer: undefined,
  };
}

function get(
  kubeconfig: Kubeconfig,
  credentials: Credentials,
  path: string,
  signal: AbortSignal,
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const { cluster } = kubeconfig;
  const url = new URL(`${cluster.server}${path}`);
  const options: RequestOptions = {
    signal,
    agent: false,
    headers: {
      "user-agent": "remora-doctor",
      ...(credentials.token === undefined ? {} : { authorization: `Bearer ${credentials.token}` }),
    },
    ca: credentials.caPEM,
    cert: credentials.clientCertPEM,
    key: credentials.clientKeyPEM,
    rejectUnauthorized: !cluster.insecureSkipTLSVerify,
    ...(cluster.tlsServerName === undefined ? {} : { servername: cluster.tlsServerName }),
  };
  const send = url.protocol === "http:" ? httpRequest : httpsRequest;
  let peer: string | undefined;
  const outgoing = send(url, options, (incoming) => {
    readAnswer(incoming).then((answer) => resolve({ ...answer, peer }), reject);
  });
  outgoing.on("socket", (socket) => {
    socket.once("secureConnect", () => {
      const raw = (socket as TLSSocket).getPeerX509Certificate();
      peer = raw?.toString();
    });
  });
  outgoing.on("error", reject);
  outgoing.end();
  return promise;
}

const longPatienceMs = 15_000;

/**
 * One GET as an identity.
 *
 * @throws {SetupError} for its kubeconfig; what the system says; the signal's reason.
 */
export async function getAs(
  identity: Identity,
  clock: Clock,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: string }> {
  const kubeconfig = await loadKubeconfig(identity.kubeconfig);
  const credentials = await createCredentialSource(kubeconfig, clock).current(signal);
  const limited = AbortSignal.any([signal, AbortSignal.timeout(longPatienceMs)]);
  return get(kubeconfig, credentials, path, limited);
}

/** The code that says most about a failed connection: those of single addresses hide in an AggregateError. */
export function failureCode(error: unknown): string {
  if (error instanceof AggregateError) {
    const [first] = error.errors.map(failureCode).filter((code) => code !== "");
    if (first !== undefined) return first;
  }
  const own = errorCode(error);
  if (own !== undefined) return own;
  return error instanceof Error && error.cause !== undefined ? failureCode(error.cause) : "";
}

function versionOf(body: string): string {
  try {
    const value: unknown = JSON.parse(body);
    return (isRecord(value) ? optionalString(value["gitVersion"]) : undefined) ?? "";
  } catch {
    return "";
  }
}

async function probeWith(
  kubeconfig: Kubeconfig,
  credentials: Credentials,
  { clock, patienceMs }: Pick<Machine, "clock" | "patienceMs">,
  signal: AbortSignal,
): Promise<{ readonly outcome: ApiOutcome; readonly peer: string | undefined }> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]);
  const before = clock.now();
  try {
    const answer = await get(kubeconfig, credentials, "/version", limited);
    const { body, date, peer, status } = answer;
    const serverTime = date === undefined ? Number.NaN : Date.parse(date);
    return {
      peer,
      outcome: {
        kind: "answered",
        status,
        serverTime: Number.isNaN(serverTime) ? undefined : serverTime,
        ownTime: (before + clock.now()) / 2,
        version: status === 200 ? versionOf(body) : "",
      },
    };
  } catch (error) {
    signal.throwIfAborted();
    if (isAbort(error)) {
      const text = `no answer within ${patienceMs / 1000} s`;
      return { peer: undefined, outcome: { kind: "failed", code: "ETIMEDOUT", text } };
    }
    const code = failureCode(error);
    const text = errorMessage(error) || code;
    const hint = tlsHints[code];
    return {
      peer: undefined,
      outcome: { kind: "failed", code, text: hint === undefined ? text : `${text}: ${hint}` },
    };
  }
}

async function probe(identity: Identity, machine: Machine, signal: AbortSignal): Promise<ApiProbe> {
  let kubeconfig: Kubeconfig;
  let credentials: Credentials;
  try {
    kubeconfig = await loadKubeconfig(identity.kubeconfig);
    credentials = await createCredentialSource(kubeconfig, machine.clock).current(signal);
  } catch (error) {
    signal.throwIfAborted();
    const outcome = { kind: "unusable", text: errorMessage(error) } as const;
    return { identity, server: "", outcome, certificates: [] };
  }
  const { server } = kubeconfig.cluster;
  const { outcome, peer } = await probeWith(kubeconfig, credentials, machine, signal);
  return {
    identity,
    server,
    outcome,
    certificates: [
      ...certificateFacts(
        `client certificate in ${identity.kubeconfig}`,
        credentials.clientCertPEM,
      ),
      ...certificateFacts("the cluster's CA", credentials.caPEM),
      ...certificateFacts(`certificate of ${server}`, peer),
    ],
  };
}

const done = new WeakMap<Machine, Promise<readonly ApiProbe[]>>();

/** Asks the API server as each identity of the agent, once for all who want to know. Never rejects but with the signal's reason. */
export function probeApi(machine: Machine, signal: AbortSignal): Promise<readonly ApiProbe[]> {
  const known =
    done.get(machine) ??
    Promise.all(machine.site.identities.map((identity) => probe(identity, machine, signal)));
  done.set(machine, known);
  return known;
}
