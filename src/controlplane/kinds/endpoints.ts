import { ipFamily } from "../../lib/cidr.ts";
import type { FieldError, JsonObject, KindDefinition } from "../types.ts";
import {
  defaultTo,
  ensureRecord,
  int,
  nameOf,
  records,
  semanticEqual,
  strings,
  text,
} from "./access.ts";
import {
  at,
  duplicate,
  enumeration,
  invalidAll,
  invalidValue,
  required,
  tooMany,
} from "./field-error.ts";
import { defineKind } from "./kind-builder.ts";
import { dns1123Label, dns1123Subdomain, portNumberMessages, qualifiedName } from "./names.ts";
import { endpointAddress } from "./service-validation.ts";
import { defineStrategy } from "./strategy.ts";
import { abbreviated, age, ageColumn, column, nameColumn } from "./table.ts";

const protocols = ["SCTP", "TCP", "UDP"];

function addressErrors(item: Readonly<JsonObject>, path: string): FieldError[] {
  const hostname = text(item["hostname"]);
  const out = endpointAddress(text(item["ip"]), `${path}.ip`);
  if (hostname !== "")
    out.push(...invalidAll(`${path}.hostname`, hostname, dns1123Label(hostname)));
  const node = item["nodeName"];
  if (typeof node === "string") {
    out.push(...invalidAll(`${path}.nodeName`, node, dns1123Subdomain(node)));
  }
  return out;
}

