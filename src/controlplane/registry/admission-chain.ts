import type {
  AdmissionAttributes,
  AdmissionPlugin,
  JsonObject,
  KindDefinition,
  ObjectReader,
  ObjectRef,
  Operation,
  RequestContext,
} from "../types.ts";

/** What admission is asked about. */
export interface AdmissionRequest {
  readonly operation: Operation;
  readonly subresource: string | undefined;
  readonly at: ObjectRef;
  /** May be changed by mutating plug-ins. */
  readonly object: JsonObject | undefined;
  readonly oldObject: Readonly<JsonObject> | undefined;
  readonly context: RequestContext;
}

/** The admission plug-ins in their order: all that change, then all that judge. */
export class AdmissionChain {
  readonly #plugins: readonly AdmissionPlugin[];
  readonly #objects: ObjectReader;

  constructor(plugins: readonly AdmissionPlugin[], objects: ObjectReader) {
    this.#plugins = plugins;
    this.#objects = objects;
  }

  /** @throws {StatusError} a plug-in refuses. */
  mutate(kind: KindDefinition, request: AdmissionRequest): void {
    const attributes = this.#attributes(kind, request);
    for (const plugin of this.#plugins) plugin.mutate?.(attributes);
  }

  /** @throws {StatusError} a plug-in refuses. */
  validate(kind: KindDefinition, request: AdmissionRequest): void {
    const attributes = this.#attributes(kind, request);
    for (const plugin of this.#plugins) plugin.validate?.(attributes);
  }

  /** Both, for requests that have nothing in between. */
  admit(kind: KindDefinition, request: AdmissionRequest): void {
    this.mutate(kind, request);
    this.validate(kind, request);
  }

  #attributes(kind: KindDefinition, request: AdmissionRequest): AdmissionAttributes {
    const { operation, subresource, at, object, oldObject, context } = request;
    const { namespace, name } = at;
    const objects = this.#objects;
    return {
      operation,
      kind,
      subresource,
      namespace,
      name,
      object,
      oldObject,
      context,
      objects,
    };
  }
}
