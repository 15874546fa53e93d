import { X509Certificate } from "node:crypto";

import { deleteObject } from "../../../api/objects.ts";
import { CERTIFICATE_SIGNING_REQUESTS } from "../../../api/resources.ts";
import type { CertificateSigningRequest } from "../../../api/types.gen.ts";
import type { Controller, ControllerContext } from "../shared/controller.ts";
import { runPeriodically } from "../shared/controller.ts";
import { isStale } from "./rules.ts";

const periodMs = 60 * 60 * 1000;

function expiryOf(csr: CertificateSigningRequest): number | undefined {
  const certificate = csr.status?.certificate;
  if (certificate === undefined || certificate === "") return undefined;
  try {
    return new X509Certificate(Buffer.from(certificate, "base64")).validToDate.getTime();
  } catch {
    // Another signer's answer may be in another form; its age counts all the same.
    return undefined;
  }
}

/** Removes certificate requests that have served. */
export function certificateCleaner(context: ControllerContext): Controller {
  const { client, informers, clock } = context;
  const name = "csrcleaner";
  return {
    name,
    run: (signal) =>
      runPeriodically(
        {
          name,
          context,
          periodMs,
          step: async () => {
            await informers.certificateSigningRequests.whenSynced(signal);
            for (const csr of informers.certificateSigningRequests.values()) {
              if (!isStale(csr, expiryOf(csr), clock.now())) continue;
              const { name: request, uid } = csr.metadata;
              await deleteObject(
                client,
                CERTIFICATE_SIGNING_REQUESTS,
                { name: request },
                { uid, signal },
              );
            }
          },
        },
        signal,
      ),
  };
}
