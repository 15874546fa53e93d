import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as fc from "fast-check";

import { hardwareLines } from "../../../src/kubelet/node/hardware.ts";
import {
  hardwareLabelPatch,
  hardwareLabels,
  labelValue,
} from "../../../src/kubelet/node/hardware-labels.ts";
import { parseHardware } from "../../../src/kubelet/node/hardware-parse.ts";

const report = {
  system: { manufacturer: "Dell Inc.", model: "PowerEdge R650", virtual: false },
  bios: { vendor: "Dell Inc.", version: "1.2", releaseDate: "2024-01-01" },
  cpu: {
    manufacturer: "Intel",
    brand: "Xeon® Gold 6338",
    vendor: "GenuineIntel",
    family: "6",
    cores: 64,
  },
  cpuFlags: "fpu aes avx2 vmx  sse4_2",
  memory: { total: 2 ** 36 },
  disks: [
    { device: "/dev/nvme0n1", type: "NVMe", interfaceType: "PCIe", name: "PM9A3", size: 1e12 },
    { device: "/dev/sda", type: "HD", interfaceType: "SATA", name: "ST4000", size: 4e12 },
  ],
  graphics: {
    controllers: [{ vendor: "NVIDIA Corporation", model: "A100" }, { vendor: "Matrox" }],
  },
  nics: [
    { iface: "lo", internal: true },
    { iface: "eth1", mac: "aa", speed: 25000, virtual: false },
    { iface: "eth0", mac: "bb", speed: -1, virtual: false },
    { iface: "br0", mac: "cc", speed: 100000, virtual: true },
  ],
  os: { uefi: true },
};

describe("hardware", () => {
  test("becomes labels worth scheduling on", () => {
    const labels = hardwareLabels(parseHardware(report));
    assert.deepEqual(
      Object.fromEntries(
        Object.entries(labels).map(([key, value]) => [
          key.replace("feature.node.remora.io/", ""),
          value,
        ]),
      ),
      {
        "cpu-vendor": "GenuineIntel",
        "cpu-model": "Intel-Xeon-Gold-6338",
        "cpu-family": "6",
        "cpu-aes": "true",
        "cpu-avx2": "true",
        "cpu-sse4_2": "true",
        virtualisation: "none",
        "virtualisation-host": "true",
        "gpu-count": "1",
        "gpu-nvidia": "true",
        "disk-nvme": "true",
        "disk-hdd": "true",
        "nic-speed-mbps": "25000",
        firmware: "uefi",
      },
    );
  });

  test("a report without anything gives no guessed labels and readable lines", () => {
    const hardware = parseHardware({});
    assert.deepEqual(hardwareLabels(hardware), {
      "feature.node.remora.io/virtualisation": "none",
      "feature.node.remora.io/firmware": "bios",
    });
    assert.ok(hardwareLines(hardware).includes("Disks:           none found"));
  });

  test("people read model, flags, disks and network", () => {
    const text = hardwareLines(parseHardware(report)).join("\n");
    for (const part of ["PowerEdge R650", "Xeon", "avx2", "64.0 GiB", "A100", "25000 Mbit/s"]) {
      assert.ok(text.includes(part), part);
    }
  });

  test("a report that is no object is refused", () => {
    assert.throws(() => parseHardware([]), /hardware/);
  });

  test("labels of hardware that is gone are removed, foreign ones are left alone", () => {
    const hardware = parseHardware(report);
    const have = {
      ...hardwareLabels(hardware),
      "feature.node.remora.io/gpu-amd": "true",
      "example.com/rack": "7",
      "kubernetes.io/arch": "arm64",
    };
    assert.deepEqual(hardwareLabelPatch(hardware, { "kubernetes.io/arch": "amd64" }, have), {
      metadata: {
        labels: { "feature.node.remora.io/gpu-amd": null, "kubernetes.io/arch": "amd64" },
      },
    });
    assert.equal(hardwareLabelPatch(hardware, {}, hardwareLabels(hardware)), undefined);
  });

  test("every text makes a valid label value or none", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => {
        assert.match(labelValue(text), /^$|^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/);
      }),
    );
  });
});
