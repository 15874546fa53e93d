import { X509Certificate } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { Stored } from "../../../src/api/object.ts";
import type { Node, NodeAddress } from "../../../src/api/types.gen.ts";
import { internalIPs } from "../../../src/kubelet/node/choose-node-ips.ts";
import type { NodeView } from "../../../src/kubelet/types.ts";
import {
  certificate,
  type DistinguishedName,
  newPrivateKey,
  privateKeyPEM,
} from "../../../src/lib/x509.ts";

import { LeapingClock } from "../controlplane-controllers/world.ts";

/** What a test gives us to clean up behind it. */
export interface Test {
  after(end: () => Promise<void>): void;
}

const endings = new WeakMap<Test, (() => Promise<void>)[]>();

/** Runs `end` after the test; what was begun last ends first. */
export function afterwards(t: Test, end: () => Promise<void>): void {
  const known = endings.get(t);
  if (known !== undefined) {
    known.push(end);
    return;
  }
  const all = [end];
  endings.set(t, all);
  t.after(async () => {
    for (const each of all.toReversed()) await each();
  });
}

/** A directory that is gone after the test. */
export async function directoryFor(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "remora-certificates-"));
  afterwards(t, () => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** A clock that goes on only while everybody who looks at it is asleep: no sleeper misses a leap. */
export class PatientClock extends LeapingClock {
  #sleepers = 0;

  override async sleep(ms: number, signal: AbortSignal): Promise<void> {
    this.#sleepers += 1;
    try {
      await super.sleep(ms, signal);
    } finally {
      this.#sleepers -= 1;
    }
  }

  /** Resolves when whoever was woken has had a turn and somebody sleeps again. */
  async idle(): Promise<void> {
    for (let turn = 0; turn < 3; turn += 1) await nextTurn();
    const giveUpAt = performance.now() + 10_000;
    while (this.#sleepers === 0) {
      if (performance.now() > giveUpAt) throw new Error("nobody sleeps");
      await nextTurn();
    }
  }

  /** Lets time pass. */
  async pass(ms: number): Promise<void> {
    await this.idle();
    this.leap(ms);
    await this.idle();
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** A node whose addresses a test changes. */
export class NodeDouble implements Pick<NodeView, "hostIPs" | "node" | "subscribe"> {
  readonly #listeners = new Set<() => void>();
  #node: Stored<Node> | undefined;

  node(): Stored<Node> | undefined {
    return this.#node;
  }

  hostIPs(): readonly string[] {
    return internalIPs(this.#node?.status?.addresses);
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  setAddresses(...addresses: readonly NodeAddress[]): void {
    this.#node = {
      metadata: { name: "n1", uid: "u", resourceVersion: "1", creationTimestamp: "" },
      status: { addresses: [...addresses] },
    };
    for (const listener of this.#listeners) listener();
  }
}

export function internalIP(address: string): NodeAddress {
  return { type: "InternalIP", address };
}

const hourMs = 3_600_000;

/** A self-signed pair for loopback, with its first name as mark. */
export function pairOf(
  commonName: string,
  life: { readonly notBefore?: number; readonly notAfter?: number } = {},
): { readonly cert: string; readonly key: string; readonly pem: string } {
  const privateKey = newPrivateKey();
  const name: DistinguishedName = { commonName };
  const cert = certificate(
    {
      subject: name,
      alternativeNames: ["127.0.0.1"],
      usages: ["server", "client"],
      notBefore: life.notBefore ?? Date.now() - hourMs,
      notAfter: life.notAfter ?? Date.now() + hourMs,
    },
    privateKey,
    { name, privateKey },
  );
  const key = privateKeyPEM(privateKey);
  return { cert, key, pem: `${cert}${key}` };
}

export function subjectOf(pem: string): string {
  return new X509Certificate(pem).subject;
}
