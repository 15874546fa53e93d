// Writes the findings of docs/troubleshooting.md from the checks of src/agent/doctor: npm run generate:docs.
import { readFile, writeFile } from "node:fs/promises";

import { allChecks } from "../src/agent/doctor/catalogue.ts";
import { type Check, groups } from "../src/agent/doctor/check.ts";

const target = new URL("../docs/troubleshooting.md", import.meta.url);
const marker = "<!-- findings: written by scripts/generate-troubleshooting.ts -->";

/** Of a page in docs, as seen from its neighbours. */
function link(reference: string): string {
  const page = reference.replace(/^docs\//, "");
  return page === "troubleshooting.md" ? "" : ` More: [${page}](${page}).`;
}

function section({ id, looks, problems, reference, title }: Check): string {
  const findings = Object.entries(problems).flatMap(([code, { cause, level, means, remedy }]) => [
    `#### ${code}`,
    "",
    `${means} (${level})`,
    "",
    cause,
    "",
    `Remedy: ${remedy.includes("`") ? `\`\` ${remedy} \`\`` : `\`${remedy}\``}`,
    "",
  ]);
  const about = `\`remora doctor --only ${id}\` looks at ${looks}.${link(reference)}`;
  return [`### ${title}`, "", about, "", ...findings].join("\n");
}

const headings = {
  machine: "Findings about the machine",
  Docker: "Findings about Docker",
  network: "Findings about the network",
  names: "Findings about names",
  cluster: "Findings about the cluster",
} as const satisfies Record<Check["group"], string>;

/** The document with findings as the code has them; what stands before the marker is written by hand. */
export async function troubleshootingDocument(): Promise<{
  readonly current: string;
  readonly wanted: string;
}> {
  const current = await readFile(target, "utf8");
  const [head = ""] = current.split(marker);
  const parts = groups.map((group) => {
    const sections = allChecks.filter((check) => check.group === group).map(section);
    return `## ${headings[group]}\n\n${sections.join("\n")}`;
  });
  return { current, wanted: `${head}${marker}\n\n${parts.join("\n").trimEnd()}\n` };
}

if (import.meta.main) await writeFile(target, (await troubleshootingDocument()).wanted);
