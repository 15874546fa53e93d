import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";

import { type Keyring, parseKeyring } from "./credentials.ts";

/** Files of `docker login` and its kin, in the kubelet's order: the first that can be read counts alone. */
export function nodeCredentialFiles(rootDir: string, home: string): readonly string[] {
  return [
    ...[rootDir, join(home, ".docker"), "/.docker"].map((place) => join(place, "config.json")),
    ...[rootDir, home, "/"].map((place) => join(place, ".dockercfg")),
  ];
}

/** Credentials that lie on the node, for the images of all its pods. Read anew each time: people log in and out. */
export async function nodeKeyring(rootDir: string, home: string = homedir()): Promise<Keyring> {
  for (const file of nodeCredentialFiles(rootDir, home)) {
    try {
      const keyring = parseKeyring(await readFile(file, "utf8"));
      if (keyring.length > 0) return keyring;
    } catch {
      // Not there, or not ours to read.
    }
  }
  return [];
}
