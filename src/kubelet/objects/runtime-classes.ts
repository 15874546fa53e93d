import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import { parseStored } from "../../api/object.ts";
import { objectPath } from "../../api/resource.ts";
import { RUNTIME_CLASSES } from "../../api/resources.ts";
import type { RuntimeClass } from "../../api/types.gen.ts";
import { errorMessage, isAbort, RemoraError } from "../../lib/errors.ts";

/** A pod's RuntimeClass does not exist or cannot be read; the message is the kubelet's. */
export class RuntimeClassError extends RemoraError {
  readonly code = "REMORA_RUNTIME_CLASS";
  override readonly retryable = true;
}

/**
 * Resolves `spec.runtimeClassName` (node.k8s.io/v1). Classes are asked for when a sandbox is made: few pods have one,
 * so no watch is kept for them.
 */
export class RuntimeClasses {
  readonly #client: ApiClient;
  /** A class's handler never changes (it is immutable), so the last answer serves while the API server is away. */
  readonly #handlers = new Map<string, string>();

  constructor(client: ApiClient) {
    this.#client = client;
  }

  /**
   * The name of the runtime handler; empty, the engine's default, for a pod without a class.
   *
   * @throws {RuntimeClassError}, `AbortError`.
   */
  async handler(className: string | undefined, signal: AbortSignal): Promise<string> {
    if (className === undefined || className === "") return "";
    try {
      const path = objectPath(RUNTIME_CLASSES, { name: className });
      const answer = await this.#client.request({ method: "GET", path, signal });
      const { handler } = parseStored<RuntimeClass>(answer);
      this.#handlers.set(className, handler);
      return handler;
    } catch (error) {
      if (signal.aborted && isAbort(error)) throw error;
      if (isNotFound(error)) {
        this.#handlers.delete(className);
        const text = `runtimeclass.node.k8s.io "${className}" not found`;
        throw new RuntimeClassError(text, { cause: error });
      }
      const known = this.#handlers.get(className);
      if (known !== undefined) return known;
      const text = `failed to lookup RuntimeClass ${className}: ${errorMessage(error)}`;
      throw new RuntimeClassError(text, { cause: error });
    }
  }
}
