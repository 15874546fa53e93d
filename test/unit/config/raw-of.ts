import type { Raw } from "../../../src/config/raw.ts";
import type { Json } from "../../../src/config/shape.ts";

/** What the `json` of a file is before it is decoded, all of it standing at `origin`. */
export function rawOf(json: Json, origin: Raw["origin"]): Raw {
  const raw = (value: Json): Raw => rawOf(value, origin);
  if (json === null) return { kind: "null", origin };
  if (typeof json === "string") return { kind: "scalar", style: "quoted", text: json, origin };
  if (typeof json !== "object")
    return { kind: "scalar", style: "plain", text: String(json), origin };
  if (Array.isArray(json))
    return { kind: "list", items: json.map((item: Json) => raw(item)), origin };
  const entries = new Map(Object.entries(json).map(([key, value]) => [key, raw(value)]));
  return { kind: "map", entries, origin };
}
