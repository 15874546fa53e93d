import type { ContainerImage, NodeStatus } from "../../api/types.gen.ts";
import type { AgentConfig } from "../../config/types.ts";
import type { IPFamily } from "../../lib/cidr.ts";
import { type Clock, deadline } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ImageService, RuntimeInfo } from "../../runtime/types.ts";
import type { VolumesInUse } from "../volumes/in-use.ts";
import { nodeAddresses } from "./choose-node-ips.ts";
import { computeAllocatable, computeCapacity, type MachineCapacity } from "./allocatable.ts";
import { computeConditions, networkError } from "./conditions.ts";
import { apiTime, type Host, type HostIdentity } from "./host.ts";
import { computeNodeStatus, imageList } from "./node-status.ts";
import { OwnAddresses } from "./own-addresses.ts";
import { PressureMemory, pressureNow, type SignalReadings } from "./pressure.ts";

/** Lists of images and disk readings are good for so long; the fast path looks ten times a second. */
const slowFactsMs = 9000;
const imageListDeadlineMs = 30_000;

export interface StatusSourceOptions {
  readonly config: AgentConfig;
  readonly host: Host;
  readonly runtime: () => RuntimeInfo | undefined;
  readonly images: Pick<ImageService, "listImages">;
  readonly health: () => string | undefined;
  /** Why pods cannot have a network of their own; undefined when they can. Default: they can. */
  readonly networkNotReady?: () => string | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly version: string;
  readonly onAddresses: (ips: readonly string[]) => void;
  /** Families of the addresses that this node's pods have; default none. */
  readonly podFamilies?: () => readonly IPFamily[];
  /** Attachable volumes of pods; default none. */
  readonly inUse?: Pick<VolumesInUse, "list">;
}

interface SlowFacts {
  readonly readAt: number;
  readonly images: readonly ContainerImage[] | undefined;
  readonly machine: MachineCapacity | undefined;
  readonly signals: SignalReadings;
}

/** Observes machine and runtime and composes the node's status from it. */
export class StatusSource {
  readonly #options: StatusSourceOptions;
  readonly #pressure: PressureMemory;
  #identity: HostIdentity | undefined;
  #slow: SlowFacts | undefined;
  readonly #own: OwnAddresses;
  #lookAgainMs: number | undefined;

  constructor(options: StatusSourceOptions) {
    this.#options = options;
    this.#pressure = new PressureMemory(options.config.evictionPressureTransitionPeriodMs);
    this.#own = new OwnAddresses({ podFamilies: () => [], ...options });
  }

  /** Whether the node's address is gone from the machine, and only its status has it. */
  get addressLost(): boolean {
    return this.#own.lost;
  }

  /** Milliseconds from the last computation after which another one may have another result, whatever happens. */
  get lookAgainMs(): number | undefined {
    return this.#lookAgainMs;
  }

  /** Gives the facts that do not change; call before {@link compute}. */
  start(identity: HostIdentity): void {
    this.#identity = identity;
  }

  /** The status as it should be, given the one the server has. */
  async compute(previous: NodeStatus): Promise<NodeStatus> {
    const { config, clock, health, inUse, networkNotReady, runtime } = this.#options;
    const identity = this.#identity ?? this.#options.host.identity();
    const slow = await this.#slowFacts();
    const addresses = await this.#own.look(previous);
    this.#lookAgainMs = addresses.againMs;
    if (addresses.ips.length > 0) this.#options.onAddresses(addresses.ips);
    const info = runtime();
    const under = this.#pressure.observe(
      pressureNow(slow.signals, config.evictionHard),
      clock.monotonic(),
    );
    const notReady = [
      info === undefined ? "container runtime is down" : undefined,
      networkError(networkNotReady?.()),
      health(),
      slow.machine === undefined
        ? "missing node capacity for resources: cpu, memory, pods, ephemeral-storage"
        : undefined,
      addresses.why,
    ].filter((text) => text !== undefined);
    return computeNodeStatus(
      {
        addresses: nodeAddresses(addresses.ips, config.nodeName),
        capacity: slow.machine === undefined ? {} : computeCapacity(slow.machine),
        allocatable: slow.machine === undefined ? {} : computeAllocatable(slow.machine, config),
        nodeInfo: this.#nodeInfo(identity, info, previous),
        conditions: computeConditions(
          {
            memoryPressure: under.has("memory"),
            diskPressure: under.has("disk"),
            pidPressure: under.has("pid"),
            notReady,
          },
          previous.conditions ?? [],
          apiTime(clock),
        ),
        images: slow.images,
        runtime: info,
        kubeletPort: config.kubeletPort,
        volumesInUse: inUse?.list(previous.volumesInUse),
      },
      previous,
    );
  }

  #nodeInfo(
    identity: HostIdentity,
    info: RuntimeInfo | undefined,
    previous: NodeStatus,
  ): NonNullable<NodeStatus["nodeInfo"]> {
    return {
      architecture: identity.architecture,
      bootID: identity.bootID,
      containerRuntimeVersion:
        info === undefined
          ? (previous.nodeInfo?.containerRuntimeVersion ?? "")
          : `${info.name}://${info.version}`,
      kernelVersion: identity.kernelVersion,
      kubeProxyVersion: "",
      kubeletVersion: this.#options.version,
      machineID: identity.machineID,
      operatingSystem: "linux",
      osImage: identity.osImage,
      systemUUID: identity.systemUUID,
      ...(identity.swapBytes === 0 ? {} : { swap: { capacity: identity.swapBytes } }),
    };
  }

  async #slowFacts(): Promise<SlowFacts> {
    const { clock, config, host, runtime } = this.#options;
    const known = this.#slow;
    const complete = known?.images !== undefined && known.machine !== undefined;
    if (known !== undefined && complete && clock.monotonic() - known.readAt < slowFactsMs) {
      return known;
    }
    const info = runtime();
    const [images, machine, signals] = await Promise.all([
      info === undefined ? undefined : this.#images(),
      this.#orUndefined("capacity", host.capacity(config.rootDir, config.maxPods)),
      this.#orUndefined("eviction signals", host.signals(config.rootDir, info?.rootDir)),
    ]);
    this.#slow = {
      readAt: clock.monotonic(),
      images: images ?? known?.images,
      machine: machine ?? known?.machine,
      signals: signals ?? {},
    };
    return this.#slow;
  }

  async #images(): Promise<readonly ContainerImage[] | undefined> {
    const { config, images } = this.#options;
    const signal = deadline(new AbortController().signal, imageListDeadlineMs);
    const list = await this.#orUndefined("images", images.listImages(signal));
    return list === undefined ? undefined : imageList(list, config.nodeStatusMaxImages);
  }

  async #orUndefined<T>(what: string, value: Promise<T>): Promise<T | undefined> {
    try {
      return await value;
    } catch (error) {
      this.#options.logger.log("warn", "node status fact could not be read", {
        what,
        error: errorMessage(error),
      });
      return undefined;
    }
  }
}
