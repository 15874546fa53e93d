import type { Clock } from "../../lib/clock.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { listLinks } from "../links.ts";
import type { Attachment, Attachments } from "./attachments.ts";
import { checkNetwork, isCheckable } from "./chain.ts";
import type { Plugins } from "./plugins.ts";
import { podAddresses, resultAddresses } from "./result.ts";
import { currentNamespace, namespaceID } from "./sandbox-namespace.ts";

export interface LeftoversOptions {
  readonly plugins: Plugins;
  readonly attachments: Attachments;
  /** Whether plug-ins are at work for the sandbox. */
  readonly isBusy: (sandboxID: string) => boolean;
  /** DEL. */
  readonly remove: (sandboxID: string, signal: AbortSignal) => Promise<void>;
  /** Lets the plug-ins collect garbage; false when that has to wait. */
  readonly collect: (signal: AbortSignal) => Promise<boolean>;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Leftover {
  dueAt: number;
  delayMs: number;
}

const firstRetryMs = 5_000;
const maxRetryMs = 300_000;
/** Longest wait between two looks at what is due. */
const idleMs = 30_000;
const retryCollectMs = 5_000;

/**
 * What is to do for attachments without anybody asking: DEL for sandboxes that are gone, one CHECK of those that an
 * earlier run attached, and the plug-ins' own collection of garbage.
 */
export class Leftovers {
  readonly #options: LeftoversOptions;
  readonly #gone = new Map<string, Leftover>();
  /** Missing from the last list of sandboxes: one that is missing from the next one too is gone. */
  #missing: ReadonlySet<string> = new Set();
  /** Attached by an earlier run, and not looked at yet. */
  readonly #unchecked = new Set<string>();
  /** Attached, but their addresses are not there. */
  readonly #damaged = new Set<string>();
  #compared = false;
  #collected = false;
  #wake: () => void = () => undefined;

  constructor(options: LeftoversOptions) {
    this.#options = options;
  }

  /** Takes over what was loaded. */
  adopt(): void {
    for (const { result, sandboxID } of this.#options.attachments.values()) {
      if (result !== undefined) this.#unchecked.add(sandboxID);
    }
  }

  /** Whether the sandbox is gone, and its DEL is still to come. */
  has(sandboxID: string): boolean {
    return this.#gone.has(sandboxID);
  }

  add(sandboxID: string): void {
    if (this.#gone.has(sandboxID)) return;
    this.#gone.set(sandboxID, { dueAt: 0, delayMs: firstRetryMs });
    this.#wake();
  }

  forget(sandboxID: string): void {
    this.#gone.delete(sandboxID);
    this.#unchecked.delete(sandboxID);
    this.#damaged.delete(sandboxID);
  }

  /** It has just been attached. */
  mended(sandboxID: string): void {
    this.#gone.delete(sandboxID);
    this.#unchecked.delete(sandboxID);
    this.#damaged.delete(sandboxID);
  }

  isIntact(sandboxID: string): boolean {
    return !this.#damaged.has(sandboxID);
  }

  /** @param sandboxIDs All that exist. A list may be older than a sandbox, so that once missing is not gone. */
  async compare(sandboxIDs: ReadonlySet<string>): Promise<void> {
    this.#noteMissing(sandboxIDs);
    await this.#noteRestarted(sandboxIDs);
  }

  /** One that somebody started again has another namespace, with nothing in it. One that has ended has none. */
  async #noteRestarted(sandboxIDs: ReadonlySet<string>): Promise<void> {
    const { attachments, isBusy } = this.#options;
    for (const { netns, netnsID, result, sandboxID } of attachments.values()) {
      if (result === undefined || !sandboxIDs.has(sandboxID) || isBusy(sandboxID)) continue;
      if ((await namespaceID(netns)) === netnsID || isBusy(sandboxID)) continue;
      if (attachments.get(sandboxID)?.netnsID === netnsID) this.#damaged.add(sandboxID);
    }
  }

