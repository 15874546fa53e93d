import type { VolumeFigures } from "../types.ts";
import { VolumeError } from "../volumes/payload.ts";
import type { DriverConnection } from "./driver-connection.ts";
import { usageUnits } from "./messages.ts";
import { nodeMethods } from "./methods.ts";

/**
 * How full a volume is, in its driver's words; undefined when the driver does not tell that.
 *
 * @throws {RpcError}; {@link VolumeError} when the driver tells nothing although it should.
 */
export async function driverFigures(
  driver: DriverConnection,
  volume: { readonly volumeId: string; readonly volumePath: string },
): Promise<VolumeFigures | undefined> {
  if (!(await driver.can("getVolumeStats"))) return undefined;
  const { usage } = await driver.call(nodeMethods.getVolumeStats, volume);
  const bytes = usage.find(({ unit }) => unit === usageUnits.bytes);
  const inodes = usage.find(({ unit }) => unit === usageUnits.inodes);
  if (bytes === undefined) {
    throw new VolumeError("failed to get usage from response. usage is nil");
  }
  const { available = 0, total = 0, used = 0 } = bytes;
  return {
    capacityBytes: total,
    availableBytes: available,
    usedBytes: used,
    ...(inodes === undefined
      ? {}
      : {
          inodes: { total: inodes.total ?? 0, free: inodes.available ?? 0, used: inodes.used ?? 0 },
        }),
  };
}
