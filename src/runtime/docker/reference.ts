import { RuntimeError } from "../errors.ts";

/** An image reference in canonical form (distribution's reference grammar). */
export type ImageReference =
  | { readonly kind: "id"; /** `sha256:<64 hex>` */ readonly id: string }
  | {
      readonly kind: "name";
      /** With domain: `docker.io/library/busybox`. */
      readonly repository: string;
      /** Undefined when a digest is given: it decides alone. */
      readonly tag: string | undefined;
      readonly digest: string | undefined;
    };

const domainPart = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const domainPattern = new RegExp(
  `^(?:${domainPart}(?:\\.${domainPart})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`,
);
const pathPattern = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^\w[\w.-]{0,127}$/;
const digestPattern = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}$/;

function invalid(text: string, why: string): RuntimeError {
  return new RuntimeError("InvalidSpec", `couldn't parse image name "${text}": ${why}`);
}

/** Whether the first component is a registry and not a part of the path. */
function isDomain(component: string): boolean {
  return (
    /[.:]/.test(component) || component === "localhost" || component !== component.toLowerCase()
  );
}

function splitTag(name: string): { readonly path: string; readonly tag: string | undefined } {
  const colon = name.lastIndexOf(":");
  // A colon before a slash is a port.
  if (colon < 0 || name.indexOf("/", colon) >= 0) return { path: name, tag: undefined };
  return { path: name.slice(0, colon), tag: name.slice(colon + 1) };
}

/**
 * Parses what a pod may say: `busybox`, `quay.io/a/b:1`, `a@sha256:...`, `a:1@sha256:...`, or an image id.
 *
 * @throws {RuntimeError} `InvalidSpec` (the kubelet's InvalidImageName).
 */
export function parseReference(text: string): ImageReference {
  if (/^(?:sha256:)?[0-9a-f]{64}$/.test(text)) {
    return { kind: "id", id: text.startsWith("sha256:") ? text : `sha256:${text}` };
  }
  const at = text.indexOf("@");
  const named = at < 0 ? text : text.slice(0, at);
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !digestPattern.test(digest)) throw invalid(text, "invalid digest");
  const { path, tag } = splitTag(named);
  if (tag !== undefined && !tagPattern.test(tag)) throw invalid(text, "invalid tag");
  return {
    kind: "name",
    repository: canonicalRepository(text, path),
    tag: digest === undefined ? (tag ?? "latest") : undefined,
    digest,
  };
}

function canonicalRepository(text: string, path: string): string {
  const components = path.split("/");
  const [first = ""] = components;
  const hasDomain = components.length > 1 && isDomain(first);
  const given = hasDomain ? first : "docker.io";
  const domain = given === "index.docker.io" ? "docker.io" : given;
  const rest = hasDomain ? components.slice(1) : components;
  if (!domainPattern.test(domain)) throw invalid(text, "invalid reference format");
  if (rest.some((component) => component !== component.toLowerCase())) {
    throw invalid(text, "repository name must be lowercase");
  }
  if (!rest.every((component) => pathPattern.test(component))) {
    throw invalid(text, "invalid reference format");
  }
  const official = domain === "docker.io" && rest.length === 1;
  const repository = [domain, ...(official ? ["library"] : []), ...rest].join("/");
  if (repository.length > 255) {
    throw invalid(text, "repository name must not be more than 255 characters");
  }
  return repository;
}

/** Canonical text: `docker.io/library/busybox:latest`, `quay.io/a@sha256:...`, `sha256:...`. */
export function formatReference(reference: ImageReference): string {
  if (reference.kind === "id") return reference.id;
  const suffix =
    reference.digest === undefined ? `:${reference.tag ?? "latest"}` : `@${reference.digest}`;
  return `${reference.repository}${suffix}`;
}

/** True when both texts name the same thing; false when one is no reference (such as `<none>:<none>`). */
export function sameReference(a: string, b: string): boolean {
  try {
    return formatReference(parseReference(a)) === formatReference(parseReference(b));
  } catch {
    return false;
  }
}
