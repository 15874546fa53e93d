import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { BlockList, isIP } from "node:net";

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** True for addresses that only this machine can send to. */
export function isLoopback(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && loopback.check(address, family === 4 ? "ipv4" : "ipv6");
}

/** The host of `HOST:PORT` as a browser sends it, without the brackets of IPv6; undefined when it is none. */
function hostOf(header: string): string | undefined {
  const [, v6, name] =
    /^(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9.-]{1,253}))(?::\d{1,5})?$/i.exec(header) ?? [];
  return v6 ?? name;
}

/**
 * Whether the browser believes to speak with this machine. The page of a stranger whose name suddenly resolves to 127.0.0.1
 * (DNS rebinding) is of the same origin as what it reaches here, but it cannot send another Host than its own name. The
 * port is not looked at: `ssh -L` may have another one.
 */
function isOwnHost(header: string | undefined): boolean {
  const host = hostOf(header ?? "");
  return host !== undefined && (host.toLowerCase() === "localhost" || isLoopback(host));
}

/** Why a request is not answered at all, by its headers; undefined when it is. */
export function refusal(
  request: Pick<IncomingMessage, "headers" | "method">,
): { readonly status: number; readonly message: string } | undefined {
  const { headers, method } = request;
  if (!isOwnHost(headers.host)) {
    return { status: 403, message: "open it as http://127.0.0.1 or http://localhost" };
  }
  const { origin } = headers;
  if (origin !== undefined && origin !== `http://${headers.host}`) {
    return { status: 403, message: "other origins may not read this" };
  }
  const site = headers["sec-fetch-site"];
  if (site !== undefined && site !== "same-origin" && site !== "none") {
    return { status: 403, message: "other sites may not read this" };
  }
  if (method !== "GET" && method !== "HEAD") {
    return { status: 405, message: "this page only shows" };
  }
  return undefined;
}

/** Whether the request carries the token. Takes the same time however much of it is right. */
export function hasToken(request: Pick<IncomingMessage, "headers">, token: string): boolean {
  const [, given = ""] = /^Bearer ([\w-]{1,256})$/.exec(request.headers.authorization ?? "") ?? [];
  const expected = Buffer.from(token);
  const padded = Buffer.alloc(expected.length);
  padded.write(given);
  return timingSafeEqual(padded, expected) && given.length === token.length;
}

const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  // Text becomes nodes by textContent alone; whatever else would turn a string into markup or code throws.
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

/** On every answer. */
export const safetyHeaders: Readonly<Record<string, string>> = {
  "Content-Security-Policy": policy,
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Cache-Control": "no-store",
};
