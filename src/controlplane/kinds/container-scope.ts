import type { JsonObject } from "../types.ts";

/** What the rules for one container need from its pod. */
export interface ContainerScope {
  readonly spec: Readonly<JsonObject>;
  readonly volumes: ReadonlyMap<string, Readonly<JsonObject>>;
}
