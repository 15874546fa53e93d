import { promisify } from "node:util";
import { constants, gzip } from "node:zlib";

import { HttpRefusal } from "./http-refusal.ts";
import type { Exchange, RouteDeps } from "./route.ts";

const compress = promisify(gzip);
/** Below this the packets saved are not worth it. */
const worthCompressing = 32 * 1024;

/** Whether the client takes gzip: the name without `;q=0` behind it. */
function takesGzip(accept: string | undefined): boolean {
  return /(?:^|,)\s*gzip\s*(?:$|,|;(?!\s*q=0(?:\.0*)?\s*(?:$|,)))/i.test(accept ?? "");
}

async function send({ request, response }: Exchange, text: string): Promise<void> {
  const headers = {
    "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
    Vary: "Accept-Encoding",
  };
  const accept = request.headers["accept-encoding"];
  const encoding = Array.isArray(accept) ? accept.join(",") : accept;
  if (text.length < worthCompressing || !takesGzip(encoding)) {
    response.writeHead(200, headers);
    response.end(text);
    return;
  }
  const body = await compress(text, { level: constants.Z_BEST_SPEED });
  response.writeHead(200, { ...headers, "Content-Encoding": "gzip" });
  response.end(body);
}

function required<T>(part: T | undefined): T {
  if (part === undefined) throw new HttpRefusal(501, "this is not measured\n");
  return part;
}

/** `/metrics/resource`. */
export async function serveResourceMetrics(deps: RouteDeps, exchange: Exchange): Promise<void> {
  await send(exchange, await required(deps.stats).resource());
}

/** `/metrics/cadvisor`. */
export async function serveCadvisorMetrics(
  deps: RouteDeps,
  exchange: Exchange,
  signal: AbortSignal,
): Promise<void> {
  await send(exchange, await required(deps.stats).cadvisor(signal));
}

/** `/metrics`: what the agent counts of its own work, then what others add. */
export async function serveMetrics(deps: RouteDeps, exchange: Exchange): Promise<void> {
  await send(exchange, `${deps.figures?.kubelet() ?? ""}${deps.metrics?.() ?? ""}`);
}

/** `/metrics/probes`. */
export async function serveProbeMetrics(deps: RouteDeps, exchange: Exchange): Promise<void> {
  await send(exchange, required(deps.figures).probes());
}
