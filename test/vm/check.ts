import type { Node } from "./lib/node.ts";

/** An object of the API as it is created. */
export interface Manifest {
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    /** Left out: default. */
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec?: object;
  /** Of a Secret. */
  readonly type?: string;
  readonly stringData?: Readonly<Record<string, string>>;
}

/** One thing to look at on a real machine. Checks run in the order of their list, on one machine. */
export interface Check {
  /** A sentence of behaviour: the name of the test. */
  readonly name: string;
  /** What must be on the machine before `objects` are created. */
  readonly prepare?: (node: Node) => Promise<void>;
  /** Created together with those of all the other checks before the first one runs: starts overlap, which saves minutes. */
  readonly objects?: readonly Manifest[];
  /** Looks, and throws what it did not find; a string is why this machine cannot tell. */
  readonly run: (node: Node) => Promise<string | void>;
}
