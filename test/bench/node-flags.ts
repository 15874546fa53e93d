/** Node's flags as the launchers set them (bin/remora, packaging/remora). */
export const nodeFlags: readonly string[] = ["--max-semi-space-size=1"];

/** What the launchers put into the environment. */
export const nodeEnvironment: readonly string[] = ["MALLOC_ARENA_MAX=1"];
