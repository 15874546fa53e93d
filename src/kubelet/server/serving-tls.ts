import { constants } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Server } from "node:https";
import { createSecureContext, type SecureContextOptions } from "node:tls";

import type { AgentConfig } from "../../config/types.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, SetupError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { type TlsLimits, tlsLimits } from "./tls-limits.ts";
import type { TlsSource } from "./tls-source.ts";

export interface ServingTlsOptions {
  readonly config: Pick<
    AgentConfig,
    | "clientCAFile"
    | "tlsCertFile"
    | "tlsPrivateKeyFile"
    | "tlsMinVersion"
    | "tlsCipherSuites"
    | "tlsCurvePreferences"
  >;
  /** PEM of the CA of client certificates when `config.clientCAFile` is empty. */
  readonly clientCA?: string;
  /** Certificate and key; default the files that `config` names. */
  readonly source?: TlsSource;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What the server shows, and whose clients it trusts. PEM. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  /** Empty: no client certificate is good. */
  readonly clientCA: string;
}

/** How often the files are looked at. */
const reloadMs = 10_000;

/** The server's side of TLS, kept up with the files and sources it comes from. */
export class ServingTls {
  readonly #options: ServingTlsOptions;
  readonly #limits: TlsLimits;

  /** @throws {SetupError} for a suite or key exchange that is not to be had. */
  constructor(options: ServingTlsOptions) {
    this.#options = options;
    this.#limits = tlsLimits(options.config);
  }

  /** @throws {SetupError} naming the option whose file cannot be read. */
  async read(): Promise<TlsMaterial> {
    const { clientCA = "", config, source } = this.#options;
    const held = source?.current();
    const [cert, key, ca] = await Promise.all([
      held?.cert ?? readSetupFile(config.tlsCertFile, "tlsCertFile"),
      held?.key ?? readSetupFile(config.tlsPrivateKeyFile, "tlsPrivateKeyFile"),
      config.clientCAFile === "" ? clientCA : readSetupFile(config.clientCAFile, "clientCAFile"),
    ]);
    return { cert, key, clientCA: ca };
  }

  /** For the server, at its start and at each change. */
  secureContext({ cert, key, clientCA }: TlsMaterial): SecureContextOptions {
    return {
      ...this.#limits,
      cert,
      key,
      // An empty list, not an absent one: else the machine's public CAs could issue client certificates.
      ca: clientCA === "" ? [] : [clientCA],
      // Whoever stands in the bundle is trusted, also a CA that another one issued.
      allowPartialTrustChain: true,
      // A resumed session would bring the verdict on its client certificate along from before.
      secureOptions: constants.SSL_OP_NO_TICKET,
    };
  }

  /** Serves renewed certificates to new connections without a restart. `onChange` must refuse what it cannot use. */
  async run(
    server: Server,
    first: TlsMaterial,
    onChange: (material: TlsMaterial) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, logger, source } = this.#options;
    let current = first;
    let told = "";
    const refresh = async (): Promise<void> => {
      try {
        const next = await this.read();
        if (same(next, current)) {
          told = "";
          return;
        }
        const context = this.secureContext(next);
        // Tried before anything is changed: what is served and who is trusted change together or not at all.
        createSecureContext(context);
        onChange(next);
        server.setSecureContext(context);
        current = next;
        told = "";
        logger.log("info", "serving certificate reloaded");
      } catch (error) {
        // A half-written pair: the old one stays until the new one is whole.
        const message = errorMessage(error);
        logger.log(told === message ? "debug" : "warn", "serving certificate not reloaded", {
          error: message,
        });
        told = message;
      }
    };
    const end = source?.onChange(() => void refresh());
    while (!signal.aborted) {
      await clock.sleep(reloadMs, signal).catch(() => undefined);
      if (!signal.aborted) await refresh();
    }
    end?.();
  }
}

function same(a: TlsMaterial, b: TlsMaterial): boolean {
  return a.cert === b.cert && a.key === b.key && a.clientCA === b.clientCA;
}

async function readSetupFile(path: string, option: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new SetupError(
      `${option} ${path === "" ? "is not set" : `"${path}" cannot be read (${errorMessage(error)})`}; set it to a PEM file`,
      { cause: error },
    );
  }
}
