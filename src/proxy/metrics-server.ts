import type { IncomingMessage, ServerResponse } from "node:http";

import { flagzPage, statuszPage, zAnswer, type ZPage } from "../api/z-page.ts";
import type { Clock } from "../lib/clock.ts";
import { errorMessage } from "../lib/errors.ts";
import { HealthResults } from "../lib/health-results.ts";
import { answerJSON, answerNotFound, answerText } from "./answers.ts";
import type { ProxyMode } from "./backend.ts";
import { factsPath, factsText } from "./explain/facts.ts";
import type { AgentFacts } from "./explain/model.ts";
import { listenUntilAborted, type ListenOptions } from "./listen.ts";

/** What the pages of the proxy's metrics port are made of. */
export interface MetricsPages {
  /** The text of `/metrics`. */
  readonly metrics: () => string | Promise<string>;
  readonly mode: () => ProxyMode;
  /** What runs, as a KubeProxyConfiguration, for `/configz`. */
  readonly configuration?: (() => unknown) | undefined;
  /** Every flag of the command line with its value, nothing secret among them, for `/flagz`. */
  readonly flags?: Readonly<Record<string, string>> | undefined;
  /** For `/statusz`, without a leading v. */
  readonly binaryVersion?: string | undefined;
  /** What rules depend on at the moment: `remora service` compares the kernel with what follows from it. */
  readonly facts?: (() => AgentFacts) | undefined;
  readonly clock: Clock;
}

type Serve = (response: ServerResponse, request: IncomingMessage, url: URL) => unknown;

const metricsType = "text/plain; version=0.0.4; charset=utf-8";
const component = "kube-proxy";

/**
 * Serves kube-proxy's pages on its metrics port until the signal aborts.
 *
 * @param at Port 0 = no server.
 * @throws {SetupError} when the port cannot be had and is not to be waited for.
 */
export async function serveMetrics(
  at: { readonly address?: string | undefined } & Pick<ListenOptions, "port" | "retry">,
  pages: MetricsPages,
  signal: AbortSignal,
): Promise<void> {
  const routes = routesOf(pages);
  await listenUntilAborted(
    {
      purpose: "proxy metrics",
      setting: "proxyMetricsPort",
      address: at.address ?? "127.0.0.1",
      port: at.port,
      retry: at.retry,
      onRequest: (request, response) => {
        void answer(routes, request, response);
      },
    },
    signal,
  );
}

async function answer(
  routes: ReadonlyMap<string, Serve>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = URL.parse(`http://localhost${request.url ?? "/"}`);
  const serve = url === null ? undefined : routes.get(url.pathname);
  if (url === null || serve === undefined) {
    answerNotFound(response);
    return;
  }
  try {
    await serve(response, request, url);
  } catch (error) {
    answerText(response, 500, `${errorMessage(error)}\n`);
  }
}

function routesOf(pages: MetricsPages): ReadonlyMap<string, Serve> {
  const { binaryVersion = "", clock, configuration, facts, flags = {}, mode } = pages;
  const startedAt = clock.now();
  const health = new HealthResults();
  const routes = new Map<string, Serve>([
    ["/metrics", async (response) => answerText(response, 200, await pages.metrics(), metricsType)],
    ["/metrics/slis", (response, request) => serveHealthResults(health, request, response)],
    ["/healthz", (response, _, { searchParams }) => serveHealthz(health, searchParams, response)],
    ["/healthz/ping", (response) => answerText(response, 200, "ok")],
    ["/proxyMode", (response) => answerText(response, 200, mode())],
    ["/flagz", (response, request) => serveZPage(flagzPage(flags), request, response)],
    [
      "/statusz",
      (response, request) => {
        const paths = [...routes.keys()].toSorted();
        const page = statuszPage({ startedAt, now: clock.now(), binaryVersion, paths });
        return serveZPage(page, request, response);
      },
    ],
  ]);
  if (configuration !== undefined) {
    routes.set("/configz", (response) => {
      const body = { "kubeproxy.config.k8s.io": configuration() };
      answerJSON(response, 200, JSON.stringify(body));
    });
  }
  if (facts !== undefined) {
    routes.set(factsPath, (response) => {
      answerJSON(response, 200, factsText(facts()));
    });
  }
  return routes;
}

/** Whether this answers is all that is checked; whether rules are late, the health port says. */
function serveHealthz(
  health: HealthResults,
  query: URLSearchParams,
  response: ServerResponse,
): void {
  const excluded = new Set(query.getAll("exclude"));
  const line = excluded.delete("ping") ? "[+]ping excluded: ok\n" : "[+]ping ok\n";
  if (!line.includes("excluded")) health.observe("ping", true);
  const unknown = [...excluded].map((name) => JSON.stringify(name)).join(",");
  const warning =
    unknown === ""
      ? ""
      : `warn: some health checks cannot be excluded: no matches for ${unknown}\n`;
  const text = query.has("verbose") ? `${line}${warning}healthz check passed\n` : "ok";
  answerText(response, 200, text);
}

function serveHealthResults(
  health: HealthResults,
  { method }: IncomingMessage,
  response: ServerResponse,
): void {
  if (method === "DELETE") {
    health.reset();
    answerText(response, 200, "metrics reset\n");
    return;
  }
  answerText(response, 200, health.text(), metricsType);
}

async function serveZPage(
  page: ZPage,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { status, headers, body } = await zAnswer(request.headers.accept ?? "", component, page);
  response.writeHead(status, {
    "X-Content-Type-Options": "nosniff",
    ...headers,
    "Content-Length": Buffer.byteLength(body),
  });
  response.end(body);
}
