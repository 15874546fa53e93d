import type { FieldError, JsonObject } from "../types.ts";
import { int } from "./access.ts";
import { invalidValue } from "./field-error.ts";

const fileModeMessage = "must be a number between 0 and 0777 (octal), both inclusive";

/** A file mode member such as `defaultMode`. */
export function fileMode(owner: Readonly<JsonObject>, key: string, field: string): FieldError[] {
  const mode = int(owner[key]);
  return mode !== undefined && (mode < 0 || mode > 0o777)
    ? [invalidValue(`${field}.${key}`, mode, fileModeMessage)]
    : [];
}

/** `..` as a path element is refused. */
export function noBacksteps(path: string, field: string): FieldError[] {
  return path.split("/").includes("..") ? [invalidValue(field, path, "must not contain '..'")] : [];
}

/** A relative path that stays below its root. */
export function descendingPath(path: string, field: string): FieldError[] {
  return [
    ...(path.startsWith("/") ? [invalidValue(field, path, "must be a relative path")] : []),
    ...noBacksteps(path, field),
  ];
}

/** Like {@link descendingPath}, and names that start with two dots are reserved. */
export function localPath(path: string, field: string): FieldError[] {
  const reserved = path.startsWith("..") && !path.startsWith("../");
  return [
    ...descendingPath(path, field),
    ...(reserved ? [invalidValue(field, path, "must not start with '..'")] : []),
  ];
}
