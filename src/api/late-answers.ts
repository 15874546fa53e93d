import { subscribe } from "node:diagnostics_channel";

/** The part of a ClientHttp2Stream that matters here. */
interface ClientStream {
  readonly sentHeaders?: unknown;
  on(event: "error", listener: () => void): unknown;
  destroy(): unknown;
}

let watching = false;

/**
 * An answer to a request that was given up a moment before: Node has forgotten the stream and makes a new one for it,
 * of which nobody knows. It would stay for as long as the connection, and what ends the connection with an error would
 * be an error event without a listener, which ends the process. So it is ended at once. Once per process.
 */
export function endLateAnswers(): void {
  if (watching) return;
  watching = true;
  subscribe("http2.client.stream.created", (message) => {
    const { stream } = message as { readonly stream: ClientStream };
    if (stream.sentHeaders !== undefined) return;
    stream.on("error", () => undefined);
    // Node is not done with it yet.
    queueMicrotask(() => stream.destroy());
  });
}
