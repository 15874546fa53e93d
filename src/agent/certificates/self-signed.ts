import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { canonicalIP, ipFamily } from "../../lib/cidr.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorCode, errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { readIfThere } from "../../lib/read-if-there.ts";
import { certificate, newPrivateKey, privateKeyPEM } from "../../lib/x509.ts";
import { parsePair } from "./pair-store.ts";
import { alternativeNames } from "./validity.ts";
import { Wake } from "./wake.ts";

const hourMs = 3_600_000;
const lifeMs = 365 * 24 * hourMs;
/** How often the wall clock is looked at: timers do not count the time in which a machine was suspended. */
const lookMs = hourMs;
const retryMs = 60_000;

/** Where the pair lies, as the kubelet has it. */
export function selfSignedFiles(certDir: string): { readonly cert: string; readonly key: string } {
  return { cert: join(certDir, "kubelet.crt"), key: join(certDir, "kubelet.key") };
}

interface Pair {
  readonly cert: string;
  readonly key: string;
}

/** Milliseconds since the epoch from which on a pair of that end is made anew. */
function renewalOf(end: number): number {
  return end - lifeMs / 3;
}

function isGood(pair: Pair, names: readonly string[], now: number): boolean {
  try {
    const { certificate: found } = parsePair(pair.cert, pair.key);
    const present = alternativeNames(found);
    return (
      now < renewalOf(found.validToDate.getTime()) &&
      found.validFromDate.getTime() <= now &&
      names.every((name) => present.has(ipFamily(name) === undefined ? name : canonicalIP(name)))
    );
  } catch {
    // Damaged: mended by making another one, because nobody pins a self-signed certificate.
    return false;
  }
}

async function readPair(certDir: string): Promise<Pair | undefined> {
  const files = selfSignedFiles(certDir);
  try {
    const [cert, key] = await Promise.all([readIfThere(files.cert), readIfThere(files.key)]);
    return cert === undefined || key === undefined ? undefined : { cert, key };
  } catch (error) {
    if (errorCode(error) === "EACCES") throw error;
    return undefined;
  }
}

/**
 * Self-signed certificate of port 10250 for a node that was given none, as the kubelet makes one
 * (`<certDir>/kubelet.crt`): API servers do not verify it unless they are told a CA. It lives a year and is made anew
 * when a third of that is left.
 *
 * @param names Host name and addresses of the node.
 * @param now Milliseconds since the epoch.
 */
export async function ensureSelfSigned(
  certDir: string,
  names: readonly string[],
  now: number,
): Promise<Pair> {
  const held = await readPair(certDir);
  if (held !== undefined && isGood(held, names, now)) return held;
  await mkdir(certDir, { recursive: true, mode: 0o700 });
  const privateKey = newPrivateKey();
  const subject = { commonName: `${names[0] ?? "node"}@${Math.floor(now / 1000)}` };
  const cert = certificate(
    {
      subject,
      alternativeNames: names,
      usages: ["server"],
      notBefore: now - hourMs,
      notAfter: now + lifeMs,
    },
    privateKey,
    { name: subject, privateKey },
  );
  const key = privateKeyPEM(privateKey);
  const files = selfSignedFiles(certDir);
  await writeFileAtomic(files.key, key, 0o600);
  await writeFileAtomic(files.cert, cert, 0o644);
  return { cert, key };
}

/** Makes the pair anew in time, and when its names change, until `signal` aborts; `use` gets it at each look. */
export async function keepSelfSigned(
  options: {
    readonly certDir: string;
    /** As they are at each look. */
    readonly names: () => readonly string[];
    /** Calls `listener` when they may have changed. Returns the function that ends it. */
    readonly onNamesChange?: (listener: () => void) => () => void;
    readonly use: (pair: Pair) => void;
    readonly clock: Clock;
    readonly logger: Logger;
  },
  signal: AbortSignal,
): Promise<void> {
  const { certDir, names, onNamesChange, use, clock, logger } = options;
  const wake = new Wake();
  let known: string | undefined;
  // A heartbeat of the node is no news.
  const end = onNamesChange?.(() => {
    if (names().join() !== known) wake.wake();
  });
  try {
    while (!signal.aborted) {
      let waitMs = lookMs;
      const wanted = names();
      known = wanted.join();
      try {
        use(await ensureSelfSigned(certDir, wanted, clock.now()));
      } catch (error) {
        waitMs = retryMs;
        logger.log("warn", "serving certificate not made anew, will retry", {
          error: errorMessage(error),
        });
      }
      await wake.wait(clock, waitMs, signal);
    }
  } finally {
    end?.();
  }
}
