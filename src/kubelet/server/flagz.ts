import { flagzPage } from "../../api/z-page.ts";
import type { Exchange, RouteDeps } from "./route.ts";
import { serveZPage } from "./zpage.ts";

/** GET /flagz (KEP-4828). @throws {HttpRefusal} 406 */
export async function serveFlagz({ config }: RouteDeps, exchange: Exchange): Promise<void> {
  await serveZPage(exchange, flagzPage(config.flags ?? {}));
}
