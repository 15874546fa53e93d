import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createWriteStream, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdir, readFile, rename, rm, utimes } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const script = fileURLToPath(new URL("build-image.sh", import.meta.url));

/** A machine that nobody has started yet: what qemu boots. Never written to: every machine has its own copy. */
export interface MachineImage {
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
}

/** The mirror could not be reached, so there is no image and nothing to test. */
export class NoMirrorError extends Error {}

function cacheDirectory(): string {
  return join(process.env["XDG_CACHE_HOME"] ?? "/var/cache", "remora-test-vm");
}

/** Where this machine gets its own Debian 12 packages from; elsewhere "", debootstrap's own choice. */
function mirror(): string {
  const wanted = process.env["REMORA_TEST_DEBIAN_MIRROR"];
  if (wanted !== undefined) return wanted;
  try {
    const format = "$(REPO_URI) $(CODENAME) $(COMPONENT)";
    const argv = ["indextargets", "--format", format, "Created-By: Packages"];
    const lines = execFileSync("apt-get", argv, { encoding: "utf8" }).split("\n");
    const line = lines.find((each) => /^https?:.* bookworm main$/.test(each));
    if (line !== undefined) return line.slice(0, line.indexOf(" "));
  } catch {
    // No apt: not a Debian, but it has debootstrap.
  }
  return "";
}

/** All that decides what is in the image. The mirror does not: its packages are signed by Debian. */
function key(): string {
  return createHash("sha256").update(readFileSync(script)).digest("hex").slice(0, 16);
}

const unusedMs = 14 * 24 * 3600_000;

/** A new directory for what only one run needs; when that is killed, the next run removes it. */
export async function scratchDirectory(): Promise<string> {
  const directory = join(cacheDirectory(), `run.of-${process.pid}`);
  await mkdir(directory, { recursive: true });
  return directory;
}

/** Removes directories whose process has gone, and images that nobody has used for two weeks. */
async function tidy(cache: string, now: number): Promise<void> {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    const owner = /\.of-(\d+)$/.exec(name)?.[1];
    const stale =
      owner === undefined ? now - statSync(path).mtimeMs > unusedMs : !existsSync(`/proc/${owner}`);
    if (stale) await rm(path, { recursive: true, force: true });
  }
}

async function build(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const logFile = `${directory}/build.log`;
  const log = createWriteStream(logFile);
  await once(log, "open");
  // Namespaces of its own, which end with this process: no mount and no process of a build outlives it.
  const namespaces = "unshare --mount --pid --fork --kill-child --mount-proc".split(" ");
  const child = spawn(
    "setpriv",
    ["--pdeathsig", "KILL", ...namespaces, "sh", script, directory, mirror()],
    { stdio: ["ignore", log, log], env: { ...process.env, LC_ALL: "C" } },
  );
  await once(child, "close");
  log.close();
  if (child.exitCode === 0) return;
  const text = await readFile(logFile, "utf8");
  const end = text.trim().split("\n").slice(-15).join("\n");
  const problem = `could not build the machine's image:\n${end}`;
  throw /Failed getting release file|Couldn't download/.test(text)
    ? new NoMirrorError(problem)
    : new Error(problem);
}

/**
 * The image of a Debian 12 machine with Docker, from the cache or newly built, which takes a minute or two.
 *
 * @throws {NoMirrorError} no Debian mirror answers.
 */
export async function machineImage(): Promise<MachineImage> {
  const cache = cacheDirectory();
  const directory = join(cache, key());
  await mkdir(cache, { recursive: true });
  const now = Date.now();
  await tidy(cache, now);
  if (!existsSync(directory)) {
    const building = `${directory}.of-${process.pid}`;
    try {
      await build(building);
      await rename(building, directory).catch((error: unknown) => {
        // Somebody else built the same one meanwhile.
        if (!existsSync(directory)) throw error;
      });
    } finally {
      await rm(building, { recursive: true, force: true });
    }
    process.stderr.write(`vm: built ${basename(directory)} in ${Date.now() - now} ms\n`);
  }
  await utimes(directory, new Date(now), new Date(now));
  return {
    disk: join(directory, "root.img"),
    kernel: join(directory, "vmlinuz"),
    initrd: join(directory, "initrd.gz"),
  };
}
