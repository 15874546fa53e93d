import { labelText } from "../../lib/metrics-text.ts";
import type { ContainerRecord, PodRecord } from "../../runtime/types.ts";
import { findPodContainer } from "../spec/containers.ts";
import type { AssignedPod } from "../types.ts";
import { networkFamilies, specFamilies, usageFamilies } from "./cadvisor-families.ts";
import type { DeviceIO, InterfaceCounters } from "./cgroup-text.ts";
import type { Disks, Filesystem, TreeUsage } from "./disk-types.ts";
import type { MachineFacts } from "./machine-facts.ts";
import { type Family, Page } from "./page.ts";
import type { CgroupSample, ContainerSample, PodSample, Sample } from "./sample.ts";

export interface CadvisorInput {
  /** Level `cadvisor`. */
  readonly sample: Sample;
  readonly disks: Disks;
  readonly machine: MachineFacts;
  readonly pods: ReadonlyMap<string, AssignedPod>;
  readonly nowMs: number;
}

/** The labels that every sample of this page has. */
interface RowLabels {
  readonly container: string;
  readonly id: string;
  readonly image: string;
  readonly name: string;
  readonly namespace: string;
  readonly pod: string;
}

const rawRow = { container: "", image: "", name: "", namespace: "", pod: "" };
/** The pause image has no name that anybody pulls; dashboards leave out rows without one. */
const pauseImage = "remora.local/pause";
const nanos = 1e9;

/** `{...}` and what begins one with more labels behind. */
class Row {
  readonly labels: string;
  readonly isContainer: boolean;
  readonly #open: string;

  constructor(labels: RowLabels) {
    this.isContainer = labels.container !== "";
    this.labels = labelText({ ...labels });
    this.#open = this.labels.slice(0, -1);
  }

  with(more: Readonly<Record<string, string>>): string {
    return `${this.#open},${labelText(more).slice(1)}`;
  }
}

class CadvisorPage {
  readonly page = new Page();
  readonly #input: CadvisorInput;
  readonly #families = new Map<string, Family>();
  readonly #usage = usageFamilies.map((of) => ({ of, family: this.#family(of) }));
  readonly #spec = specFamilies.map((of) => ({ of, family: this.#family(of) }));
  readonly #network = networkFamilies.map((of) => ({ of, family: this.#family(of) }));

  constructor(input: CadvisorInput) {
    this.#input = input;
  }

