import { isRecord } from "../../lib/guard.ts";

const secretWords =
  /pass(?:word|wd|phrase|code)|secret|token|api[_.-]?key|access[_.-]?key|private[_.-]?key|client[_.-]?key|signing[_.-]?key|encryption[_.-]?key|credential|cookie|authorization|connection[_.-]?string|(?:^|[_.-])(?:auths?|pass|pwd|pw)$/i;
/** Names of secrets and of their files say what is used, and nothing of what is in it. */
const harmless = /(?:names?|file|path|dir|ref|ttl|seconds|reviews?|mode|ca[_.-]?hash)$/i;

/** Whether a value under this name is to be kept from others. */
export function isSecretKey(key: string): boolean {
  return secretWords.test(key) && !harmless.test(key);
}

/** Objects whose members' names are anybody's, and whose values may be anything. */
const opaque =
  /^(?:env|environment|headers?|httpHeaders|.*URLHeader|data|stringData|binaryData|annotations)$/i;

export const removed = "[removed]";

/** A copy without values: what is under the name of a secret, in environments, headers and data. Pure. */
export function withoutSecrets(value: unknown, hide = false): unknown {
  if (Array.isArray(value)) return value.map((item: unknown) => withoutSecrets(item, hide));
  if (isRecord(value)) {
    // { name: TOKEN, value: ... }, as environments are written.
    const named = typeof value["name"] === "string" && isSecretKey(value["name"]);
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => {
        // A section such as `authorization:` is looked into.
        const own = isSecretKey(key) && !isRecord(member);
        const hidden =
          (hide && key !== "name") || own || opaque.test(key) || (named && key === "value");
        return [key, withoutSecrets(member, hidden)];
      }),
    );
  }
  if (!hide || value === null || typeof value === "boolean") return value;
  return removed;
}

/** All strings that {@link withoutSecrets} takes away for their names. Pure. */
export function secretValues(value: unknown, hide = false): readonly string[] {
  if (Array.isArray(value)) return value.flatMap((item: unknown) => secretValues(item, hide));
  if (isRecord(value)) {
    const named = typeof value["name"] === "string" && isSecretKey(value["name"]);
    return Object.entries(value).flatMap(([key, member]) => {
      const own = isSecretKey(key) && !isRecord(member);
      // Headers have secrets more often than not; what is called data seldom is secret.
      const hidden = (hide && key !== "name") || own || key.endsWith("URLHeader");
      return secretValues(member, hidden || (named && key === "value"));
    });
  }
  return hide && (typeof value === "string" || typeof value === "number") ? [String(value)] : [];
}

/** A command line without values of flags that are secret. Pure. */
export function wordsWithoutSecrets(words: readonly string[]): readonly string[] {
  return words.map((word, index) => {
    const before = /^--([\w-]+)$/.exec(words[index - 1] ?? "")?.[1];
    if (before !== undefined && isSecretKey(before)) return removed;
    const [, start = "", name = ""] = /^(--([\w-]+)=)/.exec(word) ?? [];
    return start !== "" && isSecretKey(name) ? `${start}${removed}` : word;
  });
}
