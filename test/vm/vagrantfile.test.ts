import { execFileSync, spawnSync } from "node:child_process";
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";

const directory = fileURLToPath(new URL(".", import.meta.url));

function cannotRun(): string | undefined {
  try {
    execFileSync("sh", ["-c", "command -v vagrant"], { stdio: "ignore" });
    return undefined;
  } catch {
    return "needs vagrant on this machine";
  }
}

/** `vagrant validate` needs no box, no provider and no package. */
function validate(environment: Readonly<Record<string, string>>): string {
  const home = mkdtempSync(join(tmpdir(), "remora-vagrant-"));
  try {
    const { stderr, stdout } = spawnSync("vagrant", ["validate", "--ignore-provider"], {
      cwd: directory,
      encoding: "utf8",
      env: {
        ...process.env,
        HOME: home,
        VAGRANT_HOME: home,
        VAGRANT_DOTFILE_PATH: join(home, "machines"),
        VAGRANT_CHECKPOINT_DISABLE: "1",
        ...environment,
      },
    });
    return `${stdout}${stderr}`;
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

describe("test/vm/Vagrantfile", { skip: cannotRun() ?? false }, () => {
  test("is valid as it is, and with everything that the environment may say", () => {
    const home = mkdtempSync(join(tmpdir(), "remora-vagrant-"));
    try {
      const deb = join(home, "remora.deb");
      writeFileSync(deb, "");
      const names = "BOX DRIVER KERNEL INITRD CMDLINE".split(" ");
      const words = Object.fromEntries(names.map((name) => [`REMORA_VM_${name}`, "qemu"]));
      const numbers = { REMORA_VM_MEMORY: "1024", REMORA_VM_CPUS: "1" };
      const all = { REMORA_DEB: deb, REMORA_VM_NETWORK: "172.30.1", ...words, ...numbers };
      for (const environment of [{}, all]) {
        assert.match(validate(environment), /^Vagrantfile validated successfully\.$/m);
      }
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });
});
