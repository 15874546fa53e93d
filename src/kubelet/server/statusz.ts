import { statuszPage } from "../../api/z-page.ts";
import type { Exchange, RouteDeps } from "./route.ts";
import { serveZPage } from "./zpage.ts";

/**
 * GET /statusz (KEP-4827).
 *
 * @param paths Pages that there are.
 * @throws {HttpRefusal} 406
 */
export async function serveStatusz(
  { clock, node, startedAt }: RouteDeps,
  exchange: Exchange,
  paths: readonly string[],
): Promise<void> {
  const kubeletVersion = node.node()?.status?.nodeInfo?.kubeletVersion ?? "";
  const binaryVersion = kubeletVersion.replace(/^v/, "");
  await serveZPage(exchange, statuszPage({ startedAt, now: clock.now(), binaryVersion, paths }));
}
