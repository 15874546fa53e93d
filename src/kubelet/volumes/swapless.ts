/** First Linux whose tmpfs can be told to stay out of swap. */
const [sinceMajor, sinceMinor] = [6, 4];

/**
 * Mount options that keep a tmpfs out of swap, where the kernel has them; secrets are no good on a swap disk.
 *
 * @param osrelease As /proc/sys/kernel/osrelease says it.
 */
export function swaplessOptions(osrelease: string): readonly string[] {
  const [, major = "0", minor = "0"] = /^(\d+)\.(\d+)/.exec(osrelease) ?? [];
  const known =
    Number(major) > sinceMajor || (Number(major) === sinceMajor && Number(minor) >= sinceMinor);
  return known ? ["noswap"] : [];
}
