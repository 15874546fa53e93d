import { RemoraError } from "../../lib/errors.ts";

/** A CSI driver that has registered on this node. */
export interface RegisteredDriver {
  readonly name: string;
  /** Socket of its Node service. */
  readonly endpoint: string;
  /** Highest version of CSI it speaks that this node speaks too. */
  readonly version: DriverVersion;
}

export type DriverVersion = readonly number[];

/** A plug-in is not accepted; the message is what it is told. */
export class RegistrationError extends RemoraError {
  readonly code = "REMORA_PLUGIN_REGISTRATION";
  override readonly retryable = true;
}

/** `1.2`, `v1.2.3`, `1.2.3-rc1`: the numbers. Undefined for what is no version. */
function parseVersion(text: string): DriverVersion | undefined {
  const match = /^\s*v?(\d+(?:\.\d+)+)/.exec(text);
  return match?.[1]?.split(".").map(Number);
}

function compareVersions(one: DriverVersion, other: DriverVersion): number {
  for (let at = 0; at < Math.max(one.length, other.length); at += 1) {
    const difference = (one[at] ?? 0) - (other[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/**
 * The highest 1.x version of a list.
 *
 * @throws {RegistrationError} saying why there is none.
 */
function highestSupportedVersion(versions: readonly string[]): DriverVersion {
  const known = versions
    .map(parseVersion)
    .filter((version) => version !== undefined)
    .filter(([major = 0]) => major <= 1)
    .toSorted(compareVersions);
  const highest = known.at(-1);
  if (highest === undefined) {
    throw new RegistrationError(
      `could not find a highest supported version from versions (${goList(versions)}) reported: no 1.x version`,
    );
  }
  if (highest[0] !== 1) {
    throw new RegistrationError(
      `highest supported version reported is ${highest.join(".")}, must be v1.x`,
    );
  }
  return highest;
}

function goList(values: readonly string[]): string {
  return `[${values.join(" ")}]`;
}

/** The drivers of this node, by name. They say so themselves, again after each restart of the agent. */
export class CsiDrivers {
  readonly #drivers = new Map<string, RegisteredDriver>();
  readonly #listeners = new Set<(name: string) => void>();

  get(name: string): RegisteredDriver | undefined {
    return this.#drivers.get(name);
  }

  names(): readonly string[] {
    return [...this.#drivers.keys()];
  }

  /**
   * Which version of CSI to speak with a driver that offers these.
   *
   * @throws {RegistrationError} Upstream's words.
   */
  checkVersions(caller: string, name: string, versions: readonly string[]): DriverVersion {
    const failed = `kubernetes.io/csi: ${caller} for CSI driver "${name}" failed.`;
    if (versions.length === 0) {
      throw new RegistrationError(`${failed} Plugin returned an empty list for supported versions`);
    }
    let highest: DriverVersion;
    try {
      highest = highestSupportedVersion(versions);
    } catch (error) {
      if (!(error instanceof RegistrationError)) throw error;
      const quoted = `[${versions.map((version) => JSON.stringify(version)).join(" ")}]`;
      throw new RegistrationError(
        `${failed} None of the versions specified ${quoted} are supported. err=${error.message}`,
        { cause: error },
      );
    }
    const existing = this.#drivers.get(name);
    if (existing !== undefined && compareVersions(existing.version, highest) >= 0) {
      throw new RegistrationError(
        `${failed} Another driver with the same name is already registered with a higher supported version: "${existing.version.join(".")}"`,
      );
    }
    return highest;
  }

  set(driver: RegisteredDriver): void {
    this.#drivers.set(driver.name, driver);
    this.#tell(driver.name);
  }

  delete(name: string): void {
    if (this.#drivers.delete(name)) this.#tell(name);
  }

  /** Calls `listener` when a driver came or went. Returns the function that ends it. */
  subscribe(listener: (name: string) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #tell(name: string): void {
    for (const listener of this.#listeners) listener(name);
  }
}
