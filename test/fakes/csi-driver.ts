/**
 * A CSI driver over the real protocol: gRPC servers on Unix sockets, one for registration (pluginregistration.v1) as
 * node-driver-registrar has it, one for the Node service (csi.v1). It holds the kubelet to the rules of the CSI
 * specification: staged before published, parents of targets there, everything undone in reverse.
 */
import { existsSync } from "node:fs";
import { mkdir, rm, rmdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import grpc from "@grpc/grpc-js";

import {
  capabilityTypes,
  type NodeExpandVolumeRequest,
  type NodeGetInfoResponse,
  type NodeGetVolumeStatsRequest,
  type NodeGetVolumeStatsResponse,
  type NodePublishVolumeRequest,
  type NodeStageVolumeRequest,
  type NodeUnpublishVolumeRequest,
  type NodeUnstageVolumeRequest,
  type RegistrationStatus,
  usageUnits,
} from "../../src/kubelet/csi/messages.ts";
import { nodeMethods, registrationMethods } from "../../src/kubelet/csi/methods.ts";
import type { RpcMethod } from "../../src/kubelet/csi/rpc.ts";
import type { Given } from "../../src/lib/protobuf-message.ts";

/** gRPC status codes that tests let calls fail with. */
export const status = grpc.status;

export interface FakeCsiDriverOptions {
  readonly name?: string;
  /** The kubelet's root. */
  readonly rootDir: string;
  readonly capabilities?: readonly (keyof typeof capabilityTypes)[];
  readonly nodeID?: string;
  readonly maxVolumes?: number;
  readonly topology?: Readonly<Record<string, string>>;
  readonly versions?: readonly string[];
  /** `PluginInfo.type`. */
  readonly type?: string;
  /** Path of the registration socket below the registry. */
  readonly registrationSocket?: string;
  /** Makes a volume appear at a path, and disappear. Default: an empty directory, or a file for a device. */
  readonly mounts?: DriverMounts;
}

export interface DriverMounts {
  mount(volume: string, target: string, how: "stage" | "publish", block: boolean): Promise<void>;
  unmount(volume: string, target: string, how: "stage" | "publish"): Promise<void>;
}

/** One call, as the driver got it. */
export interface SeenCall {
  readonly method: keyof typeof nodeMethods;
  readonly request: Readonly<Record<string, unknown>>;
}

type Method = keyof typeof nodeMethods;

/** An answer that is no success. */
export class CallFailure extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

const directories: DriverMounts = {
  mount: async (_volume, target, how, block) => {
    if (how === "stage") return;
    if (block) await writeFile(target, "");
    else await mkdir(target, { recursive: true });
  },
  unmount: async (_volume, target, how) => {
    if (how === "publish") await rm(target, { force: true }).catch(() => rmdir(target));
  },
};

export class FakeCsiDriver {
  readonly name: string;
  readonly calls: SeenCall[] = [];
  /** Handles by the path where they are staged. */
  readonly staged = new Map<string, string>();
  /** Handles by the path where they are published. */
  readonly published = new Map<string, string>();
  readonly registrations: RegistrationStatus[] = [];
  readonly sizes = new Map<string, number>();
  maxVolumes: number;
  topology: Readonly<Record<string, string>>;
  readonly #options: FakeCsiDriverOptions;
  readonly #failures: { method: Method; failure: CallFailure | "hang"; times: number }[] = [];
  #onCall: (method: Method) => void | Promise<void> = () => undefined;
  #registration: grpc.Server | undefined;
  #node: grpc.Server | undefined;

  constructor(options: FakeCsiDriverOptions) {
    this.#options = options;
    this.name = options.name ?? "csi.example.test";
    this.maxVolumes = options.maxVolumes ?? 0;
    this.topology = options.topology ?? {};
  }

  get endpoint(): string {
    return join(this.#options.rootDir, "plugins", this.name, "csi.sock");
  }

  get registrationSocket(): string {
    const { registrationSocket = `${this.name}-reg.sock`, rootDir } = this.#options;
    return join(rootDir, "plugins_registry", registrationSocket);
  }

  /** Methods in the order of the calls, questions left out. */
  get done(): readonly string[] {
    return this.calls
      .map(({ method }) => method)
      .filter((method) => !["getCapabilities", "getInfo", "getVolumeStats"].includes(method));
  }

  last(method: "stage"): Given<NodeStageVolumeRequest>;
  last(method: "publish"): Given<NodePublishVolumeRequest>;
  last(method: "expand"): Given<NodeExpandVolumeRequest>;
  last(method: Method): Readonly<Record<string, unknown>> {
    const found = this.calls.findLast((call) => call.method === method);
    if (found === undefined) throw new Error(`${method} was not called`);
    return found.request;
  }

  /** Lets the next calls of a method fail; `hang`: they are never answered. */
  fail(method: Method, failure: CallFailure | "hang", times = 1): void {
    this.#failures.push({ method, failure, times });
  }

  /** Called before each answer. */
  onCall(listener: (method: Method) => void | Promise<void>): void {
    this.#onCall = listener;
  }

  /** Serves the Node service, then the registration. */
  async start(): Promise<void> {
    await this.startNode();
    await this.startRegistration();
  }

  async startNode(): Promise<void> {
    this.#node = await new Service()
      .add(nodeMethods.getInfo, (request) => this.#called("getInfo", request, () => this.#info()))
      .add(nodeMethods.getCapabilities, (request) =>
        this.#called("getCapabilities", request, async () => ({
          capabilities: this.#capabilities().map((each) => ({
            rpc: { type: capabilityTypes[each] },
          })),
        })),
      )
      .add(nodeMethods.stage, (request) =>
        this.#called("stage", request, () => this.#stage(request)),
      )
      .add(nodeMethods.unstage, (request) =>
        this.#called("unstage", request, () => this.#unstage(request)),
      )
      .add(nodeMethods.publish, (request) =>
        this.#called("publish", request, () => this.#publish(request)),
      )
      .add(nodeMethods.unpublish, (request) =>
        this.#called("unpublish", request, () => this.#unpublish(request)),
      )
      .add(nodeMethods.expand, (request) =>
        this.#called("expand", request, async () => {
          const capacityBytes = request.capacityRange?.requiredBytes ?? 0;
          this.sizes.set(request.volumeId, capacityBytes);
          return { capacityBytes };
        }),
      )
      .add(nodeMethods.getVolumeStats, (request) =>
        this.#called("getVolumeStats", request, () => this.#stats(request)),
      )
      .listen(this.endpoint);
  }

  async startRegistration(): Promise<void> {
    const { type = "CSIPlugin", versions = ["1.0.0"] } = this.#options;
    this.#registration = await new Service()
      .add(registrationMethods.getInfo, async () => ({
        type,
        name: this.name,
        endpoint: this.endpoint,
        supportedVersions: versions,
      }))
      .add(registrationMethods.notify, async (request) => {
        this.registrations.push(request);
        return {};
      })
      .listen(this.registrationSocket);
  }

  /** The driver's process dies: its sockets stay, and nobody listens. */
  crash(): void {
    this.#node?.forceShutdown();
    this.#node = undefined;
  }

  async stopRegistration(): Promise<void> {
    this.#registration?.forceShutdown();
    this.#registration = undefined;
    await rm(this.registrationSocket, { force: true });
  }

  /** Stops as a pod of a DaemonSet does. */
  async stop(): Promise<void> {
    await this.stopRegistration();
    this.crash();
    await rm(this.endpoint, { force: true });
  }

  #capabilities(): readonly (keyof typeof capabilityTypes)[] {
    return this.#options.capabilities ?? ["stageUnstageVolume"];
  }

  #stages(): boolean {
    return this.#capabilities().includes("stageUnstageVolume");
  }

  get #mounts(): DriverMounts {
    return this.#options.mounts ?? directories;
  }

  async #info(): Promise<Given<NodeGetInfoResponse>> {
    const segments = this.topology;
    return {
      nodeId: this.#options.nodeID ?? "node-1",
      maxVolumesPerNode: this.maxVolumes,
      ...(Object.keys(segments).length === 0 ? {} : { accessibleTopology: { segments } }),
    };
  }

  async #stats({
    volumePath,
  }: NodeGetVolumeStatsRequest): Promise<Given<NodeGetVolumeStatsResponse>> {
    if (!this.published.has(volumePath)) {
      throw new CallFailure(status.NOT_FOUND, "not published there");
    }
    return {
      usage: [
        { available: 600, total: 1000, used: 400, unit: usageUnits.bytes },
        { available: 90, total: 100, used: 10, unit: usageUnits.inodes },
      ],
      volumeCondition: { abnormal: true, message: "slow" },
    };
  }

  async #called<T>(method: Method, request: object, work: () => Promise<T>): Promise<T> {
    this.calls.push({ method, request: request as Readonly<Record<string, unknown>> });
    await this.#onCall(method);
    const failure = this.#failures.find((each) => each.method === method && each.times > 0);
    if (failure === undefined) return work();
    failure.times -= 1;
    if (failure.failure === "hang") return new Promise<T>(() => undefined);
    throw failure.failure;
  }

  async #stage({
    stagingTargetPath: target,
    volumeCapability,
    volumeId,
  }: NodeStageVolumeRequest): Promise<object> {
    if (volumeId === "" || target === "" || volumeCapability === undefined) {
      throw new CallFailure(status.INVALID_ARGUMENT, "a required field is missing");
    }
    if (!existsSync(target)) throw new CallFailure(status.INTERNAL, `${target} does not exist`);
    if (!this.staged.has(target)) {
      await this.#mounts.mount(volumeId, target, "stage", volumeCapability.block !== undefined);
    }
    this.staged.set(target, volumeId);
    return {};
  }

  async #unstage({
    stagingTargetPath: target,
    volumeId,
  }: NodeUnstageVolumeRequest): Promise<object> {
    if ([...this.published.values()].includes(volumeId)) {
      throw new CallFailure(status.FAILED_PRECONDITION, "the volume is still published");
    }
    if (this.staged.delete(target)) await this.#mounts.unmount(volumeId, target, "stage");
    return {};
  }

  async #publish(request: NodePublishVolumeRequest): Promise<object> {
    const { stagingTargetPath, targetPath: target, volumeCapability, volumeId } = request;
    if (volumeId === "" || target === "" || volumeCapability === undefined) {
      throw new CallFailure(status.INVALID_ARGUMENT, "a required field is missing");
    }
    const ephemeral = request.volumeContext["csi.storage.k8s.io/ephemeral"] === "true";
    if (this.#stages() && !ephemeral && this.staged.get(stagingTargetPath) !== volumeId) {
      throw new CallFailure(status.FAILED_PRECONDITION, "the volume is not staged");
    }
    if (!existsSync(dirname(target))) {
      throw new CallFailure(status.INTERNAL, `${dirname(target)} does not exist`);
    }
    if (!this.published.has(target)) {
      await this.#mounts.mount(volumeId, target, "publish", volumeCapability.block !== undefined);
    }
    this.published.set(target, volumeId);
    return {};
  }

  async #unpublish({ targetPath: target, volumeId }: NodeUnpublishVolumeRequest): Promise<object> {
    if (this.published.delete(target)) await this.#mounts.unmount(volumeId, target, "publish");
    return {};
  }
}

