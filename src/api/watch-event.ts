import { ParseError } from "../lib/errors.ts";
import { asRecord, asString, type JsonRecord, optionalString, stringMap } from "../lib/guard.ts";
import type { ApiError } from "./errors.ts";
import { objectKey } from "./object.ts";
import { statusToError } from "./response-error.ts";

/** What identifies one state of one object. */
export interface ObjectState {
  /** `namespace/name` or `name`. */
  readonly key: string;
  readonly uid: string;
  readonly resourceVersion: string;
}

/** One event of a watch stream, after parsing. See API concepts, "Efficient detection of changes". */
export type WatchEvent =
  | {
      readonly type: "ADDED" | "MODIFIED" | "DELETED";
      readonly state: ObjectState;
      readonly object: JsonRecord;
    }
  | {
      readonly type: "BOOKMARK";
      readonly resourceVersion: string;
      /** The bookmark that ends the first part of a streaming list (KEP-3157). */
      readonly initialEventsEnd: boolean;
    }
  | { readonly type: "ERROR"; readonly error: ApiError };

/** @throws {ParseError} when the metadata lacks name, uid or resourceVersion. */
export function parseObjectState(object: JsonRecord, path: string): ObjectState {
  const metadata = asRecord(object["metadata"], `${path}.metadata`);
  return {
    key: objectKey(
      optionalString(metadata["namespace"]),
      asString(metadata["name"], `${path}.metadata.name`),
    ),
    uid: asString(metadata["uid"], `${path}.metadata.uid`),
    resourceVersion: asString(metadata["resourceVersion"], `${path}.metadata.resourceVersion`),
  };
}

/**
 * Parses one event of a watch stream.
 *
 * @throws {ParseError} when it is not a watch event; the caller must end the watch, because skipping an event silently
 *   loses an update.
 */
export function parseWatchEvent(value: unknown): WatchEvent {
  const event = asRecord(value, "$");
  const object = asRecord(event["object"], "$.object");
  const { type } = event;
  switch (type) {
    case "ADDED":
    case "MODIFIED":
    case "DELETED":
      return { type, state: parseObjectState(object, "$.object"), object };
    case "BOOKMARK": {
      const metadata = asRecord(object["metadata"], "$.object.metadata");
      const annotations = stringMap(metadata["annotations"]);
      return {
        type,
        resourceVersion: asString(metadata["resourceVersion"], "$.object.metadata.resourceVersion"),
        initialEventsEnd: annotations["k8s.io/initial-events-end"] === "true",
      };
    }
    case "ERROR":
      return { type, error: statusToError(object, { code: 500 }) };
    default:
      throw new ParseError("$.type", "a watch event type");
  }
}
