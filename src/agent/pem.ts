import { readFile } from "node:fs/promises";

import type { PemSource } from "../api/kubeconfig-types.ts";

/** The PEM text of a kubeconfig entry, whether it stands in the file or in another one. */
export async function pemText(source: PemSource): Promise<string> {
  return source.kind === "data" ? source.pem : readFile(source.path, "utf8");
}
