import assert from "node:assert/strict";
import { chmod, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { systemClock } from "../../../src/lib/clock.ts";
import { jsonLogger, silentLogger } from "../../../src/lib/log.ts";
import { type Attachment, Attachments } from "../../../src/network/cni/attachments.ts";
import {
  addNetwork,
  checkNetwork,
  collectNetwork,
  delNetwork,
  networkStatus,
} from "../../../src/network/cni/chain.ts";
import { parseConfigList } from "../../../src/network/cni/config.ts";
import { NetworkSource } from "../../../src/network/cni/network-source.ts";
import { type CniLimits, Plugins } from "../../../src/network/cni/plugins.ts";
import { SandboxJobs } from "../../../src/network/cni/sandbox-jobs.ts";
import { inTemporary } from "../../fakes/temporary.ts";

const { signal } = new AbortController();
const result =
  '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/n"}],"ips":[{"address":"10.1.0.2/24","interface":0}]}';
const resultOf = (): Record<string, unknown> => JSON.parse(result) as Record<string, unknown>;
const versions = '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}';

/** A plug-in in sh that writes down what it was told, and answers what `script` says. */
async function plugin(directory: string, name: string, script: string): Promise<void> {
  const bin = join(directory, "bin");
  await mkdir(bin, { recursive: true });
  const text = `#!/bin/sh
input=$(cat)
if [ "$CNI_COMMAND" = VERSION ]; then echo '${versions}'; exit 0; fi
env | grep ^CNI_ | sort >"${directory}/${name}.$CNI_COMMAND.env"
printf %s "$input" >"${directory}/${name}.$CNI_COMMAND.in"
echo "${name} $CNI_COMMAND" >>"${directory}/calls"
${script}
`;
  await writeFile(join(bin, name), text);
  await chmod(join(bin, name), 0o755);
}

const well = `if [ "$CNI_COMMAND" = ADD ]; then echo '${result}'; fi`;

function attachmentOf(directory: string, more: Partial<Attachment> = {}): Attachment {
  return {
    sandboxID: "s1",
    podUID: "u1",
    podKey: "default/web",
    ifName: "eth0",
    list: parseConfigList(
      JSON.stringify({
        cniVersion: "1.0.0",
        name: "pods",
        loadOnlyInlinedPlugins: true,
        plugins: [
          { type: "first", x: 1, capabilities: { bandwidth: true } },
          { type: "second", capabilities: { portMappings: true, mac: true } },
        ],
      }),
    ),
    netns: "/proc/77/ns/net",
    netnsID: "boot net:[1]",
    args: [
      ["IgnoreUnknown", "1"],
      ["K8S_POD_NAME", "web"],
    ],
    capabilityArgs: { portMappings: [{ hostPort: 80 }], bandwidth: { ingressRate: 5 } },
    directories: [join(directory, "bin")],
    result: undefined,
    ...more,
  };
}

function plugins(limits: Partial<CniLimits> = {}): Plugins {
  return new Plugins({ clock: systemClock, limits });
}

async function told(directory: string, file: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(join(directory, `${file}.in`), "utf8")) as Record<
    string,
    unknown
  >;
}

