import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { writeFileAtomic } from "../lib/atomic-file.ts";
import { errorCode } from "../lib/errors.ts";
import { certificate, newPrivateKey, privateKeyPEM } from "../lib/x509.ts";

const yearMs = 365 * 24 * 60 * 60 * 1000;

export interface ServingFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

async function stillGood(
  { certFile, keyFile }: ServingFiles,
  names: readonly string[],
  now: number,
): Promise<boolean> {
  try {
    const cert = new X509Certificate(await readFile(certFile));
    const key = createPrivateKey(await readFile(keyFile));
    const covers = (name: string): boolean =>
      cert.checkIP(name) !== undefined || cert.checkHost(name, { subject: "never" }) !== undefined;
    return (
      cert.checkPrivateKey(key) &&
      cert.validToDate.getTime() - now > yearMs / 3 &&
      names.every(covers)
    );
  } catch (error) {
    if (errorCode(error) === "EACCES") throw error;
    // Missing or damaged: both are mended by making new ones, because nobody pins a self-signed certificate.
    return false;
  }
}

/**
 * Self-signed certificate of port 10250 for a node that was given none, as the kubelet makes one
 * (`<root>/pki/kubelet.crt`): API servers do not verify it unless they are told a CA.
 *
 * @param names Host name and addresses of the node.
 */
export async function ensureServingCertificate(
  rootDir: string,
  names: readonly string[],
  now: number,
): Promise<ServingFiles> {
  const directory = join(rootDir, "pki");
  const files = {
    certFile: join(directory, "kubelet.crt"),
    keyFile: join(directory, "kubelet.key"),
  };
  if (await stillGood(files, names, now)) return files;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const key = newPrivateKey();
  const subject = { commonName: `${names[0] ?? "node"}@${Math.floor(now / 1000)}` };
  const pem = certificate(
    {
      subject,
      alternativeNames: names,
      usages: ["server"],
      notBefore: now - 3_600_000,
      notAfter: now + yearMs,
    },
    key,
    { name: subject, privateKey: key },
  );
  await writeFileAtomic(files.keyFile, privateKeyPEM(key), 0o600);
  await writeFileAtomic(files.certFile, pem, 0o644);
  return files;
}
