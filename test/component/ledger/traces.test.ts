import assert from "node:assert/strict";
import { chmod, mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";

import { machineTraces, removedBy } from "../../../src/agent/ledger/machine-traces.ts";
import { kubeconfigsOf, ownKubeconfigs } from "../../../src/agent/ledger/own-kubeconfigs.ts";
import { lookAt, removeAll } from "../../../src/agent/ledger/removal.ts";
import { ownUnits } from "../../../src/agent/ledger/units.ts";
import {
  ownAttachments,
  ownDirectories,
  ownFiles,
  type OwnResource,
} from "../../../src/agent/own-resources.ts";
import { writeUserKubeconfig } from "../../../src/agent/user-kubeconfig.ts";
import { temporaryDirectory } from "./temporary-directory.ts";

const { signal } = new AbortController();
const user = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

async function put(directory: string, ...names: readonly string[]): Promise<void> {
  for (const name of names) {
    await mkdir(dirname(join(directory, name)), { recursive: true });
    await writeFile(join(directory, name), "");
  }
}

function removal(said: string[], at: string[] = []): Parameters<typeof removeAll>[1] {
  return { say: (line) => said.push(line), step: (name) => void at.push(name) };
}

describe("files and directories of ours", () => {
  test("go with what is ours in them; one with something of others stays and is not counted", async (t) => {
    const root = await temporaryDirectory(t);
    await put(root, "a/ours", "b/ours", "b/theirs");
    const files = ["a/ours", "b/ours", "c/ours"].map((name) => join(root, name));
    const directories = ["a", "b", "c"].map((name) => join(root, name));
    const resources = [ownFiles(files), ownDirectories(directories, files)];
    assert.deepEqual(await lookAt(resources, signal), [
      { what: "files", name: join(root, "a/ours") },
      { what: "files", name: join(root, "b/ours") },
      { what: "directories", name: join(root, "a") },
    ]);
    await removeAll(resources, removal([]), signal);
    assert.deepEqual(await lookAt(resources, signal), []);
    assert.deepEqual(await readdir(root, { recursive: true }), ["b", "b/theirs"]);
  });

  test("one sort that fails keeps none of the others, and is told", async () => {
    const gone: string[] = [];
    const resource = (what: string, error?: Error): OwnResource => ({
      what,
      remove: async () => {
        if (error !== undefined) throw error;
        gone.push(what);
        await Promise.resolve();
      },
      left: () => Promise.resolve(gone.includes(what) ? [] : [what]),
    });
    const [said, steps]: [string[], string[]] = [[], []];
    const resources = [resource("mounts", new Error("busy")), resource("log links")];
    await removeAll(resources, removal(said, steps), signal);
    assert.deepEqual(said, ["mounts: busy"]);
    assert.deepEqual(steps, ["removeMounts", "removeLogLinks"]);
    assert.deepEqual(await lookAt(resources, signal), [{ what: "mounts", name: "mounts" }]);
  });

  test("what plug-ins still hold is counted by its records", async (t) => {
    const root = await temporaryDirectory(t);
    const attachments = ownAttachments(join(root, "results"));
    assert.deepEqual(await attachments.left(signal), []);
    await put(root, "results/pods-b-eth0", "results/pods-a-eth0");
    assert.deepEqual(await attachments.left(signal), ["pods-a-eth0", "pods-b-eth0"]);
  });
});

describe("units", () => {
  test("are counted by what enables them, and others are not ours", async (t) => {
    const root = await temporaryDirectory(t);
    const wants = join(root, "multi-user.target.wants");
    await put(root, "remora.service.d/override.conf", "multi-user.target.wants/remora.socket");
    await symlink("/lib/systemd/system/remora-up.service", join(wants, "remora-up.service"));
    await symlink("/lib/systemd/system/ssh.service", join(wants, "ssh.service"));
    const enabled = (await ownUnits(root).left(signal)).filter((line) =>
      line.startsWith("enabled"),
    );
    assert.deepEqual(enabled, [`enabled: ${join(wants, "remora-up.service")}`]);
  });
});

describe("what was installed for this machine", () => {
  test("packages that are still there are named, and removed only when that is asked for", async (t) => {
    const directory = await temporaryDirectory(t);
    const record = join(directory, "setup.jsonl");
    const lines = [
      { kind: "package", name: "dpkg" },
      { kind: "package", name: "no-such-package-of-remora" },
      { kind: "engine", name: "docker.service" },
    ];
    await writeFile(record, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const { kept, records, resources } = await machineTraces(false, signal, directory);
    assert.deepEqual(kept, [
      "docker.service was started for remora and keeps running: systemctl stop docker.service",
      "packages that were installed for remora stay; --packages removes them, or: apt-get remove dpkg",
    ]);
    assert.deepEqual(await lookAt(resources, signal), []);
    const asked = await machineTraces(true, signal, directory);
    assert.deepEqual(await lookAt(asked.resources, signal), [{ what: "packages", name: "dpkg" }]);
    await removeAll(records, removal([]), signal);
    assert.deepEqual(
      await readdir(dirname(directory)).then((names) => names.includes(record)),
      false,
    );
    assert.deepEqual(await lookAt(records, signal), []);
  });

  test("what apt would remove is read from its simulation", () => {
    const simulation = `Reading package lists...
The following packages will be REMOVED:
  docker.io nftables
Remv docker.io [20.10.24+dfsg1-1+deb12u1]
Remv nftables [1.0.6-2+deb12u2]
`;
    assert.deepEqual(removedBy(simulation), ["docker.io", "nftables"]);
    assert.deepEqual(removedBy(""), []);
  });
});

describe("kubeconfigs that got our context", () => {
  const cluster = {
    server: "https://127.0.0.1:6443",
    caPEM: "ca",
    clientCertPEM: "cert",
    clientKeyPEM: "key",
  };

  test("all lose it, whoever asks, and one that cannot be read keeps none of the others", async (t) => {
    const home = await temporaryDirectory(t);
    const [ada, bob, eve] = ["ada", "bob", "eve"].map((name) => join(home, name, "config"));
    assert.ok(ada !== undefined && bob !== undefined && eve !== undefined);
    const person = { ...user, name: "x", home };
    for (const path of [ada, bob]) await writeUserKubeconfig(path, person, cluster);
    await put(home, "eve/config");
    await writeFile(eve, "a: [remora");
    const changes = [eve, bob].map((path) => ({ kind: "kubeconfig", path, ...user }) as const);
    const contexts = ownKubeconfigs(kubeconfigsOf(changes, { path: ada, user }));
    assert.deepEqual(await contexts.left(signal), [ada, bob]);
    await assert.rejects(contexts.remove(signal), /eve\/config was left alone/);
    assert.deepEqual(await contexts.left(signal), []);
    assert.equal(await readFile(eve, "utf8"), "a: [remora");
    await chmod(eve, 0o600);
  });
});