describe("a chain of plug-ins", () => {
  test("is told what the specification says: ADD in order, DEL in reverse", async () => {
    await inTemporary(async (directory) => {
      await plugin(directory, "first", well);
      await plugin(directory, "second", well);
      const attachment = attachmentOf(directory);
      const added = await addNetwork(plugins(), attachment, signal);
      assert.deepEqual(added, JSON.parse(result));
      const common = { name: "pods", cniVersion: "1.0.0" };
      assert.deepEqual(await told(directory, "first.ADD"), {
        ...common,
        type: "first",
        x: 1,
        capabilities: { bandwidth: true },
        runtimeConfig: { bandwidth: { ingressRate: 5 } },
      });
      assert.deepEqual(await told(directory, "second.ADD"), {
        ...common,
        type: "second",
        capabilities: { portMappings: true, mac: true },
        runtimeConfig: { portMappings: [{ hostPort: 80 }] },
        prevResult: resultOf(),
      });
      assert.equal(
        await readFile(join(directory, "first.ADD.env"), "utf8"),
        [
          "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=web",
          "CNI_COMMAND=ADD",
          "CNI_CONTAINERID=s1",
          "CNI_IFNAME=eth0",
          "CNI_NETNS=/proc/77/ns/net",
          `CNI_PATH=${directory}/bin`,
          "",
        ].join("\n"),
      );
      const complete = { ...attachment, result: added };
      await checkNetwork(plugins(), complete, signal);
      await delNetwork(plugins(), complete, "", signal);
      assert.match(await readFile(join(directory, "second.DEL.env"), "utf8"), /^CNI_NETNS=$/m);
      assert.deepEqual((await told(directory, "first.DEL"))["prevResult"], added);
      assert.deepEqual((await readFile(join(directory, "calls"), "utf8")).trim().split("\n"), [
        "first ADD",
        "second ADD",
        "first CHECK",
        "second CHECK",
        "second DEL",
        "first DEL",
      ]);
    });
  });

  test("of version 0.3.1 gets no result with DEL", async () => {
    await inTemporary(async (directory) => {
      await plugin(directory, "first", well);
      const list = parseConfigList(
        '{"cniVersion":"0.3.1","name":"old","plugins":[{"type":"first"}]}',
      );
      const complete = attachmentOf(directory, {
        list,
        result: JSON.parse(result) as Record<string, unknown>,
      });
      await delNetwork(plugins(), complete, "", signal);
      assert.equal((await told(directory, "first.DEL"))["prevResult"], undefined);
    });
  });

  test("of version 1.1.0 is asked for its status, and told what is left", async () => {
    await inTemporary(async (directory) => {
      await plugin(
        directory,
        "first",
        `[ "$CNI_COMMAND" = STATUS ] || exit 0
echo '{"code":50,"msg":"no route reflector"}'; exit 1`,
      );
      const list = parseConfigList(
        '{"cniVersion":"1.1.0","name":"new","plugins":[{"type":"first"}]}',
      );
      const directories = [join(directory, "bin")];
      await assert.rejects(networkStatus(plugins(), list, directories, signal), {
        cniCode: 50,
        message: 'plugin type="first" failed (status): no route reflector',
      });
      const valid = [{ containerID: "s1", ifname: "eth0" }];
      await collectNetwork(plugins(), { list, directories }, valid, signal);
      assert.deepEqual((await told(directory, "first.GC"))["cni.dev/valid-attachments"], valid);
      assert.match(await readFile(join(directory, "first.GC.env"), "utf8"), /^CNI_CONTAINERID=$/m);
    });
  });

  for (const [why, script, message] of [
    [
      "an error of the specification",
      `echo '{"cniVersion":"1.0.0","code":11,"msg":"no address","details":"try later"}'; exit 1`,
      'plugin type="first" failed (add): no address; try later',
    ],
    [
      "words on stderr",
      "echo panic: nil >&2; exit 2",
      'plugin type="first" failed (add): netplugin failed: "panic: nil": exit status 2',
    ],
    [
      "no words",
      "exit 3",
      'plugin type="first" failed (add): netplugin failed with no error message: exit status 3',
    ],
    [
      "a crash",
      "kill -SEGV $$",
      /^plugin type="first" failed \(add\): netplugin failed.*signal: SIGSEGV$/,
    ],
    [
      "garbage for an error",
      "echo '<html>'; exit 1",
      /netplugin failed but error parsing its diagnostic message "<html>"/,
    ],
    ["garbage for a result", "echo ok", /its result "ok" is no JSON/],
    ["no result", "exit 0", /its result "" is no JSON/],
    [
      "a flood",
      "while :; do echo 0123456789012345678901234567890123456789; done",
      /wrote more than 1048576 bytes and was killed/,
    ],
    [
      "a hang, with a child that hangs too",
      "sleep 61 & sleep 60",
      /did not end within 0.2 s and was killed/,
    ],
    [
      "a hang that cannot be asked to end",
      "trap '' TERM; while :; do sleep 60; done",
      /did not end within 0.2 s and was killed/,
    ],
  ] as const) {
    test(`that fails with ${why} is told of in one sentence`, async () => {
      await inTemporary(async (directory) => {
        await plugin(directory, "first", `[ "$CNI_COMMAND" = ADD ] || exit 0\n${script}`);
        await plugin(directory, "second", well);
        const limits = /hang/.test(why) ? { ADD: 200 } : {};
        await assert.rejects(addNetwork(plugins(limits), attachmentOf(directory), signal), {
          code: "REMORA_CNI",
          message,
        });
        assert.doesNotMatch(await readFile(join(directory, "calls"), "utf8"), /second/);
      });
    });
  }

  test("that leaves a child with its streams is not waited for", async () => {
    await inTemporary(async (directory) => {
      await plugin(directory, "first", `${well}\nsetsid sleep 3 &`);
      await plugin(directory, "second", well);
      const clock = { ...systemClock, sleep: async () => undefined };
      const patient = new Plugins({ clock });
      assert.deepEqual(
        await addNetwork(patient, attachmentOf(directory), signal),
        JSON.parse(result),
      );
    });
  });

  test("that somebody gives up is killed with all of it", async () => {
    await inTemporary(async (directory) => {
      await plugin(directory, "first", `sleep 61 & echo $! >${directory}/pid; wait`);
      await plugin(directory, "second", well);
      const stop = new AbortController();
      const adding = addNetwork(plugins(), attachmentOf(directory), stop.signal);
      let pid = "";
      while (pid === "") {
        pid = await readFile(join(directory, "pid"), "utf8").catch(() => "");
        await delay(5);
      }
      stop.abort();
      await assert.rejects(adding, { name: "AbortError" });
      const state = async (): Promise<string> =>
        readFile(`/proc/${pid.trim()}/stat`, "utf8").then(
          (text) => text.split(" ")[2] ?? "",
          () => "gone",
        );
      while (!["gone", "Z"].includes(await state())) await delay(5);
    });
  });

  test("that has nothing to delete has deleted it", async () => {
    await inTemporary(async (directory) => {
      await plugin(directory, "first", "exit 0");
      await plugin(directory, "second", `echo '{"code":3,"msg":"container not found"}'; exit 1`);
      await delNetwork(plugins(), attachmentOf(directory), "/proc/77/ns/net", signal);
      assert.match(await readFile(join(directory, "calls"), "utf8"), /first DEL/);
    });
  });

  test("whose plug-in is not there says where it was looked for", async () => {
    await inTemporary(async (directory) => {
      await assert.rejects(addNetwork(plugins(), attachmentOf(directory), signal), {
        message: `plugin type="first" failed (add): failed to find plugin "first" in path [${directory}/bin]`,
      });
    });
  });

  test("whose plug-in may not be run says so", async () => {
    await inTemporary(async (directory) => {
      await plugin(directory, "first", well);
      await chmod(join(directory, "bin/first"), 0o644);
      await assert.rejects(addNetwork(plugins(), attachmentOf(directory), signal), {
        message: /bin\/first cannot be executed: Permission denied/,
      });
    });
  });
});

