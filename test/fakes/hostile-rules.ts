import { systemClock } from "../../src/lib/clock.ts";
import type { IPFamily } from "../../src/lib/cidr.ts";
import { ParseError } from "../../src/lib/errors.ts";
import { silentLogger } from "../../src/lib/log.ts";
import type { ProxyMode } from "../../src/proxy/backend.ts";
import { FamilyRules } from "../../src/proxy/family-rules.ts";
import { IptablesBackend } from "../../src/proxy/iptables/backend.ts";
import { NftBackend } from "../../src/proxy/nftables/backend.ts";
import { parseService, parseSlice } from "../../src/proxy/parse.ts";
import { SliceIndex } from "../../src/proxy/slice-index.ts";
import { rulesContext } from "./service-samples.ts";

const node = { name: "here", zone: "a.b", ips: ["192.0.2.1", "2001:db8::1"] };

/** What has a name that cannot be used is left out, as informers do. */
function parsed<T>(values: readonly unknown[], parse: (value: unknown) => T): readonly T[] {
  return values.flatMap((value) => {
    try {
      return [parse(value)];
    } catch (error) {
      if (error instanceof ParseError) return [];
      throw error;
    }
  });
}

/** The rules that objects lead to, as text for `nft -f` or `iptables-restore`. */
export function renderedRules(
  objects: { readonly services: readonly unknown[]; readonly slices: readonly unknown[] },
  family: IPFamily,
  mode: ProxyMode,
): string {
  const context = rulesContext({
    family,
    local: { kind: "cidrs", cidrs: [family === "IPv4" ? "10.244.0.0/16" : "fd00:244::/64"] },
  });
  const shared = { context, logger: silentLogger, clock: systemClock };
  const backend =
    mode === "iptables"
      ? new IptablesBackend(shared)
      : new NftBackend({ ...shared, tableName: "remora-proxy" });
  const rules = new FamilyRules({ context, backend, logger: silentLogger });
  const index = new SliceIndex(node.name);
  for (const slice of parsed(objects.slices, parseSlice)) index.set(slice);
  for (const service of parsed(objects.services, parseService)) {
    rules.update(service.key, service, index, node);
  }
  return rules.render();
}
