import assert from "node:assert/strict";
import { test } from "node:test";

import { checkReservations, computeAllocatable } from "../../../src/kubelet/node/allocatable.ts";
import { SetupError } from "../../../src/lib/errors.ts";

const gibi = 1024 ** 3;
const machine = {
  cpuMillicores: 2000,
  memoryBytes: 4 * gibi,
  ephemeralStorageBytes: 100 * gibi,
  maxPods: 110,
  hugePages: new Map<number, number>(),
};
const nothing = { kubeReserved: {}, systemReserved: {}, evictionHard: {} };

test("all of a machine may be kept from pods", () => {
  const all = { ...nothing, kubeReserved: { cpu: "1500m" }, systemReserved: { cpu: "500m" } };
  checkReservations(machine, all);
  assert.equal(computeAllocatable(machine, all)["cpu"], "0");
  checkReservations(machine, { ...nothing, evictionHard: { "nodefs.available": "100%" } });
});

test("more than a machine has may not, in the kubelet's words", () => {
  const refused = (reservations: Partial<typeof nothing>): string => {
    try {
      checkReservations(machine, { ...nothing, ...reservations });
    } catch (error) {
      assert(error instanceof SetupError);
      return error.message;
    }
    return "";
  };
  assert.equal(
    refused({ kubeReserved: { cpu: "1500m" }, systemReserved: { cpu: "501m" } }),
    'invalid Node Allocatable configuration. Resource "cpu" has a reservation of 2001m but capacity of 2. Expected capacity >= reservation. Lower kubeReserved, systemReserved or evictionHard',
  );
  assert.match(
    refused({ kubeReserved: { memory: "4Gi" }, evictionHard: { "memory.available": "1Gi" } }),
    /"memory" has a reservation of 5Gi but capacity of 4Gi\./,
  );
  assert.match(
    refused({ systemReserved: { cpu: "3", "ephemeral-storage": "101Gi" } }),
    /"cpu" .*"ephemeral-storage" has a reservation of 101Gi but capacity of 100Gi\./,
  );
});