describe("records of attachments", () => {
  test("are in the layout of libcni's cache, and found again, also of an ADD that did not end", async () => {
    await inTemporary(async (directory) => {
      const make = (): Attachments => new Attachments({ directory, logger: silentLogger });
      const attachments = make();
      await attachments.load();
      const attachment = attachmentOf(directory);
      await attachments.begin(attachment);
      const [name = ""] = await readdir(directory);
      assert.equal(name, "pods-s1-eth0");
      const before = make();
      await before.load();
      assert.equal(before.get("s1")?.result, undefined);
      assert.deepEqual(before.get("s1"), attachment);
      const complete = { ...attachment, result: JSON.parse(result) as Record<string, unknown> };
      await attachments.complete(complete);
      const record = JSON.parse(await readFile(join(directory, name), "utf8")) as Record<
        string,
        unknown
      >;
      const { cniArgs, containerId, ifName, kind, netns, networkName } = record;
      assert.deepEqual(
        { cniArgs, containerId, ifName, kind, netns, networkName },
        {
          kind: "cniCacheV1",
          containerId: "s1",
          ifName: "eth0",
          networkName: "pods",
          netns: "/proc/77/ns/net",
          cniArgs: attachment.args,
        },
      );
      const config = Buffer.from(String(record["config"]), "base64").toString("utf8");
      assert.deepEqual(parseConfigList(config).plugins, attachment.list.plugins);
      const again = make();
      await again.load();
      assert.deepEqual(again.values(), [complete]);
      await again.forget("s1");
      await again.forget("s1");
      assert.deepEqual(await readdir(directory), []);
    });
  });

  test("that cannot be read are told of and left alone", async () => {
    await inTemporary(async (directory) => {
      await writeFile(join(directory, "pods-s1-eth0"), "{");
      await writeFile(join(directory, "pods-s2-eth0.tmp"), "{");
      const lines: string[] = [];
      const write = (line: string): void => void lines.push(line);
      const logger = jsonLogger({ write, now: () => 0, level: "info" });
      const attachments = new Attachments({ directory, logger });
      await attachments.load();
      assert.equal(attachments.size, 0);
      assert.deepEqual(await readdir(directory), ["pods-s1-eth0"]);
      assert.match(lines.join(), /unreadable and is left alone.*pods-s1-eth0/);
    });
  });
});

