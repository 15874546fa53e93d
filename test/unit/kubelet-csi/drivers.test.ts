import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { CsiDrivers } from "../../../src/kubelet/csi/drivers.ts";

function chosen(versions: readonly string[]): string {
  return new CsiDrivers().checkVersions("RegisterPlugin", "d", versions).join(".");
}

describe("the version that is spoken with a driver", () => {
  for (const [versions, version] of [
    [["1.0.0"], "1.0.0"],
    [["v1.2.3"], "1.2.3"],
    [["1.0.0", "1.10.0", "1.9.9"], "1.10.0"],
    [["0.3.0", "1.1.0"], "1.1.0"],
    [["2.0.0", "1.0.0"], "1.0.0"],
    [["nonsense", "1.0"], "1.0"],
    [["1.2.0-rc1"], "1.2.0"],
  ] as const) {
    it(`of ${versions.join(", ")} is ${version}`, () => {
      assert.equal(chosen(versions), version);
    });
  }

  for (const [versions, message] of [
    [
      [],
      'kubernetes.io/csi: RegisterPlugin for CSI driver "d" failed. Plugin returned an empty list for supported versions',
    ],
    [
      ["0.2.0", "0.3.0"],
      'kubernetes.io/csi: RegisterPlugin for CSI driver "d" failed. None of the versions specified ["0.2.0" "0.3.0"] are supported. err=highest supported version reported is 0.3.0, must be v1.x',
    ],
    [
      ["2.0.0"],
      /could not find a highest supported version from versions \(\[2\.0\.0\]\) reported/,
    ],
    [["one"], /could not find a highest supported version/],
  ] as const) {
    it(`cannot be chosen from ${JSON.stringify(versions)}`, () => {
      assert.throws(() => chosen(versions), { message });
    });
  }

  it("has to be higher than that of a driver of the same name", () => {
    const drivers = new CsiDrivers();
    drivers.set({ name: "d", endpoint: "/a", version: [1, 1, 0] });
    assert.deepEqual(drivers.checkVersions("ValidatePlugin", "d", ["1.2.0"]), [1, 2, 0]);
    assert.throws(() => drivers.checkVersions("ValidatePlugin", "d", ["1.1.0"]), {
      message:
        'kubernetes.io/csi: ValidatePlugin for CSI driver "d" failed. Another driver with the same name is already registered with a higher supported version: "1.1.0"',
    });
  });
});
