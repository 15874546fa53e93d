import type { ApiClient } from "../../api/client.ts";
import { isNotFound } from "../../api/errors.ts";
import type { Stored } from "../../api/object.ts";
import {
  createObject,
  deleteObject,
  getObject,
  patchObject,
  updateObject,
} from "../../api/objects.ts";
import { CSI_NODES, NODES } from "../../api/resources.ts";
import type { CSINode, CSINodeDriver, Node } from "../../api/types.gen.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorMessage, ParseError } from "../../lib/errors.ts";
import { asRecord, stringMap } from "../../lib/guard.ts";
import type { Logger } from "../../lib/log.ts";
import { RegistrationError } from "./drivers.ts";

/** What a driver says about this node (`NodeGetInfo`). */
export interface DriverNodeInfo {
  readonly nodeID: string;
  /** 0: as many as the driver can. */
  readonly maxVolumes: number;
  readonly topology: Readonly<Record<string, string>>;
}

const nodeIDAnnotation = "csi.volume.kubernetes.io/nodeid";
const migratedAnnotation = "storage.alpha.kubernetes.io/migrated-plugins";
/**
 * Types of volume that Kubernetes has handed over to CSI drivers for good. Controllers look here before they attach a
 * volume of such a type to the node.
 */
const migratedPlugins = [
  "kubernetes.io/aws-ebs",
  "kubernetes.io/azure-disk",
  "kubernetes.io/azure-file",
  "kubernetes.io/cinder",
  "kubernetes.io/gce-pd",
  "kubernetes.io/portworx-volume",
  "kubernetes.io/vsphere-volume",
].join(",");

const maxCount = 2 ** 31 - 1;
const retries = { pausesMs: [10, 50, 250] };

/** Drivers by the id that each has for this node. */
function nodeIDs(node: Node): Record<string, string> {
  const text = node.metadata?.annotations?.[nodeIDAnnotation] ?? "";
  if (text === "") return {};
  try {
    return stringMap(asRecord(JSON.parse(text), "$"));
  } catch (error) {
    if (!(error instanceof SyntaxError) && !(error instanceof ParseError)) throw error;
    throw new RegistrationError(
      `failed to parse node's "${nodeIDAnnotation}" annotation value ("${text}") err=${error.message}`,
      { cause: error },
    );
  }
}

/** Body of the merge patch that tells the Node of a driver; undefined when it knows. */
export function installPatch(
  node: Node,
  driver: string,
  { nodeID, topology }: DriverNodeInfo,
): object | undefined {
  const ids = nodeIDs(node);
  const labels = node.metadata?.labels ?? {};
  for (const [key, value] of Object.entries(topology)) {
    const present = labels[key];
    if (present !== undefined && present !== value) {
      throw new RegistrationError(
        `detected topology value collision: driver reported "${key}":"${value}" but existing label is "${key}":"${present}"`,
      );
    }
  }
  const fresh = Object.entries(topology).filter(([key]) => labels[key] === undefined);
  if (ids[driver] === nodeID && fresh.length === 0) return undefined;
  return {
    metadata: {
      annotations: { [nodeIDAnnotation]: sortedJSON({ ...ids, [driver]: nodeID }) },
      ...(fresh.length === 0 ? {} : { labels: Object.fromEntries(fresh) }),
    },
  };
}

/** Body of the merge patch that makes the Node forget a driver; undefined when it has. Its labels stay. */
export function uninstallPatch(node: Node, driver: string): object | undefined {
  const ids = nodeIDs(node);
  if (ids[driver] === undefined) return undefined;
  const { [driver]: _gone, ...rest } = ids;
  const value = Object.keys(rest).length === 0 ? null : sortedJSON(rest);
  return { metadata: { annotations: { [nodeIDAnnotation]: value } } };
}

function sortedJSON(record: Readonly<Record<string, string>>): string {
  const entries = Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(entries));
}

/** A driver as the CSINode lists it. */
export function csiNodeDriver(
  name: string,
  { maxVolumes, nodeID, topology }: DriverNodeInfo,
): CSINodeDriver {
  return {
    name,
    nodeID,
    topologyKeys: Object.keys(topology).toSorted(),
    ...(maxVolumes > 0 ? { allocatable: { count: Math.min(maxVolumes, maxCount) } } : {}),
  };
}

function sameDriver(one: CSINodeDriver, other: CSINodeDriver): boolean {
  return (
    one.nodeID === other.nodeID &&
    one.allocatable?.count === other.allocatable?.count &&
    [...(one.topologyKeys ?? [])].toSorted().join() === (other.topologyKeys ?? []).join()
  );
}