describe("the directory of configurations", () => {
  const list = (name: string, type = "first", more: object = {}): string =>
    JSON.stringify({ cniVersion: "1.0.0", name, plugins: [{ type }], ...more });

  const withSource = async (
    work: (at: {
      readonly directory: string;
      readonly source: NetworkSource;
      readonly write: (name: string, text: string) => Promise<void>;
      readonly changes: () => number;
    }) => Promise<void>,
  ): Promise<void> => {
    await inTemporary(async (directory) => {
      let changes = 0;
      await plugin(directory, "first", "exit 0");
      const source = new NetworkSource({
        directory: join(directory, "net.d"),
        pluginDirectories: [join(directory, "bin")],
        plugins: plugins(),
        onChange: () => {
          changes += 1;
        },
        clock: systemClock,
        logger: silentLogger,
      });
      const write = async (name: string, text: string): Promise<void> => {
        await mkdir(join(directory, "net.d"), { recursive: true });
        await writeFile(join(directory, "net.d", name), text);
      };
      await work({ directory, source, write, changes: () => changes });
    });
  };

  test("that is not there is no network", async () => {
    await withSource(async ({ directory, source, changes }) => {
      await source.look(signal);
      assert.equal(
        source.notReadyReason,
        `docker: network plugin is not ready: cni config uninitialized: no network config found in ${directory}/net.d`,
      );
      assert.equal(changes(), 0);
    });
  });

  test("gives the first file by name that can be used", async () => {
    await withSource(async ({ source, write }) => {
      await write("00-notes.txt", "hello");
      await write("05-broken.conf", "{");
      await write("07-other.conflist", list("other", "missing"));
      await write("08-future.conflist", list("future", "first", { cniVersion: "0.2.0" }));
      await write("10-one.conf", '{"cniVersion":"0.4.0","name":"one","type":"first"}');
      await write("20-two.conflist", list("two"));
      await source.look(signal);
      assert.equal(source.list?.name, "one");
      assert.equal(source.notReadyReason, undefined);
    });
  });

  test("that has no file that can be used says what is wrong with the first", async () => {
    await withSource(async ({ source, write }) => {
      await write("08-future.conflist", list("future", "first", { cniVersion: "0.2.0" }));
      await source.look(signal);
      assert.match(
        source.notReadyReason ?? "",
        /08-future.conflist: plugin first does not support config version "0.2.0"$/,
      );
    });
  });

  test("is followed: files that come, change and go, and plug-ins that come", async () => {
    await withSource(async ({ directory, source, write, changes }) => {
      await source.look(signal);
      await write("10-pods.conflist", list("pods", "late"));
      await source.look(signal);
      assert.match(source.notReadyReason ?? "", /failed to find plugin "late"/);
      await plugin(directory, "late", "exit 0");
      await source.look(signal);
      assert.equal(source.list?.name, "pods");
      const before = changes();
      await source.look(signal);
      assert.equal(changes(), before, "nothing new is no news");
      await write("10-pods.conflist", list("changed"));
      await source.look(signal);
      assert.equal(source.list?.name, "changed");
      await rm(join(directory, "net.d"), { recursive: true });
      await source.look(signal);
      assert.equal(source.list, undefined);
      assert.equal(changes(), before + 2);
    });
  });

  test("takes plug-ins from the directory of the network's name, unless told not to", async () => {
    await withSource(async ({ directory, source, write }) => {
      await plugin(directory, "more", "exit 0");
      await write("10-pods.conflist", list("pods"));
      await mkdir(join(directory, "net.d/pods"));
      await write("pods/10-more.conf", '{"type":"more"}');
      await source.look(signal);
      assert.deepEqual(
        source.list?.plugins.map(({ type }) => type),
        ["first", "more"],
      );
      await write("10-pods.conflist", list("pods", "first", { loadOnlyInlinedPlugins: true }));
      await source.look(signal);
      assert.deepEqual(
        source.list?.plugins.map(({ type }) => type),
        ["first"],
      );
    });
  });

  test("is not ready while plug-ins of version 1.1.0 say that they are not", async () => {
    await withSource(async ({ directory, source, write }) => {
      await plugin(
        directory,
        "first",
        `[ -e ${directory}/up ] && exit 0; echo '{"code":50,"msg":"daemon is down"}'; exit 1`,
      );
      await write("10-pods.conflist", list("pods", "first", { cniVersions: ["1.1.0", "1.0.0"] }));
      await source.look(signal);
      assert.equal(
        source.notReadyReason,
        'Network plugin returns error: plugin type="first" failed (status): daemon is down',
      );
      await writeFile(join(directory, "up"), "");
      await source.look(signal);
      assert.equal(source.notReadyReason, undefined);
    });
  });

  test("is looked at as soon as something changes in it", async () => {
    await withSource(async ({ source, write }) => {
      await write("notes.txt", "");
      const stop = new AbortController();
      const running = source.run(stop.signal);
      await delay(30);
      await write("10-pods.conflist", list("pods"));
      // Far below the interval at which it is looked at anyway.
      const started = performance.now();
      while (source.list === undefined && performance.now() - started < 3000) await delay(10);
      assert.equal(source.list?.name, "pods");
      stop.abort();
      await running;
    });
  });
});

