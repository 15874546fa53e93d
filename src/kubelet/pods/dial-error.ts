import { errorCode, errorMessage } from "../../lib/errors.ts";

const texts: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connect: connection refused",
  EHOSTUNREACH: "connect: no route to host",
  ENETUNREACH: "connect: network is unreachable",
  ETIMEDOUT: "connect: connection timed out",
  EADDRNOTAVAIL: "connect: cannot assign requested address",
  ECONNRESET: "read: connection reset by peer",
  ENOTFOUND: "no such host",
};

/** `10.0.0.1:80`, `[fd00::1]:80`. */
export function hostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Why nobody answered at an address, in the words that events of probes are known for. */
export function dialError(error: unknown, address: string): string {
  const code = errorCode(error) ?? "";
  if (code === "ENOTFOUND") return `dial tcp: lookup ${address.replace(/:\d+$/, "")}: no such host`;
  // The peer closed without an answer; Node has no code of its own for it.
  if (code === "ECONNRESET" && errorMessage(error) === "socket hang up") return "EOF";
  const text = texts[code];
  if (text === undefined) return errorMessage(error);
  return text.startsWith("read") ? `read tcp ${address}: ${text}` : `dial tcp ${address}: ${text}`;
}
