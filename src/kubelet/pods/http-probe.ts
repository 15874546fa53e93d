import type { HTTPGetAction } from "../../api/types.gen.ts";
import { isAbort } from "../../lib/errors.ts";
import { dialError, hostPort } from "./dial-error.ts";
import { type HttpAnswer, type HttpCall, httpGet, speaksNoTLS } from "./http-call.ts";
import type { ProbeOutcome } from "./probe-types.ts";

const maxBodyBytes = 10 * 1024;
/** Requests in all, the first included. */
const maxRequests = 10;

/**
 * Asks once and follows redirects on the same host. What goes wrong on the way is a failure of the probe.
 *
 * @param signal The deadline of all of it.
 * @throws what a request that cannot even be made says, such as one with an impossible header.
 */
export async function httpProbe(
  action: HTTPGetAction,
  target: { readonly host: string; readonly port: number; readonly userAgent: string },
  signal: AbortSignal,
): Promise<ProbeOutcome> {
  let call: HttpCall = {
    scheme: action.scheme ?? "HTTP",
    host: target.host,
    port: target.port,
    path: action.path ?? "",
    headers: action.httpHeaders ?? [],
    userAgent: target.userAgent,
    maxBytes: maxBodyBytes,
  };
  try {
    for (let requests = 1; ; requests += 1) {
      const answer = await httpGet(call, signal);
      const next = redirectOf(answer, call);
      if (next === undefined) return outcomeOf(answer);
      // Off this host it is somebody else's health.
      if (next.host !== call.host) return outcomeOf(answer);
      if (requests === maxRequests) {
        return { kind: "failure", output: `Get "${next.path}": stopped after 10 redirects` };
      }
      call = next;
    }
  } catch (error) {
    // A TypeError is about the request, everything else about the answer.
    if (error instanceof TypeError) throw error;
    return { kind: "failure", output: `Get "${urlOf(call)}": ${transportMessage(error, call)}` };
  }
}

function urlOf({ host, path, port, scheme }: HttpCall): string {
  return `${scheme.toLowerCase()}://${hostPort(host, port)}${path.startsWith("/") ? "" : "/"}${path}`;
}

function transportMessage(error: unknown, { host, port }: HttpCall): string {
  if (isAbort(error)) {
    return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
  }
  if (speaksNoTLS(error)) return "http: server gave HTTP response to HTTPS client";
  return dialError(error, hostPort(host, port));
}

function outcomeOf({ body, status }: HttpAnswer): ProbeOutcome {
  if (status >= 200 && status < 300) return { kind: "success" };
  if (status >= 300 && status < 400) {
    return { kind: "warning", output: `Probe terminated redirects, Response body: ${body}` };
  }
  return { kind: "failure", output: `HTTP probe failed with statuscode: ${status}` };
}

function redirectOf(answer: HttpAnswer, call: HttpCall): HttpCall | undefined {
  const { location } = answer;
  if (![301, 302, 303, 307, 308].includes(answer.status) || location === undefined) {
    return undefined;
  }
  const base = urlOf(call);
  const url = URL.canParse(location, base) ? new URL(location, base) : undefined;
  if (url === undefined) return undefined;
  const scheme = url.protocol === "https:" ? "HTTPS" : "HTTP";
  return {
    ...call,
    scheme,
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (scheme === "HTTPS" ? 443 : 80) : Number(url.port),
    path: `${url.pathname}${url.search}`,
    // A name that was asked for holds as long as the answer does not name another.
    headers: URL.canParse(location)
      ? call.headers.filter(({ name }) => name.toLowerCase() !== "host")
      : call.headers,
  };
}
