import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { DockerClient } from "./client.ts";
import type { Observer } from "./observer.ts";
import type { ProbedHost } from "./host-probe.ts";
import type { ImageAccounts } from "./image-accounts.ts";
import type { Owner } from "./labels.ts";
import type { LogDirs } from "./log-links.ts";
import type { PauseImage } from "./pause-image.ts";

/** What the parts of the adapter share. */
export interface DockerContext {
  readonly client: DockerClient;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly owner: Owner;
  readonly logDirs: LogDirs;
  readonly observer: Observer;
  readonly pauseImage: PauseImage;
  readonly accounts: ImageAccounts;
  /** What the last connect found; probes when there was none yet. */
  host(signal: AbortSignal): Promise<ProbedHost>;
}
