import type { JsonObject, UserInfo } from "../types.ts";
import type { WatchEvent, WatchStream } from "./watch-stream.ts";

/** The body of a request: bytes from a socket, or JSON from a caller in this process. */
export type CallBody =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array; readonly contentType: string }
  | { readonly kind: "json"; readonly value: unknown; readonly contentType: string };

/** One request, free of any transport. */
export interface ApiCall {
  readonly method: string;
  /** Path as sent, still percent-encoded, without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly accept: string;
  readonly userAgent: string;
  readonly ifNoneMatch: string;
  readonly body: CallBody | undefined;
  /** The connection is to become a stream (`Connection: Upgrade`); default no. */
  readonly upgrade?: boolean;
  /** Who asks; undefined for an anonymous request. */
  readonly user: UserInfo | undefined;
  /** Ends watches. */
  readonly signal: AbortSignal;
}

/** A connection that has to be carried to a node or a pod; the server owns the sockets. */
export interface RelayTarget {
  readonly kind: "log" | "exec" | "attach" | "portforward" | "node-proxy" | "pod-proxy";
  /** Node to ask; undefined for `pod-proxy`. */
  readonly node: string | undefined;
  /** Address and port to connect to. */
  readonly host: string;
  readonly port: number;
  readonly scheme: "http" | "https";
  /** Path and query at the far end. */
  readonly path: string;
}

export type Headers = Readonly<Record<string, string | readonly string[]>>;

export type ApiReply =
  | {
      readonly kind: "object";
      readonly status: number;
      readonly headers: Headers;
      readonly object: Readonly<JsonObject>;
    }
  | {
      readonly kind: "text";
      readonly status: number;
      readonly headers: Headers;
      readonly text: string;
    }
  | {
      readonly kind: "watch";
      readonly headers: Headers;
      readonly stream: WatchStream;
      /** Gives an event the form that was asked for; call it once per event, in order. */
      readonly represent: (event: WatchEvent) => WatchEvent;
    }
  | { readonly kind: "relay"; readonly target: RelayTarget };

/** The API server without sockets. Never rejects: refusals are replies. */
export interface ApiHandler {
  handle(call: ApiCall): Promise<ApiReply>;
}
