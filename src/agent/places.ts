import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { agentDefaults } from "../config/agent-config.ts";
import type { AgentConfig } from "../config/types.ts";
import { writeFileAtomic } from "../lib/atomic-file.ts";
import { isRecord, type JsonRecord, optionalString } from "../lib/guard.ts";
import { readIfThere } from "../lib/read-if-there.ts";

/** Where an agent leaves things outside of its root directory, and under which name it knows its containers. */
export type Places = Pick<
  AgentConfig,
  "nodeName" | "dockerSocket" | "podLogsDir" | "containerLogsDir" | "cgroupRoot" | "certDir"
>;

function pathOf(rootDir: string): string {
  return join(rootDir, "places.json");
}

/** Writes down what `remora down` cannot know: the configuration may be gone by then, or be another one. */
export async function recordPlaces(config: Places & Pick<AgentConfig, "rootDir">): Promise<void> {
  const { rootDir, nodeName, dockerSocket, podLogsDir, containerLogsDir, cgroupRoot, certDir } =
    config;
  const places: Places = {
    nodeName,
    dockerSocket,
    podLogsDir,
    containerLogsDir,
    cgroupRoot,
    ...(certDir === undefined ? {} : { certDir }),
  };
  await mkdir(rootDir, { recursive: true, mode: 0o750 });
  await writeFileAtomic(pathOf(rootDir), `${JSON.stringify(places, undefined, 2)}\n`);
}

function parse(text: string): JsonRecord {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : {};
  } catch {
    // Without it the usual places are looked at.
    return {};
  }
}

/** The places of the agent that worked in `rootDir` last; the usual ones where nothing is written down. */
export async function readPlaces(
  rootDir: string,
): Promise<Partial<Places> & Omit<Places, "nodeName" | "certDir" | "dockerSocket">> {
  const said = parse((await readIfThere(pathOf(rootDir))) ?? "{}");
  const nodeName = optionalString(said["nodeName"]);
  const dockerSocket = optionalString(said["dockerSocket"]);
  const certDir = optionalString(said["certDir"]);
  return {
    podLogsDir: optionalString(said["podLogsDir"]) ?? agentDefaults.podLogsDir,
    containerLogsDir: optionalString(said["containerLogsDir"]) ?? agentDefaults.containerLogsDir,
    cgroupRoot: optionalString(said["cgroupRoot"]) ?? agentDefaults.cgroupRoot,
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(dockerSocket === undefined ? {} : { dockerSocket }),
    ...(certDir === undefined ? {} : { certDir }),
  };
}
