// Asks the name server ADDRESS for NAME's addresses of both families and prints them, one in a line.
import { Resolver } from "node:dns/promises";

const [address = "", name = ""] = process.argv.slice(2);
const resolver = new Resolver({ timeout: 2000, tries: 3 });
resolver.setServers([address.includes(":") ? `[${address}]` : address]);
/** None of one family is an answer, too. */
const none = (error: NodeJS.ErrnoException): string[] => {
  if (error.code === "ENODATA") return [];
  throw error;
};
const found = await Promise.all([
  resolver.resolve4(name).catch(none),
  resolver.resolve6(name).catch(none),
]);
process.stdout.write(`${found.flat().join("\n")}\n`);
