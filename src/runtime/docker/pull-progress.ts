import { isRecord, optionalNumber, optionalString } from "../../lib/guard.ts";
import type { PullProgress } from "../types.ts";

interface Layer {
  bytes: number;
  /** Undefined while the registry has not said it. */
  total: number | undefined;
  /** All of it is here. */
  here: boolean;
}

/** More layers than an image can have (127): whatever names more is no layer. */
const maxLayers = 1024;

/**
 * The running sum of a pull, out of the lines that the engine tells of each layer. Layers that were here before do not
 * count.
 */
export class PullSum {
  readonly #layers = new Map<string, Layer>();
  #unpacking = false;

  /** Takes in one line of the pull stream, as parsed. */
  note(line: unknown): void {
    if (!isRecord(line)) return;
    const id = optionalString(line["id"]);
    const status = optionalString(line["status"]) ?? "";
    if (id === undefined) return;
    switch (status) {
      case "Pulling fs layer":
      case "Waiting":
        this.#layer(id);
        return;
      case "Downloading":
        this.#downloading(id, line["progressDetail"]);
        return;
      case "Verifying Checksum":
      case "Download complete":
        this.#complete(id);
        return;
      case "Extracting":
      case "Pull complete":
        this.#unpacking = true;
        this.#complete(id);
        return;
      case "Already exists":
        this.#layers.delete(id);
        return;
      default:
    }
  }

  /** Undefined before a layer was named. */
  get progress(): PullProgress | undefined {
    const layers = [...this.#layers.values()];
    if (layers.length === 0) return undefined;
    const sum = (of: (layer: Layer) => number): number =>
      layers.reduce((total, layer) => total + of(layer), 0);
    const doneBytes = sum(({ bytes }) => bytes);
    const isKnown = layers.every(({ here, total }) => here || total !== undefined);
    return {
      doneBytes,
      totalBytes: isKnown
        ? Math.max(
            sum(({ bytes, total }) => total ?? bytes),
            doneBytes,
          )
        : undefined,
      unpacking: this.#unpacking && layers.every(({ here }) => here),
    };
  }

  #layer(id: string): Layer | undefined {
    let layer = this.#layers.get(id);
    if (layer === undefined && this.#layers.size < maxLayers) {
      layer = { bytes: 0, total: undefined, here: false };
      this.#layers.set(id, layer);
    }
    return layer;
  }

  #downloading(id: string, detail: unknown): void {
    const layer = this.#layer(id);
    if (layer === undefined || !isRecord(detail)) return;
    const total = optionalNumber(detail["total"]) ?? 0;
    // A layer of which nobody knows the size is told with 0 or -1.
    if (total > 0) layer.total = total;
    layer.bytes = Math.max(optionalNumber(detail["current"]) ?? 0, 0);
    // It was broken, and begins anew.
    layer.here = false;
  }

  #complete(id: string): void {
    const layer = this.#layers.get(id);
    if (layer === undefined) return;
    layer.here = true;
    if (layer.total !== undefined) layer.bytes = layer.total;
  }
}
