import { HttpRefusal } from "./http-refusal.ts";
import type { Exchange, RouteDeps } from "./route.ts";

/** `/stats/summary[?only_cpu_and_memory=true]`. @throws {HttpRefusal} when this agent measures nothing. */
export async function serveStatsSummary(
  { stats }: RouteDeps,
  { response, url }: Exchange,
  signal: AbortSignal,
): Promise<void> {
  if (stats === undefined) throw new HttpRefusal(501, "resource usage is not measured\n");
  const asked = url.searchParams.getAll("only_cpu_and_memory");
  const summary = await stats.summary(asked.length === 1 && asked[0] === "true", signal);
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify(summary));
}
