import { errorMessage, ExecError } from "../../lib/errors.ts";
import { exec } from "../../lib/exec.ts";
import { CgroupError, type CgroupTree } from "./cgroup-tree.ts";
import { cpuWeight, hugePageFiles } from "./files.ts";
import type { CgroupSettings } from "./settings.ts";

/** One D-Bus property as busctl takes it: name, signature, value. */
export type UnitProperty = readonly [name: string, signature: string, value: string];

const infinity = "18446744073709551615";

function number(name: string, value: number | undefined): UnitProperty {
  return [name, "t", value === undefined ? infinity : String(value)];
}

/** The settings of a slice in systemd's words. Pure. */
export function sliceProperties(settings: CgroupSettings, version: 1 | 2): readonly UnitProperty[] {
  const { cpuQuotaMicros, memoryLimitBytes, pidsLimit } = settings;
  // Quotas are per 100 ms here and per second there.
  const perSecond = cpuQuotaMicros === undefined ? undefined : cpuQuotaMicros * 10;
  return [
    version === 2
      ? number("CPUWeight", cpuWeight(settings.cpuShares))
      : number("CPUShares", settings.cpuShares),
    number("CPUQuotaPerSecUSec", perSecond),
    number(version === 2 ? "MemoryMax" : "MemoryLimit", memoryLimitBytes),
    number("TasksMax", pidsLimit),
  ];
}

const manager = [
  "org.freedesktop.systemd1",
  "/org/freedesktop/systemd1",
  "org.freedesktop.systemd1.Manager",
] as const;

type Argv = readonly [string, ...string[]];

function call(method: string, signature: string, args: readonly string[]): Argv {
  return ["busctl", "--system", "--quiet", "call", ...manager, method, signature, ...args];
}

function list(properties: readonly UnitProperty[]): readonly string[] {
  return [String(properties.length), ...properties.flat()];
}

/** Makes a slice that is not there yet. */
export function startSlice(name: string, properties: readonly UnitProperty[]): Argv {
  const all: readonly UnitProperty[] = [
    ["Description", "s", `Kubernetes pods: ${name}`],
    ["DefaultDependencies", "b", "false"],
    ...properties,
  ];
  return call("StartTransientUnit", "ssa(sv)a(sa(sv))", [name, "replace", ...list(all), "0"]);
}

/** Changes a slice that is there, until the next boot. */
export function changeSlice(name: string, properties: readonly UnitProperty[]): Argv {
  return call("SetUnitProperties", "sba(sv)", [name, "true", ...list(properties)]);
}

export function stopSlice(name: string): Argv {
  return call("StopUnit", "ss", [name, "replace"]);
}

function sliceOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

const timeoutMs = 10_000;

/**
 * The tree as systemd keeps it: what is written past it would be undone by its next reload, so slices are changed over
 * D-Bus. Huge pages are nothing it knows: those files are written.
 */
export function systemdSlices(files: CgroupTree, version: 1 | 2): CgroupTree {
  const applied = new Map<string, string>();
  const run = (argv: Argv): Promise<string> =>
    exec(argv, { signal: AbortSignal.timeout(timeoutMs) });
  async function apply(name: string, properties: readonly UnitProperty[]): Promise<void> {
    try {
      await run(startSlice(name, properties));
    } catch (error) {
      const exists = error instanceof ExecError && /already|exists/i.test(error.message);
      if (!exists) throw error;
      await run(changeSlice(name, properties));
    }
  }
  return {
    async ensure(path, settings) {
      const name = sliceOf(path);
      const properties = sliceProperties(settings, version);
      const text = properties.join(" ");
      try {
        if (applied.get(name) !== text) await apply(name, properties);
        applied.set(name, text);
      } catch (error) {
        throw new CgroupError(`systemd refused ${name}: ${errorMessage(error)}`, { cause: error });
      }
      // systemd hands no controller down that it does not know, and makes the slice after it has answered.
      await files.adjust(path, (of) => hugePageFiles(settings.hugePageLimits, of), true);
    },
    async remove(path) {
      if (path === "") return;
      const name = sliceOf(path);
      applied.delete(name);
      // A slice that systemd does not know has no unit to stop; its directories are removed all the same.
      await run(stopSlice(name)).catch(() => undefined);
      await files.remove(path);
    },
    adjust: (path, of) => files.adjust(path, of),
    memoryUsage: async (path) => files.memoryUsage?.(path),
  };
}