function subsetErrors(object: Readonly<JsonObject>): FieldError[] {
  const out: FieldError[] = [];
  records(object["subsets"]).forEach((subset, index) => {
    const path = at("subsets", index);
    const ready = records(subset["addresses"]);
    const notReady = records(subset["notReadyAddresses"]);
    if (ready.length === 0 && notReady.length === 0) {
      out.push(required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    ready.forEach((item, i) => out.push(...addressErrors(item, at(`${path}.addresses`, i))));
    notReady.forEach((item, i) =>
      out.push(...addressErrors(item, at(`${path}.notReadyAddresses`, i))),
    );
    const ports = records(subset["ports"]);
    ports.forEach((port, portIndex) => {
      const portPath = at(`${path}.ports`, portIndex);
      const name = text(port["name"]);
      const number = int(port["port"]) ?? 0;
      if (name === "") {
        if (ports.length > 1) out.push(required(`${portPath}.name`));
      } else out.push(...invalidAll(`${portPath}.name`, name, dns1123Label(name)));
      out.push(...invalidAll(`${portPath}.port`, number, portNumberMessages(number)));
      out.push(...enumeration(`${portPath}.protocol`, port["protocol"], protocols));
    });
  });
  return out;
}

function endpointsText(object: Readonly<JsonObject>): string {
  const all: string[] = [];
  for (const subset of records(object["subsets"])) {
    const addresses = records(subset["addresses"]).map((item) => text(item["ip"]));
    const ports = records(subset["ports"]);
    if (ports.length === 0) all.push(...addresses);
    for (const port of ports) {
      for (const ip of addresses) {
        const host = ipFamily(ip) === "IPv6" ? `[${ip}]` : ip;
        all.push(`${host}:${int(port["port"]) ?? 0}`);
      }
    }
  }
  return all.length === 0 ? "<none>" : abbreviated(all, 3);
}

export const endpointsKind: KindDefinition = defineKind({
  kind: "Endpoints",
  plural: "endpoints",
  shortNames: ["ep"],
  schema: "io.k8s.api.core.v1.Endpoints",
  deprecation: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
  strategy: defineStrategy({
    applyDefaults(object) {
      for (const subset of records(object["subsets"])) {
        for (const port of records(subset["ports"])) defaultTo(port, "protocol", "TCP");
      }
    },
    validate: (object, old) =>
      old !== undefined && semanticEqual(object["subsets"], old["subsets"])
        ? []
        : subsetErrors(object),
  }),
  table: {
    columns: [nameColumn, column("Endpoints", "Addresses that are ready, with ports."), ageColumn],
    row: (object, now) => [nameOf(object), endpointsText(object), age(object, now)],
  },
});

/** Limits of one EndpointSlice. */
const maxEndpoints = 1000;
const maxPorts = 20_000;
const maxAddresses = 100;

function sliceAddressErrors(address: string, type: unknown, path: string): FieldError[] {
  if (type === "FQDN") return invalidAll(path, address, dns1123Subdomain(address));
  if (ipFamily(address) !== type) {
    return [invalidValue(path, address, `must be an ${text(type)} address`)];
  }
  return endpointAddress(address, path);
}

function sliceEndpointErrors(object: Readonly<JsonObject>): FieldError[] {
  const endpoints = records(object["endpoints"]);
  const out: FieldError[] = [];
  if (endpoints.length > maxEndpoints) {
    return [tooMany("endpoints", endpoints.length, maxEndpoints)];
  }
  endpoints.forEach((endpoint, index) => {
    const path = at("endpoints", index);
    const addresses = strings(endpoint["addresses"]);
    if (addresses.length === 0) {
      out.push(required(`${path}.addresses`, "must contain at least 1 address"));
    } else if (addresses.length > maxAddresses) {
      out.push(tooMany(`${path}.addresses`, addresses.length, maxAddresses));
    }
    addresses.forEach((address, addressIndex) => {
      const addressPath = at(`${path}.addresses`, addressIndex);
      out.push(...sliceAddressErrors(address, object["addressType"], addressPath));
    });
    const node = endpoint["nodeName"];
    if (typeof node === "string") {
      out.push(...invalidAll(`${path}.nodeName`, node, dns1123Subdomain(node)));
    }
    const hostname = endpoint["hostname"];
    if (typeof hostname === "string") {
      out.push(...invalidAll(`${path}.hostname`, hostname, dns1123Label(hostname)));
    }
  });
  return out;
}

function slicePortErrors(object: Readonly<JsonObject>): FieldError[] {
  const ports = records(object["ports"]);
  const out: FieldError[] = [];
  const names = new Set<string>();
  if (ports.length > maxPorts) return [tooMany("ports", ports.length, maxPorts)];
  ports.forEach((port, index) => {
    const path = at("ports", index);
    const name = text(port["name"]);
    if (name !== "") out.push(...invalidAll(`${path}.name`, name, dns1123Label(name)));
    if (names.has(name)) out.push(duplicate(`${path}.name`, name));
    names.add(name);
    out.push(...enumeration(`${path}.protocol`, port["protocol"], protocols));
    const number = int(port["port"]);
    if (number !== undefined) {
      out.push(...invalidAll(`${path}.port`, number, portNumberMessages(number)));
    }
    const protocol = port["appProtocol"];
    if (typeof protocol === "string") {
      out.push(...invalidAll(`${path}.appProtocol`, protocol, qualifiedName(protocol)));
    }
  });
  return out;
}

function slicePortsText(object: Readonly<JsonObject>): string {
  const ports = records(object["ports"]).map((port) => String(int(port["port"]) ?? "*"));
  return ports.length === 0 ? "<unset>" : abbreviated(ports, 3);
}

function sliceEndpointsText(object: Readonly<JsonObject>): string {
  const all = records(object["endpoints"]).flatMap((endpoint) => strings(endpoint["addresses"]));
  return all.length === 0 ? "<unset>" : abbreviated(all, 3);
}

export const endpointSliceKind: KindDefinition = defineKind({
  group: "discovery.k8s.io",
  kind: "EndpointSlice",
  plural: "endpointslices",
  schema: "io.k8s.api.discovery.v1.EndpointSlice",
  strategy: defineStrategy({
    hasGeneration: true,
    applyDefaults(object) {
      for (const port of records(object["ports"])) {
        if (typeof port["name"] !== "string") port["name"] = "";
        defaultTo(port, "protocol", "TCP");
      }
      for (const endpoint of records(object["endpoints"])) ensureRecord(endpoint, "conditions");
    },
    validate: (object, old) => [
      ...(old !== undefined && object["addressType"] !== old["addressType"]
        ? [invalidValue("addressType", object["addressType"], "field is immutable")]
        : []),
      ...enumeration("addressType", object["addressType"], ["FQDN", "IPv4", "IPv6"]),
      ...sliceEndpointErrors(object),
      ...slicePortErrors(object),
    ],
  }),
  table: {
    columns: [
      nameColumn,
      column("AddressType", "IPv4, IPv6 or FQDN."),
      column("Ports", "Ports of every endpoint in the slice."),
      column("Endpoints", "Addresses in the slice."),
      ageColumn,
    ],
    row: (object, now) => [
      nameOf(object),
      text(object["addressType"]),
      slicePortsText(object),
      sliceEndpointsText(object),
      age(object, now),
    ],
  },
});
