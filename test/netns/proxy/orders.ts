/** Ports that every peer serves on. */
export const ports = {
  /** TCP and UDP: answer with name, the caller's address and the port, and hang up. */
  answering: [8080, 8081],
  /** TCP: greets with its name and sends back what it is told. */
  echo: 7070,
  /** UDP: counts and says nothing. */
  silent: 9090,
} as const;

/** What a peer can be told to do. */
export type Order =
  | { readonly op: "serve"; readonly name: string }
  | {
      readonly op: "ask";
      readonly protocol: "tcp" | "udp";
      readonly host: string;
      readonly port: number;
      readonly count: number;
      /** Questions at a time. */
      readonly parallel: number;
      readonly timeoutMs: number;
      readonly localPort: number;
      /** Own addresses, one question from each in turn; empty = as the kernel likes. */
      readonly from: readonly string[];
    }
  | { readonly op: "open"; readonly host: string; readonly port: number }
  | { readonly op: "say"; readonly id: number; readonly text: string; readonly timeoutMs: number }
  | {
      readonly op: "stream";
      readonly host: string;
      readonly port: number;
      readonly localPort: number;
      readonly intervalMs: number;
    }
  | {
      readonly op: "pace";
      readonly host: string;
      readonly port: number;
      readonly intervalMs: number;
    }
  | { readonly op: "stop"; readonly id: number }
  | { readonly op: "received"; readonly port: number };
