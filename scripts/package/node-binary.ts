import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { root } from "./bundle.ts";
import { stripElf } from "./strip-elf.ts";

/** Debian's names of the machines that are packaged for. */
export const architectures = ["amd64", "arm64"] as const;
export type Architecture = (typeof architectures)[number];

/** How Node's packages call them, and e_machine of their programs. */
const machines = {
  amd64: { npm: "x64", elfMachine: 62 },
  arm64: { npm: "arm64", elfMachine: 183 },
} as const;

/** The runtime of one architecture. */
export interface NodeRuntime {
  readonly version: string;
  /** Without symbols. */
  readonly program: Buffer;
  /** Licences of Node and of everything that it is made of. */
  readonly license: string;
}

interface LockedPackage {
  readonly version: string;
  readonly integrity: string;
}

function lockedPackage(name: string): LockedPackage {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    readonly packages: Readonly<Record<string, LockedPackage>>;
  };
  const locked = lock.packages[`node_modules/${name}`];
  if (locked === undefined) throw new Error(`package-lock.json has no ${name}`);
  return locked;
}

function runtimeIn(directory: string, { version }: LockedPackage): NodeRuntime {
  return {
    version,
    program: readFileSync(join(directory, "bin/node")),
    license: readFileSync(join(directory, "LICENSE"), "utf8"),
  };
}

/**
 * Has npm fetch a package into a directory.
 *
 * @returns the name of its archive.
 */
function packed(spec: string, directory: string): string {
  const argv = ["pack", "--silent", "--no-update-notifier", spec];
  const { status, stdout, stderr, error } = spawnSync("npm", argv, {
    cwd: directory,
    encoding: "utf8",
  });
  if (status === 0) return stdout.trim();
  const why = error?.message ?? stderr.trim().split("\n").at(-1) ?? "";
  throw new Error(
    `npm could not fetch Node.js for these machines, ${spec}: ${why || `exit code ${status}`}`,
  );
}

/** Fetches a package that npm does not install here, because it is for other machines. */
function fetched(name: string, locked: LockedPackage): NodeRuntime {
  const scratch = mkdtempSync(join(tmpdir(), "remora-node-"));
  try {
    const options = { cwd: scratch, stdio: "pipe" } as const;
    const spec = `${name}@${locked.version}`;
    const archive = join(scratch, packed(spec, scratch));
    const digest = createHash("sha512").update(readFileSync(archive)).digest("base64");
    if (`sha512-${digest}` !== locked.integrity) {
      throw new Error(`what came for ${spec} is not what package-lock.json names`);
    }
    execFileSync("tar", ["-xzf", archive, "package/bin/node", "package/LICENSE"], options);
    return runtimeIn(join(scratch, "package"), locked);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** @throws {Error} when a program is for other machines than those of `architecture`. */
export function checkMachine(program: Buffer, architecture: Architecture): void {
  const machine = program.readUInt16LE(0x12);
  if (machine !== machines[architecture].elfMachine) {
    throw new Error(`this Node is no program for ${architecture} (its ELF machine is ${machine})`);
  }
}

function isInstalled(directory: string, { version }: LockedPackage): boolean {
  if (!existsSync(join(directory, "bin/node"))) return false;
  const installed = JSON.parse(
    readFileSync(join(directory, "package.json"), "utf8"),
  ) as LockedPackage;
  return installed.version === version;
}

/**
 * The Node that package-lock.json pins, from node_modules or else from npm's registry.
 *
 * @throws {Error} when it cannot be had, or is not the one that is pinned.
 */
export function nodeRuntime(architecture: Architecture): NodeRuntime {
  const name = `node-linux-${machines[architecture].npm}`;
  const locked = lockedPackage(name);
  const directory = join(root, "node_modules", name);
  const runtime = isInstalled(directory, locked)
    ? runtimeIn(directory, locked)
    : fetched(name, locked);
  checkMachine(runtime.program, architecture);
  return { ...runtime, program: stripElf(runtime.program) };
}
