// Writes the tables of docs/configuration.md from the tables of src/config: npm run generate:docs.
import { readFile, writeFile } from "node:fs/promises";

import { kubeletShape } from "../src/config/kubelet-configuration.ts";
import { proxyShape } from "../src/config/proxy-configuration.ts";
import { flagOnlyShape, remoraShape } from "../src/config/remora-configuration.ts";
import { type Fields, type Leaf, leavesOf, type ObjectShape } from "../src/config/shape.ts";

const target = new URL("../docs/configuration.md", import.meta.url);
const marker = "<!-- tables: written by scripts/generate-config-docs.ts -->";

function code(text: string): string {
  return `\`${text.replaceAll("|", "\\|")}\``;
}

function fate({ standing, fallback }: Leaf<unknown>): string {
  if (standing.kind === "honoured") return "honoured";
  if (standing.kind === "ignored") return `no effect: ${standing.reason}`;
  const values = [...(fallback === undefined ? [] : [fallback]), ...standing.also];
  const accepted = values.filter((value) => JSON.stringify(value) !== '""');
  const only = accepted.map((value) => code(JSON.stringify(value))).join(", ");
  return `${only === "" ? "refused when it is set" : `refused unless ${only}`}: ${standing.reason}`;
}

function row(path: string, leaf: Leaf<unknown>, field: boolean): string {
  const words = leaf.type.name.includes('"') ? "word" : leaf.type.name;
  const fallback = leaf.fallback === undefined ? "-" : code(JSON.stringify(leaf.fallback));
  const flag = leaf.flag === undefined ? "" : code(`--${leaf.flag}`);
  const cells = field ? [code(path), words, fallback, flag] : [flag, words, fallback];
  return `| ${[...cells, fate(leaf), leaf.change].join(" | ")} |`;
}

function table(title: string, shape: ObjectShape<Fields>, field = true): string {
  const columns = field
    ? ["field", "type", "default", "flag", "what becomes of it", "change"]
    : ["flag", "type", "default", "what becomes of it", "change"];
  const rows = leavesOf(shape).map(([path, leaf]) => row(path, leaf, field));
  return [
    `## ${title}`,
    "",
    `| ${columns.join(" | ")} |`,
    `|${columns.map(() => "---").join("|")}|`,
    ...rows,
    "",
  ].join("\n");
}

/** The document with tables as the code has them; what stands before the marker is written by hand. */
export async function configurationDocument(): Promise<{
  readonly current: string;
  readonly wanted: string;
}> {
  const current = await readFile(target, "utf8");
  const [head = ""] = current.split(marker);
  const tables = [
    table("RemoraConfiguration (config.remora.io/v1alpha1)", remoraShape),
    table("KubeletConfiguration (kubelet.config.k8s.io/v1beta1)", kubeletShape),
    table("KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1)", proxyShape),
    table("Flags that no file can say", flagOnlyShape, false),
  ];
  return { current, wanted: `${head}${marker}\n\n${tables.join("\n")}` };
}

if (import.meta.main) await writeFile(target, (await configurationDocument()).wanted);
