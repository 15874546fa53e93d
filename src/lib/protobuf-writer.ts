/** Writes the protobuf wire format, fields in the order of the calls. */
export class ProtobufWriter {
  readonly #parts: Uint8Array[] = [];

  /** Wire type 0: integers up to 64 bits, negative ones in two's complement; booleans and enums as integers. */
  varint(field: number, value: number | bigint): void {
    this.#raw(BigInt(field << 3));
    this.#raw(BigInt.asUintN(64, BigInt(value)));
  }

  /** Wire type 2: bytes, strings in UTF-8, messages. */
  bytes(field: number, value: Uint8Array): void {
    this.#raw(BigInt((field << 3) | 2));
    this.#raw(BigInt(value.length));
    this.#parts.push(value);
  }

  finish(): Uint8Array {
    return Buffer.concat(this.#parts);
  }

  #raw(value: bigint): void {
    const out: number[] = [];
    let rest = value;
    for (; rest > 0x7fn; rest >>= 7n) out.push(Number(rest & 0x7fn) | 0x80);
    out.push(Number(rest));
    this.#parts.push(Uint8Array.from(out));
  }
}
