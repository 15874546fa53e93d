import { deadline } from "../../lib/clock.ts";
import { errorCode, errorMessage } from "../../lib/errors.ts";
import { factsPath, parseFacts } from "../../proxy/explain/facts.ts";
import type { AgentFacts } from "../../proxy/explain/model.ts";

const askMs = 2000;

/** What the agent of this machine says its Service rules depend on, or why it says nothing. */
export async function askAgent(
  at: string,
  signal: AbortSignal,
): Promise<{ readonly facts: AgentFacts } | { readonly facts: undefined; readonly why: string }> {
  try {
    const response = await fetch(`http://${at}${factsPath}`, { signal: deadline(signal, askMs) });
    if (!response.ok) {
      return { facts: undefined, why: `what answers on ${at} is no remora (${response.status})` };
    }
    return { facts: parseFacts(await response.json()) };
  } catch (error) {
    signal.throwIfAborted();
    const cause = error instanceof Error ? error.cause : undefined;
    const refused = errorCode(cause) === "ECONNREFUSED";
    const why = refused
      ? `no agent answers on ${at} (proxyMetricsPort)`
      : `asking ${at} failed: ${errorMessage(cause ?? error)}`;
    return { facts: undefined, why };
  }
}
