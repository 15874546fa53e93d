import { readListeningSockets } from "../lib/listening-sockets.ts";
import type { Logger } from "../lib/log.ts";
import { HiddenListeners } from "./hidden-listeners.ts";
import { ProblemReport } from "./problem-report.ts";
import type { ProxyOptions } from "./proxy-options.ts";
import type { ServiceFeed } from "./service-feed.ts";

/**
 * Tells who looks at a Service what is wrong with it on this node: parts that are not served, and programs that it hides.
 *
 * @param options.addresses Of all interfaces of this machine.
 * @returns Works until the signal aborts.
 */
export function serviceWarnings(
  feed: ServiceFeed,
  options: Pick<ProxyOptions, "nodeName" | "events" | "clock" | "listeners"> & {
    readonly addresses: () => readonly string[];
    readonly externalIPs: boolean;
    readonly logger: Logger;
  },
): { run(signal: AbortSignal): Promise<void> } {
  const problems = new ProblemReport(options);
  feed.listen({
    changed: (key) => {
      problems.report(key, feed.service(key));
    },
  });
  const hidden = new HiddenListeners({
    ...options,
    feed,
    listeners: options.listeners ?? readListeningSockets,
  });
  feed.listen(hidden);
  return hidden;
}
