import { asRecord, type JsonRecord, optionalString } from "../lib/guard.ts";
import { ParseError } from "../lib/errors.ts";
import type { ApiClient, Query } from "./client.ts";
import { isExpired } from "./errors.ts";

/** One page of a collection. All pages of one walk carry the same resource version. */
export interface ListPage {
  readonly items: readonly JsonRecord[];
  readonly resourceVersion: string;
}

const pageLimit = 500;
const listDeadlineMs = 60_000;

/**
 * Walks a collection page by page, so that no more than one page of whole objects is in memory.
 *
 * @yields pages in the server's order. When the server no longer holds the walk's snapshot, the whole list follows
 *   once more as one page with `restart: true`, and replaces what came before.
 * @throws as {@link ApiClient.request}; {@link ParseError} when the answer is not a list.
 */
export async function* listPages(
  client: ApiClient,
  path: string,
  query: Query,
  signal: AbortSignal,
): AsyncGenerator<ListPage & { readonly restart: boolean }, void, undefined> {
  let token: string | undefined;
  let limit: number | undefined = pageLimit;
  let restart = false;
  do {
    let body: unknown;
    try {
      body = await client.request({
        method: "GET",
        path,
        query: { ...query, limit, continue: token },
        deadlineMs: listDeadlineMs,
        signal,
      });
    } catch (error) {
      if (!isExpired(error) || token === undefined) throw error;
      token = undefined;
      limit = undefined;
      restart = true;
      continue;
    }
    const page = parsePage(body);
    token = page.continueToken;
    yield { items: page.items, resourceVersion: page.resourceVersion, restart };
    restart = false;
  } while (token !== undefined || restart);
}

function parsePage(body: unknown): ListPage & { readonly continueToken: string | undefined } {
  const list = asRecord(body, "$");
  const metadata = asRecord(list["metadata"], "$.metadata");
  const { items } = list;
  // Go prints an empty list as null where the field is not omitted.
  if (!Array.isArray(items) && items !== null) throw new ParseError("$.items", "a list");
  const token = optionalString(metadata["continue"]);
  return {
    items: (items ?? []).map((item, index) => asRecord(item, `$.items[${index}]`)),
    resourceVersion: optionalString(metadata["resourceVersion"]) ?? "",
    continueToken: token === "" ? undefined : token,
  };
}
