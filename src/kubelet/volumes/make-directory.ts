import { mkdir } from "node:fs/promises";

import { errorCode } from "../../lib/errors.ts";

/**
 * Makes a directory and those above it.
 *
 * @param mode Of those that are made.
 * @returns The first that was made; undefined when all were there.
 */
export async function makeDirectory(path: string, mode: number): Promise<string | undefined> {
  try {
    return await mkdir(path, { recursive: true, mode });
  } catch (error) {
    // Node says of a file system that is read-only that the directory does not exist: made by itself it tells the truth.
    if (errorCode(error) === "ENOENT") await mkdir(pathOf(error) ?? path, { mode });
    throw error;
  }
}

function pathOf(error: unknown): string | undefined {
  return error instanceof Error && "path" in error && typeof error.path === "string"
    ? error.path
    : undefined;
}
