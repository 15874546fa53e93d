import { dig, ensureRecord, metadataOf, nameOf, record, strings, text } from "../kinds/access.ts";
import { quantityOf } from "../kinds/quantity.ts";
import { isDefaultClass } from "../kinds/storage-class.ts";
import { betaClassAnnotation, classOf } from "../kinds/storage-table.ts";
import { forbidden } from "../status-error.ts";
import type { AdmissionAttributes, AdmissionPlugin, JsonObject, ObjectReader } from "../types.ts";

const storageClasses = "storageclasses.storage.k8s.io";

/** What keeps an object that is in use from being deleted, by group and kind; its controller takes it off. */
const protectionFinalizers: Readonly<Record<string, string>> = {
  "/PersistentVolume": "kubernetes.io/pv-protection",
  "/PersistentVolumeClaim": "kubernetes.io/pvc-protection",
  "storage.k8s.io/VolumeAttributesClass": "kubernetes.io/vac-protection",
};

/** The object that is created, not one of its subresources. */
function created({ subresource, operation, object }: AdmissionAttributes): JsonObject | undefined {
  return subresource === undefined && operation === "CREATE" ? object : undefined;
}

function isClaim({ kind }: AdmissionAttributes): boolean {
  return kind.group === "" && kind.kind === "PersistentVolumeClaim";
}

/** Marks new volumes, claims and classes of attributes, so that none is deleted while something uses it. */
export const storageObjectInUseProtection: AdmissionPlugin = {
  name: "StorageObjectInUseProtection",
  mutate(attributes) {
    const object = created(attributes);
    const { group, kind } = attributes.kind;
    const finalizer = protectionFinalizers[`${group}/${kind}`];
    if (object === undefined || finalizer === undefined) return;
    const metadata = ensureRecord(object, "metadata");
    const present = strings(metadata["finalizers"]);
    if (!present.includes(finalizer)) metadata["finalizers"] = [...present, finalizer];
  },
};

/** The newest of the classes that are marked as default; the first by name among equally old ones. */
function defaultClass(objects: ObjectReader): Readonly<JsonObject> | undefined {
  const [newest] = [...objects.list(storageClasses)]
    .filter((storageClass) => isDefaultClass(storageClass))
    .toSorted((left, right) => {
      const [leftTime, rightTime] = [left, right].map((one) =>
        Date.parse(text(metadataOf(one)["creationTimestamp"])),
      );
      const byTime = (rightTime ?? 0) - (leftTime ?? 0);
      if (byTime !== 0 && !Number.isNaN(byTime)) return byTime;
      return nameOf(left) < nameOf(right) ? -1 : 1;
    });
  return newest;
}

/** Gives new claims that do not say which class they want the default one. */
export const defaultStorageClass: AdmissionPlugin = {
  name: "DefaultStorageClass",
  mutate(attributes) {
    const claim = isClaim(attributes) ? created(attributes) : undefined;
    if (claim === undefined) return;
    const annotations = record(metadataOf(claim)["annotations"]);
    const spec = ensureRecord(claim, "spec");
    if (annotations[betaClassAnnotation] !== undefined || spec["storageClassName"] !== undefined) {
      return;
    }
    const found = defaultClass(attributes.objects);
    if (found !== undefined) spec["storageClassName"] = nameOf(found);
  },
};

function mayGrow(
  objects: ObjectReader,
  claim: Readonly<JsonObject>,
  old: Readonly<JsonObject>,
): boolean {
  const name = classOf(claim);
  if (name === "" || name !== classOf(old)) return false;
  return objects.get(storageClasses, "", name)?.["allowVolumeExpansion"] === true;
}

/** A claim grows only when it is bound, and when its class says that its volumes can. */
export const persistentVolumeClaimResize: AdmissionPlugin = {
  name: "PersistentVolumeClaimResize",
  validate(attributes) {
    const { kind, name, subresource, operation, object, oldObject, objects } = attributes;
    if (!isClaim(attributes) || subresource !== undefined || operation !== "UPDATE") return;
    if (object === undefined || oldObject === undefined) return;
    const [size, oldSize] = [object, oldObject].map(
      (one) => quantityOf(dig(one, "spec", "resources", "requests", "storage"))?.nanos ?? 0n,
    );
    if ((size ?? 0n) <= (oldSize ?? 0n)) return;
    if (record(oldObject["status"])["phase"] !== "Bound") {
      throw forbidden(kind, name, "Only bound persistent volume claims can be expanded");
    }
    if (mayGrow(objects, object, oldObject)) return;
    throw forbidden(
      kind,
      name,
      "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    );
  },
};
