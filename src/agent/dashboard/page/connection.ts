import { Lines, retryMs } from "./model/lines.ts";
import type { FeedMessage } from "./model/messages.ts";
import type { Connection } from "./model/state.ts";

const storageKey = "remora-token";
/** The server says something every ten seconds. */
const silenceMs = 30_000;

/**
 * The token of the address (`#TOKEN`), which leaves the address at once: it is for this tab alone and survives a reload. No
 * cookie: browsers send those to every port of a host, and any user of the machine may listen on one.
 */
export function takeToken(): string | undefined {
  const given = location.hash.slice(1);
  if (/^[\w-]{20,}$/.test(given)) {
    sessionStorage.setItem(storageKey, given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(storageKey) ?? undefined;
}

export interface Listener {
  onMessage(message: FeedMessage): void;
  onConnection(connection: Connection): void;
}

/** Reads the feed as long as the page is there; comes back by itself after each loss. */
export async function follow(token: string, listener: Listener): Promise<void> {
  let failures = 0;
  for (;;) {
    listener.onConnection({ state: "connecting" });
    try {
      const refused = await read(token, listener, () => (failures = 0));
      if (refused !== undefined) {
        listener.onConnection({ state: "refused", why: refused });
        return;
      }
    } catch {
      // Whatever it was: the next try tells.
    }
    failures += 1;
    const ms = retryMs(failures, Math.random());
    listener.onConnection({ state: "closed", retryAt: Date.now() + ms });
    await pause(ms);
  }
}

/** Waits, but not for longer than it takes somebody to look at the page or the network to come back. */
async function pause(ms: number): Promise<void> {
  const over = Promise.withResolvers<void>();
  const done = new AbortController();
  const wake = (): void => {
    if (!document.hidden) over.resolve();
  };
  const timer = setTimeout(over.resolve, ms);
  document.addEventListener("visibilitychange", wake, { signal: done.signal });
  addEventListener("online", wake, { signal: done.signal });
  await over.promise;
  clearTimeout(timer);
  done.abort();
}

/** One connection; returns why another one would be in vain, or undefined. */
async function read(
  token: string,
  listener: Listener,
  onSuccess: () => void,
): Promise<string | undefined> {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), silenceMs);
  try {
    const response = await fetch("v1/feed", {
      headers: { authorization: `Bearer ${token}` },
      cache: "no-store",
      credentials: "omit",
      signal: silent.signal,
    });
    if (response.status === 401) {
      return "This page belongs to an earlier start of remora dashboard. Open the address that it prints now.";
    }
    if (!response.ok || response.body === null) return undefined;
    const lines = new Lines();
    const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await pieces.read();
      if (done) return undefined;
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), silenceMs);
      for (const line of lines.push(value)) {
        listener.onMessage(JSON.parse(line) as FeedMessage);
        listener.onConnection({ state: "open" });
        onSuccess();
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
