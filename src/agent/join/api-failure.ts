import { ApiError, ApiUnavailableError, isForbidden } from "../../api/errors.ts";
import { errorCode, errorMessage, SetupError } from "../../lib/errors.ts";

/** Every error code in what was thrown: the causes of a failed connection are nested, one for each address tried. */
function codesIn(error: unknown): string[] {
  const codes = [errorCode(error)].filter((code) => code !== undefined);
  if (error instanceof AggregateError) codes.push(...error.errors.flatMap(codesIn));
  if (error instanceof Error && error.cause !== undefined) codes.push(...codesIn(error.cause));
  return codes;
}

const clockCodes = ["CERT_NOT_YET_VALID", "CERT_HAS_EXPIRED"];
const trustCodes = [
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "CERT_SIGNATURE_FAILURE",
];

/** The sentence about a machine whose clock and a certificate do not agree. */
export function clockSentence(what: string, now: number): string {
  return `${what} is not valid at this machine's time, ${new Date(now).toISOString()}: set the clocks of both machines (timedatectl set-ntp true), then try again`;
}

/** Whether asking again can help: no answer at all, or one of a server that is not ready yet. */
export function isTransient(error: unknown): boolean {
  if (error instanceof ApiError) return error.retryable;
  if (!(error instanceof ApiUnavailableError)) return false;
  const codes = codesIn(error);
  return ![...clockCodes, ...trustCodes, "ERR_TLS_CERT_ALTNAME_INVALID"].some((code) =>
    codes.includes(code),
  );
}

/**
 * One sentence with its remedy for a connection to `server` that failed; undefined for an answer, which the caller knows
 * better.
 */
export function connectionFailure(
  error: unknown,
  server: string,
  now: number,
): SetupError | undefined {
  if (!(error instanceof ApiUnavailableError)) return undefined;
  const codes = codesIn(error);
  const has = (...wanted: string[]): boolean => wanted.some((code) => codes.includes(code));
  const options = { cause: error };
  if (has(...clockCodes)) {
    return new SetupError(clockSentence(`the certificate of ${server}`, now), options);
  }
  if (has(...trustCodes)) {
    return new SetupError(
      `the certificate of ${server} is not signed by the cluster's CA: somebody else answers there, or it is another cluster; check --join`,
      options,
    );
  }
  if (has("ERR_TLS_CERT_ALTNAME_INVALID")) {
    return new SetupError(
      `the certificate of ${server} does not name that host: give --join one of the names or addresses that the API server has`,
      options,
    );
  }
  return new SetupError(
    `${server} does not answer (${errorMessage(error).replace(/^[A-Z]+ \S+: /, "")}): check the address, and that the API server runs and no firewall is in between`,
    options,
  );
}

/** What came with a request for the first certificate of a node. */
export interface FirstCredentials {
  readonly server: string;
  /** For example "the token". */
  readonly what: string;
  /** How to get others. */
  readonly remedy: string;
}

/** What an answer means to somebody who came with credentials that are good for one thing only. */
export function explainedRefusal(
  error: unknown,
  { server, what, remedy }: FirstCredentials,
  now: number,
): unknown {
  if (error instanceof ApiError && error.status === 401) {
    return new SetupError(
      `${server} refuses ${what}: it has expired or may not authenticate; ${remedy}`,
      { cause: error },
    );
  }
  if (isForbidden(error) && error instanceof Error) {
    return new SetupError(
      `${server} does not let ${what} ask for a certificate (${error.message}): bind ClusterRole system:node-bootstrapper to its group`,
      { cause: error },
    );
  }
  return connectionFailure(error, server, now) ?? error;
}
