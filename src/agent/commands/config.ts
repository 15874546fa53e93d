import { stringify } from "yaml";

import type { ConfigurationSources } from "../../config/configuration.ts";
import { defaultDocuments, explainJSON, explainText } from "../../config/explain.ts";
import { type ConfigurationUse, judgedConfiguration, upNetworks } from "../node-configuration.ts";

export interface ConfigCheckFlags {
  readonly output: "text" | "json";
  readonly for: ConfigurationUse;
  readonly serviceCidr: readonly string[];
  readonly all?: boolean;
  readonly strict?: boolean;
}

/**
 * `remora config check`: every value that counts with where it comes from, what is wrong and what has no effect.
 *
 * @returns The exit code: 1 when the agent would not start; with `--strict` also when something has no effect.
 */
export async function checkConfig(
  flags: ConfigCheckFlags,
  sources: ConfigurationSources,
): Promise<0 | 1> {
  const configuration = await judgedConfiguration(sources, flags.for, {
    ...upNetworks,
    serviceCIDRs: flags.serviceCidr,
  });
  const text =
    flags.output === "json"
      ? JSON.stringify(explainJSON(configuration), undefined, 2)
      : explainText(configuration, flags.all === true).join("\n");
  process.stdout.write(`${text}\n`);
  const bad = configuration.remarks.some(
    ({ severity }) => flags.strict === true || severity === "error",
  );
  return bad ? 1 : 0;
}

/** `remora config print-defaults`: the three documents with all their defaults. */
export function printDefaults(): void {
  process.stdout.write(
    defaultDocuments()
      .map((document) => stringify(document))
      .join("---\n"),
  );
}
