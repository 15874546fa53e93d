import type { KindDefinition } from "../types.ts";
import { int, nameOf, record } from "./access.ts";
import { age, ageColumn, nameColumn, numberColumn } from "./table.ts";
import { containerCells, templateColumns } from "./workload.ts";

/** Columns of what keeps a number of pods. @param selectorText What the column SELECTOR shows of `spec.selector`. */
export function replicaTable(
  selectorText: (selector: unknown) => string,
): NonNullable<KindDefinition["table"]> {
  return {
    columns: [
      nameColumn,
      numberColumn("Desired", "Pods wanted."),
      numberColumn("Current", "Pods that exist."),
      numberColumn("Ready", "Pods that are ready."),
      ageColumn,
      ...templateColumns,
    ],
    row(object, now) {
      const spec = record(object["spec"]);
      const status = record(object["status"]);
      return [
        nameOf(object),
        int(spec["replicas"]) ?? 0,
        int(status["replicas"]) ?? 0,
        int(status["readyReplicas"]) ?? 0,
        age(object, now),
        ...containerCells(object),
        selectorText(spec["selector"]),
      ];
    },
  };
}
