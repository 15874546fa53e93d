import {
  asRecord,
  isRecord,
  type JsonRecord,
  optionalNumber,
  optionalString,
} from "../../lib/guard.ts";
import type { Hardware } from "./hardware-types.ts";

function text(value: unknown): string {
  const known = optionalString(value)?.trim() ?? "";
  // How firmware tables say that nobody filled them in.
  return /^(-|unknown|none|not specified|to be filled by o\.?e\.?m\.?|default string)$/i.test(known)
    ? ""
    : known;
}

function records(value: unknown): JsonRecord[] {
  return Array.isArray(value) ? value.filter((entry) => isRecord(entry)) : [];
}

function positive(value: unknown): number | undefined {
  const known = optionalNumber(value);
  return known !== undefined && known > 0 ? known : undefined;
}

function member(value: JsonRecord, name: string): JsonRecord {
  const inner = value[name];
  return isRecord(inner) ? inner : {};
}

/**
 * The inventory program's report. Members it could not find out are left out, never guessed.
 *
 * @throws {ParseError} when the report is no object.
 */
export function parseHardware(value: unknown): Hardware {
  const report = asRecord(value, "hardware");
  const cpu = member(report, "cpu");
  const bios = member(report, "bios");
  const system = member(report, "system");
  return {
    cpu: {
      vendor: text(cpu["vendor"]) || text(cpu["manufacturer"]),
      model: [text(cpu["manufacturer"]), text(cpu["brand"])]
        .filter((part) => part !== "")
        .join(" "),
      family: text(cpu["family"]),
      cores: positive(cpu["cores"]),
      flags: text(report["cpuFlags"])
        .split(/\s+/)
        .filter((flag) => flag !== ""),
    },
    memoryBytes: positive(member(report, "memory")["total"]),
    disks: parseDisks(report["disks"]),
    gpus: records(member(report, "graphics")["controllers"]).map((gpu) => ({
      vendor: text(gpu["vendor"]),
      model: text(gpu["model"]),
    })),
    nics: parseNics(report["nics"]),
    firmware: {
      kind: member(report, "os")["uefi"] === true ? "uefi" : "bios",
      vendor: text(bios["vendor"]),
      version: text(bios["version"]),
      date: text(bios["releaseDate"]),
    },
    system: { manufacturer: text(system["manufacturer"]), model: text(system["model"]) },
    virtualisation:
      system["virtual"] === true ? text(system["virtualHost"]).toLowerCase() || "unknown" : "none",
  };
}

function parseDisks(value: unknown): Hardware["disks"] {
  return records(value).map((disk) => {
    const interfaceType = text(disk["interfaceType"]).toLowerCase();
    const type = text(disk["type"]).toLowerCase();
    const solid = type === "ssd" ? "ssd" : "unknown";
    const kind =
      interfaceType === "pcie" || type === "nvme" ? "nvme" : type === "hd" ? "hdd" : solid;
    return {
      device: text(disk["device"]),
      model: [text(disk["vendor"]), text(disk["name"])].filter((part) => part !== "").join(" "),
      kind,
      sizeBytes: positive(disk["size"]),
    };
  });
}

function parseNics(value: unknown): Hardware["nics"] {
  return records(value)
    .filter((nic) => nic["internal"] !== true)
    .map((nic) => ({
      name: text(nic["iface"]),
      mac: text(nic["mac"]),
      speedMbps: positive(nic["speed"]),
      virtual: nic["virtual"] === true,
    }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
}
