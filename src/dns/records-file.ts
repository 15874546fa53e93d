import { crc32 } from "node:zlib";

import { ParseError } from "../lib/errors.ts";
import { asRecord, asString, isRecord, optionalNumber } from "../lib/guard.ts";
import { parseDnsService, parseDnsSlice, proxyNameLabel } from "./parse.ts";
import type { DnsService, DnsSlice, RecordsUpdate } from "./types.ts";

/** Everything that cluster names follow from. */
export interface Records {
  readonly services: Iterable<DnsService>;
  readonly slices: Iterable<DnsSlice>;
  readonly namespaces: readonly string[] | "unknown";
}

const format = "remora-dns-records";
/** Another version's file is not read: the API server tells everything anyway. */
const version = 1;
const objectsInPiece = 256;

/** As the API has it, so that the same code reads both. */
function serviceObject(service: DnsService): unknown {
  const { namespace, name, clusterIPs, headless, externalName, ports, proxyName } = service;
  const labels = proxyName === "" ? undefined : { [proxyNameLabel]: proxyName };
  const address =
    externalName === undefined
      ? { clusterIP: headless ? "None" : clusterIPs[0], clusterIPs }
      : { type: "ExternalName", externalName };
  return { metadata: { namespace, name, labels }, spec: { ...address, ports } };
}

function sliceObject({ key, service, ports, endpoints }: DnsSlice): unknown {
  const [namespace = "", name = ""] = key.split("/");
  const labels =
    service === undefined
      ? undefined
      : { "kubernetes.io/service-name": service.slice(namespace.length + 1) };
  return {
    metadata: { namespace, name, labels },
    // What parses an address finds out which it is.
    addressType: "IPv4",
    ports,
    endpoints: endpoints.map(({ ip, hostname }) => ({
      addresses: [ip],
      hostname: hostname === "" ? undefined : hostname,
    })),
  };
}

function* pieces(lines: Iterable<unknown>): Generator<string> {
  let piece: string[] = [];
  for (const line of lines) {
    piece.push(JSON.stringify(line));
    if (piece.length < objectsInPiece) continue;
    yield `${piece.join("\n")}\n`;
    piece = [];
  }
  if (piece.length > 0) yield `${piece.join("\n")}\n`;
}

function* lines({ services, slices, namespaces }: Records, head: object): Generator {
  yield { format, version, ...head, namespaces };
  for (const service of services) yield { service: serviceObject(service) };
  for (const slice of slices) yield { slice: sliceObject(slice) };
}

/**
 * The records as a file: a line that says what it is, one for each object, and a checksum of all that.
 *
 * @param head Milliseconds since the epoch, and the cluster's domain.
 * @yields pieces small enough to do something else in between.
 */
export function* encodeRecords(
  records: Records,
  head: { readonly writtenAt: number; readonly domain: string },
): Generator<Buffer> {
  let sum = 0;
  for (const text of pieces(lines(records, head))) {
    const bytes = Buffer.from(text);
    sum = crc32(bytes, sum);
    yield bytes;
  }
  yield Buffer.from(`${JSON.stringify({ crc32: sum })}\n`);
}

export interface StoredRecords {
  /** Milliseconds since the epoch. */
  readonly writtenAt: number;
  readonly update: RecordsUpdate;
}

/** @throws {ParseError} when the file is damaged, of another version, or of another cluster's domain. */
export function decodeRecords(bytes: Buffer, domain: string): StoredRecords {
  const end = bytes.lastIndexOf("\n", bytes.length - 2) + 1;
  const trailer = parsedLine(bytes.toString("utf8", end), "the last line");
  if (end === 0 || trailer["crc32"] !== crc32(bytes.subarray(0, end))) {
    throw new ParseError("crc32", "the checksum of what stands before it");
  }
  const [first = "", ...objects] = bytes.toString("utf8", 0, end - 1).split("\n");
  const head = parsedLine(first, "the first line");
  if (head["format"] !== format || head["version"] !== version) {
    throw new ParseError("version", `${format} ${version}`);
  }
  if (asString(head["domain"], "domain") !== domain) throw new ParseError("domain", domain);
  const services: DnsService[] = [];
  const slices: DnsSlice[] = [];
  for (const [at, line] of objects.entries()) {
    const { service, slice } = parsedLine(line, `line ${at + 2}`);
    if (service !== undefined) services.push(parseDnsService(service));
    else slices.push(parseDnsSlice(slice));
  }
  const { namespaces } = head;
  return {
    writtenAt: optionalNumber(head["writtenAt"]) ?? 0,
    update: {
      full: true,
      services,
      slices,
      removedServices: [],
      removedSlices: [],
      namespaces: Array.isArray(namespaces)
        ? namespaces.map((name) => asString(name, "namespaces"))
        : "unknown",
    },
  };
}

function parsedLine(text: string, what: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (isRecord(value)) return value;
  } catch {
    // Said below, without the text: it may be anything.
  }
  return asRecord(undefined, what);
}
