import { type Configuration, configurationFlags } from "./configuration.ts";
import type { Json } from "./shape.ts";

/** Objects in lists are written `key=value:effect`, taints, or `pattern=level`. */
function itemText(json: Json): string {
  if (typeof json !== "object" || json === null) return flagText(json);
  const [first = "", second = "", ...rest] = Object.values(json).map((each: Json) =>
    flagText(each),
  );
  return [`${first}=${second}`, ...rest].join(":");
}

/** As Go's flags print themselves. */
function flagText(json: Json | undefined): string {
  if (json === undefined || json === null) return "";
  if (typeof json !== "object") return String(json);
  if (Array.isArray(json)) return `[${json.map((item: Json) => itemText(item)).join(",")}]`;
  const members = Object.entries(json).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return members.map(([key, value]) => `${key}=${flagText(value)}`).join(",");
}

/** What upstream shows of a flag whose value is for nobody's eyes. */
const classified = "CLASSIFIED";

/**
 * All flags with what the command line made of them: its value, or the flag's default. What files say is not among them,
 * as with the kubelet: that is the configuration.
 */
export function flagTexts({
  settings,
}: Pick<Configuration, "settings">): Readonly<Record<string, string>> {
  const texts = [...configurationFlags()].map(([name, { kind, leaf, path }]): [string, string] => {
    const setting = settings[kind].get(path);
    const given = setting?.origin?.kind === "flag" && setting.origin.flag === name;
    if (leaf.secret) return [name, classified];
    return [name, flagText(given ? leaf.type.encode(setting.value ?? "") : leaf.fallback)];
  });
  return Object.fromEntries(texts);
}
