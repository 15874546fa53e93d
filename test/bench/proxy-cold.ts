// Cold starts: Services in memory -> kernel, beside `nft -f` of the very same rules and beside kube-proxy's layout.
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import { coldText, remove } from "./baseline/kube-proxy-layout.ts";
import { BareNft } from "./baseline/nft-apply.ts";
import { median, round } from "./figures.ts";
import { nodeFlags } from "./node-flags.ts";
import type { ColdResult } from "./proxy-cold-child.ts";

const run = promisify(execFile);
const child = new URL("proxy-cold-child.ts", import.meta.url).pathname;
const dropTable = "add table ip remora-proxy\ndelete table ip remora-proxy\n";

export interface ColdFigures {
  readonly coldMs: number;
  /** `nft -f` of the same rules as one text. */
  readonly nftMs: number;
  readonly ratio: number;
  readonly planMs: number;
  readonly stallMs: number;
  readonly transactions: number;
  readonly bytes: number;
  readonly n: number;
}

/** Both in turns, `rounds` times. Leaves no table behind. */
export async function measureCold(
  directory: string,
  services: number,
  endpoints: number,
  rounds: number,
): Promise<ColdFigures> {
  const file = join(directory, `cold-${services}-${endpoints}.nft`);
  const nft = new BareNft();
  const results: ColdResult[] = [];
  const bare: number[] = [];
  try {
    for (let round = 0; round < rounds; round += 1) {
      const args = [child, String(services), String(endpoints), file];
      const { stdout } = await run(process.execPath, [...nodeFlags, ...args]);
      results.push(JSON.parse(stdout) as ColdResult);
      await nft.apply(dropTable);
      bare.push(await nft.applyFile(file));
      await nft.apply(dropTable);
    }
  } finally {
    await nft.close();
  }
  const of = (field: keyof ColdResult): number => median(results.map((result) => result[field]));
  return {
    coldMs: round(of("coldMs"), 0),
    nftMs: round(median(bare), 0),
    ratio: round(of("coldMs") / median(bare)),
    planMs: round(of("planMs"), 0),
    stallMs: round(Math.max(...results.map(({ stallMs }) => stallMs)), 0),
    transactions: of("transactions"),
    bytes: of("bytes"),
    n: rounds,
  };
}

/** Milliseconds that the layout with a map per Service takes. */
export async function measurePerServiceMap(directory: string, services: number): Promise<number> {
  const file = join(directory, "per-service-map.nft");
  await writeFile(file, coldText(services));
  const nft = new BareNft();
  try {
    return await nft.applyFile(file);
  } finally {
    await nft.close();
    await remove();
  }
}
