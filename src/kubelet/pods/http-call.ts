import http from "node:http";
import https from "node:https";

import { errorCode, errorMessage } from "../../lib/errors.ts";

export interface HttpCall {
  readonly scheme: "HTTP" | "HTTPS";
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly headers: readonly { readonly name: string; readonly value: string }[];
  readonly userAgent: string;
  /** At most this much of the body is read. */
  readonly maxBytes: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly location: string | undefined;
  readonly body: string;
}

/** As Go's client sends them: repeated names are kept, an empty User-Agent or Accept asks for none at all. */
function headersOf(call: HttpCall): Record<string, string | string[]> {
  const out = new Map<string, { readonly name: string; readonly values: string[] }>();
  for (const { name, value } of call.headers) {
    const key = name.toLowerCase();
    const known = out.get(key);
    if (known === undefined) out.set(key, { name, values: [value] });
    // There is one name to ask for.
    else if (key !== "host") known.values.push(value);
  }
  const defaults = { "User-Agent": call.userAgent, Accept: "*/*" };
  for (const [name, value] of Object.entries(defaults)) {
    const own = out.get(name.toLowerCase());
    if (own === undefined) out.set(name.toLowerCase(), { name, values: [value] });
    else if (own.values[0] === "") out.delete(name.toLowerCase());
  }
  if (out.get("host")?.values[0] === "") out.delete("host");
  out.set("connection", { name: "Connection", values: ["close"] });
  return Object.fromEntries(
    [...out.values()].map(({ name, values }) => {
      const [only = ""] = values;
      return [name, values.length === 1 ? only : values];
    }),
  );
}

/** Whether a server that was asked by HTTPS has answered without TLS. */
export function speaksNoTLS(error: unknown): boolean {
  const code = errorCode(error) ?? "";
  if (code === "ERR_SSL_WRONG_VERSION_NUMBER") return true;
  return code === "EPROTO" && /wrong version number/.test(errorMessage(error));
}

/** What a request line may hold: the API accepts any text as a path. */
function requestPath(path: string): string {
  const [visible = ""] = path.split("#");
  const escaped = visible.replace(/[^\x21-\x7e]/gu, (character) => encodeURIComponent(character));
  return escaped.startsWith("/") ? escaped : `/${escaped}`;
}

/**
 * One GET as probes and hooks make it: fresh connection, no proxy, no verification of certificates.
 *
 * @throws a Node system error when there is no answer; `AbortError` when `signal` fires, body included.
 */
export async function httpGet(call: HttpCall, signal: AbortSignal): Promise<HttpAnswer> {
  const options = {
    host: call.host,
    port: call.port,
    path: requestPath(call.path),
    method: "GET",
    headers: headersOf(call),
    agent: false as const,
    signal,
  };
  return new Promise<HttpAnswer>((resolve, reject) => {
    const onResponse = (response: http.IncomingMessage): void => {
      const chunks: Buffer[] = [];
      let length = 0;
      const finish = (): void => {
        const body = Buffer.concat(chunks).subarray(0, call.maxBytes).toString("utf8");
        resolve({ status: response.statusCode ?? 0, location: response.headers.location, body });
      };
      response.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        length += chunk.length;
        if (length < call.maxBytes) return;
        finish();
        response.destroy();
      });
      response.on("end", finish);
      response.on("error", reject);
    };
    const request =
      call.scheme === "HTTPS"
        ? https.request({ ...options, rejectUnauthorized: false }, onResponse)
        : http.request(options, onResponse);
    request.on("error", reject);
    request.end();
  });
}
