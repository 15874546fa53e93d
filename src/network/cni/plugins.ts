import { stat } from "node:fs/promises";
import { join } from "node:path";

import type { Clock } from "../../lib/clock.ts";
import { errorCode } from "../../lib/errors.ts";
import { execGroup, type GroupResult } from "../../lib/exec-group.ts";
import { isRecord, type JsonRecord } from "../../lib/guard.ts";
import { CniError } from "./errors.ts";
import { excerpt } from "./result.ts";
import { specVersions } from "./versions.ts";

/** What a plug-in is run for (specification 1.1.0, section 2). */
export type CniCommand = "ADD" | "DEL" | "CHECK" | "STATUS" | "GC" | "VERSION";

/** Milliseconds that one run of a plug-in may take. Those of ADD are the ones that Docker's CRI shims have. */
export type CniLimits = Readonly<Record<CniCommand, number>>;

export const defaultLimits: CniLimits = {
  ADD: 220_000,
  DEL: 60_000,
  CHECK: 30_000,
  STATUS: 30_000,
  GC: 60_000,
  VERSION: 10_000,
};

/** Results are a few kilobytes. */
const maxOutputBytes = 1024 * 1024;
const busyTries = 5;
const busyMs = 1000;

/** Whom a plug-in is run for; all empty for those commands that are about no pod. */
export interface CniTarget {
  readonly containerID: string;
  /** Path of the network namespace; empty when there is none any more. */
  readonly netns: string;
  readonly ifName: string;
  readonly args: readonly (readonly [string, string])[];
}

export const noTarget: CniTarget = { containerID: "", netns: "", ifName: "", args: [] };

export interface PluginsOptions {
  readonly clock: Clock;
  /** Members replace the default ones. */
  readonly limits?: Partial<CniLimits>;
}

interface Identity {
  readonly stamp: string;
  readonly versions: readonly string[];
}

/** Runs plug-ins out of directories. */
export class Plugins {
  readonly #clock: Clock;
  readonly #limits: CniLimits;
  /** Versions that a program said it speaks, as long as it is the same file. */
  readonly #versions = new Map<string, Identity>();

  constructor(options: PluginsOptions) {
    this.#clock = options.clock;
    this.#limits = { ...defaultLimits, ...options.limits };
  }

  /**
   * The program of a plug-in: the first of its name.
   *
   * @throws {CniError}
   */
  async find(type: string, directories: readonly string[]): Promise<string> {
    for (const directory of directories) {
      const file = join(directory, type);
      try {
        if ((await stat(file)).isFile()) return file;
      } catch (error) {
        if (!["ENOENT", "ENOTDIR", "EACCES"].includes(errorCode(error) ?? "")) throw error;
      }
    }
    throw new CniError(
      `failed to find plugin ${JSON.stringify(type)} in path [${directories.join(" ")}]`,
    );
  }

  /**
   * Runs a plug-in to its end and returns what it wrote to stdout.
   *
   * @throws {CniError} with its own words, or those for how it failed; `AbortError`.
   */
  async run(
    plugin: { readonly type: string; readonly directories: readonly string[] },
    command: CniCommand,
    target: CniTarget,
    stdin: JsonRecord,
    signal: AbortSignal,
  ): Promise<string> {
    const file = await this.find(plugin.type, plugin.directories);
    const env = environment(command, target, plugin.directories);
    const limitMs = this.#limits[command];
    for (let tried = 0; ; tried += 1) {
      const result = await execGroup([file], {
        stdin: JSON.stringify(stdin),
        env,
        signal,
        limitMs,
        maxOutputBytes,
        clock: this.#clock,
      });
      if (result.kind === "ended" && result.exitCode === 0) return result.stdout;
      const started = !isExecFailure(result);
      // It is being replaced just now.
      if (!started && /Text file busy/.test(result.stderr) && tried < busyTries) {
        await this.#clock.sleep(busyMs, signal);
        continue;
      }
      throw failure(file, result, limitMs);
    }
  }

