import { mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A directory that is gone after the test. */
export async function temporaryDirectory(t: {
  after(end: () => Promise<void>): void;
}): Promise<string> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), "remora-ledger-")));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
