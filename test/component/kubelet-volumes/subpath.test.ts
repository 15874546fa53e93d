import assert from "node:assert/strict";
import { existsSync, mkdirSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import * as fc from "fast-check";

import { checkPayloadPath, VolumeError } from "../../../src/kubelet/volumes/payload.ts";
import { bindSubPath, openInVolume } from "../../../src/kubelet/volumes/subpath.ts";
import { inTemporary } from "../../fakes/temporary.ts";
import { FakeMounter } from "../kubelet-pods/fixture.ts";

const { signal } = new AbortController();

/** Notes what the descriptor that is bound leads to. */
class WatchingMounter extends FakeMounter {
  bound: string | undefined;

  override async bind(source: string, target: string): Promise<void> {
    this.bound = readlinkSync(source);
    await super.bind(source, target);
  }
}

/** What is in a volume: names of a small alphabet, so that paths meet them. */
type Kind = "file" | "directory" | { readonly link: string };

const name = fc.constantFrom("a", "b", "c", "new\nline", "..x", "ü");
const part = fc.oneof({ weight: 6, arbitrary: name }, fc.constantFrom("..", ".", "", "...", "no"));
const relativePath = fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/"));
const target = fc.oneof(
  relativePath,
  fc.constantFrom("/", "/etc", "../outside", "../../outside", "../volume-2", "/proc/self/root"),
);
const kind: fc.Arbitrary<Kind> = fc.oneof(
  fc.constant("file" as const),
  fc.constant("directory" as const),
  target.map((link) => ({ link })),
);
const content = fc.array(fc.tuple(fc.array(name, { minLength: 1, maxLength: 3 }), kind), {
  maxLength: 8,
});

function fill(volume: string, entries: readonly (readonly [readonly string[], Kind])[]): void {
  for (const [parts, what] of entries) {
    const path = join(volume, ...parts);
    try {
      mkdirSync(join(volume, ...parts.slice(0, -1)), { recursive: true });
      if (what === "file") writeFileSync(path, "", { flag: "wx" });
      else if (what === "directory") mkdirSync(path);
      else symlinkSync(what.link, path);
    } catch {
      // Taken, or below a file: the volume is what it is.
    }
  }
}

test("a subPath, whatever the volume holds, is bound inside the volume or refused", async () => {
  await inTemporary(async (directory) => {
    const outside = join(directory, "outside");
    // Its name begins like the volume's.
    const neighbour = join(directory, "volume-2");
    await fc.assert(
      fc.asyncProperty(content, fc.oneof(relativePath, target), async (entries, subPath) => {
        const volume = join(directory, "volume");
        for (const each of [volume, outside, neighbour]) {
          rmSync(each, { recursive: true, force: true });
          mkdirSync(each);
        }
        fill(volume, entries);
        const outsideHad = existsSync(join(outside, "a"));
        const mounter = new WatchingMounter();
        const at = join(directory, "target");
        rmSync(at, { recursive: true, force: true });
        try {
          await bindSubPath(volume, subPath, at, mounter, signal);
        } catch (error) {
          assert(error instanceof VolumeError, String(error));
          assert.equal(mounter.bound, undefined);
          return;
        }
        const { bound = "" } = mounter;
        assert(bound === volume || bound.startsWith(`${volume}/`), `${subPath} leads to ${bound}`);
        assert.equal(existsSync(join(outside, "a")), outsideHad);
        const opened = await openInVolume(volume, subPath);
        assert(opened !== undefined, "what was bound can be opened");
        await opened.close();
      }),
      { numRuns: 80 },
    );
  });
});

test("a file of a volume is opened inside it, or not at all", async () => {
  await inTemporary(async (directory) => {
    await fc.assert(
      fc.asyncProperty(content, fc.oneof(relativePath, target), async (entries, path) => {
        const volume = join(directory, "volume");
        rmSync(volume, { recursive: true, force: true });
        mkdirSync(volume);
        fill(volume, entries);
        let opened;
        try {
          opened = await openInVolume(volume, path);
        } catch {
          return;
        }
        if (opened === undefined) return;
        const found = readlinkSync(`/proc/self/fd/${opened.fd}`);
        await opened.close();
        assert(found === volume || found.startsWith(`${volume}/`), `${path} leads to ${found}`);
      }),
      { numRuns: 80 },
    );
  });
});

test("a key's path, if it is taken, stays in the volume and away from the writer's own names", () => {
  const text = fc.oneof(
    fc
      .array(fc.oneof(part, fc.string({ unit: "binary", maxLength: 5 })), { maxLength: 6 })
      .map((parts) => parts.join("/")),
    fc.string({ unit: "binary" }),
  );
  fc.assert(
    fc.property(text, (path) => {
      let checked: string;
      try {
        checked = checkPayloadPath(path);
      } catch (error) {
        assert(error instanceof VolumeError, String(error));
        return;
      }
      const parts = checked.split("/");
      assert(!checked.startsWith("/"));
      assert(!parts.includes("..") && !parts.includes("."));
      assert(!(parts[0] ?? "").startsWith(".."), "`..data` and its like are the writer's");
      assert.equal(join("/volume", checked), `/volume/${checked}`);
      assert.equal(checkPayloadPath(checked), checked);
    }),
    { numRuns: 200 },
  );
});

test("what a restarted container is shown is what is there now", async () => {
  await inTemporary(async (directory) => {
    const volume = join(directory, "volume");
    mkdirSync(join(volume, "a"), { recursive: true });
    const mounter = new WatchingMounter();
    const at = join(directory, "target");
    await bindSubPath(volume, "a", at, mounter, signal);
    // A fake mount shows nothing: the directory at the target stands for one that was replaced since.
    mounter.bound = undefined;
    await bindSubPath(volume, "a", at, mounter, signal);
    assert.equal(mounter.bound, join(volume, "a"));
  });
});
