import type { ApiClient } from "../api/client.ts";
import { createEventRecorder, type RunningRecorder } from "../api/event-recorder.ts";
import type { AgentConfig } from "../config/types.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { RecentEvents } from "./local/recent-events.ts";

export interface RecordersOptions {
  readonly config: Pick<AgentConfig, "eventBurst" | "eventRecordQPS" | "nodeName">;
  readonly clients: { readonly node: ApiClient; readonly proxy: ApiClient };
  /** Hears all of them. */
  readonly recent: RecentEvents;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

/** The recorders of both halves; somebody else runs them. */
export function createRecorders({ clients, config, recent, ...shared }: RecordersOptions): {
  readonly events: RunningRecorder;
  readonly proxyEvents: RunningRecorder;
} {
  const { eventBurst, eventRecordQPS, nodeName: host } = config;
  return {
    events: recent.listenTo(
      createEventRecorder({
        client: clients.node,
        component: "kubelet",
        host,
        // 0 is client-go's word for its own default.
        ...(eventRecordQPS ? { qps: eventRecordQPS } : {}),
        ...(eventBurst ? { burst: eventBurst } : {}),
        ...shared,
      }),
    ),
    proxyEvents: recent.listenTo(
      createEventRecorder({ client: clients.proxy, component: "kube-proxy", host, ...shared }),
    ),
  };
}
