import { chmod, lstat, mkdir, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { errorCode } from "../../lib/errors.ts";
import type { MountTable } from "../volumes/mount-table.ts";
import { VolumeError } from "../volumes/payload.ts";
import type { RemoveTree } from "../volumes/remove-tree.ts";
import type { QuotaSupport } from "./project-quota.ts";
import type { VolumeRecord, VolumeRecords } from "./records.ts";

/** Every step that changes something, in order: a crash before any of them must leave what the next start completes. */
export const LOCAL_VOLUME_STEPS = [
  "makeDirectory",
  "limitDirectory",
  "nameDirectory",
  "recordDirectory",
  "removeDirectory",
  "forgetDirectory",
  "releaseVolume",
] as const;

export type LocalVolumeStep = (typeof LOCAL_VOLUME_STEPS)[number];

/** The volume's directory was there once and is not any more: its data is lost, or a disk is not mounted. */
export class DataMissing extends VolumeError {}

/** A pod that was deleted is still being torn down: to be tried again soon. */
export class DataInUse extends VolumeError {}

export interface DataDirectoriesOptions {
  /** Kubelet root: where pods have their mounts. */
  readonly rootDir: string;
  readonly records: VolumeRecords;
  readonly quota: QuotaSupport;
  readonly mounts: () => MountTable;
  readonly removeTree: RemoveTree;
  /** Called before each step (failpoint). */
  readonly step: (name: LocalVolumeStep) => void | Promise<void>;
}

export interface DataVolume {
  /** Name of the PersistentVolume. */
  readonly name: string;
  readonly path: string;
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    const found = await lstat(path);
    if (found.isDirectory()) return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
  throw new VolumeError(`${path} is no directory`);
}

/** A directory under this name is not yet, or never was, a volume's. */
function unfinished(path: string): string {
  return join(dirname(path), `.new-${basename(path)}`);
}

/** Makes and removes the directories behind local volumes. Everything may be repeated after a crash at any instant. */
export class DataDirectories {
  readonly #options: DataDirectoriesOptions;

  constructor(options: DataDirectoriesOptions) {
    this.#options = options;
  }

  /**
   * Makes the directory, unless it is there, and holds it to a number of bytes where that is possible.
   *
   * @throws {DataMissing} it was made before and is gone. {VolumeError} a file is in its place.
   */
  async ensure(volume: DataVolume, bytes: bigint, signal: AbortSignal): Promise<void> {
    const { records, step } = this.#options;
    const record = await records.read(volume.name);
    if (await isDirectory(volume.path)) {
      if (record === undefined) await step("recordDirectory");
      await this.#update(volume.name, record, bytes, signal);
      return;
    }
    if (record !== undefined) {
      throw new DataMissing(
        `the data of volume ${volume.name} is missing: ${volume.path} was there and is not; ` +
          "put it back (is its disk mounted?), or delete the claim",
      );
    }
    const made = await this.#make(volume, bytes, signal);
    await step("recordDirectory");
    await records.write(volume.name, made);
  }

  async #make(volume: DataVolume, bytes: bigint, signal: AbortSignal): Promise<VolumeRecord> {
    const { step, quota, records } = this.#options;
    const draft = unfinished(volume.path);
    await step("makeDirectory");
    // Root alone comes here; pods begin below.
    await mkdir(dirname(volume.path), { recursive: true, mode: 0o700 });
    try {
      await mkdir(draft);
    } catch (error) {
      if (errorCode(error) !== "EEXIST" || !(await isDirectory(draft))) throw error;
    }
    // Pods run as any user: who may use the claim may write. The umask would take that away again.
    await chmod(draft, 0o777);
    let record: VolumeRecord = {};
    if (quota.kind === "enforced") {
      await step("limitDirectory");
      const project = await records.freeProject();
      await quota.quota.assign(draft, project, signal);
      await quota.quota.limit(project, bytes, signal);
      record = { project, limit: String(bytes) };
    }
    await step("nameDirectory");
    await rename(draft, volume.path);
    return record;
  }

  /** Writes the record that a crash left out, and follows a capacity that was changed. */
  async #update(
    name: string,
    record: VolumeRecord | undefined,
    bytes: bigint,
    signal: AbortSignal,
  ): Promise<void> {
    const { records, quota } = this.#options;
    const limit = String(bytes);
    const grows = record?.project !== undefined && record.limit !== limit;
    if (record !== undefined && !grows) return;
    if (record?.project === undefined || quota.kind === "none") {
      if (record === undefined) await records.write(name, {});
      return;
    }
    await quota.quota.limit(record.project, bytes, signal);
    await records.write(name, { ...record, limit });
  }

  /**
   * Removes the data. Gone already is success.
   *
   * @throws {DataInUse} a pod still has it. {VolumeError} something in it is mounted, naming where.
   */
  async remove(volume: DataVolume, signal: AbortSignal): Promise<void> {
    const { rootDir, records, quota, mounts, removeTree, step } = this.#options;
    const user = mounts()
      .below(join(rootDir, "pods"))
      .find(({ path }) => path.endsWith(`/kubernetes.io~local-volume/${volume.name}`));
    if (user !== undefined) throw new DataInUse(`a pod still has ${user.path}`);
    const record = await records.read(volume.name);
    await step("removeDirectory");
    await removeTree(unfinished(volume.path), signal);
    await removeTree(volume.path, signal);
    if (record?.project !== undefined && quota.kind === "enforced")
      await quota.quota.limit(record.project, 0n, signal);
    await this.forget(volume.name);
  }

  /** Forgets a volume whose data stays. */
  async forget(name: string): Promise<void> {
    await this.#options.step("forgetDirectory");
    await this.#options.records.remove(name);
  }
}
