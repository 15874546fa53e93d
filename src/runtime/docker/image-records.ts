import {
  asRecord,
  asString,
  isRecord,
  type JsonRecord,
  optionalNumber,
  optionalString,
} from "../../lib/guard.ts";
import type { Image } from "../types.ts";
import { type ImageReference, formatReference, sameReference } from "./reference.ts";

/** Real references of a list that may be null, empty or hold the marker of untagged images. */
function references(value: unknown): string[] {
  if (!Array.isArray(value)) return [];
  return value.filter(
    (entry): entry is string => typeof entry === "string" && !entry.includes("<none>"),
  );
}

/** The user part of an image's USER: a number, a name, or neither for root. */
export function parseImageUser(text: string): Image["user"] {
  const [user = ""] = text.split(":");
  if (user === "") return {};
  return /^\d+$/.test(user) ? { uid: Number(user) } : { name: user };
}

/** @throws {ParseError} unless it is what `GET /images/{name}/json` answers. */
export function parseImage(value: unknown): Image {
  const entry = asRecord(value, "image");
  const config = isRecord(entry["Config"]) ? entry["Config"] : {};
  const stopSignal = optionalString(config["StopSignal"]);
  return {
    id: asString(entry["Id"], "image.Id"),
    tags: references(entry["RepoTags"]),
    digests: references(entry["RepoDigests"]),
    sizeBytes: optionalNumber(entry["Size"]) ?? 0,
    user: parseImageUser(optionalString(config["User"]) ?? ""),
    stopSignal: stopSignal === "" ? undefined : stopSignal,
  };
}

/**
 * Whether an inspected image really is the one asked for: the engine also takes a short name of hex digits as the
 * beginning of an image id.
 */
export function isImageOf(image: Image, reference: ImageReference): boolean {
  if (reference.kind === "id") return image.id === reference.id;
  const wanted = formatReference(reference);
  return [...image.tags, ...image.digests].some((name) => sameReference(name, wanted));
}

/** One line of the engine's pull stream. */
export type PullLine =
  | { readonly kind: "progress"; readonly line: JsonRecord }
  /** Says something, but no byte moved: waiting, retrying. */
  | { readonly kind: "idle"; readonly line?: JsonRecord }
  | { readonly kind: "error"; readonly message: string };

/** Never throws: a line that is no JSON is idle talk. */
export function parsePullLine(line: string): PullLine {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { kind: "idle" };
  }
  if (!isRecord(value)) return { kind: "idle" };
  const detail = value["errorDetail"];
  const message =
    (isRecord(detail) ? optionalString(detail["message"]) : undefined) ??
    optionalString(value["error"]);
  if (message !== undefined) return { kind: "error", message };
  const status = optionalString(value["status"]) ?? "";
  const kind = /^(Waiting|Retrying)/.test(status) ? "idle" : "progress";
  return { kind, line: value };
}

/** Who is to blame for a failed pull. */
export type PullProblem = "notFound" | "auth" | "network" | "registry";

/** The class of a pull error's text. */
export function classifyPullError(message: string): PullProblem {
  if (
    /manifest unknown|manifest for .* not found|name unknown|not found: does not exist|repository .* not found|no matching manifest|failed to resolve reference .*: not found/i.test(
      message,
    )
  ) {
    return "notFound";
  }
  if (
    /unauthorized|authentication required|pull access denied|denied: |no basic auth|forbidden/i.test(
      message,
    )
  ) {
    return "auth";
  }
  if (
    /dial tcp|no such host|i\/o timeout|connection refused|connection reset|network is unreachable|TLS handshake|x509|server misbehaving|Client\.Timeout|no route to host|EOF|lookup /i.test(
      message,
    )
  ) {
    return "network";
  }
  return "registry";
}
