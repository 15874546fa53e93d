import { canonicalValue } from "./values.ts";

/** Reads `1.2.3.4:80`, `[fd00::1]:80`, `1.2.3.4 . 80` or an address alone. */
export function targetOf(text: string): { readonly ip: string; readonly port: number | undefined } {
  const concatenated = text.split(" . ");
  if (concatenated.length === 2) {
    return { ip: canonicalValue(concatenated[0] ?? ""), port: Number(concatenated[1]) };
  }
  const [, v6, v4, port] = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(text) ?? [];
  if (port === undefined) return { ip: canonicalValue(text.replaceAll(/[[\]]/g, "")), port };
  return { ip: canonicalValue(v6 ?? v4 ?? ""), port: Number(port) };
}
