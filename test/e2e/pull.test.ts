import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { describe, test } from "node:test";

import { busyboxArchive, eventually, Machine, root } from "./lib/machine.ts";
import { cannotRun, remoraUp } from "./lib/remora.ts";

const skip = cannotRun();

function pod(name: string, image: string, extra: object = {}): string {
  const command = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"];
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec: { containers: [{ name: "a", image, command }], ...extra },
  });
}

interface Status {
  readonly phase: string;
  readonly containerStatuses?: readonly {
    readonly ready: boolean;
    readonly imageID: string;
    readonly state: { readonly waiting?: { readonly reason: string; readonly message: string } };
  }[];
}

describe("images from a registry", { skip: skip ?? false }, () => {
  test("are pulled, with the pull secret where the registry asks for it, and refused with the kubelet's reasons", async () => {
    await using machine = await Machine.start("pull");
    const layer = `${machine.shared}/layer.tar`;
    await writeFile(layer, await busyboxArchive());
    const registry = [`${root}/bin/node`, `${root}/test/fakes/registry.ts`];
    machine.spawn([...registry, "5000", "/run/layer.tar"]);
    machine.spawn([...registry, "5001", "/run/layer.tar", "jane:secret-word"]);
    const remora = await remoraUp(machine);
    const status = async (name: string): Promise<Status> =>
      JSON.parse(
        (await machine.kubectl(["get", "pod", name, "-o", "jsonpath={.status}"])).stdout,
      ) as Status;
    const describePod = async (name: string): Promise<string> =>
      (await machine.kubectl(["describe", "pod", name], { allowFailure: true })).stdout +
      remora.output();
    const becomesReady = (name: string): Promise<Status> =>
      eventually(
        async () => {
          const found = await status(name);
          return found.containerStatuses?.[0]?.ready === true ? found : undefined;
        },
        { timeoutMs: 30_000, describe: () => describePod(name) },
      );
    const waitsFor = (name: string, reason: string): Promise<string> =>
      eventually(
        async () => {
          const waiting = (await status(name)).containerStatuses?.[0]?.state.waiting;
          return waiting?.reason === reason ? waiting.message : undefined;
        },
        { timeoutMs: 60_000, describe: () => describePod(name) },
      );
    const create = (manifest: string) =>
      machine.kubectl(["create", "-f", "-"], { stdin: manifest });

    await create(pod("open", "127.0.0.1:5000/team/app:1"));
    const open = await becomesReady("open");
    assert.match(
      open.containerStatuses?.[0]?.imageID ?? "",
      /127\.0\.0\.1:5000\/team\/app@sha256:[0-9a-f]{64}$/,
    );

    await create(pod("locked", "127.0.0.1:5001/team/app:1"));
    await waitsFor("locked", "ImagePullBackOff");
    await machine.kubectl([
      "create",
      "secret",
      "docker-registry",
      "pull",
      "--docker-server=127.0.0.1:5001",
      "--docker-username=jane",
      "--docker-password=secret-word",
    ]);
    await create(
      pod("unlocked", "127.0.0.1:5001/team/app:1", { imagePullSecrets: [{ name: "pull" }] }),
    );
    await becomesReady("unlocked");

    await create(pod("unknown", "127.0.0.1:5000/missing/app:1"));
    await waitsFor("unknown", "ErrImagePull");
    await waitsFor("unknown", "ImagePullBackOff");
    const events = await machine.kubectl([
      "get",
      "events",
      "-o",
      "jsonpath={range .items[*]}{.reason} {.message}{'\\n'}{end}",
    ]);
    assert.match(events.stdout, /Pulling Pulling image "127\.0\.0\.1:5000\/team\/app:1"/);
    assert.match(
      events.stdout,
      /Failed Failed to pull image "127\.0\.0\.1:5000\/missing\/app:1": /,
    );
    assert.match(
      events.stdout,
      /BackOff Back-off pulling image "127\.0\.0\.1:5000\/missing\/app:1"/,
    );
    assert.doesNotMatch(events.stdout + remora.output(), /secret-word/);
    assert.equal((await status("open")).phase, "Running", "the node goes on");
    await remora.signal("TERM");
    await remora.exited;
  });
});
