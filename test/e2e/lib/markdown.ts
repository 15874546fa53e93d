import { readFile } from "node:fs/promises";

/** The blocks of a Markdown file that are marked as shell commands, in their order. */
export async function shellBlocks(file: string): Promise<readonly string[]> {
  const text = await readFile(file, "utf8");
  return [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((match) => match[1] ?? "");
}