  #family({
    help,
    name,
    type,
  }: {
    readonly name: string;
    readonly type: "counter" | "gauge" | "histogram";
    readonly help: string;
  }): Family {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = this.page.family(name, type, help);
      this.#families.set(name, family);
    }
    return family;
  }

  #gauge(name: string, help: string): Family {
    return this.#family({ name: `container_${name}`, type: "gauge", help });
  }

  #counter(name: string, help: string): Family {
    return this.#family({ name: `container_${name}`, type: "counter", help });
  }

  cgroup(row: Row, { startedAtMs, usage }: Pick<CgroupSample, "startedAtMs" | "usage">): void {
    const { detail, more, timeMs } = usage;
    const { nowMs } = this.#input;
    this.#gauge("last_seen", "Last time a container was seen by the exporter").add(
      row.labels,
      Math.floor(nowMs / 1000),
      nowMs,
    );
    this.#gauge(
      "start_time_seconds",
      "Start time of the container since unix epoch in seconds.",
    ).add(row.labels, Math.floor(startedAtMs / 1000));
    this.#counter("cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.").add(
      row.with({ cpu: "total" }),
      usage.cpuNs / nanos,
      timeMs,
    );
    for (const { family, of } of this.#usage) {
      const value = of.value(usage);
      if (value !== undefined) family.add(row.labels, value, timeMs);
    }
    for (const { family, of } of this.#spec) {
      const value = of.value(usage);
      if (value !== undefined) family.add(row.labels, value);
    }
    if (more === undefined || detail === undefined) return;
    const faults = this.#counter(
      "memory_failures_total",
      "Cumulative count of memory allocation failures.",
    );
    for (const [type, scope, value] of [
      ["pgfault", "container", more.pageFaults],
      ["pgmajfault", "container", more.majorPageFaults],
      ["pgfault", "hierarchy", detail.allPageFaults],
      ["pgmajfault", "hierarchy", detail.allMajorPageFaults],
    ] as const) {
      faults.add(row.with({ failure_type: type, scope }), value, timeMs);
    }
    for (const device of this.#devices(row, detail.io)) this.#device(row, device, timeMs);
  }

  /** A container that has not read or written yet has a zero on the disk that it is on: counters begin there. */
  #devices({ isContainer }: Row, known: readonly DeviceIO[]): readonly DeviceIO[] {
    const { major, minor } = this.#input.machine.engineDevice;
    if (known.length > 0 || !isContainer || major === 0) return known;
    return [{ major, minor, readBytes: 0, writeBytes: 0, reads: 0, writes: 0 }];
  }

  #device(row: Row, io: DeviceIO, timeMs: number): void {
    const { machine } = this.#input;
    const device = machine.deviceName(io.major, io.minor);
    const labels = row.with({ device });
    this.#counter("fs_reads_bytes_total", "Cumulative count of bytes read").add(
      labels,
      io.readBytes,
      timeMs,
    );
    this.#counter("fs_reads_total", "Cumulative count of reads completed").add(
      labels,
      io.reads,
      timeMs,
    );
    this.#counter("fs_writes_bytes_total", "Cumulative count of bytes written").add(
      labels,
      io.writeBytes,
      timeMs,
    );
    this.#counter("fs_writes_total", "Cumulative count of writes completed").add(
      labels,
      io.writes,
      timeMs,
    );
    const usage = this.#counter("blkio_device_usage_total", "Blkio Device bytes usage");
    for (const [operation, value] of [
      ["Read", io.readBytes],
      ["Write", io.writeBytes],
    ] as const) {
      const { major, minor } = io;
      const full = { device, major: String(major), minor: String(minor), operation };
      usage.add(row.with(full), value, timeMs);
    }
  }

  filesystem(row: Row, device: string, whole: Filesystem, used: TreeUsage | undefined): void {
    const labels = row.with({ device });
    const { capacityBytes, inodes, timeMs } = whole;
    this.#gauge(
      "fs_limit_bytes",
      "Number of bytes that can be consumed by the container on this filesystem.",
    ).add(labels, capacityBytes, timeMs);
    if (used !== undefined) {
      this.#gauge(
        "fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
      ).add(labels, used.bytes, used.timeMs);
    }
    if (inodes === undefined) return;
    this.#gauge("fs_inodes_total", "Number of Inodes").add(labels, inodes.total, timeMs);
    this.#gauge("fs_inodes_free", "Number of available Inodes").add(labels, inodes.free, timeMs);
  }

  interfaces(row: Row, interfaces: readonly InterfaceCounters[], timeMs: number): void {
    for (const counters of interfaces) {
      const labels = row.with({ interface: counters.name });
      for (const { family, of } of this.#network) family.add(labels, of.value(counters), timeMs);
    }
  }

  processes(row: Row, { handles, processes, usage }: ContainerSample): void {
    const { timeMs } = usage;
    const add = (name: string, help: string, value: number | undefined): void => {
      if (value !== undefined) this.#gauge(name, help).add(row.labels, value, timeMs);
    };
    add("processes", "Number of processes running inside the container.", processes);
    add(
      "file_descriptors",
      "Number of open file descriptors for the container.",
      handles?.descriptors,
    );
    add("sockets", "Number of open sockets for the container.", handles?.sockets);
    const files = handles?.maxOpenFiles;
    if (files === undefined) return;
    this.#gauge(
      "ulimits_soft",
      "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
    ).add(
      row.with({ ulimit: "max_open_files" }),
      files === Number.POSITIVE_INFINITY ? -1 : files,
      timeMs,
    );
  }

  machine(): void {
    const { machine, sample } = this.#input;
    const labels = labelText({
      boot_id: machine.bootID,
      machine_id: machine.machineID,
      system_uuid: machine.systemUUID,
    });
    const gauges = [
      ["machine_cpu_cores", "Number of logical CPU cores.", machine.cpuCores],
      ["machine_cpu_physical_cores", "Number of physical CPU cores.", machine.physicalCores],
      ["machine_cpu_sockets", "Number of CPU sockets.", machine.sockets],
      [
        "machine_memory_bytes",
        "Amount of memory installed on the machine.",
        sample.node.totalMemoryBytes,
      ],
      [
        "machine_swap_bytes",
        "Amount of swap memory available on the machine.",
        sample.node.totalSwapBytes,
      ],
    ] as const;
    for (const [name, help, value] of gauges) {
      this.#family({ name, type: "gauge", help }).add(labels, value);
    }
    this.page.single(
      "cadvisor_version_info",
      "gauge",
      "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
      1,
      {
        cadvisorRevision: "",
        cadvisorVersion: "",
        dockerVersion: machine.engineVersion,
        kernelVersion: machine.kernelVersion,
        osVersion: machine.osImage,
      },
    );
    const failed = "1 if there was an error while getting container metrics, 0 otherwise";
    this.page.single("container_scrape_error", "gauge", failed, 0);
    this.page.single(
      "machine_scrape_error",
      "gauge",
      "1 if there was an error while getting machine metrics, 0 otherwise.",
      0,
    );
  }
}

