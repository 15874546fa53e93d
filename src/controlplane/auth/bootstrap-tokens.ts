import {
  bootstrappersGroup,
  equalTexts,
  extraGroup,
  isExpiredToken,
  parseBootstrapToken,
  readTokenSecret,
  tokenNamespace,
  tokenSecretName,
  tokenSecretType,
} from "../../api/bootstrap-token.ts";
import { isRecord } from "../../lib/guard.ts";
import type { ObjectReader, UserInfo } from "../types.ts";

/** All groups of a token; undefined when one it asks for is not allowed. */
function groupsOf(extraGroups: string): string[] | undefined {
  const extra = extraGroups === "" ? [] : extraGroups.split(",");
  if (!extra.every((group) => extraGroup.test(group))) return undefined;
  return [...new Set([bootstrappersGroup, ...extra])].toSorted();
}

/**
 * The user behind a bootstrap token: its Secret in kube-system must be there, unexpired and marked for authentication.
 * Undefined for everything else, without a hint which part was wrong.
 *
 * @param now Milliseconds since the epoch.
 */
export function userOfBootstrapToken(
  text: string,
  objects: ObjectReader,
  now: number,
): UserInfo | undefined {
  const token = parseBootstrapToken(text);
  if (token === undefined) return undefined;
  const secret = objects.get("secrets", tokenNamespace, tokenSecretName(token.id));
  if (secret?.["type"] !== tokenSecretType || !isRecord(secret["data"])) return undefined;
  const metadata = isRecord(secret["metadata"]) ? secret["metadata"] : {};
  if (metadata["deletionTimestamp"] !== undefined) return undefined;
  const stored = readTokenSecret(secret["data"]);
  const groups = groupsOf(stored.extraGroups);
  const good =
    equalTexts(stored.secret, token.secret) &&
    stored.id === token.id &&
    !isExpiredToken(stored, now) &&
    stored.authenticates;
  if (!good || groups === undefined) return undefined;
  return {
    name: `system:bootstrap:${token.id}`,
    uid: "",
    groups: [...groups, "system:authenticated"],
    extra: {},
  };
}
