import { ProtobufReader } from "./protobuf-reader.ts";
import { ProtobufWriter } from "./protobuf-writer.ts";

/** A message type of protocol buffers, version 3. */
export interface MessageType<T> {
  /** Members that are left out, or have their type's zero, are not written. */
  encode(value: Given<T>): Uint8Array;
  /**
   * Members that are not there have their type's zero; unknown fields are passed over.
   *
   * @throws RangeError at a malformed input.
   */
  decode(bytes: Uint8Array): T;
}

/** What {@link MessageType.encode} takes. */
export type Given<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** One field of a message: its number, and how a value of it is written and read. */
export interface Field<T> {
  readonly number: number;
  readonly wire: 0 | 2;
  readonly zero: T;
  write(out: ProtobufWriter, value: T): void;
  /** `before` is what earlier occurrences of the field came to. */
  read(reader: ProtobufReader, before: T): T;
}

// Without this option it would take a leading U+FEFF away.
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

export function text(number: number): Field<string> {
  return {
    number,
    wire: 2,
    zero: "",
    write: (out, value) => {
      if (value !== "") out.bytes(number, Buffer.from(value, "utf8"));
    },
    read: (reader) => utf8.decode(reader.bytes()),
  };
}

/** int64, int32 and enums. Beyond 2^53 the last digits are lost. */
export function integer(number: number): Field<number> {
  return {
    number,
    wire: 0,
    zero: 0,
    write: (out, value) => {
      if (value !== 0) out.varint(number, value);
    },
    read: (reader) => reader.integer(),
  };
}

export function flag(number: number): Field<boolean> {
  return {
    number,
    wire: 0,
    zero: false,
    write: (out, value) => {
      if (value) out.varint(number, 1);
    },
    read: (reader) => reader.varint() !== 0n,
  };
}

export function texts(number: number): Field<readonly string[]> {
  return {
    number,
    wire: 2,
    zero: [],
    write: (out, values) => {
      for (const value of values) out.bytes(number, Buffer.from(value, "utf8"));
    },
    read: (reader, before) => [...before, utf8.decode(reader.bytes())],
  };
}

/** A message inside of the message: an empty one is written, undefined is not. */
export function nested<T>(number: number, type: MessageType<T>): Field<Given<T> | undefined> {
  return {
    number,
    wire: 2,
    zero: undefined,
    write: (out, value) => {
      if (value !== undefined) out.bytes(number, type.encode(value));
    },
    read: (reader) => type.decode(reader.bytes()),
  };
}

export function nestedList<T>(number: number, type: MessageType<T>): Field<readonly Given<T>[]> {
  return {
    number,
    wire: 2,
    zero: [],
    write: (out, values) => {
      for (const value of values) out.bytes(number, type.encode(value));
    },
    read: (reader, before) => [...before, type.decode(reader.bytes())],
  };
}

/** `map<string, string>`. */
export function textMap(number: number): Field<Readonly<Record<string, string>>> {
  return {
    number,
    wire: 2,
    zero: {},
    write: (out, value) => {
      for (const [key, text] of Object.entries(value)) {
        out.bytes(number, mapEntry.encode({ key, value: text }));
      }
    },
    read: (reader, before) => {
      const { key, value } = mapEntry.decode(reader.bytes());
      return { ...before, [key]: value };
    },
  };
}

const mapEntry = message<{ key: string; value: string }>({ key: text(1), value: text(2) });

/** A message type by the table of its fields. */
export function message<T extends object>(fields: {
  readonly [K in keyof T]: Field<T[K]>;
}): MessageType<T> {
  // The table's own types guarantee that each member meets the field of its name.
  const table = Object.entries(fields) as unknown as readonly [string, Field<unknown>][];
  return {
    encode(value) {
      const out = new ProtobufWriter();
      const given = value as Readonly<Record<string, unknown>>;
      for (const [name, field] of table) {
        const member = given[name];
        if (member !== undefined) field.write(out, member);
      }
      return out.finish();
    },
    decode(bytes) {
      const out: Record<string, unknown> = {};
      for (const [name, field] of table) out[name] = field.zero;
      const reader = new ProtobufReader(bytes);
      while (!reader.done) {
        const tag = reader.tag();
        const found = table.find(
          ([, { number, wire }]) => number === tag.field && wire === tag.wire,
        );
        if (found === undefined) reader.skip(tag.wire);
        else out[found[0]] = found[1].read(reader, out[found[0]]);
      }
      return out as T;
    },
  };
}
