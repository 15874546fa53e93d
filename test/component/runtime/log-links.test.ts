import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";

import { label } from "../../../src/runtime/docker/labels.ts";
import {
  ensureLogLinks,
  type LogDirs,
  removeLogLinks,
  sweepLogLinks,
} from "../../../src/runtime/docker/log-links.ts";

const root = mkdtempSync(join(tmpdir(), "remora-log-links-"));
after(() => {
  rmSync(root, { recursive: true, force: true });
});
let count = 0;

interface Case {
  readonly dirs: LogDirs;
  readonly id: string;
  readonly labels: Record<string, string>;
  readonly logPath: string;
}

function container(pod: string): Case {
  count += 1;
  const base = join(root, String(count));
  const id = "ab".repeat(32);
  const logPath = join(base, "docker", id, `${id}-json.log`);
  mkdirSync(dirname(logPath), { recursive: true });
  writeFileSync(logPath, "");
  const uid = "0".repeat(36);
  const labels = {
    [label.podName]: pod,
    [label.podNamespace]: "ns",
    [label.containerName]: "c",
    [label.logPath]: `ns_${pod}_${uid}/c/2.log`,
  };
  const dirs = { podLogsDir: join(base, "pods"), containerLogsDir: join(base, "containers") };
  return { dirs, id, labels, logPath };
}

describe("links to a container's log", () => {
  test("have the kubelet's names, and go with the directories that they leave empty", async () => {
    const { dirs, id, labels, logPath } = container("web");
    await ensureLogLinks({ id, labels, logPath }, dirs);
    const pod = join(dirs.podLogsDir, `ns_web_${"0".repeat(36)}/c/2.log`);
    assert.equal(readlinkSync(pod), logPath);
    assert.equal(readlinkSync(join(dirs.containerLogsDir, `web_ns_c-${id}.log`)), pod);
    await removeLogLinks(id, labels, dirs);
    assert.deepEqual(readdirSync(dirs.containerLogsDir), []);
    assert.deepEqual(readdirSync(dirs.podLogsDir), []);
  });

  test("of a pod with a long name are cut as the kubelet cuts them", async () => {
    const { dirs, id, labels, logPath } = container("p".repeat(200));
    await ensureLogLinks({ id, labels, logPath }, dirs);
    const name = `${`${"p".repeat(200)}_ns_c-${id}`.slice(0, 251)}.log`;
    assert.deepEqual(readdirSync(dirs.containerLogsDir), [name]);
    await sweepLogLinks(dirs);
    assert.deepEqual(readdirSync(dirs.containerLogsDir), [name]);
    await removeLogLinks(id, labels, dirs);
    assert.deepEqual(readdirSync(dirs.containerLogsDir), []);
  });

  test("of a pod whose names make no directory name lead to the engine's file", async () => {
    const { dirs, id, labels, logPath } = container("p".repeat(253));
    await ensureLogLinks({ id, labels, logPath }, dirs);
    const [name = ""] = readdirSync(dirs.containerLogsDir);
    assert.equal(readlinkSync(join(dirs.containerLogsDir, name)), logPath);
    assert.equal(existsSync(dirs.podLogsDir), false);
    await sweepLogLinks(dirs);
    assert.equal(readdirSync(dirs.containerLogsDir).length, 1);
    rmSync(logPath);
    await sweepLogLinks(dirs);
    assert.deepEqual(readdirSync(dirs.containerLogsDir), []);
    await removeLogLinks(id, labels, dirs);
  });

  test("that lead nowhere are swept, and those of others are not", async () => {
    const { dirs, id, labels, logPath } = container("web");
    await ensureLogLinks({ id, labels, logPath }, dirs);
    const foreign = join(dirs.containerLogsDir, "mine.log");
    writeFileSync(foreign, "");
    rmSync(logPath);
    await sweepLogLinks(dirs);
    assert.deepEqual(readdirSync(dirs.containerLogsDir), ["mine.log"]);
  });
});
