import { rm } from "node:fs/promises";

import { machineImage, scratchDirectory } from "./image.ts";
import type { RealMachine } from "./machine.ts";
import { diskOf, makePayload } from "./payload.ts";
import { VagrantMachine } from "./vagrant-machine.ts";
import { VirtualMachine } from "./virtual-machine.ts";

/** Who boots the machine: `REMORA_TEST_MACHINE`, qemu unless it says `vagrant`. */
export const provider = process.env["REMORA_TEST_MACHINE"] === "vagrant" ? "vagrant" : "qemu";

async function startQemu(tree: string, ports: readonly number[]): Promise<RealMachine> {
  const image = await machineImage();
  const machine = await VirtualMachine.start({
    image,
    disks: [diskOf(tree)],
    ports,
    memoryMiB: 2560,
  });
  try {
    // Also after the next boot.
    await machine.sh("echo '/dev/vdb /opt ext2 ro 0 0' >>/etc/fstab; mount /opt");
  } catch (error) {
    await machine[Symbol.asyncDispose]();
    throw error;
  }
  return machine;
}

/**
 * Boots a machine with Docker on it, and everything from outside at /opt.
 *
 * @param ports TCP ports that are to be reached from here.
 * @throws {NoMirrorError} no Debian mirror answers, and there is no image yet.
 */
export async function startMachine(ports: readonly number[]): Promise<RealMachine> {
  const scratch = await scratchDirectory();
  try {
    const tree = await makePayload(scratch);
    return await (provider === "vagrant" ? VagrantMachine.start(tree) : startQemu(tree, ports));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
