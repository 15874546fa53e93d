import type { Raw } from "./raw.ts";

/** What JSON can say. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };

/** Says what is wrong with a value, at the place where it was written. */
export type Refuse = (raw: Raw, text: string) => void;

/** How values of a type are read and printed. */
export interface LeafType<T> {
  /** In the words of the documentation. */
  readonly name: string;
  /** Undefined after having told `refuse` why. */
  decode(raw: Raw, refuse: Refuse): T | undefined;
  encode(value: T): Json;
  /** The values of a flag, in the order they were given, as one thing. */
  fromFlag(texts: readonly string[], flag: string): Raw;
  /** Whether Go calls it zero, which counts as not said. */
  isZero(value: T): boolean;
}

/** What Remora does with a field. */
export type Standing =
  | { readonly kind: "honoured" }
  /** Accepted as long as it says what Remora does anyhow; anything else is refused with the reason. */
  | { readonly kind: "fixed"; readonly also: readonly Json[]; readonly reason: string }
  /** Accepted whatever it says, because nothing depends on it here; said when it is set to something else. */
  | { readonly kind: "ignored"; readonly reason: string };

/** What it takes for a new value to hold: a restart of the agent (pods keep running), new pods, or an emptied node. */
export type Change = "restart" | "new pods" | "drain";

/** One field of a configuration. */
export interface Leaf<T> {
  readonly kind: "leaf";
  readonly type: LeafType<NonNullable<T>>;
  /** The default as JSON; undefined: there is none. */
  readonly fallback: Json | undefined;
  readonly standing: Standing;
  /** Name of the command line flag, without dashes. */
  readonly flag: string | undefined;
  /** A Go pointer: zero is a value of its own and not the default. */
  readonly pointer: boolean;
  readonly change: Change;
  /** Never shown. */
  readonly secret: boolean;
  /** A relative path belongs to the directory of the file that says it. */
  readonly path: boolean;
  /** Only for the type checker. */
  readonly value?: T;
}

export interface ObjectShape<F extends Fields> {
  readonly kind: "object";
  readonly fields: F;
  /** Left out of JSON when nothing in it is set. */
  readonly optional: boolean;
}

export interface Fields {
  readonly [name: string]: Leaf<unknown> | ObjectShape<Fields>;
}

/** The decoded form: durations are milliseconds. */
export type ValueOf<S> =
  S extends ObjectShape<infer F>
    ? { readonly [K in keyof F]: ValueOf<F[K]> }
    : S extends Leaf<infer T>
      ? T
      : never;

export interface LeafOptions {
  readonly flag?: string;
  readonly pointer?: boolean;
  readonly change?: Change;
  readonly secret?: boolean;
  readonly path?: boolean;
}

export const honoured: Standing = { kind: "honoured" };

/** @param also Values besides the default that mean the same. */
export function fixed(reason: string, ...also: readonly Json[]): Standing {
  return { kind: "fixed", reason, also };
}

export function ignored(reason: string): Standing {
  return { kind: "ignored", reason };
}

/** A field of `type`. Without `fallback` it may be absent. */
export function leaf<T, J extends Json | undefined>(
  type: LeafType<NonNullable<T>>,
  fallback: J,
  standing: Standing,
  options: LeafOptions = {},
): Leaf<undefined extends J ? T | undefined : T> {
  return {
    kind: "leaf",
    type,
    fallback,
    standing,
    flag: options.flag,
    pointer: options.pointer ?? false,
    change: options.change ?? "restart",
    secret: options.secret ?? false,
    path: options.path ?? false,
  };
}

export function object<F extends Fields>(fields: F, optional = false): ObjectShape<F> {
  return { kind: "object", fields, optional };
}

/** All fields with their dotted paths, in the order they were declared. */
export function leavesOf(
  shape: ObjectShape<Fields>,
  prefix = "",
): readonly (readonly [string, Leaf<unknown>])[] {
  return Object.entries(shape.fields).flatMap(([name, member]) =>
    member.kind === "leaf"
      ? [[`${prefix}${name}`, member] as const]
      : leavesOf(member, `${prefix}${name}.`),
  );
}
