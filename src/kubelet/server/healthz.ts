import { createServer } from "node:http";

import { HealthResults } from "../../lib/health-results.ts";
import { HttpRefusal } from "./http-refusal.ts";
import { listenUntilAborted } from "./listen.ts";

/** One thing that is looked at; its check returns what is wrong, undefined when nothing is. */
export interface HealthCheck {
  readonly name: string;
  readonly check: () => string | undefined;
}

/** Answering at all is all that is asked. */
export const ping: HealthCheck = { name: "ping", check: () => undefined };

/**
 * The answer of `/healthz` (upstream's apiserver/pkg/server/healthz): `ok`, or each check by name with `?verbose`, or
 * when one fails. `?exclude=NAME` leaves one out.
 *
 * @throws {HttpRefusal} 500 when a check fails; it does not tell why, because many may ask.
 */
export function healthzText(
  checks: readonly HealthCheck[],
  query: URLSearchParams,
  results: HealthResults,
): string {
  const excluded = new Set(query.getAll("exclude"));
  let lines = "";
  let failed = false;
  for (const { name, check } of checks) {
    if (excluded.delete(name)) {
      lines += `[+]${name} excluded: ok\n`;
      continue;
    }
    const healthy = check() === undefined;
    results.observe(name, healthy);
    failed ||= !healthy;
    lines += healthy ? `[+]${name} ok\n` : `[-]${name} failed: reason withheld\n`;
  }
  if (excluded.size > 0) {
    const names = [...excluded].toSorted().map((name) => JSON.stringify(name));
    lines += `warn: some health checks cannot be excluded: no matches for ${names.join(",")}\n`;
  }
  if (failed) throw new HttpRefusal(500, `${lines}healthz check failed\n`);
  return query.has("verbose") ? `${lines}healthz check passed\n` : "ok";
}

/** The answer of `/healthz/NAME`. @throws {HttpRefusal} 500 with the reason. */
export function checkText({ check }: HealthCheck): string {
  const trouble = check();
  if (trouble !== undefined) throw new HttpRefusal(500, `internal server error: ${trouble}\n`);
  return "ok";
}

/**
 * Plain HTTP, on loopback unless it is told otherwise, what init systems and installers wait for: whether the agent answers. Whether it is well, port
 * 10250 tells: a supervisor that restarts the agent because of what ails the container engine would help nobody.
 */
export async function runHealthzServer(
  { address = "127.0.0.1", port }: { readonly address?: string | undefined; readonly port: number },
  signal: AbortSignal,
): Promise<void> {
  // Port 0 is off.
  if (port === 0) return;
  const results = new HealthResults();
  const server = createServer((request, response) => {
    const url = URL.parse(`http://localhost${request.url ?? "/"}`);
    const head = {
      "Content-Type": "text/plain; charset=utf-8",
      "X-Content-Type-Options": "nosniff",
    };
    if (url?.pathname !== "/healthz" && url?.pathname !== "/healthz/ping") {
      response.writeHead(404, head).end("404 page not found\n");
      return;
    }
    const root = url.pathname === "/healthz";
    response.writeHead(200, head);
    response.end(root ? healthzText([ping], url.searchParams, results) : checkText(ping));
  });
  await listenUntilAborted(server, { address, port, option: "kubeletHealthzPort" }, signal);
}
