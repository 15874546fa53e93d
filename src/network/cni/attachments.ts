import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../../lib/atomic-file.ts";
import { errorMessage } from "../../lib/errors.ts";
import { asRecord, asString, isRecord, type JsonRecord, optionalString } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import { namesIn } from "../../lib/names-in.ts";
import { formatList, type NetworkList, parseConfigList } from "./config.ts";
import { type CniResult, parseResult } from "./result.ts";

/** What a sandbox was attached to, and with what: DEL is to be told the same. */
export interface Attachment {
  readonly sandboxID: string;
  readonly podUID: string;
  readonly podKey: string;
  readonly ifName: string;
  /** As it was when ADD was begun: the file may have changed since. */
  readonly list: NetworkList;
  readonly netns: string;
  /** Tells that namespace from another one that the path leads to later. */
  readonly netnsID: string;
  readonly args: readonly (readonly [string, string])[];
  readonly capabilityArgs: Readonly<JsonRecord>;
  /** Where its plug-ins were found. */
  readonly directories: readonly string[];
  /** Undefined while ADD has not ended well. */
  readonly result: CniResult | undefined;
}

const schema = 1;

/**
 * Attachments of sandboxes: one file each, in the layout of libcni's cache (`cniCacheV1`), made before ADD and complete
 * after it. Files are the truth after a crash; while the agent runs, memory is.
 */
export class Attachments {
  readonly #directory: string;
  readonly #logger: Logger;
  readonly #bySandbox = new Map<string, Attachment>();

  constructor(options: { readonly directory: string; readonly logger: Logger }) {
    this.#directory = options.directory;
    this.#logger = options.logger;
  }

  /** Reads those of earlier runs. */
  async load(): Promise<void> {
    this.#bySandbox.clear();
    for (const name of (await namesIn(this.#directory)).toSorted()) {
      const path = join(this.#directory, name);
      if (name.endsWith(".tmp")) {
        await rm(path, { force: true });
        continue;
      }
      try {
        const attachment = parseAttachment(JSON.parse(await readFile(path, "utf8")));
        this.#bySandbox.set(attachment.sandboxID, attachment);
      } catch (error) {
        // Kept: what a plug-in holds for it can only be found by hand.
        this.#logger.log("error", "record of a CNI attachment is unreadable and is left alone", {
          path,
          error: errorMessage(error),
        });
      }
    }
  }

  get(sandboxID: string): Attachment | undefined {
    return this.#bySandbox.get(sandboxID);
  }

  values(): readonly Attachment[] {
    return [...this.#bySandbox.values()];
  }

  get size(): number {
    return this.#bySandbox.size;
  }

  #path({ ifName, list, sandboxID }: Attachment): string {
    return join(this.#directory, `${list.name}-${sandboxID}-${ifName}`);
  }

  /** Before ADD. On the disk when it returns: what plug-ins keep survives a power cut, and must be found again. */
  async begin(attachment: Attachment): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    this.#bySandbox.set(attachment.sandboxID, attachment);
    await writeFileAtomic(this.#path(attachment), format(attachment), 0o600);
  }

  /** After ADD. Lost in a power cut it is what {@link begin} wrote, which is enough for DEL. */
  async complete(attachment: Attachment): Promise<void> {
    const path = this.#path(attachment);
    await writeFile(`${path}.tmp`, format(attachment), { mode: 0o600 });
    await rename(`${path}.tmp`, path);
    this.#bySandbox.set(attachment.sandboxID, attachment);
  }

  /** After DEL. Unknown is success. */
  async forget(sandboxID: string): Promise<void> {
    const attachment = this.#bySandbox.get(sandboxID);
    if (attachment === undefined) return;
    await rm(this.#path(attachment), { force: true });
    this.#bySandbox.delete(sandboxID);
  }
}

function format(attachment: Attachment): string {
  const { args, capabilityArgs, directories, ifName, list, netns, result, sandboxID } = attachment;
  const { netnsID, podKey, podUID } = attachment;
  return `${JSON.stringify({
    kind: "cniCacheV1",
    containerId: sandboxID,
    config: Buffer.from(formatList(list)).toString("base64"),
    ifName,
    networkName: list.name,
    netns,
    cniArgs: args,
    capabilityArgs,
    ...(result === undefined ? {} : { result }),
    remora: { schema, podUID, podKey, netnsID, directories },
  })}\n`;
}

function parseArgs(value: unknown): readonly (readonly [string, string])[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((pair: unknown): (readonly [string, string])[] => {
    if (!Array.isArray(pair)) return [];
    const [name, text] = pair as readonly unknown[];
    return typeof name === "string" && typeof text === "string" ? [[name, text]] : [];
  });
}

function parseAttachment(value: unknown): Attachment {
  const record = asRecord(value, "$");
  const own = asRecord(record["remora"], "$.remora");
  if (record["kind"] !== "cniCacheV1" || own["schema"] !== schema) {
    throw new Error(`kind ${String(record["kind"])}, schema ${String(own["schema"])}`);
  }
  const config = Buffer.from(asString(record["config"], "$.config"), "base64").toString("utf8");
  const list = parseConfigList(config);
  const directories: readonly unknown[] = Array.isArray(own["directories"])
    ? own["directories"]
    : [];
  return {
    sandboxID: asString(record["containerId"], "$.containerId"),
    podUID: optionalString(own["podUID"]) ?? "",
    podKey: optionalString(own["podKey"]) ?? "",
    ifName: asString(record["ifName"], "$.ifName"),
    list,
    netns: optionalString(record["netns"]) ?? "",
    netnsID: optionalString(own["netnsID"]) ?? "",
    args: parseArgs(record["cniArgs"]),
    capabilityArgs: isRecord(record["capabilityArgs"]) ? record["capabilityArgs"] : {},
    directories: directories.filter((each): each is string => typeof each === "string"),
    result: isRecord(record["result"])
      ? parseResult(JSON.stringify(record["result"]), list.cniVersion)
      : undefined,
  };
}
