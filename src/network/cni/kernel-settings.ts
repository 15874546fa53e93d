import { errorCode } from "../../lib/errors.ts";
import { execResult } from "../../lib/exec.ts";
import type { Logger } from "../../lib/log.ts";
import { ensureSysctl, Forwarding, readSysctl, type SettingsWitness } from "../sysctls.ts";

/** Packets that bridges of plug-ins pass between pods of one node meet the node's rules only with it. */
const bridgeRules = ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] as const;

/** What plug-ins leave to whoever prepares the machine: forwarding, and rules for what their bridges pass. */
export class KernelSettings {
  readonly #logger: Logger;
  readonly #forwarding: Forwarding;
  readonly #witness: SettingsWitness | undefined;
  #triedModule = false;

  constructor(logger: Logger, witness?: SettingsWitness) {
    this.#logger = logger;
    this.#witness = witness;
    this.#forwarding = new Forwarding(logger, witness);
  }

  /** @throws {SetupError} when a setting may not be written. */
  async ensure(families: { readonly v6: boolean }, signal: AbortSignal): Promise<void> {
    await ensureSysctl("ipv4/ip_forward", "1", this.#witness);
    await this.#forwarding.ensure({ v4: false, v6: families.v6, bridge: "", uplink: undefined });
    if ((await readSysctl(bridgeRules[0])) === undefined) await this.#loadModule(signal);
    for (const name of bridgeRules) {
      if ((await readSysctl(name)) !== "0") continue;
      await ensureSysctl(name, "1", this.#witness);
      this.#logger.log("info", "packets between pods of a bridge meet the rules of Services", {
        setting: `net.${name.replaceAll("/", ".")}`,
      });
    }
  }

  /** Once: a kernel that has none, or has it built in under another name, is no reason to go on asking. */
  async #loadModule(signal: AbortSignal): Promise<void> {
    if (this.#triedModule) return;
    this.#triedModule = true;
    await this.#witness?.module("br_netfilter");
    try {
      const { exitCode } = await execResult(["modprobe", "br_netfilter"], { signal });
      if (exitCode === 0) return;
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
    this.#logger.log(
      "warn",
      "module br_netfilter is not loaded: where plug-ins make a bridge, pods cannot reach a Service whose answer comes from their own node",
    );
  }
}
