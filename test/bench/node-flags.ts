/** Node's flags as the launchers set them (bin/remora, packaging/remora). */
export const nodeFlags: readonly string[] = ["--max-semi-space-size=1", "--memory-saver-mode"];
