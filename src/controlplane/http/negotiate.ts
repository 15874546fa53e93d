import { StatusError } from "../status-error.ts";

/** The shape in which a reply is wanted. Always JSON. */
export type Representation = "object" | "table" | "partial" | "partial-list";

interface MediaType {
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** The media types of an Accept header in the client's order. */
export function parseAccept(header: string): MediaType[] {
  return header
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map((part) => {
      const [type = "", ...parameters] = part.split(";").map((piece) => piece.trim());
      return {
        type: type.toLowerCase(),
        parameters: new Map(
          parameters.map((pair) => {
            const at = pair.indexOf("=");
            return at < 0 ? [pair, ""] : [pair.slice(0, at), pair.slice(at + 1)];
          }),
        ),
      };
    });
}

function isJson(type: string): boolean {
  return type === "application/json" || type === "application/*" || type === "*/*";
}

/** @throws {StatusError} 406 when the client takes nothing that is served. */
export function chooseRepresentation(accept: string): Representation {
  const types = parseAccept(accept === "" ? "*/*" : accept);
  for (const { type, parameters } of types) {
    if (!isJson(type)) continue;
    const as = parameters.get("as");
    if (as === undefined) return "object";
    if (parameters.get("g") !== "meta.k8s.io" || parameters.get("v") !== "v1") continue;
    if (as === "Table") return "table";
    if (as === "PartialObjectMetadata") return "partial";
    if (as === "PartialObjectMetadataList") return "partial-list";
  }
  throw new StatusError(
    406,
    "NotAcceptable",
    "only the following media types are accepted: application/json",
  );
}

/** The version of aggregated discovery that the client prefers, or undefined for the plain documents. */
export function discoveryVersion(accept: string): "v2" | "v2beta1" | undefined {
  for (const { type, parameters } of parseAccept(accept)) {
    if (!isJson(type)) continue;
    if (parameters.get("as") !== "APIGroupDiscoveryList") return undefined;
    const version = parameters.get("v");
    if (
      parameters.get("g") === "apidiscovery.k8s.io" &&
      (version === "v2" || version === "v2beta1")
    )
      return version;
  }
  return undefined;
}