describe("work of plug-ins for a sandbox", () => {
  const jobs = (patienceMs: number): SandboxJobs =>
    new SandboxJobs({ patienceMs, clock: systemClock, logger: silentLogger });

  test("that takes long is joined, not begun again, and callers are told to come back", async () => {
    const all = jobs(20);
    const end = Promise.withResolvers<readonly string[]>();
    let begun = 0;
    const work = async (): Promise<readonly string[]> => {
      begun += 1;
      return end.promise;
    };
    await assert.rejects(all.run("s", "add", work, signal), /at ADD for 0 s, and are not waited/);
    const second = all.run("s", "add", work, signal);
    end.resolve(["10.0.0.1"]);
    assert.deepEqual(await second, ["10.0.0.1"]);
    assert.equal(begun, 1);
    assert.equal(all.idle, true);
  });

  test("is ended for a DEL, which begins when it has ended", async () => {
    const all = jobs(1000);
    const order: string[] = [];
    const adding = all.run(
      "s",
      "add",
      async (stop) => {
        await new Promise((resolve) => stop.addEventListener("abort", resolve));
        order.push("add ended");
        throw new DOMException("ended", "AbortError");
      },
      signal,
    );
    const refused = assert.rejects(adding, { name: "AbortError" });
    await all.run(
      "s",
      "delete",
      async () => {
        order.push("delete");
        return [];
      },
      signal,
    );
    await refused;
    assert.deepEqual(order, ["add ended", "delete"]);
  });

  test("goes on when its caller does not", async () => {
    const all = jobs(1000);
    const caller = new AbortController();
    const end = Promise.withResolvers<readonly string[]>();
    const run = all.run("s", "add", async () => end.promise, caller.signal);
    caller.abort();
    await assert.rejects(run, { name: "AbortError" });
    assert.equal(all.running("s"), "add");
    end.resolve([]);
    await all.run("s", "delete", async () => [], signal);
    assert.equal(all.idle, true);
  });
});