/** As the engine names it. */
function engineName(
  { name, namespace, uid }: PodRecord,
  container: string,
  attempt: number,
): string {
  return `k8s_${container}_${name}_${namespace}_${uid}_${attempt}`;
}

/** As the pod's author wrote it: the container itself is made from an image's id. */
function imageOf(pod: AssignedPod | undefined, record: ContainerRecord): string {
  const spec = pod === undefined ? undefined : findPodContainer(pod, record.name);
  return spec?.container.image ?? record.image;
}

function addPod(
  page: CadvisorPage,
  sample: PodSample,
  { disks, machine, pods }: CadvisorInput,
): void {
  const { containers, interfaces, own, record, sandbox, sandboxCgroup } = sample;
  const { name: pod, namespace, uid } = record;
  const ofPod = disks.pods.get(uid);
  if (own !== undefined && own.id !== "") {
    page.cgroup(new Row({ ...rawRow, id: own.id, namespace, pod }), own);
  }
  if (sandbox !== undefined && sandboxCgroup !== undefined) {
    const name = engineName(record, "POD", sandbox.metadata.attempt);
    const { id } = sandboxCgroup;
    const row = new Row({ container: "POD", id, image: pauseImage, name, namespace, pod });
    page.cgroup(row, sandboxCgroup);
    if (interfaces !== undefined) page.interfaces(row, interfaces, sandboxCgroup.usage.timeMs);
  }
  for (const each of containers) {
    const { name: container } = each.record;
    const name = engineName(record, container, each.record.attempt);
    const image = imageOf(pods.get(uid), each.record);
    const row = new Row({ container, id: each.id, image, name, namespace, pod });
    page.cgroup(row, each);
    page.processes(row, each);
    if (disks.images !== undefined) {
      const used = ofPod?.writableLayers.get(each.record.id);
      page.filesystem(row, machine.engineDevice.name, disks.images, used);
    }
  }
}

/** `/metrics/cadvisor`: one row per cgroup. Those of pods have an empty container, the whole machine has the id `/`. */
export function cadvisorText(input: CadvisorInput): string {
  const { disks, machine, sample } = input;
  const page = new CadvisorPage(input);
  const root = new Row({ ...rawRow, id: "/" });
  page.cgroup(root, { startedAtMs: sample.nodeStartedAtMs, usage: sample.node });
  page.interfaces(root, sample.node.interfaces, sample.node.timeMs);
  if (disks.node !== undefined) {
    const { timeMs, usedBytes } = disks.node;
    page.filesystem(root, machine.nodeDevice.name, disks.node, {
      timeMs,
      bytes: usedBytes,
      inodes: 0,
    });
  }
  const raw = new Set(["/"]);
  for (const each of [...sample.system, ...sample.tiers]) {
    // A daemon without a cgroup of its own has no row of its own: that cgroup is not it.
    if (raw.has(each.id)) continue;
    raw.add(each.id);
    page.cgroup(new Row({ ...rawRow, id: each.id }), each);
  }
  for (const pod of sample.pods) addPod(page, pod, input);
  page.machine();
  return page.page.text();
}
