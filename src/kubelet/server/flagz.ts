import type { Exchange, RouteDeps } from "./route.ts";
import { serveZPage } from "./zpage.ts";

/** GET /flagz (KEP-4828): every flag of the command line with its value. @throws {HttpRefusal} 406 */
export async function serveFlagz({ config }: RouteDeps, exchange: Exchange): Promise<void> {
  const { flags = {} } = config;
  const sorted = Object.entries(flags).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const text = sorted.map(([name, value]) => `${name}=${value}\n`).join("");
  await serveZPage(exchange, {
    kind: "Flagz",
    text,
    members: { flags: Object.fromEntries(sorted) },
  });
}
