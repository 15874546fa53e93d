import type { Container, EnvVar, FileKeySelector, Pod } from "../../api/types.gen.ts";
import { RemoraError } from "../../lib/errors.ts";
import { type EnvFileLookup, lookUpInEnvFile } from "./env-file.ts";
import { expandReferences } from "./expand.ts";
import { fieldValue, type PodAddresses, resourceFieldValue } from "./field-values.ts";
import type { Resources } from "./quantities.ts";

/** A container cannot be configured: `CreateContainerConfigError`, retried. */
export class ContainerConfigError extends RemoraError {
  readonly code = "REMORA_CONTAINER_CONFIG";
  override readonly retryable = true;
}

/** The data of a referenced object, as text. Undefined values are missing objects. */
export interface ReferencedData {
  readonly configMap: (name: string) => Readonly<Record<string, string>> | undefined;
  readonly secret: (name: string) => Readonly<Record<string, string>> | undefined;
}

/** A file in a volume that variables come from, as far as it could be read. */
export type EnvFile =
  | { readonly kind: "text"; readonly path: string; readonly text: string }
  | { readonly kind: "missing"; readonly path: string }
  | { readonly kind: "noVolume" }
  | { readonly kind: "unreadable"; readonly path: string; readonly problem: string };

export interface EnvSource extends ReferencedData {
  /** Files that {@link environmentFiles} named. */
  readonly file?: (volumeName: string, path: string) => EnvFile | undefined;
  readonly services: ReadonlyMap<string, string>;
  readonly addresses: PodAddresses;
  readonly allocatable: Resources;
}

/** Names of the ConfigMaps and Secrets a container's environment reads. */
export function environmentReferences(container: Container): {
  readonly configMaps: readonly string[];
  readonly secrets: readonly string[];
} {
  const configMaps = new Set<string>();
  const secrets = new Set<string>();
  for (const source of container.envFrom ?? []) {
    if (source.configMapRef?.name !== undefined) configMaps.add(source.configMapRef.name);
    if (source.secretRef?.name !== undefined) secrets.add(source.secretRef.name);
  }
  for (const { valueFrom } of container.env ?? []) {
    if (valueFrom?.configMapKeyRef?.name !== undefined) {
      configMaps.add(valueFrom.configMapKeyRef.name);
    }
    if (valueFrom?.secretKeyRef?.name !== undefined) secrets.add(valueFrom.secretKeyRef.name);
  }
  return { configMaps: [...configMaps], secrets: [...secrets] };
}

/** Files in volumes that a container's environment reads (KEP-3721). */
export function environmentFiles(
  container: Container,
): readonly { readonly volumeName: string; readonly path: string }[] {
  return (container.env ?? []).flatMap(({ value = "", valueFrom }) =>
    value === "" && valueFrom?.fileKeyRef !== undefined ? [valueFrom.fileKeyRef] : [],
  );
}

function addEnvFrom(container: Container, source: EnvSource, out: Map<string, string>): void {
  for (const { configMapRef, secretRef, prefix = "" } of container.envFrom ?? []) {
    const reference = configMapRef ?? secretRef;
    if (reference === undefined) continue;
    const name = reference.name ?? "";
    const kind = configMapRef === undefined ? "secret" : "configmap";
    const data = configMapRef === undefined ? source.secret(name) : source.configMap(name);
    if (data === undefined) {
      if (reference.optional === true) continue;
      throw new ContainerConfigError(`${kind} "${name}" not found`);
    }
    for (const [key, value] of Object.entries(data)) out.set(prefix + key, value);
  }
}

function keyValue(pod: Pod, variable: EnvVar, source: EnvSource): string | undefined {
  const { configMapKeyRef, secretKeyRef } = variable.valueFrom ?? {};
  const selector = configMapKeyRef ?? secretKeyRef;
  if (selector === undefined) return undefined;
  const name = selector.name ?? "";
  const ofConfigMap = configMapKeyRef !== undefined;
  const data = ofConfigMap ? source.configMap(name) : source.secret(name);
  const value = data?.[selector.key];
  if (value !== undefined || selector.optional === true) return value;
  if (data === undefined) {
    throw new ContainerConfigError(`${ofConfigMap ? "configmap" : "secret"} "${name}" not found`);
  }
  const kind = ofConfigMap ? "ConfigMap" : "Secret";
  throw new ContainerConfigError(
    `couldn't find key ${selector.key} in ${kind} ${pod.metadata?.namespace ?? ""}/${name}`,
  );
}

function lookUp(file: EnvFile | undefined, key: string): EnvFileLookup {
  if (file?.kind === "text") return lookUpInEnvFile(file.text, key);
  if (file?.kind === "unreadable") return { kind: "malformed", line: 0, problem: file.problem };
  return { kind: "missing" };
}

function fileValue(reference: FileKeySelector, source: EnvSource): string | undefined {
  const { key, optional, path, volumeName } = reference;
  const file = source.file?.(volumeName, path);
  if (file?.kind === "noVolume") {
    throw new ContainerConfigError(
      `cannot find the volume "${volumeName}" referenced by FileKeyRef`,
    );
  }
  const result = lookUp(file, key);
  if (result.kind === "found") return result.value;
  if (result.kind === "malformed") {
    // The message is everybody's who may read the pod; what stands in the file is not.
    const cause = new Error(`${path}, line ${result.line}: ${result.problem}`);
    throw new ContainerConfigError("couldn't parse env file", { cause });
  }
  if (optional === true) return undefined;
  if (file?.kind === "missing") throw new ContainerConfigError("couldn't parse env file");
  throw new ContainerConfigError(
    `environment variable key "${key}" not found in file "${file?.path ?? path}"`,
  );
}

function referencedValue(
  pod: Pod,
  container: Container,
  variable: EnvVar,
  source: EnvSource,
): string | undefined {
  const from = variable.valueFrom;
  if (from?.fieldRef !== undefined) {
    return fieldValue(pod, from.fieldRef.fieldPath, source.addresses);
  }
  if (from?.resourceFieldRef !== undefined) {
    return resourceFieldValue(pod, container, from.resourceFieldRef, source.allocatable);
  }
  if (from?.fileKeyRef !== undefined) return fileValue(from.fileKeyRef, source);
  return keyValue(pod, variable, source);
}

/**
 * The container's environment: envFrom, then env in order (each may refer to what came before and to Services), then
 * Service variables whose names are still free.
 *
 * @throws {ContainerConfigError} when a required object or key is missing.
 */
export function containerEnvironment(
  pod: Pod,
  container: Container,
  source: EnvSource,
): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  addEnvFrom(container, source, out);
  const known = new Map<string, string>(out);
  const lookup = (name: string): string | undefined => known.get(name) ?? source.services.get(name);
  for (const variable of container.env ?? []) {
    const value =
      variable.valueFrom === undefined || (variable.value ?? "") !== ""
        ? expandReferences(variable.value ?? "", lookup)
        : referencedValue(pod, container, variable, source);
    if (value === undefined) continue;
    out.set(variable.name, value);
    known.set(variable.name, value);
  }
  for (const [name, value] of source.services) if (!out.has(name)) out.set(name, value);
  return out;
}
