/** How a command on a machine ended. */
export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly stdin?: string;
  /** Default two minutes: emulation is slow. */
  readonly timeoutMs?: number;
  /** Resolve with any exit code instead of throwing. */
  readonly allowFailure?: boolean;
}

/** A Debian 12 machine that somebody else boots: qemu or Vagrant. */
export interface RealMachine extends AsyncDisposable {
  /** Runs a command as root, to its end. Its output must end with it: a daemon is systemd's. */
  exec(argv: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** Runs a shell script that must succeed; what it printed, without white space around it. */
  sh(script: string, options?: CommandOptions): Promise<string>;
  writeFile(path: string, content: string): Promise<void>;
  /** Has the machine shut down and start again, and waits until it has booted. Its disk is kept. */
  reboot(): Promise<void>;
  /** Where a TCP port of the machine is reached from here: `host:port`. */
  endpoint(port: number): string;
  /** What it says about itself when something went wrong. */
  describe(): string;
}

/** @throws unless the command succeeded or may fail. */
export function checked(
  argv: readonly string[],
  result: CommandResult,
  allowFailure = false,
): CommandResult {
  const { exitCode, stderr, stdout } = result;
  if (exitCode === 0 || allowFailure) return result;
  throw new Error(`${argv.join(" ")} ended with ${exitCode}\n${stderr}\n${stdout}`);
}
