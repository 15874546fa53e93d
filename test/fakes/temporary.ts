import { mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Runs `work` with a directory of its own, which is gone afterwards. */
export async function inTemporary(work: (directory: string) => Promise<void>): Promise<void> {
  // Its real path: descriptors are compared with it.
  const directory = await realpath(await mkdtemp(join(tmpdir(), "remora-")));
  try {
    await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
