import type { Clock } from "../../lib/clock.ts";
import type { Given } from "../../lib/protobuf-message.ts";
import { VolumeError } from "../volumes/payload.ts";
import type { CsiDrivers } from "./drivers.ts";
import { accessModes, capabilityTypes, type VolumeCapability } from "./messages.ts";
import { nodeMethods } from "./methods.ts";
import { type RpcMethod, withRpc } from "./rpc.ts";

/** The driver of a volume has not registered on this node, or has gone. */
export class DriverMissingError extends VolumeError {
  readonly driver: string;

  constructor(driver: string) {
    super(`driver name ${driver} not found in the list of registered CSI drivers`);
    this.driver = driver;
  }
}

/** What a driver can do beyond the least (`NodeServiceCapability`). */
export type Capability = keyof typeof capabilityTypes;

/** A driver that can be called. */
export interface DriverConnection {
  /** @throws {RpcError} */
  can(capability: Capability): Promise<boolean>;
  /** @throws {RpcError} */
  call<Q, A>(method: RpcMethod<Q, A>, request: Given<Q>): Promise<A>;
}

const callMs = 120_000;

/**
 * Does `work` with a driver. Each call may take two minutes.
 *
 * @throws {DriverMissingError}
 */
export async function withDriver<T>(
  deps: { readonly drivers: CsiDrivers; readonly clock: Clock },
  name: string,
  work: (driver: DriverConnection) => Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const registered = deps.drivers.get(name);
  if (registered === undefined) throw new DriverMissingError(name);
  return withRpc(registered.endpoint, deps.clock, async (channel) => {
    const options = { deadlineMs: callMs, signal };
    let types: Promise<ReadonlySet<number>> | undefined;
    const ask = async (): Promise<ReadonlySet<number>> => {
      const answer = await channel.call(nodeMethods.getCapabilities, {}, options);
      return new Set(answer.capabilities.map(({ rpc }) => rpc?.type ?? 0));
    };
    return work({
      can: async (capability) => (await (types ??= ask())).has(capabilityTypes[capability]),
      call: (method, request) => channel.call(method, request, options),
    });
  });
}

/** How a volume is to be had, in the driver's words. */
export interface CapabilityWish {
  /** First access mode of the PersistentVolume. */
  readonly accessMode: string;
  /** A device, not a file system. */
  readonly block: boolean;
  readonly fsType: string;
  readonly mountOptions: readonly string[];
  /** To be given to the driver, which then sees to `fsGroup` itself. */
  readonly fsGroup?: number | undefined;
}

function accessModeNumber(mode: string, multiWriter: boolean): number {
  switch (mode) {
    case "ReadWriteOnce":
      return multiWriter ? accessModes.singleNodeMultiWriter : accessModes.singleNodeWriter;
    case "ReadWriteOncePod":
      // Without the capability a driver knows one mode of a single node only.
      return multiWriter ? accessModes.singleNodeSingleWriter : accessModes.singleNodeWriter;
    case "ReadOnlyMany":
      return accessModes.multiNodeReaderOnly;
    case "ReadWriteMany":
      return accessModes.multiNodeMultiWriter;
    default:
      return accessModes.unknown;
  }
}

/** `VolumeCapability` of a request. */
export async function volumeCapability(
  driver: DriverConnection,
  wish: CapabilityWish,
): Promise<Given<VolumeCapability>> {
  const { accessMode: wanted, block, fsGroup, fsType, mountOptions } = wish;
  const multiWriter = await driver.can("singleNodeMultiWriter");
  const accessMode = { mode: accessModeNumber(wanted, multiWriter) };
  if (block) return { block: {}, accessMode };
  const volumeMountGroup = fsGroup === undefined ? "" : String(fsGroup);
  return { mount: { fsType, mountFlags: mountOptions, volumeMountGroup }, accessMode };
}
