import { dirname } from "node:path";

import { amounts } from "../../api/pod-requests.ts";
import type { Container } from "../../api/types.gen.ts";
import { errorCode, errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { RuntimeInfo } from "../../runtime/types.ts";
import { type PodCgroup, podCgroup } from "../spec/pod-cgroup.ts";
import type { Resources } from "../spec/quantities.ts";
import { qosClass } from "../spec/resources.ts";
import type { AssignedPod } from "../types.ts";
import { CgroupError, type CgroupTree } from "./cgroup-tree.ts";
import { containerFiles, hugePageFiles } from "./files.ts";
import {
  bestEffortSettings,
  burstableSettings,
  type CgroupSettings,
  containerHugePages,
  hugePageSize,
  kubepodsSettings,
  podCgroupSettings,
} from "./settings.ts";
import { systemdSlices } from "./systemd-slices.ts";

export interface PodCgroupsOptions {
  readonly config: {
    /** False: the agent makes no cgroups, the engine puts containers where it likes. */
    readonly cgroupsPerQOS: boolean;
    readonly cgroupRoot: string;
    readonly podPidsLimit: number;
    readonly kubeReserved: Readonly<Record<string, string>>;
    readonly systemReserved: Readonly<Record<string, string>>;
  };
  /** The hierarchies themselves. */
  readonly tree: CgroupTree;
  readonly runtimeInfo: () => Pick<RuntimeInfo, "cgroupDriver" | "cgroupVersion">;
  /** `status.capacity` of the node; empty until known. */
  readonly capacity: () => Resources;
  readonly logger: Logger;
}

/** What one pod adds to its tier. */
interface Member {
  readonly pod: AssignedPod;
  readonly path: string;
  /** Settings last applied, as text. */
  readonly applied: string;
  /** The limit among them; undefined for none, and before they were applied. */
  readonly memoryLimitBytes?: number | undefined;
}

/** The host lets nobody write there: a nested machine, or a tree mounted read-only. */
function isForbidden(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return ["EROFS", "EACCES", "EPERM"].includes(errorCode(cause) ?? "");
}

/**
 * The QoS tree: `kubepods`, its tiers, and one cgroup for each pod. All of it is written again from the pods after a
 * restart; nothing is remembered.
 */
export class PodCgroups {
  readonly #options: PodCgroupsOptions;
  readonly #members = new Map<string, Member>();
  #driven: CgroupTree | undefined;
  #tiers = "";
  /** Settles with the last write of the tiers that was asked for; never rejects. */
  #tiersWritten: Promise<void> = Promise.resolve();
  #warned = false;

  constructor(options: PodCgroupsOptions) {
    this.#options = options;
  }

  /** Where the pod's containers go; undefined when the engine decides. */
  of(pod: AssignedPod): PodCgroup | undefined {
    const { config, runtimeInfo } = this.#options;
    if (!config.cgroupsPerQOS) return undefined;
    const driver = runtimeInfo().cgroupDriver;
    return podCgroup(pod.metadata.uid, qosClass(pod), { cgroupRoot: config.cgroupRoot, driver });
  }

  /** Whether `ensure` would write anything for this pod. */
  isCurrent(pod: AssignedPod): boolean {
    if (this.of(pod) === undefined) return true;
    return this.#members.get(pod.metadata.uid)?.applied === settingsText(this.#settings(pod));
  }

  /**
   * Makes the pod's cgroup and its tiers, or changes them to what the pod asks for now.
   *
   * @throws {CgroupError} the kernel refuses a value. Where it refuses to be written at all, pods run without limits of
   *   their own as a whole, and the log says so once.
   */
  async ensure(pod: AssignedPod): Promise<void> {
    const cgroup = this.of(pod);
    if (cgroup === undefined) return;
    const { path } = cgroup;
    const settings = this.#settings(pod);
    const before = this.#members.get(pod.metadata.uid);
    try {
      if (before !== undefined) await this.#refuseKilling(before, settings);
      this.#members.set(pod.metadata.uid, { pod, path, applied: "" });
      await this.#ensureTiers();
      await this.#tree().ensure(path, settings);
    } catch (error) {
      if (!isForbidden(error)) throw error;
      this.#warn(error);
    }
    const { memoryLimitBytes } = settings;
    const applied = settingsText(settings);
    this.#members.set(pod.metadata.uid, { pod, path, applied, memoryLimitBytes });
  }

  /** A limit below what is in use would have the kernel kill somebody. The text is the kubelet's. */
  async #refuseKilling(before: Member, { memoryLimitBytes }: CgroupSettings): Promise<void> {
    const shrinks =
      memoryLimitBytes !== undefined &&
      before.applied !== "" &&
      memoryLimitBytes < (before.memoryLimitBytes ?? Number.POSITIVE_INFINITY);
    if (!shrinks) return;
    const usage = await this.#tree().memoryUsage?.(before.path);
    if (usage === undefined || usage < memoryLimitBytes) return;
    throw new CgroupError(
      `attempting to set pod memory limit (${memoryLimitBytes}) below current usage (${usage})`,
    );
  }

  /** What the engine cannot be told about a container that was just started. Never fatal for it. */
  async adjustContainer(pod: AssignedPod, container: Container, id: string): Promise<void> {
    const path = this.#containerPath(pod, id);
    if (path === undefined) return;
    const limits = containerHugePages(container, this.#hugePageSizes());
    const tree = this.#tree();
    try {
      await tree.adjust(path, (version) => containerFiles(limits, version));
      // The pod's own, again: on a busy machine systemd's slice was seen without what had been written into it before
      // anything lived there.
      const { hugePageLimits } = this.#settings(pod);
      await tree.adjust(dirname(path), (version) => hugePageFiles(hugePageLimits, version));
    } catch (error) {
      this.#warn(error);
    }
  }

  /** Bytes of memory that a container uses; undefined where nobody can tell. */
  async memoryUsage(pod: AssignedPod, id: string): Promise<number | undefined> {
    const path = this.#containerPath(pod, id);
    return path === undefined ? undefined : this.#tree().memoryUsage?.(path);
  }

  #containerPath(pod: AssignedPod, id: string): string | undefined {
    const cgroup = this.of(pod);
    if (cgroup === undefined) return undefined;
    const { cgroupDriver } = this.#options.runtimeInfo();
    return `${cgroup.path}/${cgroupDriver === "systemd" ? `docker-${id}.scope` : id}`;
  }

  /** Removes the pod's cgroup, and those that its sandboxes were made in. */
  async remove(uid: string, paths: readonly string[]): Promise<void> {
    const member = this.#members.get(uid);
    const all = new Set([...paths, member?.path ?? ""]);
    for (const path of all) if (path !== "") await this.#tree().remove(path);
    this.#members.delete(uid);
    if (member !== undefined)
      await this.#ensureTiers().catch((error: unknown) => this.#warn(error));
  }

  /** One tree for the driver in force: the engine decides which, and its answer comes late. */
  #tree(): CgroupTree {
    const { runtimeInfo, tree } = this.#options;
    const { cgroupDriver, cgroupVersion } = runtimeInfo();
    this.#driven ??= cgroupDriver === "systemd" ? systemdSlices(tree, cgroupVersion) : tree;
    return this.#driven;
  }

  #settings(pod: AssignedPod): CgroupSettings {
    const { podPidsLimit } = this.#options.config;
    return podCgroupSettings(pod, { podPidsLimit, hugePageSizes: this.#hugePageSizes() });
  }

  #hugePageSizes(): readonly number[] {
    return Object.keys(this.#options.capacity()).flatMap((name) => hugePageSize(name) ?? []);
  }

  /** One writer at a time: of two, the one that knows less must not be the last. */
  #ensureTiers(): Promise<void> {
    const written = this.#tiersWritten.then(() => this.#writeTiers());
    this.#tiersWritten = written.catch(() => undefined);
    return written;
  }

  /** The three cgroups above the pods; written only when one of them is to change. */
  async #writeTiers(): Promise<void> {
    const pods = [...this.#members.values()].map(({ pod }) => pod);
    const top = this.#kubepods();
    const burstable = burstableSettings(pods);
    const text = [top, burstable].map((each) => (each === undefined ? "" : settingsText(each)));
    if (text.join() === this.#tiers) return;
    const { config, runtimeInfo } = this.#options;
    const options = { cgroupRoot: config.cgroupRoot, driver: runtimeInfo().cgroupDriver };
    const parents = (qos: "Burstable" | "BestEffort"): string => {
      const { path } = podCgroup("", qos, options);
      return path.slice(0, path.lastIndexOf("/"));
    };
    const tier = parents("Burstable");
    const tree = this.#tree();
    if (top !== undefined) await tree.ensure(tier.slice(0, tier.lastIndexOf("/")), top);
    await tree.ensure(tier, burstable);
    await tree.ensure(parents("BestEffort"), bestEffortSettings);
    this.#tiers = text.join();
  }

  /** Undefined while the node's capacity is not known. */
  #kubepods(): CgroupSettings | undefined {
    const { capacity, config } = this.#options;
    const total = amounts(pick(capacity()));
    const cpu = total.get("cpu");
    const memory = total.get("memory");
    if (cpu === undefined || memory === undefined) return undefined;
    const reserved = [config.kubeReserved, config.systemReserved].map((list) =>
      amounts(pick(list)),
    );
    const left = (name: string, amount: number): number =>
      Math.max(amount - reserved.reduce((sum, list) => sum + (list.get(name) ?? 0), 0), 0);
    return kubepodsSettings({ cpuMilli: left("cpu", cpu), memoryBytes: left("memory", memory) });
  }

  #warn(error: unknown): void {
    const level = this.#warned ? "debug" : "warn";
    this.#warned = true;
    this.#options.logger.log(level, "cgroups cannot be set: pods are not limited as a whole", {
      error: errorMessage(error),
    });
  }
}

function pick(list: Resources): Record<string, string | number> {
  const { cpu, memory } = list;
  return { ...(cpu === undefined ? {} : { cpu }), ...(memory === undefined ? {} : { memory }) };
}

function settingsText(settings: CgroupSettings): string {
  return JSON.stringify({ ...settings, hugePageLimits: [...settings.hugePageLimits] });
}
