import type { FieldError } from "../types.ts";
import { mapOf } from "./access.ts";
import { invalidAll, tooLong } from "./field-error.ts";
import { qualifiedName } from "./names.ts";

/** Total size of all annotations, in bytes. */
const annotationLimitBytes = 256 * 1024;

/** Rules for the annotations of a pod template; keys are checked in lower case. */
export function validateAnnotations(value: unknown, field: string): FieldError[] {
  const out: FieldError[] = [];
  let size = 0;
  for (const [key, member] of Object.entries(mapOf(value))) {
    out.push(...invalidAll(field, key, qualifiedName(key.toLowerCase())));
    size += Buffer.byteLength(key) + Buffer.byteLength(member);
  }
  if (size > annotationLimitBytes) out.push(tooLong(field, annotationLimitBytes));
  return out;
}
