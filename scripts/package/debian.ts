/** A version as Debian orders them: 1.0.0-rc.1 is before 1.0.0. */
export function debianVersion(version: string): string {
  if (!/^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$/.test(version)) {
    throw new Error(`${version} is no version: X.Y.Z or X.Y.Z-PRERELEASE`);
  }
  return version.replace("-", "~");
}

/**
 * Puts values into a template.
 *
 * @throws {Error} when the template asks for a value that there is not, or does not ask for one that there is.
 */
export function filled(template: string, values: Readonly<Record<string, string>>): string {
  const unused = new Set(Object.keys(values));
  const out = template.replaceAll(/@([A-Z_]+)@/g, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`nothing is known for @${name}@`);
    unused.delete(name);
    return value;
  });
  if (unused.size > 0) throw new Error(`the template has no ${[...unused].join(", ")}`);
  return out;
}

const days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** A date as RFC 5322 writes it, in UTC. */
export function mailDate(epochSeconds: number): string {
  const at = new Date(epochSeconds * 1000);
  const two = (value: number): string => value.toString().padStart(2, "0");
  const time = [at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()].map(two).join(":");
  const day = `${days[at.getUTCDay()]}, ${two(at.getUTCDate())} ${months[at.getUTCMonth()]}`;
  return `${day} ${at.getUTCFullYear()} ${time} +0000`;
}

/** `changelog` of the package: the version of it. What changed for people is in CHANGELOG.md beside it. */
export function changelogText(version: string, maintainer: string, epochSeconds: number): string {
  return [
    `remora (${debianVersion(version)}) stable; urgency=medium`,
    "",
    `  * Remora ${version}; what is new is in CHANGELOG.md.gz.`,
    "",
    ` -- ${maintainer}  ${mailDate(epochSeconds)}`,
    "",
  ].join("\n");
}
