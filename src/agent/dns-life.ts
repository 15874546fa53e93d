import { mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";

import { SharedCounts } from "../dns/counts.ts";
import type { NameServerSettings, PassedSocket } from "../dns/types.ts";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { errorMessage, ParseError } from "../lib/errors.ts";
import { asRecord, asString } from "../lib/guard.ts";
import type { Logger } from "../lib/log.ts";
import { readIfThere } from "../lib/read-if-there.ts";
import type { DnsThread, DnsThreadOptions } from "./dns-thread.ts";
import type { HeldSockets } from "./service-manager/held-sockets.ts";

/** How the name server was set up last; what belongs to a process is left out. */
export type StoredSettings = Omit<
  NameServerSettings,
  "counts" | "passed" | "recordsFile" | "sourceLimits"
>;

export interface DnsLifeOptions {
  /** `rootDir` of the agent; everything here lies in its `dns`. */
  readonly rootDir: string;
  readonly startThread: (options: DnsThreadOptions) => DnsThread;
  /** Sockets that the service manager holds; each thread takes its own. Default: none. */
  readonly sockets?: Pick<HeldSockets, "take">;
  readonly logger: Logger;
}

const version = 1;

interface Early {
  readonly settings: StoredSettings;
  readonly thread: DnsThread;
  listening: boolean;
  /** Who took the thread over. */
  owner: DnsThreadOptions | undefined;
  ended: boolean;
}

/**
 * The name server's thread over the whole life of the agent: started as it was set up last before anything else is there,
 * ended when all else has ended. In between it belongs to whoever decides who answers.
 */
export class DnsLife {
  readonly #options: DnsLifeOptions;
  readonly #path: string;
  readonly #counts = new SharedCounts();
  readonly #threads = new Set<DnsThread>();
  #early: Early | undefined;
  /** What the file says, undefined when there is none; `unread` while nobody has looked. */
  #stored: { readonly text: string | undefined } | "unread" = "unread";

  constructor(options: DnsLifeOptions) {
    this.#options = { ...options, logger: options.logger.child({ component: "dns" }) };
    this.#path = join(options.rootDir, "dns", "settings.json");
  }

  get counts(): SharedCounts {
    return this.#counts;
  }

  /** Starts the thread if it ran when the agent ended last. Nothing that goes wrong here is more than a delay. */
  async begin(): Promise<void> {
    const { logger } = this.#options;
    let settings: StoredSettings;
    try {
      const text = await readIfThere(this.#path);
      this.#stored = { text };
      if (text === undefined) return;
      settings = parseSettings(text);
    } catch (error) {
      logger.log("warn", "the last settings of cluster DNS cannot be used", {
        path: this.#path,
        error: errorMessage(error),
      });
      return;
    }
    const early: Early = {
      settings,
      listening: false,
      owner: undefined,
      ended: false,
      thread: this.#start({
        settings,
        logger,
        onListening: () => {
          early.listening = true;
          logger.log("info", "cluster DNS is answered here, as it was before", {
            addresses: settings.addresses.join(" "),
          });
          early.owner?.onListening();
        },
      }),
    };
    void early.thread.ended.then(() => (early.ended = true));
    this.#early = early;
  }

  /** Where the thread that {@link begin} started answers, while nobody else has decided that. */
  get remembered(): readonly string[] {
    return this.#early?.settings.addresses ?? [];
  }

  /** A thread with these settings: the one from before, when it has them. */
  readonly startThread = async (options: DnsThreadOptions): Promise<DnsThread> => {
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined && !early.ended) {
      if (settingsText(early.settings) === settingsText(options.settings)) {
        early.owner = options;
        if (early.listening) options.onListening();
        return early.thread;
      }
      await early.thread.stop();
    }
    return this.#start(options);
  };

  /** Ends the thread that {@link begin} started: others answer now, or nobody. */
  async dropEarly(): Promise<void> {
    const early = this.#early;
    this.#early = undefined;
    await early?.thread.stop();
  }

  /** Nobody is to be answered here, now and after the next start. */
  async forget(): Promise<void> {
    await this.dropEarly();
    await this.remember(undefined);
  }

  /** Keeps in mind how the name server runs for the next start; undefined = it does not. */
  async remember(settings: StoredSettings | undefined): Promise<void> {
    const { logger } = this.#options;
    const text = settings === undefined ? undefined : settingsText(settings);
    if (this.#stored !== "unread" && this.#stored.text === text) return;
    try {
      if (text === undefined) {
        await rm(this.#path, { force: true });
      } else {
        await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
        await writeFileAtomic(this.#path, text, 0o600);
      }
      this.#stored = { text };
    } catch (error) {
      logger.log("warn", "the settings of cluster DNS cannot be kept on disk", {
        path: this.#path,
        error: errorMessage(error),
      });
    }
  }

  /** Ends what still runs. */
  async end(): Promise<void> {
    await Promise.all([...this.#threads].map((thread) => thread.stop()));
  }

  /** @throws {SetupError} there are none left of what the service manager holds. */
  #passed({ addresses, port }: StoredSettings): readonly PassedSocket[] {
    return addresses.flatMap((address) =>
      (["udp", "tcp"] as const).flatMap((protocol): PassedSocket[] => {
        const fd = this.#options.sockets?.take(protocol, { address, port });
        return fd === undefined ? [] : [{ protocol, address, fd }];
      }),
    );
  }

  #start(options: DnsThreadOptions): DnsThread {
    const passed = this.#passed(options.settings);
    const thread = this.#options.startThread({
      ...options,
      settings: {
        ...options.settings,
        counts: this.#counts.buffer,
        ...(passed.length === 0 ? {} : { passed }),
        recordsFile: join(dirname(this.#path), "records"),
      },
    });
    this.#threads.add(thread);
    void thread.ended.then(() => this.#threads.delete(thread));
    return thread;
  }
}

function settingsText(settings: StoredSettings): string {
  const { domain, addresses, port, ownNetworks, resolvConf } = settings;
  return `${JSON.stringify({ version, domain, addresses, port, ownNetworks, resolvConf })}\n`;
}

function texts(value: unknown, path: string): readonly string[] {
  if (!Array.isArray(value)) throw new ParseError(path, "a list");
  return value.map((item) => asString(item, path));
}

/** @throws {ParseError} */
function parseSettings(text: string): StoredSettings {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ParseError("$", "JSON");
  }
  const object = asRecord(value, "$");
  if (object["version"] !== version) throw new ParseError("version", String(version));
  const { port, resolvConf } = object;
  if (typeof port !== "number") throw new ParseError("port", "a number");
  if (typeof resolvConf !== "string") throw new ParseError("resolvConf", "a text");
  return {
    domain: asString(object["domain"], "domain"),
    addresses: texts(object["addresses"], "addresses"),
    port,
    ownNetworks: texts(object["ownNetworks"], "ownNetworks"),
    resolvConf,
  };
}
