import type { JsonObject } from "../types.ts";
import { dig, mapOf, metadataOf, record, records, text } from "./access.ts";

const seccompPod = "seccomp.security.alpha.kubernetes.io/pod";
const seccompContainer = "container.seccomp.security.alpha.kubernetes.io/";
const appArmorContainer = "container.apparmor.security.beta.kubernetes.io/";
const seccompMessage = 'non-functional in v1.27+; use the "seccompProfile" field instead';

/** Annotations that once were what a field is now. */
const replaced: Readonly<Record<string, string>> = {
  "scheduler.alpha.kubernetes.io/critical-pod":
    'non-functional in v1.16+; use the "priorityClassName" field instead',
  "security.alpha.kubernetes.io/sysctls":
    'non-functional in v1.11+; use the "sysctls" field instead',
  "security.alpha.kubernetes.io/unsafe-sysctls":
    'non-functional in v1.11+; use the "sysctls" field instead',
};

/** Whether the pod's AppArmor profile is the one that an annotation asks for. */
function sameAppArmor(profile: unknown, annotation: string): boolean {
  const { type, localhostProfile } = record(profile);
  if (annotation === "runtime/default") return type === "RuntimeDefault";
  if (annotation === "unconfined") return type === "Unconfined";
  return type === "Localhost" && annotation === `localhost/${text(localhostProfile)}`;
}

/** What the API warns of in the annotations of a valid pod template; `path` is where the template is. */
export function templateAnnotationWarnings(template: Readonly<JsonObject>, path: string): string[] {
  const annotations = mapOf(metadataOf(template)["annotations"]);
  const spec = record(template["spec"]);
  const out: string[] = [];
  const warn = (key: string, message: string): void => {
    if (Object.hasOwn(annotations, key))
      out.push(`${path}.metadata.annotations[${key}]: ${message}`);
  };
  for (const [key, message] of Object.entries(replaced)) warn(key, message);
  if (dig(spec, "securityContext", "seccompProfile") === undefined)
    warn(seccompPod, seccompMessage);
  for (const key of ["initContainers", "containers"]) {
    for (const container of records(spec[key])) {
      const name = text(container["name"]);
      const own = record(container["securityContext"]);
      if (own["seccompProfile"] === undefined) warn(seccompContainer + name, seccompMessage);
      const wanted = annotations[appArmorContainer + name] ?? "";
      const isPods = sameAppArmor(dig(spec, "securityContext", "appArmorProfile"), wanted);
      if (own["appArmorProfile"] === undefined && !isPods)
        warn(
          appArmorContainer + name,
          'deprecated since v1.30; use the "appArmorProfile" field instead',
        );
    }
  }
  return out;
}
