import { readdir } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";

/** What is in a directory; nothing where there is none. */
export async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}
