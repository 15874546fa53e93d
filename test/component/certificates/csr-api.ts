import type { ApiClient, ApiRequest, WatchRequest } from "../../../src/api/client.ts";
import { ApiError, ApiUnavailableError } from "../../../src/api/errors.ts";
import type { CertificateSigningRequest } from "../../../src/api/types.gen.ts";
import { validity, x509Usages } from "../../../src/controlplane/controllers/certificates/rules.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { parseCertificationRequest } from "../../../src/lib/pkcs10.ts";
import { issueCertificate, newPrivateKey } from "../../../src/lib/x509.ts";

type Csr = CertificateSigningRequest & {
  readonly metadata: NonNullable<CertificateSigningRequest["metadata"]>;
  readonly status: NonNullable<CertificateSigningRequest["status"]>;
};

const path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/** Certificate requests as an API server and its controllers treat them, on a clock of one's own. */
export class CsrApi implements ApiClient {
  readonly #clock: Clock;
  readonly #issuer = { name: { commonName: "test-ca" }, privateKey: newPrivateKey() };
  readonly #changed = new EventTarget();
  readonly #returned = new Set<() => void>();
  readonly requests = new Map<string, Csr>();
  /** What happens to a new request. */
  decide: "approve" | "wait" | "deny" = "approve";
  /** Seconds that certificates live; undefined = a year. */
  lifeSeconds: number | undefined;
  /** What every call is answered with. */
  failure: "none" | "unavailable" | "unauthorized" = "none";
  calls = 0;
  resets = 0;
  openWatches = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Names of all requests, newest last. */
  get names(): string[] {
    return [...this.requests.keys()];
  }

  approve(name: string): void {
    const csr = this.requests.get(name);
    if (csr === undefined) throw new Error(`no request ${name}`);
    const request = parseCertificationRequest(
      Buffer.from(csr.spec.request, "base64").toString("utf8"),
    );
    const far = this.#clock.now() + 20 * 365 * 86_400_000;
    const pem = issueCertificate(
      {
        ...request,
        ...x509Usages(csr.spec.usages ?? []),
        ...validity(this.lifeSeconds, this.#clock.now(), far),
      },
      this.#issuer,
    );
    this.#update(name, {
      conditions: [{ type: "Approved", status: "True" }],
      certificate: Buffer.from(pem).toString("base64"),
    });
  }

  deny(name: string): void {
    this.#update(name, { conditions: [{ type: "Denied", status: "True", reason: "Policy" }] });
  }

  /** As a server does that was away. */
  return(): void {
    this.failure = "none";
    for (const listener of this.#returned) listener();
  }

  onReturn(listener: () => void): () => void {
    this.#returned.add(listener);
    return () => this.#returned.delete(listener);
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is one of promises
  async request({ method, path: at, body }: ApiRequest): Promise<unknown> {
    this.calls += 1;
    this.#checkUp(`${method} ${at}`);
    if (method === "POST") return this.#create(body as Csr);
    const found = this.requests.get(at.slice(path.length + 1));
    if (found !== undefined) return found;
    throw new ApiError(404, "NotFound", `${at} not found`);
  }

  reset(): void {
    this.resets += 1;
  }

  async *watch({ query, signal }: WatchRequest): AsyncGenerator<unknown, void, undefined> {
    this.#checkUp("watch");
    const name = String(query["fieldSelector"]).replace("metadata.name=", "");
    let seen = String(query["resourceVersion"]);
    this.openWatches += 1;
    const stop = new AbortController();
    let ended = false;
    const end = (): void => {
      ended = true;
      this.#changed.dispatchEvent(new Event("change"));
    };
    const limit = Number(query["timeoutSeconds"]) * 1000;
    void this.#clock.sleep(limit, AbortSignal.any([signal, stop.signal])).then(end, end);
    try {
      for (;;) {
        const object = this.requests.get(name);
        if (object !== undefined && object.metadata.resourceVersion !== seen) {
          seen = object.metadata.resourceVersion ?? "";
          yield { type: "MODIFIED", object };
          continue;
        }
        signal.throwIfAborted();
        if (ended) return;
        const changed = Promise.withResolvers<Event>();
        this.#changed.addEventListener("change", changed.resolve, { once: true });
        await changed.promise;
      }
    } finally {
      stop.abort();
      this.openWatches -= 1;
    }
  }

  #checkUp(what: string): void {
    if (this.failure === "unavailable") throw new ApiUnavailableError(`${what}: nobody there`);
    if (this.failure === "unauthorized") throw new ApiError(401, "Unauthorized", what);
  }

  #create(csr: Csr): Csr {
    const name = csr.metadata.name ?? "";
    this.requests.set(name, {
      metadata: {
        ...csr.metadata,
        uid: name,
        resourceVersion: "1",
        creationTimestamp: new Date(this.#clock.now()).toISOString(),
      },
      spec: csr.spec,
      status: {},
    });
    if (this.decide === "approve") this.approve(name);
    if (this.decide === "deny") this.deny(name);
    return this.requests.get(name) ?? csr;
  }

  #update(name: string, status: Csr["status"]): void {
    const csr = this.requests.get(name);
    if (csr === undefined) return;
    const version = String(Number(csr.metadata.resourceVersion ?? "0") + 1);
    this.requests.set(name, {
      ...csr,
      metadata: { ...csr.metadata, resourceVersion: version },
      status,
    });
    this.#changed.dispatchEvent(new Event("change"));
  }
}
