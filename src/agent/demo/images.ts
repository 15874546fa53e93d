import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { deadline } from "../../lib/clock.ts";
import { SetupError } from "../../lib/errors.ts";
import { exec, execResult } from "../../lib/exec.ts";
import type { DemoEngine } from "./engine.ts";

/** The two versions, as examples/shop.yaml and examples/shop/Dockerfile call them. */
export const versions = ["v1", "v2"] as const;
export type Version = (typeof versions)[number];

/** Name of the shop's image in a version. */
export function imageOf(version: Version): string {
  return `remora-shop:${version}`;
}

/** Fills the context's base directory by the script that the Dockerfile names. */
async function unpackBase(
  examples: string,
  context: string,
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  const script = ["sh", join(examples, "busybox.sh"), join(context, "busybox")] as const;
  const result = await execResult(script, { signal: deadline(signal, 120_000), env });
  if (result.exitCode !== 0) throw new SetupError(result.stderr.trim());
}

/**
 * Builds both versions from examples/shop, in a copy of it: the checkout may be read-only and stays as it is.
 *
 * @throws {SetupError} when the base cannot be had or a build fails.
 */
export async function buildImages(
  options: {
    readonly engine: DemoEngine;
    /** The directory of shop.yaml. */
    readonly examples: string;
    /** Of the script that fetches the base: PATH, proxies of the network. */
    readonly env: Readonly<Record<string, string>>;
  },
  signal: AbortSignal,
): Promise<void> {
  const { engine, examples, env } = options;
  const scratch = await mkdtemp(join(tmpdir(), "remora-demo-"));
  try {
    const context = join(scratch, "shop");
    await cp(join(examples, "shop"), context, {
      recursive: true,
      filter: (path) => path !== join(examples, "shop", "busybox"),
    });
    await unpackBase(examples, context, env, signal);
    // The image's user must be able to read what a strict umask kept to its owner.
    await exec(["chmod", "-R", "a+rX", context], { signal });
    const archive = join(scratch, "context.tar");
    await exec(["tar", "-C", context, "-cf", archive, "."], { signal });
    const content = await readFile(archive);
    for (const version of versions) {
      const image = { tag: imageOf(version), buildArgs: { VERSION: version } };
      await engine.build(content, image, signal);
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
