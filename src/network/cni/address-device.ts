import { canonicalIP, ipFamily } from "../../lib/cidr.ts";
import { ExecError } from "../../lib/errors.ts";
import { deleteLink, hostPrefix, ipBatch, type Link, listLinks } from "../links.ts";

/** Kinds of devices that hold addresses and send nothing, the better one first: not every kernel has both. */
const kinds = ["dummy", "bridge"] as const;

async function makeDevice(name: string, signal: AbortSignal): Promise<void> {
  for (const kind of kinds) {
    try {
      await ipBatch([`link add name ${name} type ${kind}`], signal);
      return;
    } catch (error) {
      const unknown =
        error instanceof ExecError && /Unknown device type|not supported/i.test(error.stderr);
      if (!unknown || kind === kinds.at(-1)) throw error;
    }
  }
}

/** Commands that give the device exactly these addresses. */
function addressCommands(
  name: string,
  wanted: readonly string[],
  found: Link | undefined,
): readonly string[] {
  const have = (found?.addresses ?? []).filter(({ ip }) => !ip.startsWith("fe80:"));
  const stale = have.filter(({ ip }) => !wanted.includes(ip));
  const missing = wanted.filter((ip) => have.every((each) => each.ip !== ip));
  return [
    ...stale.map(({ ip, prefix }) => `addr del ${ip}/${prefix} dev ${name}`),
    ...missing.map((ip) => {
      const family = ipFamily(ip) ?? "IPv4";
      return `addr replace ${ip}/${hostPrefix(family)} dev ${name}${family === "IPv6" ? " nodad" : ""}`;
    }),
    ...(found?.up === true ? [] : [`link set dev ${name} up`]),
  ];
}

/** The node answers on exactly these addresses, on a device of its own; without any there is none. */
export async function ensureAddressDevice(
  name: string,
  addresses: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const wanted = addresses.map((text) => canonicalIP(text));
  const find = async (): Promise<Link | undefined> =>
    (await listLinks(signal)).find((link) => link.name === name);
  const found = await find();
  if (wanted.length === 0) {
    if (found !== undefined) await deleteLink(name, signal);
    return;
  }
  if (found === undefined) await makeDevice(name, signal);
  const lines = addressCommands(name, wanted, found);
  if (lines.length > 0) await ipBatch(lines, signal);
}
