import { ruleTag } from "../rule-tag.ts";

/**
 * The spellings that a rule of ours may have been written in, given what a listing prints. Listings write marks with all
 * digits, leave out what follows from something else, sort sets their own way, and nft 1.0.6 drops `addr . port`.
 */
function spellings(listed: string): ReadonlySet<string> {
  const plain = listed
    .replaceAll(" | 0x", " or 0x")
    .replaceAll(" & 0x", " and 0x")
    .replaceAll(" ^ 0x", " xor 0x")
    .replaceAll(/\b0x0*([0-9a-f]+)\b/g, (_, digits: string) =>
      digits === "0" ? "0" : `0x${digits}`,
    );
  const found = new Set([listed, plain]);
  const add = (change: (text: string) => string): void => {
    for (const text of found) found.add(change(text));
  };
  add((text) => text.replace(/\bdnat (ip6?) to (?=.* map )/, "dnat $1 addr . port to "));
  add((text) => text.replace(/^(?=reject with tcp reset$)/, "meta l4proto tcp "));
  add((text) => text.replace(/^(?=dnat .*\b(tcp|udp|sctp) dport )/, "meta l4proto $1 "));
  // Networks of one address, and sets of one.
  add((text) => text.replace(/( ip saddr|^ip saddr) ([\d.]+)(?= |$)/, "$1 $2/32"));
  add((text) => text.replace(/( ip6 saddr|^ip6 saddr) ([\da-f:]+)(?= |$)/, "$1 $2/128"));
  add((text) => text.replace(/\b(ip6? daddr) ([\da-f.:]+)(?= |$)/, "$1 { $2 }"));
  add((text) =>
    text.replaceAll(/\{ ([^{}]+) \}/g, (_, items: string) => {
      return `{ ${items.split(", ").toSorted().join(", ")} }`;
    }),
  );
  return found;
}

/** Whether a listed rule is what its tag says: one that Remora wrote, unchanged. */
export function isOwnRule(listed: string, tag: string): boolean {
  return [...spellings(listed)].some((text) => ruleTag(text) === tag);
}
