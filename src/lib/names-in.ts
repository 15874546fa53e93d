import { readdir } from "node:fs/promises";

import { errorCode } from "./errors.ts";

/** What is in a directory; nothing where there is none, or no directory. */
export async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) return [];
    throw error;
  }
}
