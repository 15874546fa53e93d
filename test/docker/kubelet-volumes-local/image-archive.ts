import { createHash } from "node:crypto";

import { tarFile } from "../../../src/runtime/docker/tar.ts";
import type { Fixture } from "../runtime/fixture.ts";
import { testSignal } from "../runtime/fixture.ts";

/** Files of one layer: text or bytes by path. */
export type Layer = Readonly<Record<string, string | Buffer>>;

/** Blocks that end an archive. */
const end = 1024;

function tarOf(files: readonly (readonly [string, Buffer])[], mode: number): Buffer {
  const parts = files.map(([path, content]) => tarFile(path, content, mode).subarray(0, -end));
  return Buffer.concat([...parts, Buffer.alloc(end)]);
}

function sha256(content: Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}

/** Gives the engine an image of these layers, lowest first, without a registry. */
export async function loadImage(
  { client }: Fixture,
  name: string,
  layers: readonly Layer[],
): Promise<void> {
  const tars = layers.map((layer) =>
    tarOf(
      Object.entries(layer).map(([path, content]) => [path, Buffer.from(content)] as const),
      0o755,
    ),
  );
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === "arm64" ? "arm64" : "amd64",
      os: "linux",
      config: {},
      rootfs: { type: "layers", diff_ids: tars.map((tar) => `sha256:${sha256(tar)}`) },
      history: tars.map(() => ({ created: "2026-01-01T00:00:00Z" })),
    }),
  );
  const configName = `${sha256(config)}.json`;
  const manifest = Buffer.from(
    JSON.stringify([
      {
        Config: configName,
        RepoTags: [name],
        Layers: tars.map((_, index) => `${index}/layer.tar`),
      },
    ]),
  );
  const archive = tarOf(
    [
      [configName, config],
      ["manifest.json", manifest],
      ...tars.map((tar, index) => [`${index}/layer.tar`, tar] as const),
    ],
    0o644,
  );
  await client.call(
    { op: "load", method: "POST", path: "/images/load", tar: archive, timeoutMs: 60_000 },
    testSignal(),
  );
}
