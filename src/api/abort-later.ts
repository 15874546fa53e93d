/** Two signals of one request; `release` when it is over. */
export interface LaterAbort {
  readonly callers: AbortSignal;
  readonly later: AbortSignal;
  release(): void;
}

/**
 * A signal that aborts a turn of the event loop after `callers`. A request with a body that is given up in the turn in
 * which its HTTP/2 stream was opened ends the process (std::bad_alloc, Node 26.10).
 */
export function abortLater(callers: AbortSignal): LaterAbort {
  const controller = new AbortController();
  const onAbort = (): void => {
    setImmediate(() => controller.abort(callers.reason));
  };
  callers.addEventListener("abort", onAbort, { once: true });
  const release = (): void => callers.removeEventListener("abort", onAbort);
  return { callers, later: controller.signal, release };
}
