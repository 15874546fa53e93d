import { execFileSync } from "node:child_process";
import {
  chmodSync,
  constants,
  copyFileSync,
  cpSync,
  mkdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { fetchDebianPackage } from "../../e2e/lib/debian-package.ts";
import { busyboxArchive, root } from "../../e2e/lib/machine.ts";
import { makePackages } from "./packages.ts";

/** The Node that the package brings. */
export const node = "/usr/lib/remora/bin/node";
/** The package under test, and one of a lower version from the same sources. */
export const packageFile = "/opt/remora.deb";
export const previousPackageFile = "/opt/remora-previous.deb";
/** A root directory for `docker import`. */
export const busyboxImage = "/opt/busybox.tar";
/** Directories `usr`, `lib` and `lib64` for a container that is to run qemu. */
export const qemuDirectory = "/opt/qemu";
/** What `docker build` makes the shop's image of. */
export const shopDirectory = "/opt/shop";
/** Asks Services and names until it is ended. */
export const traffic = "/opt/traffic-client.mts";

/** qemu with all it needs, to be mounted into a container: the machine in it is to run machines too. */
function installQemu(directory: string): void {
  const program = "/usr/bin/qemu-system-x86_64";
  const libraries = execFileSync("ldd", [program], { encoding: "utf8" });
  const paths = [
    program,
    // Debian keeps the emulation itself in a module.
    "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so",
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/linuxboot_dma.bin",
    "/usr/share/qemu/kvmvapic.bin",
    ...[...libraries.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path),
  ];
  for (const path of paths) {
    mkdirSync(join(directory, dirname(path)), { recursive: true });
    copyFileSync(path, join(directory, path), constants.COPYFILE_FICLONE);
    chmodSync(join(directory, path), 0o755);
  }
}

/** The directory of examples/shop, with the base of its image beside it, as `examples/busybox.sh` makes it. */
function installShop(directory: string, scratch: string): void {
  const { file, missing } = fetchDebianPackage("busybox");
  if (missing !== undefined) throw new Error(missing);
  const unpacked = join(scratch, "busybox");
  execFileSync("dpkg-deb", ["-x", file, unpacked]);
  cpSync(join(root, "examples/shop"), directory, {
    recursive: true,
    filter: (path) => path !== join(root, "examples/shop/busybox"),
  });
  execFileSync("sh", [join(root, "examples/busybox.sh"), join(directory, "busybox")], {
    env: { ...process.env, BUSYBOX: join(unpacked, "bin/busybox") },
  });
  execFileSync("chmod", ["-R", "a+rX", directory]);
  rmSync(unpacked, { recursive: true });
}

/**
 * Makes a directory with everything that a machine gets from outside; it is to be found at /opt there.
 *
 * @param scratch A directory to work in.
 * @returns the path of the tree, in `scratch`.
 */
export async function makePayload(scratch: string): Promise<string> {
  const tree = join(scratch, "opt");
  mkdirSync(tree, { recursive: true });
  makePackages(scratch, {
    current: join(scratch, packageFile),
    previous: join(scratch, previousPackageFile),
  });
  writeFileSync(join(scratch, busyboxImage), await busyboxArchive());
  installQemu(join(scratch, qemuDirectory));
  installShop(join(scratch, shopDirectory), scratch);
  cpSync(fileURLToPath(new URL("traffic-client.ts", import.meta.url)), join(scratch, traffic));
  return tree;
}

/** Makes a disk of a tree, beside it. @returns its path. */
export function diskOf(tree: string): string {
  const file = `${tree}.img`;
  const used = execFileSync("du", ["-sk", tree], { encoding: "utf8" });
  const size = `${Math.ceil(Number.parseInt(used, 10) * 1.2)}k`;
  const options = ["-t", "ext2", "-m", "0", "-E", "root_owner=0:0", "-d", tree];
  execFileSync("mke2fs", ["-q", ...options, file, size]);
  return file;
}
