import http from "node:http";
import https from "node:https";

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

function headersOf(call: HttpCall): Record<string, string | string[]> {
  const out: Record<string, string | string[]> = {
    "User-Agent": call.userAgent,
    Accept: "*/*",
    Connection: "close",
  };
  for (const { name, value } of call.headers) {
    const key =
      Object.keys(out).find((known) => known.toLowerCase() === name.toLowerCase()) ?? name;
    // An empty Accept asks for none at all.
    if (key === "Accept" && value === "") delete out[key];
    else out[key] = value;
  }
  return out;
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
    path: call.path === "" || !call.path.startsWith("/") ? `/${call.path}` : call.path,
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
