import { createHash } from "node:crypto";

import { RuntimeError } from "../errors.ts";
import type { DockerClient } from "./client.ts";
import { label } from "./labels.ts";
import { tarFile } from "./tar.ts";

/**
 * The pause program, 232 bytes of ELF per architecture: it lets the kernel reap its children, waits for INT, QUIT or
 * TERM, and exits. Assembled from pause/pause-amd64.s and pause/pause-arm64.s beside this file.
 */
const programs: Readonly<Record<string, string>> = {
  amd64: `
    7f454c4602010100000000000000000002003e00010000007800400000000000
    4000000000000000000000000000000000000000400038000100400000000000
    0100000005000000000000000000000000004000000000000000400000000000
    e800000000000000e80000000000000000100000000000006a0d586a115f488d
    353b00000031d26a08415a0f056a0e5831ff488d354700000031d20f05b88000
    0000488d3d3700000031f631d20f0585c078eab8e700000031ff0f050f1f4000
    0100000000000000020000000000000000000000000000000000000000000000
    0640000000000000`,
  arm64: `
    7f454c460201010000000000000000000200b700010000007800400000000000
    4000000000000000000000000000000000000000400038000100400000000000
    0100000005000000000000000000000000004000000000000000400000000000
    e800000000000000e8000000000000000000010000000000c81080d2200280d2
    01020010020080d2030180d2010000d4e81080d2000080d241020010010000d4
    281180d2e0010010010080d2010000d480ffffb7c80b80d2000080d2010000d4
    0100000000000000020000000000000000000000000000000000000000000000
    0640000000000000`,
};

/** The program's bytes. @throws {RuntimeError} `Unsupported` for another architecture. */
export function pauseProgram(arch: string): Buffer {
  const hex = programs[arch];
  if (hex === undefined) {
    throw new RuntimeError(
      "Unsupported",
      `Remora has no pause program for architecture "${arch}" (it has ${Object.keys(programs).join(", ")})`,
    );
  }
  return Buffer.from(hex.replaceAll(/\s/g, ""), "hex");
}

/** Repository of our pause images; the tag is the program's hash. */
export const pauseRepository = "remora.local/pause";

/** `remora.local/pause:<hash>` */
export function pauseImageName(arch: string): string {
  return `${pauseRepository}:${pauseHash(arch)}`;
}

function pauseHash(arch: string): string {
  return createHash("sha256").update(pauseProgram(arch)).digest("hex").slice(0, 12);
}

/** Imports the pause image. Two imports at once would leave a dangling image, so there is one at a time. */
export class PauseImage {
  readonly #client: DockerClient;
  #importing: Promise<string> | undefined;

  constructor(client: DockerClient) {
    this.#client = client;
  }

  /** The image's name. It is not checked: whoever creates from it and gets `ImageMissing` calls {@link load}. */
  async name(signal: AbortSignal): Promise<string> {
    return pauseImageName((await this.#client.version(signal)).arch);
  }

  /** Imports the image without a registry and returns its name. */
  async load(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    // Shared by all who wait, so no caller's signal may end it; the call has its own deadline.
    this.#importing ??= this.#import(new AbortController().signal).finally(() => {
      this.#importing = undefined;
    });
    return this.#importing;
  }

  async #import(signal: AbortSignal): Promise<string> {
    const { arch } = await this.#client.version(signal);
    const hash = pauseHash(arch);
    await this.#client.call(
      {
        op: "import pause image",
        method: "POST",
        path: "/images/create",
        query: {
          fromSrc: "-",
          repo: pauseRepository,
          tag: hash,
          changes: ['ENTRYPOINT ["/pause"]', `LABEL ${label.pause}=${hash}`],
        },
        tar: tarFile("pause", pauseProgram(arch), 0o755),
        timeoutMs: 60_000,
      },
      signal,
    );
    return pauseImageName(arch);
  }
}