  /**
   * Versions of the specification that the plug-in speaks.
   *
   * @throws {CniError}
   */
  async versions(
    type: string,
    directories: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const file = await this.find(type, directories);
    const { ino, mtimeMs, size } = await stat(file);
    const stamp = `${ino} ${mtimeMs} ${size}`;
    const known = this.#versions.get(file);
    if (known?.stamp === stamp) return known.versions;
    const versions = await this.#askVersions(type, directories, signal);
    this.#versions.set(file, { stamp, versions });
    return versions;
  }

  async #askVersions(
    type: string,
    directories: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    // Plug-ins made with old libraries want the others to be there.
    const target: CniTarget = { containerID: "dummy", netns: "dummy", ifName: "dummy", args: [] };
    let text: string;
    try {
      const stdin = { cniVersion: specVersions.at(-1) };
      text = await this.run({ type, directories }, "VERSION", target, stdin, signal);
    } catch (error) {
      // The command came with 0.2.0.
      if (error instanceof CniError && error.message.includes("unknown CNI_COMMAND: VERSION"))
        return ["0.1.0"];
      throw error;
    }
    const versions = parseVersions(text);
    if (versions === undefined) {
      throw new CniError(
        `plugin ${type} answers ${excerpt(text)} when it is asked for its versions`,
      );
    }
    return versions;
  }
}

function parseVersions(text: string): readonly string[] | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const list: unknown = isRecord(value) ? value["supportedVersions"] : undefined;
    if (!Array.isArray(list)) return undefined;
    return list.filter((each): each is string => typeof each === "string");
  } catch {
    return undefined;
  }
}

function environment(
  command: CniCommand,
  { args, containerID, ifName, netns }: CniTarget,
  directories: readonly string[],
): Readonly<Record<string, string>> {
  return {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    LC_ALL: "C",
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerID,
    CNI_NETNS: netns,
    CNI_IFNAME: ifName,
    CNI_ARGS: args.map(([name, value]) => `${name}=${value}`).join(";"),
    CNI_PATH: directories.join(":"),
  };
}

/** setpriv could not start it. */
function isExecFailure({ exitCode, stderr }: GroupResult): boolean {
  return (exitCode === 126 || exitCode === 127) && stderr.startsWith("setpriv: failed to execute");
}

function failure(file: string, result: GroupResult, limitMs: number): CniError {
  const { exitCode, kind, stderr, stdout } = result;
  const said = stderr.trim() === "" ? "" : `: ${excerpt(stderr)}`;
  if (kind === "timedOut") {
    return new CniError(`netplugin did not end within ${limitMs / 1000} s and was killed${said}`);
  }
  if (kind === "tooMuch") {
    return new CniError(`netplugin wrote more than ${maxOutputBytes} bytes and was killed${said}`);
  }
  if (isExecFailure(result)) {
    return new CniError(`${file} cannot be executed: ${stderr.trim().split(": ").at(-1)}`);
  }
  const end = exitCode === undefined ? `signal: ${result.signal}` : `exit status ${exitCode}`;
  if (stdout.trim() === "") {
    return new CniError(
      said === ""
        ? `netplugin failed with no error message: ${end}`
        : `netplugin failed${said}: ${end}`,
    );
  }
  return parseFailure(stdout, end);
}

/** What a plug-in writes to stdout when it fails (specification 1.1.0, section 5, "Error"). */
function parseFailure(stdout: string, end: string): CniError {
  let value: unknown;
  try {
    value = JSON.parse(stdout);
  } catch {
    // Told below.
  }
  const { code, details, msg } = isRecord(value) ? value : {};
  if (typeof msg !== "string") {
    return new CniError(
      `netplugin failed but error parsing its diagnostic message ${excerpt(stdout)}: ${end}`,
    );
  }
  const more = typeof details === "string" && details !== "" ? `; ${details}` : "";
  return new CniError(`${msg}${more}`, typeof code === "number" ? { cniCode: code } : {});
}