/** One gRPC service. */
class Service {
  readonly #definition: Record<string, grpc.MethodDefinition<unknown, unknown>> = {};
  readonly #calls: Record<string, grpc.UntypedHandleCall> = {};

  add<Q, A>(method: RpcMethod<Q, A>, answer: (request: Q) => Promise<Given<A>>): this {
    const name = method.path.slice(method.path.lastIndexOf("/") + 1);
    this.#definition[name] = {
      path: method.path,
      requestStream: false,
      responseStream: false,
      requestSerialize: (value) => Buffer.from(method.request.encode(value as Given<Q>)),
      requestDeserialize: (bytes) => method.request.decode(bytes),
      responseSerialize: (value) => Buffer.from(method.answer.encode(value as Given<A>)),
      responseDeserialize: (bytes) => method.answer.decode(bytes),
    };
    const respond = async (request: Q, send: grpc.sendUnaryData<Given<A>>): Promise<void> => {
      try {
        send(null, await answer(request));
      } catch (error) {
        const code = error instanceof CallFailure ? error.code : status.UNKNOWN;
        send({ code, details: error instanceof Error ? error.message : String(error) });
      }
    };
    const call: grpc.handleUnaryCall<Q, Given<A>> = ({ request }, send) => {
      void respond(request, send);
    };
    this.#calls[name] = call;
    return this;
  }

  /** Listens on a Unix socket, in the place of whatever was there. */
  async listen(path: string): Promise<grpc.Server> {
    const server = new grpc.Server();
    server.addService(this.#definition, this.#calls);
    await mkdir(dirname(path), { recursive: true });
    await rm(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${path}`, grpc.ServerCredentials.createInsecure(), (error) => {
        if (error === null) resolve();
        else reject(error);
      });
    });
    return server;
  }
}
