import { execFileSync } from "node:child_process";
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { root } from "./machine.ts";

/** Why a commit cannot be had here, such as in a checkout without its history; undefined when it can. */
export function cannotHave(commit: string): string | undefined {
  try {
    execFileSync("git", ["-C", root, "cat-file", "-e", `${commit}^{commit}`], { stdio: "ignore" });
    return undefined;
  } catch {
    return `needs commit ${commit} of the project's history`;
  }
}

/** The program as it was at a commit, on the packages of today. */
export class EarlierVersion implements AsyncDisposable {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async at(commit: string): Promise<EarlierVersion> {
    const version = new EarlierVersion(await mkdtemp(join(tmpdir(), "remora-earlier-")));
    try {
      const script = 'git -C "$0" archive "$1" src package.json | tar -x -C "$2"';
      execFileSync("sh", ["-ec", script, root, commit, version.#directory], { stdio: "pipe" });
      await symlink(join(root, "node_modules"), join(version.#directory, "node_modules"));
      return version;
    } catch (error) {
      await version[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Without its launcher, which would install the packages of its own time. */
  get argv(): readonly [string, string] {
    return [join(root, "bin/node"), join(this.#directory, "src/agent/main.ts")];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }
}
