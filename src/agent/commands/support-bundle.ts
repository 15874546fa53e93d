import { open } from "node:fs/promises";
import { resolve } from "node:path";

import { errorCode, SetupError } from "../../lib/errors.ts";
import { allChecks } from "../doctor/catalogue.ts";
import type { SiteFlags } from "../doctor/site.ts";
import { archive } from "../support-bundle/archive.ts";
import { collectBundle } from "../support-bundle/collect.ts";
import { sources } from "../support-bundle/sources.ts";
import { examine, thisMachine } from "./doctor.ts";

export interface SupportBundleFlags extends SiteFlags {
  /** Default: a name with node and time, here. `-`: stdout. */
  readonly output?: string;
}

async function writeNew(path: string, content: Uint8Array): Promise<void> {
  try {
    const file = await open(path, "wx", 0o600);
    try {
      await file.writeFile(content);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
    throw new SetupError(`${path} is there already: name another file with --output`);
  }
}

/**
 * `remora support-bundle`: what somebody else needs to find out what is wrong here, without secrets.
 *
 * @throws {SetupError} when the file is there already; what the system says when it cannot be written.
 */
export async function supportBundle(flags: SupportBundleFlags, signal: AbortSignal): Promise<void> {
  const machine = await thisMachine(flags, signal);
  const report = await examine(machine, allChecks, signal);
  const files = await collectBundle(sources, machine, report, signal);
  const content = await archive(files);
  if (flags.output === "-") {
    process.stdout.write(content);
    return;
  }
  const time = report.time.slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-");
  const path = resolve(flags.output ?? `remora-support-${machine.site.nodeName}-${time}.tar.gz`);
  await writeNew(path, content);
  process.stdout.write(
    `${path}: ${files.length} files, ${Math.ceil(content.length / 1024)} kB, without secrets\nlook into it before you send it: tar -xzf ${path} -O | less\n`,
  );
}
