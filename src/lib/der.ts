// The part of DER (ITU-T X.690) that certificates need. Writing only.

/** One TLV element. */
export function element(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content);
  const length: number[] = [];
  if (body.length < 128) {
    length.push(body.length);
  } else {
    const bytes: number[] = [];
    for (let rest = body.length; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256);
    length.push(0x80 | bytes.length, ...bytes);
  }
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

export function sequence(...content: readonly Uint8Array[]): Buffer {
  return element(0x30, ...content);
}

export function set(...content: readonly Uint8Array[]): Buffer {
  return element(0x31, ...content);
}

export function octetString(content: Uint8Array): Buffer {
  return element(0x04, content);
}

/** `unusedBits` at the end of the last byte. */
export function bitString(content: Uint8Array, unusedBits = 0): Buffer {
  return element(0x03, Buffer.from([unusedBits]), content);
}

/** A non-negative INTEGER from its big-endian bytes. */
export function integer(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0);
  const significant = first < 0 ? Buffer.from([0]) : Buffer.from(bytes.subarray(first));
  const sign = ((significant[0] ?? 0) & 0x80) === 0 ? Buffer.alloc(0) : Buffer.from([0]);
  return element(0x02, sign, significant);
}

export function boolean(value: boolean): Buffer {
  return element(0x01, Buffer.from([value ? 0xff : 0]));
}

export function utf8String(text: string): Buffer {
  return element(0x0c, Buffer.from(text, "utf8"));
}

/** OBJECT IDENTIFIER from dotted text. */
export function objectIdentifier(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const groups = [arc % 128];
    for (let high = Math.floor(arc / 128); high > 0; high = Math.floor(high / 128)) {
      groups.unshift(128 + (high % 128));
    }
    bytes.push(...groups);
  }
  return element(0x06, Buffer.from(bytes));
}

/** [n] EXPLICIT. */
export function explicit(n: number, ...content: readonly Uint8Array[]): Buffer {
  return element(0xa0 | n, ...content);
}

/** [n] IMPLICIT of a primitive type. */
export function implicit(n: number, content: Uint8Array): Buffer {
  return element(0x80 | n, content);
}

/** UTCTime before 2050, GeneralizedTime from then on (RFC 5280, 4.1.2.5). */
export function time(at: number): Buffer {
  const date = new Date(at);
  const text = `${date.toISOString().replaceAll(/[-:T]/g, "").slice(0, 14)}Z`;
  return date.getUTCFullYear() < 2050
    ? element(0x17, Buffer.from(text.slice(2)))
    : element(0x18, Buffer.from(text));
}
