import { deadline } from "../../lib/clock.ts";
import { describeHardware } from "../../kubelet/node/hardware.ts";

/** `remora node`: the hardware as the cluster would see it. */
export async function describeNode(signal: AbortSignal): Promise<void> {
  const lines = await describeHardware(deadline(signal, 60_000));
  process.stdout.write(`${lines.join("\n")}\n`);
}