export interface CsiNodeOptions {
  readonly client: ApiClient;
  readonly nodeName: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The API server prints an empty list as null. */
function driversOf(csiNode: CSINode | undefined): readonly CSINodeDriver[] {
  const drivers: readonly CSINodeDriver[] | null | undefined = csiNode?.spec.drivers;
  return drivers ?? [];
}

/** The CSINode object of this node, and what the Node object says about drivers. Written by nobody else. */
export class CsiNodeObject {
  readonly #options: CsiNodeOptions;
  /** One change at a time: each is a read and a write. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: CsiNodeOptions) {
    this.#options = options;
  }

  /** Makes sure that there is a CSINode, of this incarnation of the Node. */
  async ensure(signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      await this.#retry("error updating CSINode annotation", () => this.#current(signal), signal);
    });
  }

  /**
   * Writes what a driver says of the node to the Node and the CSINode.
   *
   * @throws {RegistrationError}
   */
  async install(driver: string, info: DriverNodeInfo, signal: AbortSignal): Promise<void> {
    if (info.nodeID === "") {
      throw new RegistrationError(
        "error adding CSI driver node info: driverNodeID must not be empty",
      );
    }
    await this.#alone(async () => {
      await this.#patchNode(
        "error updating Node object with CSI driver node info",
        (node) => installPatch(node, driver, info),
        signal,
      );
      await this.#put(driver, csiNodeDriver(driver, info), signal);
    });
  }

  /** Writes how many volumes the driver can have here to the CSINode alone. */
  async update(driver: string, info: DriverNodeInfo, signal: AbortSignal): Promise<void> {
    await this.#alone(() => this.#put(driver, csiNodeDriver(driver, info), signal));
  }

  /** Takes a driver out of both. */
  async uninstall(driver: string, signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      await this.#retry(
        "error uninstalling CSI driver from CSINode object",
        async () => {
          const csiNode = await this.#read(signal);
          const before = driversOf(csiNode);
          const drivers = before.filter(({ name }) => name !== driver);
          if (csiNode === undefined || drivers.length === before.length) return;
          const changed = { ...csiNode, spec: { ...csiNode.spec, drivers } };
          await updateObject(this.#options.client, CSI_NODES, changed, { signal });
        },
        signal,
      );
      await this.#patchNode(
        "error removing CSI driver node info from Node object",
        (node) => uninstallPatch(node, driver),
        signal,
      );
    });
  }

  async #put(driver: string, entry: CSINodeDriver, signal: AbortSignal): Promise<void> {
    await this.#retry(
      "error updating CSINode object with CSI driver node info: error updating CSINode",
      async () => {
        const csiNode = await this.#current(signal);
        const drivers = driversOf(csiNode);
        const before = drivers.find(({ name }) => name === driver);
        if (before !== undefined && sameDriver(before, entry)) return;
        const others = drivers.filter(({ name }) => name !== driver);
        const changed = { ...csiNode, spec: { ...csiNode.spec, drivers: [...others, entry] } };
        await updateObject(this.#options.client, CSI_NODES, changed, { signal });
      },
      signal,
    );
  }

  async #patchNode(
    what: string,
    patchFor: (node: Stored<Node>) => object | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, nodeName } = this.#options;
    await this.#retry(
      `${what}: error updating node`,
      async () => {
        const node = await getObject(client, NODES, { name: nodeName }, { signal });
        const patch = patchFor(node);
        if (patch === undefined) return;
        await patchObject(
          client,
          NODES,
          { name: nodeName, patch },
          { signal, type: "application/merge-patch+json" },
        );
      },
      signal,
    );
  }

  async #read(signal: AbortSignal): Promise<Stored<CSINode> | undefined> {
    const { client, nodeName } = this.#options;
    try {
      return await getObject(client, CSI_NODES, { name: nodeName }, { signal });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** The CSINode, made where it is missing, with the annotation. */
  async #current(signal: AbortSignal): Promise<Stored<CSINode>> {
    const { client, logger, nodeName } = this.#options;
    const node = await getObject(client, NODES, { name: nodeName }, { signal });
    const { uid } = node.metadata;
    const found = await this.#read(signal);
    if (found === undefined) return this.#create(uid, signal);
    const owner = found.metadata.ownerReferences?.find(({ kind }) => kind === "Node");
    if (owner?.uid !== uid) {
      logger.log("info", "CSINode of a former Node of this name is replaced", { node: nodeName });
      await deleteObject(
        client,
        CSI_NODES,
        { name: nodeName },
        { uid: found.metadata.uid, signal },
      );
      return this.#create(uid, signal);
    }
    if (found.metadata.annotations?.[migratedAnnotation] === migratedPlugins) return found;
    const annotations = { ...found.metadata.annotations, [migratedAnnotation]: migratedPlugins };
    const changed = { ...found, metadata: { ...found.metadata, annotations } };
    return updateObject(client, CSI_NODES, changed, { signal });
  }

  async #create(uid: string, signal: AbortSignal): Promise<Stored<CSINode>> {
    const { client, nodeName } = this.#options;
    const csiNode: CSINode = {
      metadata: {
        name: nodeName,
        annotations: { [migratedAnnotation]: migratedPlugins },
        ownerReferences: [{ apiVersion: "v1", kind: "Node", name: nodeName, uid }],
      },
      spec: { drivers: [] },
    };
    return createObject(client, CSI_NODES, csiNode, { signal });
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  /** A conflict, or a moment without a server, is no reason to turn a driver away. */
  async #retry(what: string, work: () => Promise<unknown>, signal: AbortSignal): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        await work();
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof RegistrationError) throw error;
        const pauseMs = retries.pausesMs[attempt];
        if (pauseMs === undefined) {
          throw new RegistrationError(`${what}: ${errorMessage(error)}`, { cause: error });
        }
        await this.#options.clock.sleep(pauseMs, signal);
      }
    }
  }
}