  #noteMissing(sandboxIDs: ReadonlySet<string>): void {
    const { attachments, isBusy, logger } = this.#options;
    const missing = new Set<string>();
    for (const { podKey, sandboxID } of attachments.values()) {
      if (sandboxIDs.has(sandboxID) || isBusy(sandboxID) || this.#gone.has(sandboxID)) continue;
      if (!this.#missing.has(sandboxID)) {
        missing.add(sandboxID);
        continue;
      }
      logger.log("info", "network of a vanished sandbox is given back", { sandboxID, pod: podKey });
      this.add(sandboxID);
    }
    this.#missing = missing;
    if (this.#compared && missing.size === 0 && !this.#collected) this.#wake();
    if (!this.#compared && this.#unchecked.size > 0) this.#wake();
    this.#compared = true;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#options;
    while (!signal.aborted) {
      const pause = new AbortController();
      this.#wake = () => pause.abort();
      try {
        await this.#removeGone(signal);
        if (this.#compared) await this.#checkAdopted(signal);
      } catch (error) {
        if (signal.aborted) return;
        logger.log("warn", "networks of former sandboxes could not be looked at", {
          error: errorMessage(error),
        });
      }
      const collectMs = await this.#collect(signal);
      const now = clock.monotonic();
      const next = [...this.#gone.values()].map(({ dueAt }) => Math.max(dueAt - now, 0));
      const stop = AbortSignal.any([signal, pause.signal]);
      await clock.sleep(Math.min(idleMs, collectMs, ...next), stop).catch(() => undefined);
    }
  }

  async #removeGone(signal: AbortSignal): Promise<void> {
    const { attachments, clock, logger, remove } = this.#options;
    const due = [...this.#gone].filter(([, { dueAt }]) => dueAt <= clock.monotonic());
    // Each may take as long as plug-ins hang; the callers' patience bounds it.
    await Promise.all(
      due.map(async ([sandboxID, leftover]) => {
        const pod = attachments.get(sandboxID)?.podKey;
        try {
          await remove(sandboxID, signal);
          this.forget(sandboxID);
          logger.log("info", "network of a former sandbox was given back", { sandboxID, pod });
        } catch (error) {
          if (signal.aborted) return;
          leftover.dueAt = clock.monotonic() + leftover.delayMs;
          leftover.delayMs = Math.min(leftover.delayMs * 2, maxRetryMs);
          logger.log("warn", "network of a former sandbox could not be given back, will retry", {
            sandboxID,
            pod,
            error: errorMessage(error),
          });
        }
      }),
    );
  }

  async #checkAdopted(signal: AbortSignal): Promise<void> {
    const { attachments, isBusy } = this.#options;
    for (const sandboxID of this.#unchecked) {
      const attachment = attachments.get(sandboxID);
      if (attachment === undefined || this.#gone.has(sandboxID) || this.#missing.has(sandboxID)) {
        continue;
      }
      if (isBusy(sandboxID)) continue;
      if (signal.aborted) return;
      await this.#check(attachment, signal);
      this.#unchecked.delete(sandboxID);
    }
  }

  /**
   * A CHECK that fails is no proof: plug-ins complain of what they merely do not expect. Only where the addresses are
   * really gone is the network made anew, with another address perhaps.
   */
  async #check(attachment: Attachment, signal: AbortSignal): Promise<void> {
    const { logger, plugins } = this.#options;
    const { podKey, sandboxID } = attachment;
    const netns = await currentNamespace(attachment);
    // A sandbox that is ending: its own loop sees to it.
    if (netns === "") return;
    let complaint: string | undefined;
    try {
      if (isCheckable(attachment)) await checkNetwork(plugins, attachment, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      complaint = errorMessage(error);
    }
    if (complaint === undefined && isCheckable(attachment)) return;
    if (await hasAddresses(attachment, netns, signal)) {
      if (complaint === undefined) return;
      logger.log(
        "warn",
        "network plug-ins find fault with a running pod; its addresses are there",
        {
          sandboxID,
          pod: podKey,
          error: complaint,
        },
      );
      return;
    }
    logger.log("warn", "a running pod has lost its network, which is made anew", {
      sandboxID,
      pod: podKey,
      error: complaint,
    });
    this.#damaged.add(sandboxID);
  }

  /** @returns Milliseconds until the next try. */
  async #collect(signal: AbortSignal): Promise<number> {
    const { collect, logger } = this.#options;
    const settled = this.#compared && this.#missing.size === 0 && this.#gone.size === 0;
    if (this.#collected || !settled || signal.aborted) return idleMs;
    try {
      if (!(await collect(signal))) return retryCollectMs;
    } catch (error) {
      if (signal.aborted) return idleMs;
      // Once a start, as other runtimes do: what fails now fails again.
      logger.log("warn", "network plug-ins could not collect garbage", {
        error: errorMessage(error),
      });
    }
    this.#collected = true;
    return idleMs;
  }
}

async function hasAddresses(
  { ifName, result }: Attachment,
  netns: string,
  signal: AbortSignal,
): Promise<boolean> {
  if (result === undefined) return false;
  const pid = Number(netns.split("/")[2]);
  const link = (await listLinks(signal, pid)).find(({ name }) => name === ifName);
  const wanted = podAddresses(resultAddresses(result, ifName));
  return wanted.every((ip) => link?.addresses.some((each) => each.ip === ip) === true);
}
