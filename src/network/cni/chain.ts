import { isAbort } from "../../lib/errors.ts";
import { errorMessage } from "../../lib/errors.ts";
import type { JsonRecord } from "../../lib/guard.ts";
import type { Attachment } from "./attachments.ts";
import type { NetworkList, PluginConfig } from "./config.ts";
import { CniError } from "./errors.ts";
import { type CniCommand, type CniTarget, noTarget, type Plugins } from "./plugins.ts";
import { type CniResult, parseResult } from "./result.ts";
import { atLeast } from "./versions.ts";

/** A sandbox's interface, as those know it who still have it. */
export interface ValidAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

interface Step {
  readonly plugins: Plugins;
  readonly directories: readonly string[];
  readonly list: NetworkList;
}

/** What of the runtime's offers the plug-in asks for, and what the configuration has there already. */
function runtimeConfig(plugin: PluginConfig, offers: Readonly<JsonRecord>): JsonRecord {
  const asked = Object.entries(offers).filter(([name]) => plugin.capabilities.has(name));
  return asked.length === 0 ? {} : { runtimeConfig: Object.fromEntries(asked) };
}

function stdinOf(
  { list }: Step,
  plugin: PluginConfig,
  more: Readonly<JsonRecord>,
): Readonly<JsonRecord> {
  return { ...plugin.raw, name: list.name, cniVersion: list.cniVersion, ...more };
}

/** Runs one plug-in of the chain; its failure names it. */
async function runPlugin(
  step: Step,
  plugin: PluginConfig,
  command: CniCommand,
  { target, more }: { readonly target: CniTarget; readonly more: Readonly<JsonRecord> },
  signal: AbortSignal,
): Promise<string> {
  const { directories, plugins } = step;
  try {
    const stdin = stdinOf(step, plugin, more);
    return await plugins.run({ type: plugin.type, directories }, command, target, stdin, signal);
  } catch (error) {
    throw named(error, plugin, command);
  }
}

const verbs: Readonly<Record<CniCommand, string>> = {
  ADD: "add",
  DEL: "delete",
  CHECK: "check",
  STATUS: "status",
  GC: "gc",
  VERSION: "version",
};

function named(error: unknown, plugin: PluginConfig, command: CniCommand): unknown {
  if (isAbort(error)) return error;
  const { name } = plugin.raw;
  const which = typeof name === "string" && name !== "" ? ` name=${JSON.stringify(name)}` : "";
  const text = `plugin type=${JSON.stringify(plugin.type)}${which} failed (${verbs[command]}): ${errorMessage(error)}`;
  const cniCode = error instanceof CniError ? error.cniCode : undefined;
  return new CniError(text, { cause: error, ...(cniCode === undefined ? {} : { cniCode }) });
}

function targetOf(attachment: Attachment, netns: string): CniTarget {
  const { args, ifName, sandboxID } = attachment;
  return { containerID: sandboxID, netns, ifName, args };
}

function prevResult(result: CniResult | undefined): JsonRecord {
  return result === undefined ? {} : { prevResult: result };
}

/**
 * ADD of every plug-in, each with the result of the one before it.
 *
 * @returns The last one's result.
 * @throws {CniError}, after which DEL is due; `AbortError` likewise.
 */
export async function addNetwork(
  plugins: Plugins,
  attachment: Attachment,
  signal: AbortSignal,
): Promise<CniResult> {
  const { capabilityArgs, directories, list, netns } = attachment;
  const step: Step = { plugins, directories, list };
  const target = targetOf(attachment, netns);
  let result: CniResult | undefined;
  for (const plugin of list.plugins) {
    const more = { ...runtimeConfig(plugin, capabilityArgs), ...prevResult(result) };
    const stdout = await runPlugin(step, plugin, "ADD", { target, more }, signal);
    try {
      result = parseResult(stdout, list.cniVersion);
    } catch (error) {
      throw named(error, plugin, "ADD");
    }
  }
  if (result === undefined) throw new CniError("the network has no plug-ins");
  return result;
}

/** Plug-ins say so when there is nothing left to delete; libraries of others take it for success too. */
function isGone(error: unknown, netns: string): boolean {
  if (!(error instanceof CniError) || error.cniCode === undefined) return false;
  const { message } = error;
  return (
    message.includes("not found") || (netns === "" && message.includes("no such file or directory"))
  );
}

/**
 * DEL of every plug-in, last first.
 *
 * @param netns Empty when the namespace is gone.
 * @throws {CniError} of the first that failed; those before it in the chain have not been asked.
 */
export async function delNetwork(
  plugins: Plugins,
  attachment: Attachment,
  netns: string,
  signal: AbortSignal,
): Promise<void> {
  const { capabilityArgs, directories, list, result } = attachment;
  const step: Step = { plugins, directories, list };
  const target = targetOf(attachment, netns);
  // Versions before 0.4.0 do not know it there.
  const previous = atLeast(list.cniVersion, "0.4.0") ? prevResult(result) : {};
  for (const plugin of list.plugins.toReversed()) {
    const more = { ...runtimeConfig(plugin, capabilityArgs), ...previous };
    try {
      await runPlugin(step, plugin, "DEL", { target, more }, signal);
    } catch (error) {
      if (!isGone(error, netns)) throw error;
    }
  }
}

/** Whether the network can be checked at all. */
export function isCheckable({ list, result }: Attachment): boolean {
  return result !== undefined && !list.disableCheck && atLeast(list.cniVersion, "0.4.0");
}

/** @throws {CniError} of the first plug-in that finds something wrong. */
export async function checkNetwork(
  plugins: Plugins,
  attachment: Attachment,
  signal: AbortSignal,
): Promise<void> {
  const { capabilityArgs, directories, list, netns, result } = attachment;
  const step: Step = { plugins, directories, list };
  const target = targetOf(attachment, netns);
  for (const plugin of list.plugins) {
    const more = { ...runtimeConfig(plugin, capabilityArgs), ...prevResult(result) };
    await runPlugin(step, plugin, "CHECK", { target, more }, signal);
  }
}

/**
 * Whether the plug-ins are ready for ADD; those of older versions are not asked.
 *
 * @throws {CniError}
 */
export async function networkStatus(
  plugins: Plugins,
  list: NetworkList,
  directories: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  if (!atLeast(list.cniVersion, "1.1.0")) return;
  const step: Step = { plugins, directories, list };
  for (const plugin of list.plugins) {
    await runPlugin(step, plugin, "STATUS", { target: noTarget, more: {} }, signal);
  }
}

/** Whether plug-ins may be told which attachments are left. */
export function isCollectable(list: NetworkList): boolean {
  return !list.disableGC && atLeast(list.cniVersion, "1.1.0");
}

/**
 * Tells the plug-ins which attachments are left; what they hold for others goes.
 *
 * @throws {CniError} of the first that failed, after all were told.
 */
export async function collectNetwork(
  plugins: Plugins,
  { directories, list }: { readonly directories: readonly string[]; readonly list: NetworkList },
  valid: readonly ValidAttachment[],
  signal: AbortSignal,
): Promise<void> {
  const step: Step = { plugins, directories, list };
  const failures: unknown[] = [];
  for (const plugin of list.plugins) {
    // The second name is that of early texts of the specification.
    const more = { "cni.dev/valid-attachments": valid, "cni.dev/attachments": valid };
    try {
      await runPlugin(step, plugin, "GC", { target: noTarget, more }, signal);
    } catch (error) {
      if (isAbort(error)) throw error;
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
