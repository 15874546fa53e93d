import type { Exchange, RouteDeps } from "./route.ts";
import { serveZPage } from "./zpage.ts";

/**
 * GET /statusz (KEP-4827): since when the agent runs, and as what.
 *
 * @param paths Pages that there are, for the reader to go on with.
 * @throws {HttpRefusal} 406
 */
export async function serveStatusz(
  { clock, node, startedAt }: RouteDeps,
  exchange: Exchange,
  paths: readonly string[],
): Promise<void> {
  const kubeletVersion = node.node()?.status?.nodeInfo?.kubeletVersion ?? "";
  const members = {
    startTime: new Date(startedAt).toISOString().replace(/\.\d+Z$/, "Z"),
    uptimeSeconds: Math.max(0, Math.floor((clock.now() - startedAt) / 1000)),
    binaryVersion: kubeletVersion.replace(/^v/, ""),
    paths,
  };
  await serveZPage(exchange, { kind: "Statusz", text: statusText(members), members });
}

function statusText(status: {
  readonly startTime: string;
  readonly uptimeSeconds: number;
  readonly binaryVersion: string;
  readonly paths: readonly string[];
}): string {
  const { binaryVersion, paths, startTime, uptimeSeconds } = status;
  const two = (value: number): string => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(uptimeSeconds / 3600), Math.floor(uptimeSeconds / 60) % 60];
  return `
Started: ${startTime}
Up: ${hours} hr ${two(minutes)} min ${two(uptimeSeconds % 60)} sec
Binary version: ${binaryVersion}
Paths: ${paths.join(" ")}
`;
}
